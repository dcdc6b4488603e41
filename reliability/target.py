"""A reader of data from outside as a function of bytes; `targets` lists them all.

The outcome of `Target.consume` is "ok" or "refused" (one NpusimError with a message that names the place); anything
else it raises is a fault of npusim.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from npusim.errors import NpusimError

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT / "tests" / "data" / "fuzz"
SCRATCH = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())


@dataclass(frozen=True)
class Target:
    """`read` gets the path of a file with the input; `seeds` are inputs to start from, `tokens` words of the format.

    `most_bytes`: of the inputs that a fuzzer makes.
    """

    name: str
    suffix: str
    read: Callable[[Path], object]
    seeds: Callable[[], Iterable[bytes]]
    tokens: tuple[str, ...] = ()
    names_file: bool = True
    most_bytes: int = 20_000

    def consume(self, data: bytes) -> str:
        path = scratch() / f"input{self.suffix}"
        path.write_bytes(data)
        try:
            self.read(path)
        except NpusimError as error:
            text = str(error)
            assert text.strip(), "an empty message"
            assert not self.names_file or path.name in text, f"the message does not name the file: {text!r}"
            return "refused"
        return "ok"

    def corpus(self) -> list[Path]:
        """Inputs that once broke something, or that a fuzzer found worth keeping."""
        return sorted((CORPUS / self.name).glob("*"))


@cache
def scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="npusim-fuzz-", dir=SCRATCH))


def files(*patterns: str) -> Callable[[], list[bytes]]:
    """Seeds: the files of the repository with these names."""
    return lambda: [path.read_bytes() for pattern in patterns for path in sorted(ROOT.glob(pattern))]


def unpack(data: bytes, folder: Path, names: Iterable[str]) -> None:
    """Write the sections of `data`, each headed by a line '@@ NAME' with one of `names`, as files of `folder`."""
    known = set(names)
    for part in data.split(b"@@ ")[1:]:
        name, _, content = part.partition(b"\n")
        if (chosen := name.decode("ascii", "replace")) in known:
            (folder / chosen).write_bytes(content)


def packed(files: Mapping[str, bytes]) -> bytes:
    """What `unpack` takes apart."""
    return b"".join(b"@@ " + name.encode() + b"\n" + content for name, content in files.items())
