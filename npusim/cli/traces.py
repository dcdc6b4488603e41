"""`npusim trace show | reshape | import | diff | capture`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from npusim.cli import options

if TYPE_CHECKING:
    from npusim.graph import StepGraph

app = typer.Typer(
    help="Look at traces of training steps, re-shape them, make them.",
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def start(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


CAPTURE = """A trace is captured from a PyTorch script (pip install "npusim[torch]") that defines, at its top level:

  model = ...                        # a torch.nn.Module

  def step():                        # one whole training step, as the script runs it
      optimizer.zero_grad()
      loss = torch.nn.functional.cross_entropy(model(images), labels)
      loss.backward()
      optimizer.step()

  grad_masks = {...}                 # optional: {parameter name: 0/1 tensor} for selective updates; also task_masks

Then:
  npusim trace capture train.py --out my-step.npz
  npusim trace show my-step.npz
  npusim compare my-step.npz --out report

What stands under `if __name__ == "__main__"` does not run. From Python, the same is
  npusim.trace.write(npusim.trace.capture(model, step, grad_masks=grad_masks), "my-step.npz")
"""


@app.command("show")
def show(trace: options.Workload, json: options.Json = False) -> None:
    """Print a step as a table: phases, kinds, shapes, masks.

    \b
    Example:
      npusim trace show resnet18-swu
    """
    _, graph = options.step_of(trace)
    if json:
        from npusim.report import json_text

        print(json_text(graph.as_dict()), end="")
        return
    from npusim.text import clean
    from npusim.trace.show import render

    print(clean(render(graph), keep="\n"))


@app.command("reshape")
def reshape(
    source: Annotated[str, typer.Argument(metavar="IN", help="A trace file or the name of a workload.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The trace file to write.")],
    input_size: options.InputSize = None,
    batch: options.Batch = None,
    json: options.Json = False,
) -> None:
    """Write a trace with another image size or batch; its masks stay.

    \b
    Example:
      npusim trace reshape resnet18-swu resnet18-224.npz --input-size 224
    """
    if input_size is None and batch is None:
        raise typer.BadParameter("give --input-size, --batch or both", param_hint="--input-size")
    from npusim import atomic, trace
    from npusim.cli.output import hint
    from npusim.trace.reshape import reshape as reshaped

    atomic.check(target.parent)
    _, graph = options.step_of(source)
    graph = reshaped(graph, input_size, batch)
    trace.write(graph, target)
    if json:
        _print_record(graph, target)
        return
    hint(f"written: {target}")


FORMAT_HELP = "onnx, scalesim, execution-trace, profiler, jax or layers; auto looks at the file."


def _formats(incomplete: str) -> list[str]:
    from npusim.trace.imports import FORMATS

    return [name for name in FORMATS if name.startswith(incomplete)]


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A file of another tool.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="The trace file to write.")],
    format: Annotated[str, typer.Option("--format", "-f", help=FORMAT_HELP, autocompletion=_formats)] = "auto",
    name: Annotated[str, typer.Option("--name", help="Name of the step; the file's by default.")] = "",
    optimizer: Annotated[
        str, typer.Option("--optimizer", help="sgd, momentum or adam, for files without updates; default sgd.")
    ] = "",
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Leave out operations that npusim does not know, and list them.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Make a trace from a file of another tool.

    ONNX, SCALE-Sim topologies, PyTorch execution traces and profiles, JAX, layer tables.

    \b
    Example:
      npusim trace import model.onnx --out model.npz
    """
    from npusim import atomic, trace
    from npusim.text import clean, count
    from npusim.trace.imports import import_file

    atomic.check(out.parent)
    graph = import_file(source, format, name=name, optimizer=optimizer, skip_unknown=skip_unknown)
    trace.write(graph, out)
    skipped = list(graph.meta.get("skipped", ()))
    if json:
        _print_record(graph, out, skipped=skipped)
        return
    amounts = ", ".join(f"{phase} {count(number)}" for phase, number in _macs(graph).items())
    print(clean(f"{graph.name}: {len(graph.ops)} operations; MACs: {amounts}"))
    for item in skipped:
        print(clean(f"left out: {item}"))
    print(clean(f"written: {out}"))


def _macs(graph: StepGraph) -> dict[str, int]:
    """MACs of every phase that computes some."""
    return {phase: sum(op.macs for op in graph.phase(phase)) for phase in ("forward", "grad_input", "grad_weight")}


def _print_record(graph: StepGraph, out: Path, **more: object) -> None:
    """What was written, as JSON."""
    from npusim.report import json_text

    record = {"name": graph.name, "out": str(out), "operations": len(graph.ops), "macs": _macs(graph)}
    print(json_text({**record, **more}), end="")


@app.command("diff")
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A trace file or the name of a workload.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The other one.")],
    limit: Annotated[int, typer.Option("--limit", min=1, help="Differences to print at most.")] = 40,
    json: options.Json = False,
) -> None:
    """Say what differs between two steps.

    Operations, shapes, tensors and masks; exit code 1 when something differs.

    \b
    Example:
      npusim trace diff resnet18-swu/early resnet18-swu/late
    """
    from npusim.text import clean
    from npusim.trace.diff import differences

    (_, a), (_, b) = (options.step_of(name) for name in (first, second))
    found = differences(a, b)
    if json:
        from dataclasses import asdict

        from npusim.report import json_text

        value = {"equal": not found, "a": a.name, "b": b.name, "differences": [asdict(item) for item in found]}
        print(json_text(value), end="")
    else:
        for item in found[:limit]:
            print(clean(item))
        if len(found) > limit:
            print(f"... and {len(found) - limit} more; --limit {len(found)} shows all")
        summary = f"{len(found)} differences" if found else f"equal: {len(a.ops)} operations, {len(a.tensors)} tensors"
        print(summary)
    if found:
        raise typer.Exit(1)


@app.command("capture")
def capture(
    script: Annotated[
        Path | None, typer.Argument(metavar="SCRIPT", help="A Python script that defines `model` and `step()`.")
    ] = None,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGUMENTS", help="Arguments of the script, behind --.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="OUT", help="The trace file to write.")] = None,
    json: options.Json = False,
) -> None:
    """Capture a training step of a PyTorch script.

    Without a script, say what a script must define.

    \b
    Example:
      npusim trace capture
      npusim trace capture train.py --out my-step.npz
    """
    if script is None:
        print(CAPTURE, end="")
        return
    if out is None:
        raise typer.BadParameter("give the trace file to write", param_hint="--out")
    from npusim import atomic, trace
    from npusim.text import clean, count
    from npusim.trace.script import capture_script

    atomic.check(out.parent)
    graph = capture_script(script, arguments or [])
    trace.write(graph, out)
    if json:
        _print_record(graph, out)
        return
    macs = count(sum(op.macs for op in graph.ops))
    print(clean(f"{graph.name}: {len(graph.ops)} operations, {macs} MACs\nwritten: {out}", keep="\n"))
