"""Turn saved masks and training states into npusim traces of one real training step each.

Usage: python experiments/record_swu/record.py --out DIR --workloads DIR [--task rotated]

`--out` is the folder that run.py wrote; traces go to <workloads>/<network>-swu/, the middle epoch
under the name of the workload, early.npz and late.npz beside it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import store
import torch
from data import BACKBONE_TASK, FURTHER_TASKS, TASKS, load_task
from methods import ADAM_BETAS, ADAM_EPS, binarise
from models import NETWORKS, build, masked_parameters, replace_classifier
from run import IMAGE_SIZE as TRAINING_IMAGE_SIZE
from run import run_seed, snapshot_epochs
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from train import Schedule, parameter_groups

# The networks' CIFAR forms are made for 32x32. Training ran at 16x16; masks belong to weights.
IMAGE_SIZE = 32
WORKLOAD_NAMES = {"resnet18": "resnet18", "vgg16_bn": "vgg16-bn", "mobilenetv2": "mobilenetv2"}
Masks = dict[str, np.ndarray]


def load_model(out: Path, network: str, seed: int, task: str, epoch: int) -> tuple[nn.Module, dict, dict]:
    """The network as it computes at the start of an epoch, its mask weights, and the frozen weights.

    Convolutions hold W * task mask: forward and grad_input run on it as on a device, where the mask
    is applied on the way into the array.
    """
    model = build(network, len(TASKS[BACKBONE_TASK][0]))
    model.load_state_dict(torch.load(store.backbone_path(out, network, seed), weights_only=True))
    frozen = {name: p.detach().clone() for name, p in masked_parameters(model).items()}
    state = torch.load(store.snapshot_path(out, "state", network, seed, task, epoch), weights_only=True)
    replace_classifier(model, len(TASKS[task][0]))
    model.load_state_dict(state["rest"], strict=False)
    with torch.no_grad():
        for name, parameter in masked_parameters(model).items():
            parameter.copy_(frozen[name] * binarise(state["scores"][name]))
    return model, state["scores"], frozen


def mask_weights(scores: dict[str, Tensor]) -> dict[str, nn.Parameter]:
    """Mask weights as parameters of an optimizer; they are no part of the model."""
    return {name: nn.Parameter(value.clone()) for name, value in scores.items()}


def keep_scales(model: nn.Module, frozen: dict[str, Tensor], targeted: Masks) -> dict[str, Tensor]:
    """Per weight the factor of dm = dW * W: W on targeted elements, 0 elsewhere.

    With it dm is zero where nothing may move, and Adam with fresh state leaves those elements
    bit-identical. Kept as a buffer of the module, so that a capture knows the tensor as a weight.
    """
    scales = {}
    for name, weight in frozen.items():
        module = model.get_submodule(name.rpartition(".")[0])
        scales[name] = weight * torch.from_numpy(targeted[name])
        module.register_buffer("targeted_backbone", scales[name], persistent=False)
    return scales


def adam(model: nn.Module, scores: dict[str, nn.Parameter], level: float) -> torch.optim.Adam:
    """The optimizer of an epoch: mask weights beside normalisation and head, at the epoch's rates."""
    schedule = Schedule()
    groups = parameter_groups(model, "swu", schedule)
    for group in groups:
        group["lr"] *= level
    groups.append({"params": list(scores.values()), "lr": schedule.lr_mask * level, "eps": ADAM_EPS})
    return torch.optim.Adam(groups, betas=ADAM_BETAS)


