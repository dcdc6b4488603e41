"""Mask weights, the searching range, and training of targeted elements only.

From the patent's published claims (US 12481871 B2, as the project's notes give it): a frozen
backbone; real-valued mask weights thresholded at a preset value into a binary task mask; per epoch
a searching range around the threshold, set from the distribution (mean) of the mask weights and
narrowed with the level of learning-rate decay; only mask weights inside the range get a weight
gradient, are updated and thresholded again; the others stay fixed during that epoch.

Our choice, because the text gives no formula: the statistic (`searching_range`), one range per
layer, everything targeted in the first epoch, and what happens to the optimizer's state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from models import masked_parameters
from torch import Tensor, nn

from npusim.structure import Structure, coarsen

MASK_INIT = 1e-2  # Piggyback (arXiv 1801.06519), section 3 and its public code
THRESHOLD = 5e-3  # the same
ADAM_BETAS = (0.9, 0.999)
# Mask gradients are dW * W: a tenth of ResNet-18's is below 6e-9, which the usual 1e-8 would damp.
ADAM_EPS = 1e-12
STATISTICS = ("mean-distance", "distance-of-mean")


@dataclass(frozen=True)
class RangeRule:
    """How wide the searching range is; `alpha` is dimensionless, `statistic` one of STATISTICS.

    `rows`: consecutive output channels of a group that share their targeted elements (`column_sets`); 1: each its own.
    """

    alpha: float
    statistic: str = "mean-distance"
    rows: int = 1


def searching_range(scores: Tensor, rule: RangeRule, lr_level: float) -> tuple[float, float]:
    """Lower and upper end of the range around the threshold, in units of the mask weights.

    half-width = alpha * statistic * lr_level, with lr_level = lr(epoch) / lr(0) in (0, 1].
    `mean-distance`: mean(|m - threshold|) over the layer. `distance-of-mean`: |mean(m) - threshold|,
    which collapses when a layer's mask weights straddle the threshold evenly.
    """
    distance = scores.double() - THRESHOLD
    if rule.statistic == "mean-distance":
        statistic = distance.abs().mean().item()
    elif rule.statistic == "distance-of-mean":
        statistic = distance.mean().abs().item()
    else:
        raise ValueError(f"unknown statistic {rule.statistic!r}; known: {', '.join(STATISTICS)}")
    half = rule.alpha * statistic * lr_level
    return THRESHOLD - half, THRESHOLD + half


def targeted_elements(
    scores: Tensor, rule: RangeRule, lr_level: float, first_epoch: bool, shape: tuple[int, ...] = (), groups: int = 1
) -> Tensor:
    """Boolean update mask of one layer for one epoch, True where the element is trained.

    In the first epoch all mask weights are equal, so their distribution says nothing: all are
    targeted (with alpha >= 1 the formula says so too, up to rounding). `shape` [K, C/G, R, S] and `groups` of the
    layer are needed when `rule.rows` > 1.
    """
    if first_epoch:
        return torch.ones_like(scores, dtype=torch.bool)
    low, high = searching_range(scores, rule, lr_level)
    within = (scores >= low) & (scores <= high)
    return within if rule.rows == 1 else column_sets(within, scores, shape, groups, rule.rows)


def column_sets(within: Tensor, scores: Tensor, shape: tuple[int, ...], groups: int, rows: int) -> Tensor:
    """As many elements as `within` has, to the nearest set, in whole sets: a column (c, r, s) of `rows` channels k.

    The sets with the most elements of `within`; of equals, those whose mask weights lie nearest to the threshold. Sets
    do not cross groups, so a depthwise layer, with one output channel per group, keeps its own elements.
    """
    structure = Structure("column_set", rows=min(rows, shape[0] // groups), per_group=shape[0] // groups)
    distance = (scores.double() - THRESHOLD).abs()
    nearness = 1 - distance / distance.max().clamp_min(1e-30)
    # One element more in a set weighs 1/rows in its mean; the second criterion stays below that.
    weight = within.double() + nearness / (2 * rows)
    chosen = coarsen(within.view(shape).numpy(), structure, "equal_count", weight.view(shape).numpy())
    return torch.from_numpy(chosen).flatten()


def binarise(scores: Tensor) -> Tensor:
    """Task mask: True where the mask weight is above the threshold."""
    return scores > THRESHOLD


class MaskedWeight:
    """One layer's frozen weights W, mask weights m and Adam state, trained over a targeted subset.

    The module's own parameter always holds W * mask, so forward and grad_input run on the masked
    weights as they would on a device. Its gradient is dW; the straight-through estimator passes it
    through the threshold unchanged, hence dm = dW * W.

    Only targeted elements are copied into the optimizer (`values`), so the others cannot move
    through momentum or any other state; their state waits untouched for the next epoch.
    """

    def __init__(self, name: str, parameter: nn.Parameter, groups: int = 1) -> None:
        self.name = name
        self.parameter = parameter
        self.groups = groups
        self.frozen = parameter.detach().clone().flatten()
        self.scores = torch.full_like(self.frozen, MASK_INIT)
        self.first_moment = torch.zeros_like(self.frozen)
        self.second_moment = torch.zeros_like(self.frozen)
        self.targeted = torch.ones_like(self.frozen, dtype=torch.bool)
        self.index: Tensor | None = None
        self.values = nn.Parameter(self.scores.clone())
        self.frozen_values = self.frozen

    def take(self, full: Tensor) -> Tensor:
        """Targeted elements of a flat tensor; the tensor itself when all are targeted."""
        return full if self.index is None else full[self.index]

    def put(self, full: Tensor, values: Tensor) -> None:
        """Write targeted elements back."""
        if self.index is None:
            full.copy_(values)
        else:
            full[self.index] = values

    def begin_epoch(self, targeted: Tensor) -> nn.Parameter:
        """Fix the epoch's targeted set and hand out the mask weights the optimizer may move."""
        self.targeted = targeted
        self.index = None if bool(targeted.all()) else targeted.nonzero().squeeze(1)
        self.values = nn.Parameter(self.take(self.scores).clone())
        self.frozen_values = self.take(self.frozen)
        return self.values

    def gradient(self) -> Tensor:
        """dm = dW * W of the targeted elements, straight through the threshold."""
        return self.take(self.parameter.grad.flatten()) * self.frozen_values

    @torch.no_grad()
    def apply_mask(self) -> None:
        """Threshold the targeted elements again and put W * mask into the module."""
        masked = self.frozen_values * binarise(self.values)
        self.put(self.parameter.view(-1), masked)

    @torch.no_grad()
    def end_epoch(self, state: dict[str, Tensor]) -> None:
        """Write targeted mask weights and their Adam state back."""
        self.put(self.scores, self.values)
        if state:
            self.put(self.first_moment, state["exp_avg"])
            self.put(self.second_moment, state["exp_avg_sq"])

    def task_mask(self) -> np.ndarray:
        """Boolean, shape of the weight: active in forward and grad_input."""
        return binarise(self.scores).view(self.parameter.shape).numpy()

    def update_mask(self) -> np.ndarray:
        """Boolean, shape of the weight: gets a gradient in this epoch."""
        return self.targeted.view(self.parameter.shape).numpy()


