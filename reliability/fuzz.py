"""One atheris (libFuzzer) process for one target.

python reliability/fuzz.py TARGET CORPUS_FOLDER [libFuzzer options]
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from random import Random

import atheris

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
warnings.simplefilter("error")

from npusim import jit  # noqa: E402

# The compiler of kernels does not know instrumented code.
KERNELS = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in jit.kernel_files(ROOT / "npusim")]

with atheris.instrument_imports(
    include=["npusim", "tomllib", "configparser", "json"], exclude=KERNELS, enable_loader_override=False
):
    import npusim.catalogue
    import npusim.cli.options
    import npusim.energy.accelergy
    import npusim.energy.table
    import npusim.engine.dram_standards
    import npusim.mapping.choice
    import npusim.method
    import npusim.npu
    import npusim.saved
    import npusim.scalesim.config
    import npusim.scalesim.topology
    import npusim.sweep.export
    import npusim.sweep.spec
    import npusim.synthesis
    import npusim.trace.format
    import npusim.trace.imports.jaxpr
    import npusim.trace.imports.onnx_model
    import npusim.trace.imports.pytorch_events
    import npusim.trace.imports.table
    import npusim.trace.imports.topology
    import npusim.trace.tinyengine
    import npusim.validate.dram
    import npusim.validate.result  # noqa: F401

from reliability import mutation  # noqa: E402
from reliability.targets import TARGETS  # noqa: E402


def main() -> None:
    name, corpus, *options = sys.argv[1:]
    target = TARGETS[name]
    folder = Path(corpus)
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (folder / f"seed-{number}").write_bytes(seed)
        target.consume(seed)  # compiles what it needs before the clock of an input runs
    for path in target.corpus():
        (folder / path.name).write_bytes(path.read_bytes())
    words = folder.with_name(f"{folder.name}.dict")
    escaped = ("".join(f"\\x{byte:02x}" for byte in token.encode()) for token in target.tokens)
    words.write_text("".join(f'"{token}"\n' for token in escaped))

    def one(data: bytes) -> None:
        target.consume(data)

    def change(data: bytes, most: int, seed: int) -> bytes:
        """Of JSON and tables, every other input is changed as such, not as bytes."""
        random = Random(seed)
        found = None
        if random.random() < 0.5:
            is_json = target.suffix == ".json"
            found = mutation.mutated(data, random, target.tokens) if is_json else mutation.mutated_cells(data, random)
        return found if found is not None and len(found) <= most else atheris.Mutate(data, most)

    structured = {"custom_mutator": change} if target.suffix in (".json", ".csv", ".tables") else {}
    atheris.Setup([sys.argv[0], *options, f"-dict={words}", str(folder)], one, **structured)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