def build_step(
    out: Path,
    network: str,
    seed: int,
    task: str,
    epoch: int,
    batch: int = 1,
    image_size: int = IMAGE_SIZE,
) -> tuple[nn.Module, Callable[[], None], Masks, Masks]:
    """The model, one real training step of it, and both masks by parameter name.

    The step is the first of its epoch: forward and grad_input on W * mask, dW of every convolution
    (PyTorch computes it densely; the update mask says which elements the method computes),
    dm = dW * W, then Adam on mask weights, normalisation and head. Adam's state starts at zero: its
    values were not kept. The new mask bits are not put into the model; they are the next step's.
    `epoch` must be one of run.snapshot_epochs; FileNotFoundError says which file is missing.
    """
    out = Path(out)
    task_masks, update_masks = store.load_masks(store.snapshot_path(out, "masks", network, seed, task, epoch))
    model, saved, frozen = load_model(out, network, seed, task, epoch)
    model.train()
    scores = mask_weights(saved)
    scales = keep_scales(model, frozen, update_masks)
    optimizer = adam(model, scores, Schedule().level(epoch))
    data = load_task(task, seed, image_size)
    generator = torch.Generator().manual_seed(run_seed(seed, network, task, str(epoch)))
    rows = torch.randperm(len(data.labels["train"]), generator=generator)[:batch]
    images, labels = data.images["train"][rows], data.labels["train"][rows]
    weights = masked_parameters(model)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(model(images), labels).backward()
        for name, parameter in weights.items():
            scores[name].grad = parameter.grad * scales[name]
        optimizer.step()

    return model, step, task_masks, update_masks


def share(masks: Masks) -> float:
    """Selected elements over all elements."""
    return round(sum(int(m.sum()) for m in masks.values()) / sum(m.size for m in masks.values()), 5)


def provenance(out: Path, network: str, seed: int, task: str, epoch: int, density: dict) -> dict:
    """How the trace was made and how well the training it comes from ended."""
    run, full = (
        json.loads(store.run_path(out, network, seed, task, method).read_text()) for method in ("swu", "piggyback")
    )
    keys = ("epochs", "decay_epochs", "decay", "batch", "images_per_epoch", "lr_mask", "alpha", "statistic")
    return {
        "experiment": "experiments/record_swu",
        "data": "scikit-learn digits",
        "network": network,
        "seed": seed,
        "task": task,
        "epoch": epoch,
        "test_accuracy": round(run["test_accuracy"], 5),
        "piggyback_test_accuracy": round(full["test_accuracy"], 5),
        "training_image_size": TRAINING_IMAGE_SIZE,
        "training": {key: run[key] for key in keys},
        **density,
    }


def record(out: Path, workloads: Path, network: str, seed: int, task: str, when: str, batch: int, image_size: int):
    """Capture one step and write it with how it was made into the folder of its workload."""
    from npusim import trace

    epoch = snapshot_epochs(Schedule())[when]
    model, step, task_masks, update_masks = build_step(out, network, seed, task, epoch, batch, image_size)
    workload = f"{WORKLOAD_NAMES[network]}-swu"
    name = f"{workload}-{when}"
    graph = trace.capture(model, step, grad_masks=update_masks, task_masks=task_masks, name=name, method="swu")
    density = {"targeted_density": share(update_masks), "active_density": share(task_masks)}
    notes = provenance(out, network, seed, task, epoch, density)
    graph = replace(graph, meta={**graph.meta, **notes})
    folder = workloads / workload
    folder.mkdir(parents=True, exist_ok=True)
    trace.write(graph, folder / f"{workload if when == 'middle' else when}.npz")
    notes_file = folder / "provenance.json"
    known = json.loads(notes_file.read_text()) if notes_file.exists() else {}
    notes_file.write_text(json.dumps(known | {when: dict(graph.meta)}, indent=2) + "\n")
    print(f"{name}: {len(graph.ops)} ops, targeted {density['targeted_density']}, active {density['active_density']}")


def main() -> None:
    """Record every network at its early, middle and late epoch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder that run.py wrote")
    parser.add_argument("--workloads", type=Path, required=True, help="folder for the traces")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--task", choices=FURTHER_TASKS, default="rotated")
    parser.add_argument("--seed", type=int, default=0, help="run.py keeps the state of seed 0 only")
    parser.add_argument("--batch", type=int, default=1, help="images in the step")
    parser.add_argument("--image-size", type=int, default=IMAGE_SIZE, help="pixels, at least 16")
    options = parser.parse_args()
    torch.set_num_threads(2)
    for network in options.networks:
        for when in snapshot_epochs(Schedule()):
            record(
                options.out, options.workloads, network, options.seed, options.task, when,
                options.batch, options.image_size,
            )  # fmt: skip


if __name__ == "__main__":
    main()
