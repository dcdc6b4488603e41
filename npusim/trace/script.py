"""Capture of a user's script that defines a model and a step."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npusim import trace
from npusim.errors import CaptureError, NpusimError

if TYPE_CHECKING:
    from npusim.graph import StepGraph

RUN_NAME = "npusim_capture"
OPTIONAL = {"grad_masks": dict, "task_masks": dict, "name": str, "method": str}


def capture_script(path: str | Path, arguments: Sequence[str] = ()) -> StepGraph:
    """Run a script and capture the `step()` of the `model` that it defines.

    The script runs with `__name__` "npusim_capture", so what it does under `if __name__ == "__main__"` is left out.
    `grad_masks`, `task_masks`, `name` and `method`, where it defines them, are passed to `npusim.trace.capture`.
    CaptureError names the script and, when it fails, the line.
    """
    path = Path(path)
    if not path.is_file():
        raise CaptureError(f"{path}: no such script")
    before = sys.argv, list(sys.path)
    sys.argv, sys.path[:] = [str(path), *arguments], [str(path.resolve().parent), *sys.path]
    try:
        defined = _run(path, lambda: runpy.run_path(str(path), run_name=RUN_NAME))
        _check(path, defined)
        options = {key: defined[key] for key in OPTIONAL if key in defined}
        options.setdefault("name", path.stem)
        return _run(path, lambda: trace.capture(defined["model"], defined["step"], **options))
    finally:
        sys.argv, sys.path[:] = before


def _check(path: Path, defined: dict[str, Any]) -> None:
    bad = [f"{key} is {'not defined' if key not in defined else 'not ' + what}" for key, what, good in (
        ("model", "a torch.nn.Module", hasattr(defined.get("model"), "named_parameters")),
        ("step", "a function without arguments", callable(defined.get("step"))),
    ) if not good]  # fmt: skip
    bad += [f"{key} is not a {kind.__name__}" for key, kind in OPTIONAL.items()
            if key in defined and not isinstance(defined[key], kind)]  # fmt: skip
    if bad:
        raise CaptureError(f"{path}: " + "; ".join(bad) + "; `npusim trace capture` shows what a script must define")


def _run(path: Path, action: Any) -> Any:
    """What `action` returns; a failure of the script becomes a message with its line."""
    try:
        return action()
    except NpusimError as error:
        raise CaptureError(f"{path}: {error}") from error
    except SystemExit as error:
        raise CaptureError(f"{path}: left by exit({error.code}) before it could be captured") from error
    except Exception as error:  # whatever a script may raise
        frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == path.name]
        line = f":{frames[-1].lineno}" if frames else ""
        number = f":{error.lineno}" if isinstance(error, SyntaxError) else line
        raise CaptureError(f"{path}{number}: {type(error).__name__}: {error}") from error
