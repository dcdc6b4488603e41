"""Descriptions of sweeps: axes, ranges, constraints, and mistakes that are all reported together."""

import pytest

from npusim.errors import ConfigError
from npusim.sweep import axes, points
from npusim.sweep import spec as specs


@pytest.mark.parametrize(
    "key, written, expected",
    [
        ("array.rows", [8, 16], (8, 16)),
        ("array.rows", 8, (8,)),
        # 64 * 2^0 .. 64 * 2^4 = 1024
        ("buffers.a.bytes", "64KiB..1MiB log2", (65536, 131072, 262144, 524288, 1048576)),
        ("buffers.a.bytes", "64 KiB .. 256 KiB log2", (65536, 131072, 262144)),
        # the last value only if a step meets it: 8, 8+20, 8+40
        ("array.rows", "8..64 step 20", (8, 28, 48)),
        ("array.rows", "8..64 linear 5", (8, 22, 36, 50, 64)),
        ("array.rows", "8..64 log 4", (8, 16, 32, 64)),
        ("clock_hz", "400MHz..1GHz step 300MHz", (400_000_000, 700_000_000, 1_000_000_000)),
        ("batch", "1..8 log2", (1, 2, 4, 8)),
        ("buffers.a.double_buffered", [True, False], (True, False)),
        ("workload", ["a", "../b"], ("a", "../b")),
    ],
)
def test_values_of_an_axis(key, written, expected):
    assert axes.values(key, written) == expected


@pytest.mark.parametrize(
    "key, written, message",
    [
        ("array.rows", [], "an empty list"),
        ("array.rows", [8, 8], "given twice: 8"),
        ("array.rows", "64..8 log2", "the first value must be less than the last"),
        ("array.rows", "8..64", "which values?"),
        ("array.rows", "8..64 step", "write a number behind 'step'"),
        ("array.rows", "8..64 log2 3", "takes no number"),
        ("array.rows", ["x"], "must be a valid integer"),
        ("array.rows", [0], "must be greater than or equal to 1"),
        ("clock_hz", "64KiB..1MiB log2", "must be a whole number of hertz"),
        ("batch", [0], "must be a whole number from 1"),
        ("batch", [True], "must be a whole number from 1"),
        ("dataflow", [3], "must be a name or a path"),
    ],
)
def test_values_that_are_refused(key, written, message):
    with pytest.raises(ConfigError) as caught:
        axes.values(key, written)
    assert message in str(caught.value)


def test_keys_may_be_short_if_unambiguous():
    assert axes.full_key("rows") == "array.rows"
    with pytest.raises(ConfigError, match=r"banks: ambiguous, write one of buffers\.a\.banks"):
        axes.full_key("banks")
    with pytest.raises(ConfigError, match=r"array\.row: unknown key \(did you mean 'array\.rows'\?\)"):
        axes.full_key("array.row")


def test_grid_linked_random_and_single_points(spec):
    parsed = specs.parse(
        spec(
            grid={"dataflow": ["dense-os", "dense-ws"]},
            linked=[{"array": {"rows": [8, 16], "cols": [8, 16]}}],
            random={"samples": 3, "seed": 1, "keys": {"clock_hz": "100MHz..1GHz log"}},
            points=[{"array.rows": 5}],
        )
    )
    found = list(parsed.all_points())
    # 2 dataflows x 2 linked entries x 3 draws, and one point
    assert len(found) == parsed.count() == 13
    assert {(p["array.rows"], p["array.cols"]) for p in found[:-1]} == {(8, 8), (16, 16)}
    # every draw is combined with the whole grid, so that dataflows are compared on the same machines
    assert len({p["clock_hz"] for p in found[:-1]}) == 3
    assert found[-1] == {"hardware": "edge-16x16", "dataflow": "dense-os", "engine": "fast", "workload": "tiny-cnn",
                         "array.rows": 5}  # fmt: skip
    assert found == list(parsed.all_points())


