"""A sweep from description to stored results: check, compare with the store, run what is missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from npusim import provenance
from npusim.errors import NpusimError
from npusim.sweep import points as planning
from npusim.sweep.points import Job, Resolver
from npusim.sweep.spec import Spec
from npusim.sweep.store import CRASHED, FAILED, INVALID, STATUSES, TIMEOUT, Result, Store

if TYPE_CHECKING:
    import pandas as pd

COMMIT_AT_ONCE = 64


class Backend(Protocol):
    """Where jobs run: gives a result for every job, in any order, whatever happens to its workers."""

    def run(self, jobs: Iterable[Job]) -> Iterator[Result]: ...

    def close(self) -> None: ...


class Listener:
    """What is told about progress; this one does not care. `progress.py` has those that print."""

    def planned(self, number: int, total: int) -> None:
        """Of `total` points, `number` are checked."""

    def start(self, total: int, known: int) -> None:
        """`total` different points, of which the store knows `known`."""

    def result(self, result: Result) -> None:
        """One more is stored."""

    def stop(self) -> None:
        """No more will come."""


@dataclass(frozen=True)
class Outcome:
    """What a run of a sweep came to. `counts`: points by status; `computed` of them in this run."""

    spec: Spec
    store: Path
    counts: dict[str, int]
    computed: int
    left_out: int

    def frame(self) -> pd.DataFrame:
        """One row per point with its keys, status and metrics."""
        from npusim.sweep.export import frame

        return frame(self.store, self.spec.name)

    @property
    def failures(self) -> int:
        return sum(n for status, n in self.counts.items() if status not in ("done", INVALID))


def run(
    spec: Spec,
    store: str | Path | None = None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    skip_invalid: bool = False,
    retry_failed: bool = False,
    listener: Listener | None = None,
) -> Outcome:
    """Simulate every point of `spec` that `store` does not have yet, on local processes or a Dask `scheduler`.

    `skip_invalid` records points that cannot be simulated instead of refusing the sweep; `retry_failed` runs again
    those that failed, crashed or took too long. ConfigError lists bad points; StoreError when the store is in use or
    cannot be written.
    """
    told = listener or Listener()
    resolver = Resolver()
    total = spec.count()
    plan = planning.plan(spec, resolver, lambda number: told.planned(number, total))
    if plan.invalid and not skip_invalid:
        raise planning.refuse(plan.invalid, total, spec.keys)
    if not plan.points and not plan.invalid:
        raise NpusimError(f"sweep {spec.name!r}: no point is left; constraints leave out all {plan.left_out}")
    members = [(job.key, point) for point, job in plan.points]
    refused = {planning.invalid_key(point): (point, message) for point, message in plan.invalid}
    members += [(key, point) for key, (point, _) in refused.items()]
    jobs = {job.key: job for _, job in plan.points}
    with Store(store_path(spec, store)) as opened:
        opened.begin(spec.name, described(spec), members, provenance.date())
        opened.add((Result(key, INVALID, text, {}) for key, (_, text) in refused.items()), provenance.date())
        if retry_failed:
            opened.forget(opened.keys((FAILED, CRASHED, TIMEOUT)) & set(jobs))
        known = opened.keys()
        missing = [job for key, job in jobs.items() if key not in known]
        told.start(len(jobs), len(jobs) - len(missing))
        try:
            if missing:
                with_backend(spec, resolver, workers, scheduler, lambda b: drain(b, missing, opened, told))
        finally:
            told.stop()
        counts = _counts(opened, [key for key, _ in members])
        return Outcome(spec, opened.path, counts, len(missing), plan.left_out)


def with_backend(spec: Spec, resolver: Resolver, workers: int | None, scheduler: str | None,
                 use: Callable[[Backend], Any]) -> Any:  # fmt: skip
    """Call `use` with local processes or a Dask scheduler, and clear up whatever happens."""
    backend: Backend
    if scheduler is not None:
        from npusim.sweep.dask_backend import DaskBackend

        backend = DaskBackend(scheduler, spec.timeout_s, resolver.resources)
    else:
        from npusim.sweep.pool import Pool

        backend = Pool(workers or cpus(), spec.timeout_s, resolver.resources)
    try:
        return use(backend)
    finally:
        backend.close()


def drain(backend: Backend, jobs: Sequence[Job], store: Store, listener: Listener) -> None:
    """Run jobs and commit every result as soon as it is there."""
    for result in backend.run(jobs):
        store.add([result], provenance.date())
        listener.result(result)


def described(spec: Spec) -> dict[str, Any]:
    """The description of a sweep as stored: its tables, and what ran it."""
    return {"spec": dict(spec.source), "versions": provenance.versions(), "code": planning.code_version()}


def store_path(spec: Spec, store: str | Path | None) -> Path:
    return Path(store) if store is not None else Path(f"{spec.name}.sqlite")


def cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _counts(store: Store, keys: list[str]) -> dict[str, int]:
    """Points by status, in the order of STATUSES; those without a result are not counted."""
    by_status = {status: store.keys((status,)) for status in STATUSES}
    found = {status: sum(key in known for key in keys) for status, known in by_status.items()}
    return {status: count for status, count in found.items() if count}
