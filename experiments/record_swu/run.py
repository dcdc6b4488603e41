"""Train backbones and further tasks with every method; write accuracies, densities and masks.

Usage:
    python experiments/record_swu/run.py --out DIR            the whole experiment, resumable
    python experiments/record_swu/run.py --out DIR --quick    one network, one seed
    python experiments/record_swu/run.py --out DIR --sweep    the alpha sweep only
"""

from __future__ import annotations

import argparse
import copy
import time
import zlib
from dataclasses import asdict, replace
from pathlib import Path

import store
import tables
import torch
from data import BACKBONE_TASK, FURTHER_TASKS, TASKS, load_task
from methods import STATISTICS, MaskTrainer, RangeRule
from models import NETWORKS, build, replace_classifier
from torch import nn
from train import METHODS, Schedule, train_classifier, train_network

IMAGE_SIZE = 16  # pixels; the originals are 8x8
SEEDS = (0, 1, 2)
# The smallest alpha at which the formula alone targets every element of the first epoch, because
# all distances from the threshold are then equal to their mean. The sweep checks the choice.
ALPHA = 1.0
# Rows of the array that a column set shares: those of the machine of experiments/swu_wgc.
COLUMN_SET_ROWS = 16
SWEEP_NETWORK, SWEEP_SEED, SWEEP_TASK = "resnet18", 0, "rotated"
SWEEP_ALPHAS = (0.25, 0.5, 1.0, 1.5, 2.0)
QUICK_NETWORK = "resnet18"


def run_seed(seed: int, *names: str) -> int:
    """Seed of head initialisation and batch order: the same for all methods of a task."""
    return zlib.crc32("/".join((str(seed), *names)).encode())


def snapshot_epochs(schedule: Schedule) -> dict[str, int]:
    """Early: the first epoch whose range selects. Middle: half way. Late: the last epoch."""
    return {"early": 1, "middle": schedule.epochs // 2, "late": schedule.epochs - 1}


def backbone(out: Path, network: str, seed: int, schedule: Schedule) -> nn.Module:
    """The trained backbone, from disk if an earlier run finished it."""
    classes = len(TASKS[BACKBONE_TASK][0])
    model = build(network, classes)
    path = store.backbone_path(out, network, seed)
    if not (path.exists() and store.run_path(out, network, seed, BACKBONE_TASK, "backbone").exists()):
        torch.manual_seed(run_seed(seed, network))
        model = build(network, classes)
        task = load_task(BACKBONE_TASK, seed, IMAGE_SIZE)
        outcome = train_network(model, task, "backbone", schedule, run_seed(seed, network))
        store.save_state(path, model.state_dict())
        store.save_run(out, network, seed, BACKBONE_TASK, "backbone", outcome, **asdict(schedule))
        report(network, seed, BACKBONE_TASK, "backbone", outcome)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model


def report(network: str, seed: int, task: str, method: str, outcome) -> None:
    """One line per finished run."""
    print(
        f"{time.strftime('%H:%M:%S')} {network} seed {seed} {task} {method}: "
        f"test {outcome.test_accuracy:.4f} val {outcome.val_accuracy:.4f} "
        f"{outcome.seconds:.0f} s",
        flush=True,
    )


def train_method(
    out: Path, base: nn.Module, network: str, seed: int, task_name: str, method: str,
    schedule: Schedule, rule: RangeRule,
):  # fmt: skip
    """One further task with one method, starting from a copy of the backbone."""
    task = load_task(task_name, seed, IMAGE_SIZE)
    number = run_seed(seed, network, task_name)
    model = copy.deepcopy(base)
    torch.manual_seed(number)
    replace_classifier(model, task.classes)
    if method == "classifier":
        return train_classifier(model, task, schedule, number)
    if method == "swu-columns":
        rule = replace(rule, rows=COLUMN_SET_ROWS)

    def keep(epoch: int, at: nn.Module, trainer: MaskTrainer) -> None:
        if method != "swu" or epoch not in snapshot_epochs(schedule).values():
            return
        where = (network, seed, task_name, epoch)
        store.save_masks(store.snapshot_path(out, "masks", *where), trainer)
        if seed == 0:
            path = store.snapshot_path(out, "state", *where)
            store.save_training_state(path, at, trainer)

    return train_network(model, task, method, schedule, number, rule, keep)


def run_all(out: Path, networks, seeds, tasks, methods, schedule: Schedule, rule: RangeRule) -> None:
    """All runs that are not yet on disk: seed by seed, so that every network comes early."""
    for seed in seeds:
        for network in networks:
            base = backbone(out, network, seed, schedule)
            for task in tasks:
                for method in methods:
                    if store.run_path(out, network, seed, task, method).exists():
                        continue
                    outcome = train_method(out, base, network, seed, task, method, schedule, rule)
                    settings = asdict(schedule) | asdict(rule)
                    store.save_run(out, network, seed, task, method, outcome, **settings)
                    report(network, seed, task, method, outcome)
            tables.write_all(out)


def sweep(out: Path, schedule: Schedule) -> None:
    """Alpha against density and accuracy: one network, one seed, one task.

    Besides alpha it tries the other statistic and a sharper decay, once each, at alpha 1.
    """
    points = [(RangeRule(alpha), schedule.decay) for alpha in SWEEP_ALPHAS]
    points += [(RangeRule(1.0, STATISTICS[1]), schedule.decay), (RangeRule(1.0), 0.1)]
    base = backbone(out, SWEEP_NETWORK, SWEEP_SEED, schedule)
    folder = out / "sweep"
    for method, rule, decay in [("piggyback", RangeRule(1.0), schedule.decay)] + [
        ("swu", rule, decay) for rule, decay in points
    ]:
        label = f"{method}-{rule.statistic}-a{rule.alpha}-d{decay}"
        if store.run_path(folder, SWEEP_NETWORK, SWEEP_SEED, SWEEP_TASK, label).exists():
            continue
        changed = replace(schedule, decay=decay)
        outcome = train_method(folder, base, SWEEP_NETWORK, SWEEP_SEED, SWEEP_TASK, method, changed, rule)
        settings = asdict(changed) | asdict(rule)
        store.save_run(folder, SWEEP_NETWORK, SWEEP_SEED, SWEEP_TASK, label, outcome, **settings)
        report(SWEEP_NETWORK, SWEEP_SEED, SWEEP_TASK, label, outcome)
    tables.write_sweep(out)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for all results")
    parser.add_argument("--quick", action="store_true", help="one network, one seed")
    parser.add_argument("--sweep", action="store_true", help="only the alpha sweep")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--tasks", nargs="+", choices=FURTHER_TASKS, default=FURTHER_TASKS[:2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS[:5])
    parser.add_argument("--alpha", type=float, default=ALPHA, help="width of the searching range")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    schedule = Schedule()
    if options.sweep:
        sweep(options.out, schedule)
        return
    networks, seeds = options.networks, options.seeds
    if options.quick:
        networks, seeds = (QUICK_NETWORK,), (0,)
    run_all(options.out, networks, seeds, options.tasks, options.methods, schedule, RangeRule(options.alpha))


if __name__ == "__main__":
    main()
