"""Files of one experiment folder: finished runs, backbones, masks and states.

    runs/<network>-s<seed>-<task>-<method>.json   one finished training run; its presence is "done"
    backbone/<network>-s<seed>.pt                 state_dict of the backbone
    masks/<network>-s<seed>-<task>-e<epoch>.npz   np.packbits of both masks, per parameter
    state/<network>-s<seed>-<task>-e<epoch>.pt    mask weights, normalisation and head (seed 0)

Every file is written beside its place and renamed, so that a killed run leaves no half file.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from methods import MaskTrainer
from models import masked_parameters
from torch import nn
from train import Outcome


def replace_into(path: Path, write) -> None:
    """Call `write(temporary path)` and rename the result to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    write(temporary)
    os.replace(temporary, path)


def write_json(path: Path, value: dict) -> None:
    """Write JSON atomically."""
    replace_into(path, lambda temporary: temporary.write_text(json.dumps(value)))


def save_state(path: Path, state: dict) -> None:
    """Write tensors with torch.save atomically; readable with weights_only=True."""
    replace_into(path, lambda temporary: torch.save(state, temporary))


def run_path(out: Path, network: str, seed: int, task: str, method: str) -> Path:
    """Result file of one training run."""
    return out / "runs" / f"{network}-s{seed}-{task}-{method}.json"


def save_run(out: Path, network: str, seed: int, task: str, method: str, outcome: Outcome, **more):
    """Record a finished run together with the settings it ran under."""
    record = {"network": network, "seed": seed, "task": task, "method": method}
    write_json(run_path(out, network, seed, task, method), record | more | asdict(outcome))


def load_runs(out: Path) -> list[dict]:
    """All finished runs, in name order."""
    return [json.loads(path.read_text()) for path in sorted((out / "runs").glob("*.json"))]


def backbone_path(out: Path, network: str, seed: int) -> Path:
    """State of the trained backbone."""
    return out / "backbone" / f"{network}-s{seed}.pt"


def snapshot_path(out: Path, kind: str, network: str, seed: int, task: str, epoch: int) -> Path:
    """File of `masks` or `state` at the start of an epoch."""
    suffix = {"masks": "npz", "state": "pt"}[kind]
    return out / kind / f"{network}-s{seed}-{task}-e{epoch}.{suffix}"


def save_masks(path: Path, trainer: MaskTrainer) -> None:
    """Both masks of every masked weight, packed most significant bit first, in C order."""
    arrays: dict[str, np.ndarray] = {}
    for weight in trainer.weights:
        arrays[f"{weight.name}:task"] = np.packbits(weight.task_mask())
        arrays[f"{weight.name}:update"] = np.packbits(weight.update_mask())
        arrays[f"{weight.name}:shape"] = np.array(weight.parameter.shape, dtype=np.int64)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)

    replace_into(path, write)


def load_masks(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Task masks and update masks by parameter name, boolean, in the weight's shape."""
    task_masks, update_masks = {}, {}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            name, kind = key.rsplit(":", 1)
            if kind == "shape":
                continue
            shape = archive[f"{name}:shape"]
            bits = np.unpackbits(archive[key], count=int(shape.prod())).astype(bool).reshape(shape)
            (task_masks if kind == "task" else update_masks)[name] = bits
    return task_masks, update_masks


def save_training_state(path: Path, model: nn.Module, trainer: MaskTrainer) -> None:
    """What the next training step starts from, without the backbone's weights.

    `scores`: mask weights by parameter name. `rest`: normalisation and head, parameters and buffers.
    """
    masked = masked_parameters(model)
    rest = {name: value for name, value in model.state_dict().items() if name not in masked}
    scores = {w.name: w.scores.view(w.parameter.shape) for w in trainer.weights}
    save_state(path, {"scores": scores, "rest": rest})
