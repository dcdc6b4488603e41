"""Multi-objective search with Optuna over the space of a sweep, for spaces too large to enumerate.

Axes of the grid, linked axes and ranges of [random] are the variables. Points are asked for in rounds of a fixed size
and told in their order, and results come from the store when it has them: with the same seed the same search goes the
same way on any number of workers, and an interrupted one computes nothing twice.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from npusim import provenance
from npusim.errors import ConfigError, NpusimError, closest
from npusim.sweep import metrics
from npusim.sweep.axes import Axis, Interval
from npusim.sweep.points import Job, Resolver, invalid_key
from npusim.sweep.run import Backend, Listener, Outcome, _counts, described, drain, store_path, with_backend
from npusim.sweep.spec import DEFAULTS, Spec
from npusim.sweep.store import DONE, INVALID, Result, Store

if TYPE_CHECKING:
    from pathlib import Path

    import optuna

SAMPLERS = ("tpe", "nsga2", "random")
ROUND = 16


def search(
    spec: Spec, trials: int, store: str | Path | None = None, *, sampler: str = "tpe", seed: int = 0,
    workers: int | None = None, scheduler: str | None = None, listener: Listener | None = None,
) -> Outcome:  # fmt: skip
    """Ask for `trials` points of the space of `spec`, each towards a better front of its objectives.

    Points outside the constraints or that cannot be simulated count as trials without a result.
    """
    resolver, told = Resolver(), listener or Listener()
    variables = [*spec.axes, *spec.intervals]
    if not variables:
        raise ConfigError(f"sweep {spec.name!r} has no axis to search")
    study = _study(spec, sampler, seed)
    with Store(store_path(spec, store)) as opened:
        opened.begin(spec.name, {**described(spec), "search": [trials, sampler, seed]}, [], provenance.date())
        told.start(trials, 0)

        def loop(backend: Backend) -> tuple[list[str], int, int]:
            keys: list[str] = []
            computed = left_out = 0
            for first in range(0, trials, ROUND):
                asked = [study.ask() for _ in range(min(ROUND, trials - first))]
                points = [_point(spec, variables, trial) for trial in asked]
                jobs = [_job(resolver, spec, point, opened) for point in points]
                left_out += sum(job is None for job in jobs)
                wanted = {job.key: job for job in jobs if isinstance(job, Job)}
                known = opened.results(list(wanted))
                missing = [job for key, job in wanted.items() if key not in known]
                drain(backend, missing, opened, told)
                computed += len(missing)
                for result in known.values():
                    told.result(result)
                found = opened.results(list(wanted))
                members = [
                    (first + i, job if isinstance(job, str) else job.key, point)
                    for i, (job, point) in enumerate(zip(jobs, points, strict=True))
                    if job is not None
                ]
                opened.extend(spec.name, members)
                keys += [key for _, key, _ in members]
                for trial, job in zip(asked, jobs, strict=True):
                    _tell(study, spec, trial, found.get(job.key) if isinstance(job, Job) else None)
            return keys, computed, left_out

        try:
            keys, computed, left_out = with_backend(spec, resolver, workers, scheduler, loop)
        finally:
            told.stop()
        return Outcome(spec, opened.path, _counts(opened, keys), computed, left_out)


def _study(spec: Spec, sampler: str, seed: int) -> optuna.Study:
    try:
        import optuna
    except ImportError:
        raise NpusimError('--search needs Optuna; pip install "npusim[search]"') from None
    if sampler not in SAMPLERS:
        raise ConfigError(f"--sampler {sampler!r}{closest(sampler, list(SAMPLERS))}; known: {', '.join(SAMPLERS)}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        chosen: Any = {
            "nsga2": lambda: optuna.samplers.NSGAIISampler(population_size=2 * ROUND, seed=seed),
            "tpe": lambda: optuna.samplers.TPESampler(n_startup_trials=2 * ROUND, seed=seed, constant_liar=True),
            "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        }[sampler]()
    signs: Any = ["minimize" if metrics.sign(name) > 0 else "maximize" for name in spec.objectives]
    return optuna.create_study(directions=signs, sampler=chosen)


def _point(spec: Spec, variables: list[Axis | Interval], trial: optuna.Trial) -> dict[str, Any]:
    point = {**DEFAULTS, **spec.fixed}
    for variable in variables:
        if isinstance(variable, Interval):
            point[variable.key] = trial.suggest_int(variable.key, variable.low, variable.high, log=variable.log)
            continue
        name = variable.label
        if all(isinstance(entry[0], int) for entry in variable.values):
            # Ordered: the sampler may use that neighbours are alike.
            entry = variable.values[trial.suggest_int(name, 0, len(variable) - 1)]
        else:
            entry = variable.values[trial.suggest_categorical(name, list(range(len(variable))))]
        point.update(zip(variable.keys, entry, strict=True))
    return point


def _job(resolver: Resolver, spec: Spec, point: dict[str, Any], store: Store) -> Job | str | None:
    """The job of a point; None when constraints leave it out; the key of its row when it cannot be simulated."""
    try:
        return resolver.job(point, spec.limits)
    except NpusimError as error:
        key = invalid_key(point)
        store.add([Result(key, INVALID, str(error), {})], provenance.date())
        return key


def _tell(study: optuna.Study, spec: Spec, trial: optuna.Trial, result: Result | None) -> None:
    import optuna

    if result is not None and result.status == DONE:
        study.tell(trial, [result.metrics[name] for name in spec.objectives])
    else:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
