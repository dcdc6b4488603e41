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

from npusim.program import DRAM, FENCE, LOAD, STORE, UNIT_OF_KIND, TileProgram

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


def schedule(program: TileProgram, capacity: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start (unit granted), bus (DRAM bus granted) and end cycle of every task, int64 each."""
    env = simpy.Environment()
    machine = Machine(env, capacity)
    done = [env.event() for _ in program.kind]
    start, bus, end = (np.zeros(len(done), np.int64) for _ in range(3))

    def task(i: int):
        kind, cycles = program.kind[i], int(program.cycles[i])
        for d in program.dep_idx[program.dep_ptr[i] : program.dep_ptr[i + 1]]:
            yield done[d]
        start[i] = bus[i] = env.now
        if kind != FENCE:
            unit = int(UNIT_OF_KIND[kind])
            yield machine.request(unit, i)
            start[i] = bus[i] = env.now
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
    return start, bus, end