def test_every_mistake_is_reported_together(spec):
    wrong = spec(
        fixed={"workload": "tiny-cnn", "array.cols": 8},
        grid={"array.row": [8], "array.cols": [8, 16]},
        linked=[{"array.rows": [8, 16], "vector.lanes": [8]}],
        constraints={"area": "<= 5", "sram_bytes": "about 5"},
        objectives=["cycle"],
    )
    with pytest.raises(ConfigError) as caught:
        specs.parse(wrong, "mine.toml")
    assert str(caught.value) == (
        "mine.toml: 6 problems\n"
        "  grid: array.row: unknown key (did you mean 'array.rows'?); keys of a run: workload, hardware, dataflow, "
        "method, input_size, batch, energy, engine, objective, mapping; else a key of the machine\n"
        "  linked.1: keys that move together need equally many values: array.rows has 2, vector.lanes has 1\n"
        "  constraints.area: unknown (did you mean 'area_mm2'?); allowed: area_mm2, sram_bytes, pes, peak_macs_per_s\n"
        "  constraints.sram_bytes = 'about 5': write a comparison, for example \"<= 5\"\n"
        "  objectives: unknown 'cycle' (did you mean 'cycles'?); known: " + ", ".join(specs.METRICS) + "\n"
        "  array.cols: given in more than one place"
    )


def test_a_sweep_needs_a_workload_and_known_tables():
    with pytest.raises(ConfigError, match="workload: missing"):
        specs.parse({"name": "x", "grid": {"array.rows": [8]}})
    with pytest.raises(ConfigError, match=r"girds: unknown key \(did you mean 'grid'\?\)"):
        specs.parse({"name": "x", "girds": {}})
    with pytest.raises(ConfigError, match=r"more than 1,000,000; use \[random\] or --search"):
        grid = {"array.rows": "1..1001 step 1", "array.cols": "1..1001 step 1"}
        specs.parse({"name": "x", "fixed": {"workload": "tiny-cnn"}, "grid": grid})


def test_constraints_leave_points_out(spec):
    # sram: 64 or 128 KiB + 96 + 56 + 8 = 224 or 288 KiB
    parsed = specs.parse(
        spec(grid={"buffers.a.bytes": ["64KiB", "128KiB"]}, constraints={"sram_bytes": "<= 256KiB", "pes": ">= 256"})
    )
    plan = points.plan(parsed, points.Resolver())
    assert [point["buffers.a.bytes"] for point, _ in plan.points] == [65536]
    assert plan.left_out == 1


def test_bad_points_are_all_listed(spec):
    parsed = specs.parse(
        spec(
            fixed={},
            grid={
                "workload": ["tiny-cnn", "tiny-cn"],
                "buffers.a.banks": [8, 7],
                "dataflow": ["dense-os", "selective-row"],
            },
        )
    )
    plan = points.plan(parsed, points.Resolver())
    assert (len(plan.points), len(plan.invalid)) == (1, 7)
    message = str(points.refuse(plan.invalid, 8, parsed.keys))
    assert message.startswith("7 of 8 points cannot be simulated (--skip-invalid records them and goes on):")
    assert "workload = tiny-cnn, buffers.a.banks = 7, dataflow = dense-os" in message
    assert "banks = 7 does not divide bytes = 98304" in message
    assert "unknown workload 'tiny-cn' (did you mean 'tiny-cnn'?)" in message
    assert "dataflow 'selective-row' skips work by update masks, but workload 'tiny-cnn' has none" in message


def test_keys_follow_content_not_names(spec, tmp_path, moody):
    def key(**point):
        base = {"hardware": "edge-16x16", "dataflow": "dense-os", "engine": "fast", "workload": "tiny-cnn"}
        return points.Resolver().job({**base, **point}).key

    assert key() == key() == key(**{"array.rows": 16}) == key(energy="generic-28nm")
    different = [key(), key(**{"array.rows": 8}), key(batch=2), key(dataflow="dense-ws"), key(engine="simpy")]
    assert len(set(different)) == 5
    first = key(dataflow=moody)
    with open(moody, "a") as file:
        file.write("# changed\n")
    assert key(dataflow=moody) != first
