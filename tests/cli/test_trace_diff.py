"""`npusim trace diff` and `npusim trace capture SCRIPT`."""

import json
from dataclasses import replace

import numpy as np
import pytest
from steps import small_step

from npusim import trace
from npusim.masks import Mask
from npusim.trace.diff import differences

SCRIPT = """
import sys
import torch
import helper

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(36 * 4, 10))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
size = int(sys.argv[1]) if len(sys.argv) > 1 else helper.SIZE
grad_masks = {"0.weight": torch.ones(4, 3, 3, 3)}

def step():
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(torch.zeros(size, 3, 8, 8)), torch.zeros(size, dtype=torch.long))
    loss.backward()
    optimizer.step()

if __name__ == "__main__":
    raise SystemExit("trained")
"""


def test_a_step_equals_itself(npusim):
    result = npusim("trace", "diff", "small", "small")
    assert (result.code, result.out, result.err) == (0, "equal: 19 operations, 22 tensors\n", "")
    assert json.loads(npusim("trace", "diff", "small", "small", "--json").out)["equal"] is True


def test_masks_are_a_difference(npusim):
    result = npusim("trace", "diff", "small", "plain")
    assert result.code == 1 and result.out.splitlines()[-1] == "3 differences"
    assert "update mask conv1.weight: only in A (density 2" in result.out
    value = json.loads(npusim("trace", "diff", "small", "plain", "--json").out)
    assert not value["equal"] and {item["part"] for item in value["differences"]} == {"update mask"}
    assert npusim("trace", "diff", "small", "plain", "--limit", "1").out.splitlines()[1].startswith("... and 2 more")


def test_every_kind_of_difference():
    step = small_step()
    ops = list(step.ops)
    place = next(i for i, op in enumerate(ops) if op.label == "conv2:forward")
    ops[place] = replace(ops[place], dims=replace(ops[place].dims, stride=(2, 1)))
    tensors = dict(step.tensors)
    tensors["fc.weight"] = replace(tensors["fc.weight"], dtype="float16")
    bits = step.update_masks["conv1.weight"].bits()
    masks = {**step.update_masks, "conv1.weight": Mask.of(np.roll(bits, 1))}
    other = replace(step, ops=tuple(ops[:-1]), tensors=tensors, update_masks=masks)
    found = [str(item) for item in differences(step, other)]
    # A stride that differs between rows and columns is not in the compact text, but it is a difference.
    assert "operation conv2:forward conv: exact dimensions" in found[0]
    assert found[1].startswith("operation fc:update sgd: only in A (")
    assert found[2] == "tensor fc.weight: kind weight float32 in A, weight float16 in B"
    assert found[3].startswith("update mask conv1.weight: bits ") and len(found) == 4
    swapped = replace(step, ops=(step.ops[1], step.ops[0], *step.ops[2:]))
    (order,) = differences(step, swapped)
    assert str(order) == "order position 0: runs conv1:forward in A, bn1:forward in B"


def test_the_way_to_capture(npusim):
    assert "npusim trace capture train.py --out my-step.npz" in npusim("trace", "capture").out


def test_a_script_is_captured(npusim, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "helper.py").write_text("SIZE = 2\n")
    (tmp_path / "train.py").write_text(SCRIPT)
    result = npusim("trace", "capture", tmp_path / "train.py", "--out", tmp_path / "a.npz", "--", "3")
    assert result.code == 0, result.err
    step = trace.read(tmp_path / "a.npz")
    assert step.name == "train" and step.ops[0].dims.n == 3 and set(step.update_masks) == {"0.weight"}
    assert result.out.startswith(f"train: {len(step.ops)} operations")


@pytest.mark.parametrize("old, new, words", [
    ("def step", "def other", "step is not defined; `npusim trace capture` shows"),
    ("size = int", "model = 1\nsize = int", "model is not a torch.nn.Module"),
    ("grad_masks = {", "grad_masks = 1 or {", "grad_masks is not a dict"),
    ("import helper", "import nothelper", "train.py:4: ModuleNotFoundError"),
    ("36 * 4", "7", "train.py:14: RuntimeError"),
    ("def step():", "def step(:", "train.py:12: SyntaxError"),
    ("size = int", "sys.exit(3)\nsize = int", "left by exit(3)"),
    ("4, 3, 3, 3)}", "4, 3, 3)}", "'0.weight' has shape (4, 3, 3)"),
])  # fmt: skip
def test_scripts_that_cannot_be_captured(npusim, tmp_path, old, new, words):
    pytest.importorskip("torch")
    (tmp_path / "helper.py").write_text("SIZE = 2\n")
    (tmp_path / "train.py").write_text(SCRIPT.replace(old, new))
    result = npusim("trace", "capture", tmp_path / "train.py", "--out", tmp_path / "a.npz")
    assert result.code == 2 and words in result.err and "Traceback" not in result.err
    assert not (tmp_path / "a.npz").exists()


def test_without_torch_there_is_a_message(npusim, tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest))
    script = tmp_path / "train.py"
    script.write_text("class Model:\n    def named_parameters(self): return []\nmodel = Model()\ndef step(): pass\n")
    result = npusim("trace", "capture", script, "--out", tmp_path / "a.npz")
    assert result.code == 2 and 'pip install "npusim[torch]"' in result.err
    assert npusim("trace", "capture", script).code == 2
    assert "no such script" in npusim("trace", "capture", tmp_path / "none.py", "--out", tmp_path / "a.npz").err
