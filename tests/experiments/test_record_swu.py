"""Rules of selective weight update as experiments/record_swu trains it."""

from __future__ import annotations

import copy
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "record_swu"
MODULES = ("data", "methods", "models", "store", "train", "tables", "run", "record")


@pytest.fixture(scope="module")
def swu():
    """The experiment's modules, imported from its folder and forgotten afterwards."""
    import importlib
    from types import SimpleNamespace

    sys.path.insert(0, str(FOLDER))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    finally:
        sys.path.remove(str(FOLDER))
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture
def tiny(swu):
    """A network of two convolutions with the layout that train_network expects."""

    class Tiny(torch.nn.Module):
        classifier_name = "fc"

        def __init__(self):
            super().__init__()
            self.conv1 = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
            self.bn1 = torch.nn.BatchNorm2d(8)
            self.conv2 = torch.nn.Conv2d(8, 8, 3, padding=1, bias=False)
            self.fc = torch.nn.Linear(8, 4)

        def forward(self, x):
            return self.fc(self.conv2(torch.relu(self.bn1(self.conv1(x)))).mean((2, 3)))

    torch.manual_seed(0)
    return Tiny()


@pytest.fixture
def task(swu):
    generator = torch.Generator().manual_seed(1)
    images = {part: torch.randn(24, 3, 8, 8, generator=generator) for part in swu.data.SPLITS}
    labels = {part: torch.arange(24) % 4 for part in swu.data.SPLITS}
    return swu.data.Task("random", 4, images, labels)


# CIFAR forms with 10 classes: 11,173,962 and 14,728,266 are the counts of the widely used CIFAR
# versions; MobileNetV2 is torchvision's 3,504,872 with its head of 1,281,000 replaced by 12,810.
@pytest.mark.parametrize(
    ("network", "parameters", "masked_layers"),
    [("resnet18", 11_173_962, 20), ("vgg16_bn", 14_728_266, 13), ("mobilenetv2", 2_236_682, 52)],
)
def test_parameter_counts(swu, network, parameters, masked_layers):
    model = swu.models.build(network, 10)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(swu.models.masked_parameters(model)) == masked_layers


@pytest.mark.parametrize("network", ["resnet18", "vgg16_bn", "mobilenetv2"])
@pytest.mark.parametrize("size", [16, 32, 224])
def test_image_size_does_not_change_weights(swu, network, size):
    with torch.device("meta"):
        model = swu.models.build(network, 10)
        assert model(torch.empty(1, 3, size, size)).shape == (1, 10)


def test_no_image_is_shared_between_splits(swu):
    labels = np.repeat(np.arange(10), 30)
    split = swu.data.split_indices(labels, seed=0)
    assert sorted(np.concatenate(list(split.values()))) == list(range(300))
    assert [len(split[part]) for part in swu.data.SPLITS] == [180, 40, 80]  # per digit 18, 4, 8


def test_range_by_hand_and_narrowing_with_the_learning_rate(swu):
    # distances from 5e-3: 5e-3, 1e-3, 3e-3 -> mean 3e-3; signed mean (5 + 1 - 3) e-3 / 3 = 1e-3
    scores = torch.tensor([10e-3, 6e-3, 2e-3])
    rule = swu.methods.RangeRule(1.0)
    low, high = swu.methods.searching_range(scores, rule, 1.0)
    assert (low, high) == pytest.approx((2e-3, 8e-3), rel=1e-5)
    low, high = swu.methods.searching_range(scores, rule, 0.3)
    assert (low, high) == pytest.approx((4.1e-3, 5.9e-3), rel=1e-5)
    other = swu.methods.RangeRule(2.0, "distance-of-mean")
    assert swu.methods.searching_range(scores, other, 1.0) == pytest.approx((3e-3, 7e-3), rel=1e-5)
    with pytest.raises(ValueError, match="known: mean-distance, distance-of-mean"):
        swu.methods.searching_range(scores, swu.methods.RangeRule(1.0, "median"), 1.0)


def test_targeted_set_shrinks_with_the_learning_rate(swu):
    scores = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 1e-2
    rule = swu.methods.RangeRule(1.0)
    sets = [swu.methods.targeted_elements(scores, rule, level, False) for level in (1.0, 0.3, 0.09)]
    for wide, narrow in pairwise(sets):
        assert bool((wide | ~narrow).all())
        assert int(narrow.sum()) < int(wide.sum())
    assert bool(swu.methods.targeted_elements(scores, rule, 0.01, True).all())


