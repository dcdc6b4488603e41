"""ReRAM crossbars: what a machine says of them, and how a weight matrix lies in their cells.

A matrix of `length` x `outputs` weights (reduction along the rows) is cut into row blocks of `rows` and column blocks
of as many weights as fit `cols`: a weight of b bits takes ceil(b / cell_bits) neighbouring columns. Grouped matrices
that are smaller than a crossbar lie on the diagonal of one. Inputs are applied `dac_bits` at a time; every read senses
all rows at once and all columns through the crossbar's `adcs`; shifts and additions join slices, input bits and row
blocks. Source of the scheme: ISAAC (Shafiee et al., ISCA 2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from npusim.config import Hertz, Model, Nanoseconds

Small = Annotated[int, Field(ge=1, le=16)]
Size = Annotated[int, Field(ge=1, le=2**16)]
Duration = Annotated[Nanoseconds, Field(ge=0, le=10**9)]


class Crossbar(Model):
    """The crossbars of a machine; they hold the weights of forward, and with `backward_copy` of grad_input too.

    rows, cols, cell_bits   cells of one crossbar and bits per cell
    dac_bits                input bits applied to a row at a time
    adcs, adc_bits, adc_rate_hz   converters per crossbar, their resolution, and samples per second of each
    read_ns                 from the inputs applied to the column currents held
    write_ns, write_pulses  one pulse with its check, and how many of them a cell takes
    crossbars, crossbars_per_pe   of the machine, and of one processing element (PE); a PE writes one row of one of its
                            crossbars at a time, PEs write at the same time
    backward_copy           transposed weights for grad_input lie in cells of their own (PipeLayer, HPCA 2017); without
                            it errors are propagated by the digital array
    endurance_writes        writes that a cell survives
    """

    rows: Size
    cols: Size
    cell_bits: Small
    dac_bits: Small
    adcs: Size
    adc_bits: Small
    adc_rate_hz: Annotated[Hertz, Field(ge=1, le=10**12)]
    read_ns: Duration
    write_ns: Duration
    write_pulses: Size
    crossbars: Annotated[int, Field(ge=1, le=2**30)]
    crossbars_per_pe: Size
    backward_copy: bool
    endurance_writes: Annotated[int, Field(ge=1, le=10**18)]

    def read_cycles(self, columns: int, clock_hz: int) -> tuple[int, int]:
        """Cycles of one read and of the conversion of `columns` columns, rounded up."""
        samples = -(-columns // self.adcs)
        return -(-self.read_ns * clock_hz // 10**9), -(-samples * clock_hz // self.adc_rate_hz)

    def row_write_cycles(self, clock_hz: int) -> int:
        """Cycles until the cells of one row are programmed: all pulses, rounded up."""
        return -(-self.write_ns * self.write_pulses * clock_hz // 10**9)


@dataclass(frozen=True, slots=True)
class Matrix:
    """`groups` matrices of `length` x `outputs` weights of `slices` cells each, as they lie in crossbars.

    packed: groups that share a crossbar on its diagonal; weights: weight columns per crossbar.
    """

    groups: int
    length: int
    outputs: int
    slices: int
    rows: int
    weights: int
    packed: int

    @property
    def row_blocks(self) -> int:
        return -(-self.length // self.rows)

    @property
    def column_blocks(self) -> int:
        return -(-self.outputs // self.weights)

    @property
    def crossbars(self) -> int:
        if self.packed > 1:
            return -(-self.groups // self.packed)
        return self.groups * self.row_blocks * self.column_blocks

    @property
    def cells(self) -> int:
        return self.groups * self.length * self.outputs * self.slices

    @property
    def busiest_columns(self) -> int:
        """Most columns in use in any crossbar."""
        return min(self.outputs * self.packed, self.weights) * self.slices


def matrix(groups: int, length: int, outputs: int, weight_bits: int, crossbar: Crossbar) -> Matrix:
    """How `groups` matrices lie in the crossbars of a machine whose weights have `weight_bits`."""
    slices = -(-weight_bits // crossbar.cell_bits)
    weights = crossbar.cols // slices
    packed = min(crossbar.rows // length, weights // outputs, groups)
    return Matrix(groups, length, outputs, slices, crossbar.rows, weights, max(1, packed))
