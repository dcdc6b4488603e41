"""Tasks made from scikit-learn's digits: 1,797 real 8x8 grey images that ship inside the package.

Source of the images: UCI "Optical Recognition of Handwritten Digits" (test part), CC BY 4.0.
One stratified split per seed is made over all images before any task is formed, so no task ever
trains on an image that another task tests on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import interpolate

BACKBONE_TASK = "digits04"
# name -> (kept digits, transform); the backbone's task comes first.
TASKS = {
    BACKBONE_TASK: (range(0, 5), "none"),
    "digits59": (range(5, 10), "none"),
    "rotated": (range(0, 10), "rotate90"),
    "inverted": (range(0, 10), "invert"),
}
FURTHER_TASKS = tuple(name for name in TASKS if name != BACKBONE_TASK)
SPLITS = ("train", "val", "test")
SPLIT_SHARES = (0.60, 0.15, 0.25)


@dataclass(frozen=True)
class Task:
    """Images [n, 3, size, size] float32, normalised, and labels [n] int64 from 0, per split."""

    name: str
    classes: int
    images: dict[str, Tensor]
    labels: dict[str, Tensor]


def split_indices(labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Stratified train/val/test row numbers: each digit is shuffled and cut at the same shares."""
    generator = np.random.default_rng(seed)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in SPLITS}
    for digit in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == digit))
        cuts = np.round(np.cumsum(SPLIT_SHARES[:-1]) * len(rows)).astype(int)
        for name, part in zip(SPLITS, np.split(rows, cuts), strict=True):
            parts[name].append(part)
    return {name: np.sort(np.concatenate(part)) for name, part in parts.items()}


def transform(images: np.ndarray, kind: str) -> np.ndarray:
    """Apply a task's change to [n, 8, 8] images in 0..1."""
    if kind == "rotate90":
        return np.rot90(images, axes=(1, 2)).copy()
    if kind == "invert":
        return 1.0 - images
    return images


def load_task(name: str, seed: int, image_size: int) -> Task:
    """One task at `image_size` pixels, bilinear from 8x8, grey repeated to 3 channels.

    Every task is normalised with the mean and deviation of the *backbone's* training images: a
    device that has shipped a backbone keeps its input scaling.
    """
    digits = load_digits()
    images, labels = digits.images / 16.0, digits.target
    split = split_indices(labels, seed)
    first = images[split["train"]][np.isin(labels[split["train"]], TASKS[BACKBONE_TASK][0])]
    mean, deviation = first.mean(), first.std()
    kept, kind = TASKS[name]
    out_images, out_labels = {}, {}
    for part, rows in split.items():
        rows = rows[np.isin(labels[rows], kept)]
        scaled = (transform(images[rows], kind) - mean) / deviation
        tensor = torch.from_numpy(scaled).float().unsqueeze(1)
        size = (image_size, image_size)
        tensor = interpolate(tensor, size=size, mode="bilinear", align_corners=False)
        out_images[part] = tensor.repeat(1, 3, 1, 1)
        out_labels[part] = torch.from_numpy(labels[rows] - kept[0]).long()
    return Task(name, len(kept), out_images, out_labels)


def epoch_batches(count: int, images_per_epoch: int, batch: int, generator: torch.Generator):
    """Row numbers of one epoch's batches: a fresh sample without replacement, full batches only."""
    rows = torch.randperm(count, generator=generator)[:images_per_epoch]
    return [part for part in rows.split(batch) if len(part) == batch]
