"""Run the built-in sweeps and draw them: `python experiments/sweeps/run.py [NAME ...] [--workers N]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from npusim.errors import NpusimError
from npusim.sweep import spec
from npusim.sweep.pages import write
from npusim.sweep.progress import Progress
from npusim.sweep.run import run

HERE = Path(__file__).resolve().parent
SWEEPS = ("pe-buffer-resnet18", "pe-buffer-mobilenetv2", "dram-bandwidth", "batch-size")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=SWEEPS, metavar="NAME", help=", ".join(SWEEPS))
    parser.add_argument("--workers", type=int, help="local processes (default: all CPUs)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of stores, figures and pages")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        understood = spec.load(HERE / f"{name}.toml")
        store = options.out / f"{name}.sqlite"
        outcome = run(understood, store, workers=options.workers, skip_invalid=True, listener=Progress())
        write(store, name, options.out / name)
        print(f"{name}: {outcome.counts}; see {options.out / name / 'index.html'}")


if __name__ == "__main__":
    try:
        main()
    except NpusimError as error:
        raise SystemExit(str(error)) from None
