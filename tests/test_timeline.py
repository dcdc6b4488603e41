"""Timelines: slices against the schedule and the table of units, files parsed back, buffers within their size."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from steps import HOSTILE, small_step

import npusim
from npusim import engine, timeline, timeline_files
from npusim import program as tp
from npusim.engine import dram_watch
from npusim.engine import memory as engine_memory
from npusim.errors import NpusimError, ResultsError

CASES = [
    ("edge-16x16", "dense-os"), ("edge-16x16", "reduction-spatial"), ("mcu-8x8", "selective-row"),
    ("server-128x128", "dense-ws"),
]  # fmt: skip


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def result(request):
    hardware, dataflow = request.param
    return npusim.simulate(small_step(), hardware, dataflow)


@pytest.fixture(scope="module")
def built(result):
    return timeline.build(result.runs[0])


@pytest.fixture(scope="module")
def tiny():
    return npusim.simulate("tiny-cnn")


def parsed(content):
    """Track name -> rows (start, end, name, category, task), and counter name -> rows (time, value), of a .pftrace."""
    trace = timeline_files.perfetto_trace().Trace.FromString(content)
    names, slices, counters, stacks = {}, {}, {}, {}
    event_kinds = timeline_files.perfetto_trace().TrackEvent
    for packet in trace.packet:
        if packet.HasField("track_descriptor"):
            described = packet.track_descriptor
            names[described.uuid] = described.process.process_name or described.name
        if not packet.HasField("track_event"):
            continue
        event = packet.track_event
        track = names[event.track_uuid]
        if event.type == event_kinds.TYPE_COUNTER:
            counters.setdefault(track, []).append((packet.timestamp, event.counter_value))
        elif event.type == event_kinds.TYPE_SLICE_BEGIN:
            task = event.debug_annotations[0].int_value if event.debug_annotations else -1
            row = [packet.timestamp, None, event.name, event.categories[0], task]
            slices.setdefault(track, []).append(row)
            stacks.setdefault(track, []).append(row)
        else:
            stacks[track].pop()[1] = packet.timestamp
    assert not any(stacks.values())
    return names, {track: [tuple(row) for row in rows] for track, rows in slices.items()}, counters


def rows_of(track):
    return list(
        zip(track.start.tolist(), track.end.tolist(), track.names, track.causes, track.tasks.tolist(), strict=True)
    )


def test_slices_of_a_cause_add_up_to_the_table_of_units(result, built):
    for unit, row in result.units.iterrows():
        tracks = [track for track in built.tracks if track.unit == unit]
        found = dict.fromkeys(result.units.columns, 0)
        for track in tracks:
            for start, end, cause in zip(track.start, track.end, track.causes, strict=True):
                if cause != timeline.TRANSFER:
                    found[cause] += end - start
        found["idle"] = len(tracks) * built.cycles - sum(found.values())
        assert found == row.to_dict(), unit


def test_every_task_is_there_with_its_start_and_end(result, built):
    run = result.runs[0]
    schedule, kind = run.schedule, run.lowered.program.kind
    shown = {}
    for track in built.tracks:
        if track.unit == "dram":
            continue
        for start, end, _, cause, task in rows_of(track):
            if cause in ("busy", timeline.TRANSFER) and (cause != "busy" or track.unit in ("array", "vector")):
                assert task not in shown
                shown[task] = (start, end)
    tasks = np.flatnonzero(kind != tp.FENCE)
    assert shown == {int(t): (int(schedule.start[t]), int(schedule.end[t])) for t in tasks}
    (bus,) = [track for track in built.tracks if track.unit == "dram"]
    moves = np.flatnonzero((kind == tp.LOAD) | (kind == tp.STORE))
    assert sorted(zip(bus.tasks.tolist(), bus.start.tolist(), strict=True)) == [
        (int(t), int(schedule.bus[t])) for t in moves
    ]


def test_operations_fill_the_step(result, built):
    operations = built.tracks[0]
    assert operations.start.tolist() == [0, *operations.end.tolist()[:-1]] and operations.end[-1] == built.cycles
    assert (operations.end - operations.start).tolist() == result.layers.cycles.tolist()
    assert list(operations.names) == [f"{n} {p}" for n, p in zip(result.layers.name, result.layers.phase, strict=True)]


def test_slices_of_a_track_nest_and_do_not_overlap(built):
    for track in built.tracks:
        open_ends = []
        for start, end in zip(track.start.tolist(), track.end.tolist(), strict=True):
            while open_ends and open_ends[-1] <= start:
                open_ends.pop()
            assert start <= end and all(end <= outer for outer in open_ends)
            open_ends.append(end)


def test_a_wait_ends_with_what_it_waits_for(result, built):
    schedule = result.runs[0].schedule
    ends = set()
    for track in built.tracks:
        if track.unit.startswith("dma"):
            ends |= {(name, end) for _, end, name, cause, _ in rows_of(track) if cause == timeline.TRANSFER}
    waits = 0
    for track in built.tracks[1:3]:
        for _, end, name, cause, task in rows_of(track):
            if cause.startswith("wait"):
                waits += 1
                assert (name.removeprefix("waits for "), end) in ends and end == schedule.start[task]
                assert ("store" in name) == (cause == "wait_store")
    assert waits > 0


def test_names_say_layer_phase_and_tile(built):
    by_name = {track.name: track.names for track in built.tracks}
    assert by_name["PE array"][-1].startswith(("conv1 grad_weight tile ", "waits for "))
    assert any(name.startswith("load a, conv2 forward tile 1") for name in by_name["DRAM bus"])
    assert any(name.startswith("store fc grad_weight tile 1") for name in by_name["DRAM bus"])


def test_buffers_hold_what_fits(result, built):
    assert {counter.name for counter in built.counters} >= {"buffer a", "buffer b", "buffer accumulator"}
    for counter in built.counters:
        assert counter.values.min() == 0 == counter.values[-1] and 0 < counter.values.max() <= counter.limit_bytes
        assert (np.diff(counter.at) > 0).all()
    program = result.runs[0].lowered.program
    for counter, code in zip(built.counters, range(tp.BUFFER_A, tp.MASK_BUFFER + 1), strict=False):
        assert counter.values.max() >= program.footprint[program.buffer == code].max()


def test_perfetto_files_hold_the_timeline(built):
    names, slices, counters = parsed(timeline_files.write([built], ".pftrace"))
    assert {name: rows for name, rows in slices.items()} == {t.name: rows_of(t) for t in built.tracks if t.size}
    assert {name.partition(" (of")[0]: rows for name, rows in counters.items()} == {
        c.name: list(zip(c.at.tolist(), c.values.tolist(), strict=True)) for c in built.counters
    }
    assert next(iter(names.values())) == f"{built.title}; {built.scale}"


def test_chrome_files_hold_the_timeline(built):
    events = json.loads(timeline_files.write([built], ".json"))["traceEvents"]
    threads = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    found = {name: [] for name in threads.values()}
    for e in events:
        if e["ph"] == "X":
            start, length = round(e["ts"] * 1000), round(e["dur"] * 1000)
            row = (start, start + length, e["name"], e["cat"], e.get("args", {}).get("task", -1))
            found[threads[e["tid"]]].append(row)
    assert found == {track.name: rows_of(track) for track in built.tracks}
    for counter in built.counters:
        rows = [(round(e["ts"] * 1000), e["args"]["bytes"]) for e in events if e["name"] == counter.name]
        assert rows == list(zip(counter.at.tolist(), counter.values.tolist(), strict=True))


def test_a_cycle_is_stated(tiny):
    assert timeline.build(tiny.runs[0]).scale == "1 ns here is 1 cycle of 1.25 ns (800 MHz)"


def test_parts_of_a_step(tiny):
    run = tiny.runs[0]
    whole = timeline.build(run)
    for part in (
        timeline.build(run, ["conv*"]),
        timeline.build(run, ops=(3, 5)),
        timeline.build(run, ["conv2"], (0, 9)),
    ):
        for track, all_of_it in zip(part.tracks[:1], whole.tracks[:1], strict=True):
            assert set(rows_of(track)) < set(rows_of(all_of_it))
        assert set(rows_of(part.tracks[1])) < set(rows_of(whole.tracks[1]))
    assert set(timeline.build(run, ["conv2"]).tracks[0].names) == {
        f"conv2 {phase}" for phase in ("forward", "grad_input", "grad_weight", "update")
    }
    assert timeline.build(run, ops=(3, 5)).tracks[0].size == 3


@pytest.mark.parametrize(
    "chosen, message",
    [
        ({"layers": ["conv9"]}, "no operation is called conv9 (did you mean 'conv"),
        ({"ops": (3, 999)}, "operations 3-999: the step has operations 0-42"),
        ({"layers": ["fc"], "ops": (0, 1)}, "no operation called fc is among those numbers"),
    ],
)
def test_nothing_chosen_is_an_error(tiny, chosen, message):
    with pytest.raises(NpusimError) as caught:
        timeline.build(tiny.runs[0], **chosen)
    assert message in str(caught.value)


def test_a_method_with_parts_is_several_processes(tmp_path):
    both = npusim.simulate("tiny-cnn", "mcu-8x8", method="instance-filtering")
    content = both.timeline(tmp_path / "x.pftrace").read_bytes()
    trace = timeline_files.perfetto_trace().Trace.FromString(content)
    assert sum(packet.track_descriptor.HasField("process") for packet in trace.packet) == len(both.runs) > 1


def test_without_perfetto_the_message_says_what_to_do(tiny, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("perfetto")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "perfetto", None)
    with pytest.raises(NpusimError, match=r"pip install 'npusim\[timeline\]', or write .json"):
        tiny.timeline(tmp_path / "x.pftrace")
    tiny.timeline(tmp_path / "x.json")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_what_cannot_be_written_is_said(tiny, tmp_path, monkeypatch):
    with pytest.raises(NpusimError, match=r"is written as .pftrace, .json, .png, .svg, not '.txt'"):
        tiny.timeline(tmp_path / "x.txt")
    with pytest.raises(ResultsError, match="simulate the step again"):
        npusim.read(tiny.save(tmp_path / "saved")).timeline(tmp_path / "x.json")
    monkeypatch.setattr(timeline_files, "MOST_JSON", 100)
    with pytest.raises(NpusimError, match="at most 100 slices and values"):
        tiny.timeline(tmp_path / "x.json")


def test_pictures_and_hostile_names(tmp_path):
    step = small_step(HOSTILE)
    step = replace(step, ops=tuple(replace(op, name=HOSTILE) for op in step.ops))
    result = npusim.simulate(step)
    svg = result.timeline(tmp_path / "x.svg").read_text()
    assert "<script" not in svg and "\x1b" not in svg and "waits for a load" in svg
    assert result.timeline(tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"
    assert "\x1b" not in json.dumps(json.loads(result.timeline(tmp_path / "x.json").read_text()), ensure_ascii=False)


@pytest.fixture(scope="module", params=["lpddr4-3200", "hbm2-2000"])
def commanded(request):
    """A small step before a DRAM whose commands are simulated; HBM's channels have two data buses each."""
    keys = {"lpddr4-3200": {"channels": 2, "bus_bits": 16}, "hbm2-2000": {"channels": 2, "bus_bits": 64}}[request.param]
    machine = npusim.hardware("edge-16x16").replace({"dram.model": "commands", "dram.commands.device": request.param})
    return npusim.simulate(small_step(), machine.replace({f"dram.commands.{key}": v for key, v in keys.items()}))


