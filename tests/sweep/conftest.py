import pytest

DATAFLOW = '''
"""Output stationary; on machines of some sizes it misbehaves."""
import os, signal, time
from npusim.dataflow import Dataflow
from npusim.folding import output_stationary


def cost(grid, hardware):
    rows = hardware.array.rows
    if rows == 5:
        os._exit(7)
    if rows == 6:
        while True:
            time.sleep(0.01)
    if rows == 7:
        raise ValueError("seven rows")
    if rows == 9:
        os.kill(os.getpid(), signal.SIGSEGV)
    return output_stationary(grid, hardware)


DATAFLOW = Dataflow(name="moody", summary="for tests", cost=cost)
'''


@pytest.fixture
def moody(tmp_path):
    """A dataflow file that crashes with 5 rows, never ends with 6, fails with 7, and is killed with 9."""
    path = tmp_path / "moody.py"
    path.write_text(DATAFLOW)
    return str(path)


@pytest.fixture
def spec():
    """A small sweep on a small step; keywords replace its tables."""

    def make(**tables):
        base = {
            "name": "small",
            "fixed": {"workload": "tiny-cnn"},
            "grid": {"array.rows": [8, 16], "array.cols": [8, 16]},
        }
        return {**base, **tables}

    return make
