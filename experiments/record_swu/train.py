"""Training loops: the backbone, and one further task with one method."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from data import Task, epoch_batches
from methods import MaskTrainer, RangeRule
from models import MobileNetV2, classifier_of, masked_parameters
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

METHODS = ("swu", "piggyback", "finetune", "classifier", "norm", "swu-columns")
SELECTIVE = ("swu", "swu-columns")


@dataclass(frozen=True)
class Schedule:
    """Epochs, batch and learning rates. lr of epoch e is lr * decay ** (number of decay epochs <= e)."""

    epochs: int = 12
    decay_epochs: tuple[int, ...] = (6, 9)
    decay: float = 0.3
    batch: int = 32
    images_per_epoch: int = 512
    lr_mask: float = 3e-4
    lr_head: float = 1e-3  # classifier head and normalisation parameters
    lr_backbone: float = 1e-3
    lr_finetune: float = 3e-4
    lr_classifier: float = 1e-2  # head alone, on fixed features

    def level(self, epoch: int) -> float:
        """Level of learning-rate decay, lr(epoch) / lr(0)."""
        return self.decay ** sum(epoch >= at for at in self.decay_epochs)


@dataclass
class Outcome:
    """What one training run reports; accuracies as shares in 0..1 after the last epoch."""

    test_accuracy: float
    val_accuracy: float
    trainable_parameters: int
    seconds: float
    losses: list[float] = field(default_factory=list)
    density: list[dict] = field(default_factory=list)


@torch.no_grad()
def accuracy(predict: Callable[[Tensor], Tensor], inputs: Tensor, labels: Tensor) -> float:
    """Share of right answers."""
    hits = sum(
        int((predict(x).argmax(1) == y).sum()) for x, y in zip(inputs.split(128), labels.split(128), strict=True)
    )
    return hits / len(labels)


def norm_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Scales and shifts of all batch normalisations."""
    layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    return [p for layer in layers for p in (layer.weight, layer.bias)]


