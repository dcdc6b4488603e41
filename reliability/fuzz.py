"""One atheris (libFuzzer) process for one target.

python reliability/fuzz.py TARGET CORPUS_FOLDER [libFuzzer options]
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
warnings.simplefilter("error")

with atheris.instrument_imports(include=["npusim", "tomllib", "configparser", "json"], enable_loader_override=False):
    import npusim.catalogue
    import npusim.cli.options
    import npusim.energy.table
    import npusim.engine.dram_standards
    import npusim.method
    import npusim.npu
    import npusim.scalesim.config
    import npusim.scalesim.topology
    import npusim.sweep.spec
    import npusim.synthesis
    import npusim.trace.format
    import npusim.trace.imports.onnx_model
    import npusim.trace.imports.table
    import npusim.trace.imports.topology
    import npusim.trace.tinyengine  # noqa: F401

from reliability.targets import TARGETS  # noqa: E402


def main() -> None:
    name, corpus, *options = sys.argv[1:]
    target = TARGETS[name]
    folder = Path(corpus)
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (folder / f"seed-{number}").write_bytes(seed)
    for path in target.corpus():
        (folder / path.name).write_bytes(path.read_bytes())
    words = folder.with_name(f"{folder.name}.dict")
    escaped = ("".join(f"\\x{byte:02x}" for byte in token.encode()) for token in target.tokens)
    words.write_text("".join(f'"{token}"\n' for token in escaped))

    def one(data: bytes) -> None:
        target.consume(data)

    atheris.Setup([sys.argv[0], *options, f"-dict={words}", str(folder)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
