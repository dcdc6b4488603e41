"""The SimPy engine: the readable specification of what a TileProgram means in time.

The time rule. Within one cycle everything that needs no arbitration happens first, until nothing changes;
then every free unit is granted once, to its oldest request in program order; then again, until nothing
changes. SimPy processes events of one time by priority, so the grant is an event of a later priority than
NORMAL.
"""

from __future__ import annotations

import heapq

import numpy as np
import simpy
from simpy.events import NORMAL

from npusim.engine import _dram_kernels as kernels
from npusim.engine import _dram_state as st
from npusim.engine.memory import COUNTED, Memory, final_counts, snapshot
from npusim.program import DMA_READ, DMA_WRITE, DRAM, FENCE, LOAD, STORE, UNIT_OF_KIND, TileProgram

GRANT = NORMAL + 1


class Unit:
    """A shared resource of `capacity` equal servers with requests kept in program order."""

    def __init__(self, capacity: int) -> None:
        self.free = capacity
        self.queue: list[tuple[int, simpy.Event]] = []


class Machine:
    """The units of one NPU and the arbiter that grants them once per round."""

    def __init__(self, env: simpy.Environment, capacity: np.ndarray) -> None:
        self.env = env
        self.units = [Unit(int(c)) for c in capacity]
        self._round: simpy.Event | None = None

    def request(self, unit: int, task: int) -> simpy.Event:
        """An event that fires when `task` holds `unit`."""
        granted = self.env.event()
        heapq.heappush(self.units[unit].queue, (task, granted))
        self._arbitrate_later()
        return granted

    def release(self, unit: int) -> None:
        self.units[unit].free += 1
        self._arbitrate_later()

    def _arbitrate_later(self) -> None:
        if self._round is None:
            self._round = self.env.event()
            self._round._ok, self._round._value = True, None
            self._round.callbacks.append(self._grant)
            self.env.schedule(self._round, priority=GRANT)  # type: ignore[arg-type]

    def _grant(self, _: simpy.Event) -> None:
        self._round = None
        for unit in self.units:
            if unit.free and unit.queue:
                unit.free -= 1
                heapq.heappop(unit.queue)[1].succeed()
                self._arbitrate_later()


class Dram:
    """Command-level memory behind the DMA channels: it is run up to the present whenever something can happen in it."""

    def __init__(self, env: simpy.Environment, memory: Memory, program: TileProgram, capacity: np.ndarray) -> None:
        self.env = env
        self.memory = memory
        self.program = program
        channels = int(capacity[DMA_READ] + capacity[DMA_WRITE])
        self.state = memory.fresh(channels, program.segments)
        self.first_of = {LOAD: 0, STORE: int(capacity[DMA_READ])}
        self.done: list[simpy.Event | None] = [None] * channels
        self.snapshots = np.zeros((int(program.op.max(initial=-1)) + 1, len(COUNTED)), np.int64)
        self.wake = -1

    def transfer(self, task: int) -> tuple[int, simpy.Event]:
        """Hand over the bytes of `task` on the lowest free channel of its direction; channel, and event of the end."""
        write = self.program.kind[task] == STORE
        x = self.done.index(None, self.first_of[STORE if write else LOAD])
        self._run(self.memory.entering(self._now))
        first, pieces = self.program.first[task], self.program.pieces[task]
        kernels.submit_segments(self.state, x, task, first, pieces, int(write))
        self.done[x] = ended = self.env.event()
        self._wake_later()
        return x, ended

    def note(self, op: int) -> None:
        """Keep what was counted when operation `op` begins."""
        self._run(self.memory.entering(self._now))
        self.snapshots[op] = snapshot(self.state)

    @property
    def _now(self) -> int:
        return int(self.env.now)

    def _moving(self) -> bool:
        return any(event is not None and not event.triggered for event in self.done)

    def _run(self, until: int) -> None:
        kernels.run(self.state, until, kernels.TO_TIME)
        for x in self.state.done[: self.state.clock[st.N_DONE]]:
            self.env.process(self._end(int(x), self.memory.cycle(int(self.state.xfer[x, st.X_DONE])) - self._now))
        self.state.clock[st.N_DONE] = 0

    def _end(self, x: int, delay: int):
        yield self.env.timeout(delay)
        event = self.done[x]
        assert event is not None
        event.succeed()

    def _wake_later(self) -> None:
        if not self._moving():
            return
        at = max(self._now + 1, self.memory.cycle(int(kernels.next_event(self.state))))
        if self.wake <= self._now or at < self.wake:
            self.wake = at
            self.env.process(self._wake_at(at - self._now))

    def _wake_at(self, delay: int):
        yield self.env.timeout(delay)
        if self._moving():
            self._run(self.memory.visible(self._now))
            self._wake_later()


def schedule(
    program: TileProgram, capacity: np.ndarray, memory: Memory | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Start (unit granted), bus (DRAM bus granted) and end of every task, int64 each; what `memory` counted."""
    env = simpy.Environment()
    machine = Machine(env, capacity)
    dram = Dram(env, memory, program, capacity) if memory else None
    done = [env.event() for _ in program.kind]
    start, bus, end = (np.zeros(len(done), np.int64) for _ in range(3))
    noted: set[int] = set()

    def task(i: int):
        kind, cycles = program.kind[i], int(program.cycles[i])
        for d in program.dep_idx[program.dep_ptr[i] : program.dep_ptr[i + 1]]:
            yield done[d]
        start[i] = bus[i] = env.now
        if kind == FENCE:
            op = int(program.op[i])
            if dram and op not in noted:
                noted.add(op)
                dram.note(op)
        else:
            unit = int(UNIT_OF_KIND[kind])
            yield machine.request(unit, i)
            start[i] = bus[i] = env.now
            if kind in (LOAD, STORE) and dram:
                channel, ended = dram.transfer(i)
                yield ended
                yield env.timeout(int(program.tail[i]))
                dram.done[channel] = None
            else:
                if kind in (LOAD, STORE):
                    yield machine.request(DRAM, i)
                    bus[i] = env.now
                    yield env.timeout(cycles)
                    machine.release(DRAM)
                    cycles = int(program.tail[i])
                yield env.timeout(cycles)
            machine.release(unit)
        end[i] = env.now
        done[i].succeed()

    for i in range(len(done)):
        env.process(task(i))
    env.run()
    if not memory or not dram:
        return start, bus, end, None
    return start, bus, end, final_counts(dram.state, dram.snapshots, memory.entering(int(end.max(initial=0))))
