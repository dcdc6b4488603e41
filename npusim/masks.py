"""Bit-packed binary masks and their statistics."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """A binary mask of `shape`; `packed` holds `np.packbits` bytes of the C-ordered bits (read-only)."""

    shape: tuple[int, ...]
    packed: np.ndarray
    _digest: str = field(default="", repr=False)

    @classmethod
    def of(cls, bits: np.ndarray) -> Mask:
        """Pack a boolean array of any shape; non-zero means selected."""
        import numpy as np

        packed = np.packbits(np.asarray(bits).astype(bool).reshape(-1))
        packed.flags.writeable = False
        return cls(tuple(int(n) for n in np.shape(bits)), packed)

    @property
    def size(self) -> int:
        n = 1
        for extent in self.shape:
            n *= extent
        return n

    @property
    def count(self) -> int:
        """Selected elements."""
        import numpy as np

        return int(np.bitwise_count(self.packed).sum(dtype=np.int64))

    @property
    def density(self) -> float:
        return self.count / self.size if self.size else 0.0

    def bits(self) -> np.ndarray:
        """The mask as a uint8 array of 0 and 1 with the mask's shape."""
        import numpy as np

        return np.unpackbits(self.packed, count=self.size).reshape(self.shape)

    def matrix(self) -> np.ndarray:
        """The mask as uint8 [K, C*R*S]: rows are output channels, as in the grad_weight GEMM."""
        return self.bits().reshape(self.shape[0], -1)

    def digest(self) -> str:
        """sha256 of shape and bits, computed once: masks are keys of mapping caches."""
        if not self._digest:
            value = hashlib.sha256(repr(self.shape).encode() + self.packed.tobytes()).hexdigest()
            object.__setattr__(self, "_digest", value)
        return self._digest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    def __repr__(self) -> str:
        return f"Mask({'x'.join(map(str, self.shape))}, {self.count} of {self.size} selected)"