def test_dram_channels_carry_every_burst(commanded):
    run = commanded.runs[0]
    memory = engine_memory.memory(run.hardware)
    use = dram_watch.use(run.lowered.program, run.schedule, engine.unit_capacity(run.hardware), memory)
    counted = run.dram_commands.sum()
    assert use.joined[use.what != dram_watch.REFRESH].sum() == counted.RD + counted.WR
    assert use.joined[use.what == dram_watch.READ].sum() == counted.RD
    assert use.joined[use.what == dram_watch.REFRESH].sum() == counted.REF + counted.REFB
    kind = run.lowered.program.kind
    assert (kind[use.task[use.what == dram_watch.READ]] == tp.LOAD).all()
    assert (kind[use.task[use.what == dram_watch.WRITE]] == tp.STORE).all()
    # Data is on the bus after its transfer was handed over; what a load reads, before its task ends.
    data = use.what != dram_watch.REFRESH
    assert (use.start[data] >= run.schedule.start[use.task[data]]).all()
    read = use.what == dram_watch.READ
    assert (use.end[read] <= run.schedule.end[use.task[read]]).all()


def test_a_part_of_the_bursts_is_that_part(commanded):
    run = commanded.runs[0]
    memory, capacity = engine_memory.memory(run.hardware), engine.unit_capacity(run.hardware)
    program = run.lowered.program
    shown = program.op == 1
    part = dram_watch.use(program, run.schedule, capacity, memory, shown)
    whole = dram_watch.use(program, run.schedule, capacity, memory)
    chosen = (whole.task >= 0) & shown[whole.task]
    assert part.joined[part.task >= 0].sum() == whole.joined[chosen].sum() > 0
    assert shown[part.task[part.task >= 0]].all()