def parameter_groups(model: nn.Module, method: str, schedule: Schedule) -> list[dict]:
    """Adam's groups beside the mask weights; sets requires_grad to exactly what has a gradient."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    head = list(classifier_of(model).parameters()) + norm_parameters(model)
    groups = [{"params": head, "lr": schedule.lr_head}]
    convolutions = list(masked_parameters(model).values())
    if method in ("backbone", "finetune"):
        lr = schedule.lr_backbone if method == "backbone" else schedule.lr_finetune
        groups.append({"params": convolutions, "lr": lr})
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    if method in ("piggyback", *SELECTIVE):
        for parameter in convolutions:  # dense dW is what torch can compute; methods.py selects
            parameter.requires_grad_(True)
    return groups


def density_rows(trainer: MaskTrainer, epoch: int, lr: float) -> list[dict]:
    """Targeted and active elements per layer at the start of an epoch."""
    return [
        {
            "epoch": epoch,
            "lr": lr,
            "layer": weight.name,
            "shape": "x".join(str(n) for n in weight.parameter.shape),
            "elements": weight.scores.numel(),
            "targeted": int(weight.targeted.sum()),
            "active": int(weight.task_mask().sum()),
        }
        for weight in trainer.weights
    ]


def train_network(
    model: nn.Module,
    task: Task,
    method: str,
    schedule: Schedule,
    seed: int,
    rule: RangeRule | None = None,
    at_epoch: Callable[[int, nn.Module, MaskTrainer], None] | None = None,
) -> Outcome:
    """Train the model on a task with any method but `classifier`; the model is changed in place.

    `at_epoch(epoch, model, trainer)` sees the state at the start of each epoch of a mask method,
    after the targeted sets were renewed: what the epoch's first step starts from.
    """
    start = time.perf_counter()
    groups = parameter_groups(model, method, schedule)
    optimizer = torch.optim.Adam(groups, fused=True)
    base_lrs = [group["lr"] for group in optimizer.param_groups]
    masked = method in ("piggyback", *SELECTIVE)
    trainer = MaskTrainer(model, rule if method in SELECTIVE else None) if masked else None
    generator = torch.Generator().manual_seed(seed)
    outcome = Outcome(0.0, 0.0, sum(p.numel() for p in model.parameters() if p.requires_grad), 0.0)
    images, labels = task.images["train"], task.labels["train"]
    # Depthwise convolutions run 1.3 times as fast on channels-last maps; dense ones do not.
    fast = isinstance(model, MobileNetV2)
    layout = torch.channels_last if fast else torch.contiguous_format
    for epoch in range(schedule.epochs):
        level = schedule.level(epoch)
        for group, lr in zip(optimizer.param_groups, base_lrs, strict=True):
            group["lr"] = lr * level
        if trainer is not None:
            trainer.begin_epoch(schedule.lr_mask * level, level, epoch == 0)
            outcome.density += density_rows(trainer, epoch, schedule.lr_mask * level)
            if at_epoch is not None:
                at_epoch(epoch, model, trainer)
            before = [weight.scores.clone() for weight in trainer.weights]
        model.train()
        total = 0.0
        batches = epoch_batches(len(labels), schedule.images_per_epoch, schedule.batch, generator)
        for rows in batches:
            model.zero_grad(set_to_none=True)
            batch = images[rows].contiguous(memory_format=layout)
            loss = cross_entropy(model(batch), labels[rows])
            loss.backward()
            optimizer.step()
            if trainer is not None:
                trainer.step()
            total += loss.item()
        if trainer is not None:
            trainer.end_epoch()
            check_untouched(trainer, before)
        outcome.losses.append(total / len(batches))
    model.eval()
    outcome.val_accuracy = accuracy(model, task.images["val"], task.labels["val"])
    outcome.test_accuracy = accuracy(model, task.images["test"], task.labels["test"])
    outcome.seconds = time.perf_counter() - start
    return outcome


def check_untouched(trainer: MaskTrainer, before: list[Tensor]) -> None:
    """Stop the run if an element outside the targeted set changed during the epoch.

    Looks at both the mask weights and the W * mask that the module really used.
    """
    for weight, old in zip(trainer.weights, before, strict=True):
        changed = (weight.scores != old) & ~weight.targeted
        expected = weight.frozen * (weight.scores > 5e-3)
        wrong = weight.parameter.detach().flatten() != expected
        if bool(changed.any()) or bool(wrong.any()):
            raise AssertionError(f"{weight.name}: elements outside the targeted set changed")


def train_classifier(model: nn.Module, task: Task, schedule: Schedule, seed: int) -> Outcome:
    """Train the head alone on the backbone's features, which never change and are computed once."""
    start = time.perf_counter()
    model.eval()
    with torch.no_grad():
        features = {
            part: torch.cat([model.features_of(x) for x in images.split(128)]) for part, images in task.images.items()
        }
    head = classifier_of(model).requires_grad_(True)
    optimizer = torch.optim.Adam(head.parameters(), schedule.lr_classifier)
    generator = torch.Generator().manual_seed(seed)
    labels = task.labels["train"]
    losses = []
    for epoch in range(schedule.epochs):
        optimizer.param_groups[0]["lr"] = schedule.lr_classifier * schedule.level(epoch)
        batches = epoch_batches(len(labels), schedule.images_per_epoch, schedule.batch, generator)
        total = 0.0
        for rows in batches:
            optimizer.zero_grad()
            loss = cross_entropy(head(features["train"][rows]), labels[rows])
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total / len(batches))
    return Outcome(
        accuracy(head, features["test"], task.labels["test"]),
        accuracy(head, features["val"], task.labels["val"]),
        sum(p.numel() for p in head.parameters()),
        time.perf_counter() - start,
        losses,
    )