class MaskTrainer:
    """All masked weights of a model and the Adam that moves their targeted elements.

    `rule` None is Piggyback: everything is targeted in every epoch. Adam's bias correction uses the
    number of steps of the whole training, also for elements that sat out some epochs.
    """

    def __init__(self, model: nn.Module, rule: RangeRule | None) -> None:
        self.rule = rule
        modules = dict(model.named_modules())
        self.weights = [
            MaskedWeight(n, p, modules[n.removesuffix(".weight")].groups) for n, p in masked_parameters(model).items()
        ]
        self.steps_done = 0
        self.optimizer: torch.optim.Adam | None = None

    def begin_epoch(self, lr: float, lr_level: float, first_epoch: bool) -> None:
        """Renew the targeted sets and build the epoch's optimizer over them."""
        for weight in self.weights:
            targeted = torch.ones_like(weight.targeted)
            if self.rule is not None:
                shape = tuple(weight.parameter.shape)
                targeted = targeted_elements(weight.scores, self.rule, lr_level, first_epoch, shape, weight.groups)
            weight.begin_epoch(targeted)
        values = [w.values for w in self.weights if w.values.numel()]
        self.optimizer = None
        if not values:
            return
        self.optimizer = torch.optim.Adam(values, lr, ADAM_BETAS, ADAM_EPS, fused=True)
        for weight in self.weights:
            if weight.values.numel():
                self.optimizer.state[weight.values] = {
                    "step": torch.tensor(float(self.steps_done)),
                    "exp_avg": weight.take(weight.first_moment).clone(),
                    "exp_avg_sq": weight.take(weight.second_moment).clone(),
                }

    def step(self) -> None:
        """One optimizer step from the gradients now in the module's parameters."""
        for weight in self.weights:
            weight.values.grad = weight.gradient() if weight.values.numel() else None
        if self.optimizer is not None:
            self.optimizer.step()
        for weight in self.weights:
            if weight.values.numel():
                weight.apply_mask()
        self.steps_done += 1

    def end_epoch(self) -> None:
        """Write the epoch's results back; `weight.scores` is then the state of training."""
        for weight in self.weights:
            if weight.values.numel():
                weight.end_epoch(self.optimizer.state[weight.values])