def test_a_replay_that_differs_is_no_picture(commanded):
    run = commanded.runs[0]
    load = int(np.flatnonzero(run.lowered.program.kind == tp.LOAD)[-1])
    end = run.schedule.end.copy()
    end[load] += 1
    with pytest.raises(RuntimeError, match="something other than in the engine's run"):
        dram_watch.use(run.lowered.program, run.schedule._replace(end=end), engine.unit_capacity(run.hardware),
                       engine_memory.memory(run.hardware))  # fmt: skip


def test_dram_channels_are_tracks(commanded):
    built = timeline.build(commanded.runs[0])
    memory = engine_memory.memory(commanded.runs[0].hardware)
    channels = [track for track in built.tracks if track.unit == "dram"]
    parts = memory.buses // memory.config.channels
    names = [f"DRAM channel {c + 1}" + (f".{p + 1}" if parts > 1 else "") for c in range(2) for p in range(parts)]
    assert [track.name for track in channels] == names and "DRAM bus" not in {track.name for track in built.tracks}
    for track in channels:
        assert (track.start[1:] >= track.end[:-1]).all() and track.end.max() <= built.cycles
        assert all(name.startswith(("load ", "store ")) and " tile " in name for name in track.names)
    # Of the bursts of every data bus, within the rounding of slices to whole cycles.
    busy = sum(int((track.end - track.start).sum()) for track in channels) / len(channels)
    expected = commanded.units.at["dram", "busy"]
    assert expected <= busy <= expected + 2 * max(track.size for track in channels) + 2 * len(built.tracks[0].names)
    _, slices, _ = parsed(timeline_files.write([built], ".pftrace"))
    assert {name: rows for name, rows in slices.items()} == {t.name: rows_of(t) for t in built.tracks if t.size}
    # With commands, a DMA channel is busy from its request to the last answer, as in the table of units.
    for unit in ("dma_read", "dma_write"):
        tracks = [track for track in built.tracks if track.unit == unit]
        for cause in ("busy", "latency"):
            found = sum(end - start for t in tracks for start, end, _, c, _ in rows_of(t) if c == cause)
            assert found == commanded.units.at[unit, cause]