def test_column_sets_are_whole_and_as_many(swu):
    shape, rows = (20, 6, 3, 3), 8
    scores = swu.methods.THRESHOLD + 1e-2 * torch.randn(20 * 54, generator=torch.Generator().manual_seed(1))
    within = swu.methods.targeted_elements(scores, swu.methods.RangeRule(1.0), 0.3, False)
    sets = swu.methods.targeted_elements(scores, swu.methods.RangeRule(1.0, rows=rows), 0.3, False, shape)
    # Blocks of 8, 8 and 4 rows; every column of a block is taken whole or not at all.
    for block in torch.split(sets.view(20, 54), rows):
        assert bool((block == block[0]).all())
    assert abs(int(sets.sum()) - int(within.sum())) <= rows / 2
    # No set that was left out holds a larger share of elements in range than one that was taken.
    share = torch.cat([block.double().mean(0) for block in torch.split(within.view(20, 54), rows)])
    taken = torch.cat([block[0] for block in torch.split(sets.view(20, 54), rows)])
    assert share[taken].min() >= share[~taken].max()


def test_equal_sets_are_taken_by_nearness_to_the_threshold(swu):
    near = torch.full((4,), swu.methods.THRESHOLD)
    scores = torch.stack([near + 4e-3, near + 1e-3, near + 2e-3, near + 3e-3], dim=1).flatten()
    within = torch.zeros(16, dtype=torch.bool)
    within[:4] = True
    chosen = swu.methods.column_sets(within, scores, (4, 4, 1, 1), 1, 4)
    assert chosen.view(4, 4).tolist() == [[False, True, False, False]] * 4


def test_column_sets_of_depthwise_layers_are_elements(swu):
    scores = swu.methods.THRESHOLD + 1e-2 * torch.randn(30 * 9, generator=torch.Generator().manual_seed(2))
    alone, sets = (
        swu.methods.targeted_elements(scores, swu.methods.RangeRule(1.0, rows=rows), 0.3, False, (30, 1, 3, 3), 30)
        for rows in (1, 16)
    )
    assert torch.equal(alone, sets)


def test_training_by_column_sets(swu, tiny, task):
    schedule = swu.train.Schedule(epochs=4, decay_epochs=(2,), batch=8, images_per_epoch=24, lr_mask=3e-3)
    rule, counts = swu.methods.RangeRule(1.0, rows=4), []

    def at_epoch(epoch, model, trainer):
        for weight in trainer.weights:
            sets = torch.from_numpy(weight.update_mask()).reshape(-1, 4, weight.parameter[0].numel())
            assert bool((sets == sets[:, :1]).all())
            counts.append(int(sets.sum()))

    swu.train.train_network(tiny, task, "swu-columns", schedule, 0, rule, at_epoch)
    assert counts[0] > counts[-2] > 0


def test_threshold_is_exclusive(swu):
    threshold = swu.methods.THRESHOLD
    scores = torch.tensor([threshold, np.nextafter(np.float32(threshold), np.float32(1)), 0.0, -1.0])
    assert swu.methods.binarise(scores).tolist() == [False, True, False, False]


def test_straight_through_gradient_is_dw_times_w(swu, tiny, task):
    """Against autograd through an explicit product W * mask with the mask as a leaf."""
    frozen = tiny.conv1.weight.detach().clone()
    x, y = task.images["train"], task.labels["train"]
    trainer = swu.methods.MaskTrainer(tiny, None)
    trainer.begin_epoch(1e-3, 1.0, True)
    torch.nn.functional.cross_entropy(tiny(x), y).backward()
    mask = torch.ones_like(frozen, requires_grad=True)
    parameters = {"conv1.weight": frozen * mask}
    logits = torch.func.functional_call(tiny, parameters, (x,))
    (expected,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, y), mask)
    torch.testing.assert_close(trainer.weights[0].gradient().view_as(expected), expected)


def test_untargeted_elements_stay_bit_identical(swu, tiny, task, monkeypatch):
    """Through every epoch, Adam's momentum included, and the module holds W * mask throughout."""
    schedule = swu.train.Schedule(epochs=5, decay_epochs=(2, 4), batch=8, images_per_epoch=24, lr_mask=3e-3)
    frozen = {n: p.detach().clone() for n, p in swu.models.masked_parameters(tiny).items()}
    seen = []

    def at_epoch(epoch, model, trainer):
        for weight in trainer.weights:
            mask = torch.from_numpy(weight.task_mask())
            assert torch.equal(weight.parameter.detach(), frozen[weight.name] * mask)
            if seen[-2:] and epoch:
                old_scores, old_targeted = next(s for n, *s in seen[-2:] if n == weight.name)
                assert torch.equal(weight.scores[~old_targeted], old_scores[~old_targeted])
                moved = weight.scores[old_targeted] != old_scores[old_targeted]
                assert bool(moved.any())
        seen.extend((w.name, w.scores.clone(), w.targeted.clone()) for w in trainer.weights)

    outcome = swu.train.train_network(tiny, task, "swu", schedule, 0, swu.methods.RangeRule(1.0), at_epoch)
    density = [row["targeted"] / row["elements"] for row in outcome.density if row["layer"] == "conv2.weight"]
    assert density[0] == 1.0
    assert all(0.0 < share < 1.0 for share in density[1:])


