"""Timelines as files: Perfetto's protobuf (https://ui.perfetto.dev opens it) and Chrome's JSON trace events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from npusim.errors import NpusimError

if TYPE_CHECKING:
    from npusim.timeline import Timeline, Track

# A JSON file beyond this many slices and values is slow to open.
MOST_JSON = 200_000
SEQUENCE = 1


def perfetto_trace() -> Any:
    """Perfetto's messages; NpusimError when the package is not there."""
    try:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2
    except ImportError as error:
        raise NpusimError(
            f"a .pftrace file needs the package perfetto ({error}): pip install 'npusim[timeline]', or write .json"
        ) from None
    return perfetto_trace_pb2


def pftrace(timelines: Sequence[Timeline]) -> bytes:
    """A Perfetto trace: a process per timeline; one nanosecond is one cycle."""
    pb = perfetto_trace()
    parts: list[bytes] = []

    def put(packet: Any) -> None:
        packet.trusted_packet_sequence_id = SEQUENCE
        body = packet.SerializeToString()
        # Field 1 of Trace, length-delimited: a trace is nothing but its packets one after the other.
        parts.append(b"\x0a" + _varint(len(body)) + body)

    first = pb.TracePacket(sequence_flags=pb.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED)
    put(first)
    for number, timeline in enumerate(timelines, start=1):
        base = number << 32
        packet = pb.TracePacket()
        process = packet.track_descriptor
        process.uuid = base
        process.process.pid = number
        process.process.process_name = f"{timeline.title}; {timeline.scale}"
        process.child_ordering = pb.TrackDescriptor.EXPLICIT
        put(packet)
        for rank, track in enumerate(timeline.tracks, start=1):
            put(_descriptor(pb, base, rank, track.name))
            for packet in _slices(pb, track, base + rank):
                put(packet)
        for rank, counter in enumerate(timeline.counters, start=len(timeline.tracks) + 1):
            described = _descriptor(pb, base, rank, f"{counter.name} (of {counter.limit_bytes:,} bytes)")
            described.track_descriptor.counter.unit = pb.CounterDescriptor.UNIT_SIZE_BYTES
            put(described)
            for at, value in zip(counter.at.tolist(), counter.values.tolist(), strict=True):
                packet = pb.TracePacket(timestamp=at)
                packet.track_event.type = pb.TrackEvent.TYPE_COUNTER
                packet.track_event.track_uuid = base + rank
                packet.track_event.counter_value = value
                put(packet)
    return b"".join(parts)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _descriptor(pb: Any, base: int, rank: int, name: str) -> Any:
    packet = pb.TracePacket()
    described = packet.track_descriptor
    described.uuid = base + rank
    described.parent_uuid = base
    described.name = name
    described.sibling_order_rank = rank
    return packet


def _slices(pb: Any, track: Track, uuid: int) -> Iterator[Any]:
    """Begin and end events in an order in which slices nest."""
    open_ends: list[int] = []

    def ending(at: int) -> Any:
        packet = pb.TracePacket(timestamp=at)
        packet.track_event.type = pb.TrackEvent.TYPE_SLICE_END
        packet.track_event.track_uuid = uuid
        return packet

    rows = zip(track.start.tolist(), track.end.tolist(), track.causes, track.names, track.tasks.tolist(), strict=True)
    for start, end, cause, name, task in rows:
        while open_ends and open_ends[-1] <= start:
            yield ending(open_ends.pop())
        packet = pb.TracePacket(timestamp=start)
        event = packet.track_event
        event.type = pb.TrackEvent.TYPE_SLICE_BEGIN
        event.track_uuid = uuid
        event.name = name
        event.categories.append(cause)
        if task >= 0:
            note = event.debug_annotations.add()
            note.name, note.int_value = "task", task
        yield packet
        open_ends.append(end)
    while open_ends:
        yield ending(open_ends.pop())


def chrome_json(timelines: Sequence[Timeline]) -> bytes:
    """Chrome's trace events; one microsecond in `ts` is a thousand cycles, shown as nanoseconds."""
    size = sum(timeline.size for timeline in timelines)
    if size > MOST_JSON:
        raise NpusimError(
            f"a .json timeline has at most {MOST_JSON:,} slices and values, this one has {size:,}: write a .pftrace "
            "file, or choose fewer operations (--layers, --ops)"
        )
    events = [event for pid, timeline in enumerate(timelines, start=1) for event in _events(pid, timeline)]
    value = {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {timeline.title: timeline.scale for timeline in timelines},
    }
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode()


def _events(pid: int, timeline: Timeline) -> Iterator[dict[str, Any]]:
    name = f"{timeline.title}; {timeline.scale}"
    yield {"ph": "M", "pid": pid, "name": "process_name", "args": {"name": name}}
    for tid, track in enumerate(timeline.tracks, start=1):
        yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": track.name}}
        yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": tid}}
        rows = zip(
            track.start.tolist(), track.end.tolist(), track.causes, track.names, track.tasks.tolist(), strict=True
        )
        for start, end, cause, shown, task in rows:
            event = {"ph": "X", "pid": pid, "tid": tid, "name": shown, "cat": cause, "ts": start / 1000,
                     "dur": (end - start) / 1000}  # fmt: skip
            yield {**event, "args": {"task": task}} if task >= 0 else event
    for counter in timeline.counters:
        for at, value in zip(counter.at.tolist(), counter.values.tolist(), strict=True):
            yield {"ph": "C", "pid": pid, "name": counter.name, "ts": at / 1000, "args": {"bytes": value}}


def write(timelines: Sequence[Timeline], suffix: str) -> bytes:
    """The content of a file of one of the kinds of WRITERS."""
    return WRITERS[suffix](timelines)


def check(suffix: str) -> None:
    """NpusimError when files of this kind cannot be written here."""
    if suffix not in WRITERS:
        raise NpusimError(f"a timeline is written as {', '.join(WRITERS)}, not {suffix or 'a file without suffix'!r}")
    if suffix == ".pftrace":
        perfetto_trace()


def _picture(kind: str) -> Callable[[Sequence[Timeline]], bytes]:
    def draw(timelines: Sequence[Timeline]) -> bytes:
        from npusim import plot, timeline_plot

        figures = {"": plot.drawn(timeline_plot.figure, timelines[0])}
        return plot.pngs(figures)[""] if kind == "png" else plot.svgs(figures)[""].encode()

    return draw


WRITERS: dict[str, Callable[[Sequence[Timeline]], bytes]] = {
    ".pftrace": pftrace, ".json": chrome_json, ".png": _picture("png"), ".svg": _picture("svg"),
}  # fmt: skip
