"""SCALE-Sim's topology files: one layer per line, as a convolution or as a GEMM; every line ends with a comma.

| form        | columns                                                                                  |
|-------------|------------------------------------------------------------------------------------------|
| convolution | name, IFMAP height, width, filter height, width, channels, filters, stride [, its width] |
| GEMM        | name, M, N, K                                                                            |

The first line is a heading and is skipped, whatever it says. A convolution whose name holds `DP` is depthwise: it
becomes one layer for each channel, all with the filters of its line. A sparsity ratio N:M may follow the numbers;
without SparsitySupport, it is ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from npusim.errors import ConfigError

MAX_FILE_BYTES = 2**24
MAX_SIZE = 2**31 - 1
MAX_MACS = 2**56
MAX_CHANNELS = 2**16
CONV_COLUMNS = (
    "IFMAP height", "IFMAP width", "filter height", "filter width", "channels", "filters", "stride", "stride width",
)  # fmt: skip
GEMM_COLUMNS = ("M", "N", "K")
_RATIO = re.compile(r"\d+\s*:\s*\d+")


@dataclass(frozen=True)
class Layer:
    """A convolution without padding; a GEMM C[m x n] = A[m x k] B[k x n] is one with filters of 1 x k on m rows."""

    name: str
    ifmap_h: int
    ifmap_w: int
    filter_h: int
    filter_w: int
    channels: int
    filters: int
    stride_h: int
    stride_w: int

    @property
    def ofmap_w(self) -> int:
        """SCALE-Sim rounds up: windows may reach over the edge."""
        return -(-(self.ifmap_w - self.filter_w + self.stride_w) // self.stride_w)

    @property
    def m(self) -> int:
        """Output pixels."""
        return -(-(self.ifmap_h - self.filter_h + self.stride_h) // self.stride_h) * self.ofmap_w

    @property
    def k(self) -> int:
        """Words of a window."""
        return self.filter_h * self.filter_w * self.channels

    @property
    def n(self) -> int:
        return self.filters

    @property
    def macs(self) -> int:
        return self.m * self.k * self.n


def gemm(name: str, m: int, k: int, n: int) -> Layer:
    return Layer(name, m, k, 1, k, 1, n, 1, 1)


def read(path: str | Path) -> list[Layer]:
    """The layers of a topology file of either form; one ConfigError lists every wrong line."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes, the limit for a topology file")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
    layers: list[Layer] = []
    problems = []
    for number, line in enumerate(lines[1:], start=2):
        if line.strip():
            try:
                layers += _layers(line.strip())
            except ValueError as error:
                problems.append(f"line {number}: {error}")
    if not layers and not problems:
        problems.append("no layers; the first line is taken as a heading")
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        more = [f"and {len(problems) - 20} more"] if len(problems) > 20 else []
        raise ConfigError("\n  ".join([f"{path}: {count}", *problems[:20], *more]))
    return layers


def _layers(line: str) -> list[Layer]:
    if not line.endswith(","):
        raise ValueError("must end with a comma; SCALE-Sim drops what follows the last one")
    name, *values = (cell.strip() for cell in line[:-1].split(","))
    while values and (not values[-1] or _RATIO.fullmatch(values[-1])):
        values.pop()
    if len(values) == len(GEMM_COLUMNS):
        m, n, k = _sizes(values, GEMM_COLUMNS)
        return _limited([gemm(name, m, k, n)])
    if len(values) not in (7, 8):
        raise ValueError(
            f"{len(values)} numbers; a convolution has 7 ({', '.join(CONV_COLUMNS[:7])}), a GEMM has 3 (M, N, K)"
        )
    sizes = _sizes(values, CONV_COLUMNS)
    height, width, filter_h, filter_w, channels, filters, stride = sizes[:7]
    layer = Layer(name, height, width, filter_h, filter_w, channels, filters, stride, sizes[-1])
    for axis, window, size in (("height", layer.filter_h, layer.ifmap_h), ("width", layer.filter_w, layer.ifmap_w)):
        if window > size:
            raise ValueError(f"filter {axis} = {window} is more than IFMAP {axis} = {size}")
    if "DP" in name:
        if layer.channels > MAX_CHANNELS:
            raise ValueError(f"channels = {layer.channels}: a depthwise layer may have {MAX_CHANNELS}")
        return _limited([replace(layer, name=f"{name}Channel_{i}", channels=1) for i in range(layer.channels)])
    return _limited([layer])


def _limited(layers: list[Layer]) -> list[Layer]:
    if layers[0].macs > MAX_MACS:
        raise ValueError(f"{layers[0].macs} MACs; at most {MAX_MACS} can be counted")
    return layers


def _sizes(values: list[str], names: tuple[str, ...]) -> list[int]:
    wrong = [
        f"{name} = {value!r}"
        for name, value in zip(names, values, strict=False)
        if not re.fullmatch(r"\d{1,10}", value) or not 1 <= int(value) <= MAX_SIZE
    ]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: must be whole numbers from 1 to {MAX_SIZE}")
    return [int(value) for value in values]