def test_piggyback_is_swu_with_everything_targeted(swu, tiny, task):
    schedule = swu.train.Schedule(epochs=3, decay_epochs=(1,), batch=8, images_per_epoch=24, lr_mask=3e-3)
    results = []
    for method, rule in [("piggyback", None), ("swu", swu.methods.RangeRule(1e9))]:
        model = copy.deepcopy(tiny)
        swu.train.train_network(model, task, method, schedule, 0, rule)
        results.append(model.state_dict())
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


def test_masks_survive_the_file(swu, tiny, task, tmp_path):
    trainer = swu.methods.MaskTrainer(tiny, swu.methods.RangeRule(1.0))
    for weight in trainer.weights:
        noise = torch.randn(weight.scores.shape, generator=torch.Generator().manual_seed(2))
        weight.scores = swu.methods.THRESHOLD + 1e-2 * noise
    trainer.begin_epoch(1e-3, 0.5, False)
    swu.store.save_masks(tmp_path / "masks.npz", trainer)
    task_masks, update_masks = swu.store.load_masks(tmp_path / "masks.npz")
    for weight in trainer.weights:
        assert np.array_equal(task_masks[weight.name], weight.task_mask())
        assert np.array_equal(update_masks[weight.name], weight.update_mask())
        assert 0 < update_masks[weight.name].sum() < weight.scores.numel()
    assert [path.name for path in tmp_path.iterdir()] == ["masks.npz"]


def test_recorded_step_runs_on_masked_weights(swu, tmp_path):
    """A short real run of the smallest network, its files, and the captured step of its second epoch."""
    schedule = swu.train.Schedule(epochs=2, decay_epochs=(1,), batch=8, images_per_epoch=16, lr_mask=3e-3)
    base = swu.run.backbone(tmp_path, "mobilenetv2", 0, schedule)
    rule = swu.methods.RangeRule(1.0)
    swu.run.train_method(tmp_path, base, "mobilenetv2", 0, "rotated", "swu", schedule, rule)
    model, step, task_masks, update_masks = swu.record.build_step(tmp_path, "mobilenetv2", 0, "rotated", 1)
    weights = swu.models.masked_parameters(model)
    assert set(weights) == set(task_masks) == set(update_masks)
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    scale = model.features[0][1].weight.detach().clone()
    for name, weight in before.items():
        assert not weight.numpy()[~task_masks[name]].any(), name
    assert not all(mask.all() for mask in task_masks.values())

    from npusim import trace

    graph = trace.capture(model, step, grad_masks=update_masks, task_masks=task_masks, method="swu")
    assert len([op for op in graph.ops if op.phase == "grad_weight" and op.kind == "conv"]) == 52
    assert {op.param for op in graph.ops if op.kind == "adam"} >= set(weights)
    assert {name: mask.count for name, mask in graph.update_masks.items()} == {
        name: int(mask.sum()) for name, mask in update_masks.items()
    }
    assert not torch.equal(model.features[0][1].weight, scale)
    for name, weight in weights.items():
        assert torch.equal(weight.detach(), before[name]), name


def test_finished_runs_are_not_repeated(swu, tmp_path, monkeypatch):
    schedule = swu.train.Schedule(epochs=1, batch=8, images_per_epoch=8)
    rule = swu.methods.RangeRule(1.0)
    arguments = (tmp_path, ("mobilenetv2",), (0,), ("digits59",), ("classifier",), schedule, rule)
    monkeypatch.setattr(swu.run, "IMAGE_SIZE", 8)  # the originals' size: only speed matters here
    swu.run.run_all(*arguments)
    written = {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()}
    assert len(written) == 2  # the backbone and one task
    monkeypatch.setattr(swu.run, "train_network", None)
    monkeypatch.setattr(swu.run, "train_classifier", None)
    swu.run.run_all(*arguments)
    assert {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()} == written
