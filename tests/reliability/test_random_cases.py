"""Random steps on random machines with every dataflow and method; `reliability/run.py model` is the long form."""

import pytest
from hypothesis import HealthCheck, given, settings

from reliability import cases, laws, model

BLOCK = 100


@pytest.mark.parametrize("block", range(4))
def test_laws_hold_for_numbered_cases(block):
    """Numbers far apart, so that every block meets every dataflow and every kind of improvement."""
    stride = 53
    rows = [model.row(2, (block * BLOCK + i) * stride) for i in range(BLOCK)]
    failed = [f"case {row['number']}: {row['message']}" for row in rows if row["outcome"] == model.FAILED]
    assert not failed, "\n".join(failed)
    assert sum(row["outcome"] == "ok" for row in rows) > 0.7 * BLOCK
    assert sum(int(row["gradients"]) for row in rows if row["outcome"] == "ok") > BLOCK / 3


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=cases.strategy())
def test_laws_hold_for_cases_that_shrink(case):
    laws.check(case)


def test_a_case_is_made_again_by_its_numbers():
    first, second = cases.numbered(7, 1234), cases.numbered(7, 1234)
    assert first.graph.digest() == second.graph.digest()
    assert first.hardware.digest() == second.hardware.digest()
    assert (first.spec, first.mask_seed) == (second.spec, second.mask_seed)


def test_a_long_run_goes_on_where_it_was(tmp_path):
    out = tmp_path / "model.csv"
    assert model.run(out, 3, 6, seconds=0) == 6
    assert model.run(out, 3, 4, seconds=600) == 0
    with out.open("a") as file:
        file.write("3,4,dense-is")  # a run that was killed in the middle of a row
    assert model.run(out, 3, 6, seconds=600) == 0
    rows = [line.split(",")[:2] for line in out.read_text().splitlines()[1:]]
    assert {number for _, number in rows} == {"0", "1", "2", "3", "4", "5"}
