"""Trace files: round trips, equal bytes, and every way a file can be wrong."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trace_steps import small_step

from npusim import trace
from npusim.errors import TraceError
from npusim.graph import StepGraph
from npusim.masks import Mask


@pytest.fixture
def good(tmp_path) -> Path:
    trace.write(small_step(), tmp_path / "good.npz")
    return tmp_path / "good.npz"


def members(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path, parts, compression=zipfile.ZIP_DEFLATED) -> Path:
    """A zip of (name, bytes) pairs, names as they come."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items() if isinstance(parts, dict) else parts:
            archive.writestr(name, data)
    return path


def with_manifest(path, change) -> Path:
    """The file with its manifest changed by `change(value)`, which may return other text."""
    parts = members(path)
    value = json.loads(parts["manifest.json"])
    text = change(value)
    parts["manifest.json"] = (text if isinstance(text, str) else json.dumps(value)).encode()
    return rewrite(path, parts)


def message(path) -> str:
    with pytest.raises(TraceError) as caught:
        trace.read(path)
    text = str(caught.value)
    assert str(path) in text and "Traceback" not in text and len(text) < 1000
    return text


def test_round_trip_keeps_everything(good):
    step, again = small_step(), trace.read(good)
    assert again.ops == step.ops and dict(again.tensors) == dict(step.tensors)
    assert dict(again.meta) == dict(step.meta) and again.digest() == step.digest()
    for group in ("task_masks", "update_masks", "observed"):
        assert dict(getattr(again, group)) == dict(getattr(step, group))
    assert not next(iter(again.task_masks.values())).packed.flags.writeable


def test_equal_steps_give_equal_bytes_and_numpy_reads_the_masks(good, tmp_path):
    trace.write(trace.read(good), tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == good.read_bytes()
    with np.load(good, allow_pickle=False) as archive:
        stored = [name for name in archive.files if name.startswith("masks/")]
        assert all(archive[name].dtype == np.uint8 for name in stored) and len(stored) == 3


def test_equal_masks_are_stored_once(tmp_path):
    step = small_step()
    mask = step.task_masks["c.weight"]
    trace.write(StepGraph("s", step.ops, step.tensors, {"c.weight": mask}, {"c.weight": mask}), tmp_path / "s.npz")
    assert len(members(tmp_path / "s.npz")) == 2
    assert trace.read(tmp_path / "s.npz").update_masks["c.weight"] == mask


def test_a_failed_write_leaves_the_old_file(good):
    before = good.read_bytes()
    for meta, words in (
        ({"x": float("nan")}, "JSON"),
        ({"x": object()}, "JSON"),
        ({"x": 2**70}, "64 bits"),
        ({"a\x1b": 1}, "printable"),
    ):
        with pytest.raises(TraceError, match=words):
            trace.write(small_step(meta), good)
    step = small_step()
    with pytest.raises(TraceError, match="no convolution"):
        trace.write(StepGraph("s", step.ops, step.tensors, {"d.weight": Mask.of(np.ones((4, 3, 3, 3)))}), good)
    assert good.read_bytes() == before and os.listdir(good.parent) == [good.name]


def test_files_that_are_no_zip(tmp_path):
    assert "no such file" in message(tmp_path / "none.npz")
    for content in (b"", b"PK", b"\x93NUMPY" + b"\0" * 100, pickle.dumps([1]), b"\0" * 70_000):
        (tmp_path / "x.npz").write_bytes(content)
        assert "not a readable trace file" in message(tmp_path / "x.npz")
    (tmp_path / "folder").mkdir()
    message(tmp_path / "folder")


def test_truncation_anywhere_is_an_error(good):
    data = good.read_bytes()
    for cut in range(0, len(data), 41):
        good.write_bytes(data[:cut])
        message(good)


@pytest.mark.parametrize("name", [
    "../evil.npy", "/etc/passwd", "masks/../../x.npy", "masks\\0.npy", "masks/0.npy/", "masks/00.npy", "masks/a.npy",
    "readme.txt", "masks/0.npz", "masks/9999999.npy", "masks/0.npy\x1b[2J",
])  # fmt: skip
def test_unknown_members_and_path_traversal(good, name):
    rewrite(good, [*members(good).items(), (name, b"x")])
    text = message(good)
    assert "only manifest.json and masks/<number>.npy are" in text and "\x1b" not in text


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_members(good):
    parts = members(good)
    rewrite(good, [*parts.items(), ("masks/0.npy", parts["masks/0.npy"])])
    assert "'masks/0.npy' appears twice" in message(good)


def test_symlinks_encryption_and_other_compressions(good):
    parts = members(good)
    with zipfile.ZipFile(good, "w") as archive:
        info = zipfile.ZipInfo("manifest.json")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, parts["manifest.json"])
    assert "not a regular file" in message(good)
    rewrite(good, parts, zipfile.ZIP_LZMA)
    assert "stored and deflate are allowed" in message(good)
    rewrite(good, parts, zipfile.ZIP_STORED)
    data = bytearray(good.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    good.write_bytes(data)
    assert "is encrypted" in message(good)


def test_zip_bombs_are_refused_before_anything_is_inflated(good, monkeypatch):
    parts = members(good)
    with zipfile.ZipFile(good, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", parts["manifest.json"])
        with archive.open("masks/0.npy", "w", force_zip64=True) as stream:
            for _ in range(300):
                stream.write(bytes(2**20))
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    assert f"at most {2**28} are allowed" in message(good)


def test_a_directory_that_lies_about_sizes(good):
    rewrite(good, members(good), zipfile.ZIP_STORED)
    data = bytearray(good.read_bytes())
    entry = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, entry + 24, 2**26)
    good.write_bytes(data)
    assert "to 67108864 bytes, at most 1100 times is allowed" in message(good)
    struct.pack_into("<I", data, entry + 24, 10)
    good.write_bytes(data)
    message(good)


def test_too_many_members_and_bytes(good, monkeypatch):
    monkeypatch.setattr("npusim.trace.format.MAX_MEMBERS", 3)
    assert "at most 3" in message(good)
    monkeypatch.setattr("npusim.trace.format.MAX_MEMBERS", 10)
    monkeypatch.setattr("npusim.trace.format.MAX_TOTAL_BYTES", 1000)
    assert "at most 1000" in message(good)
    monkeypatch.setattr("npusim.trace.format.MAX_FILE_BYTES", 100)
    assert "at most 100" in message(good)


def test_a_directory_of_millions_of_entries_is_not_even_listed(good):
    data = bytearray(good.read_bytes())
    good.write_bytes(data + b"x")
    assert "does not end with the directory" in message(good)
    good.write_bytes(data[:-22] + b"PK\x06\x07" + bytes(16) + data[-22:])
    assert "64-bit" in message(good)
    struct.pack_into("<I", data, len(data) - 10, 2**23)
    good.write_bytes(data)
    assert f"at most {2**22} are allowed" in message(good)


def test_pipes_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    assert "not a regular file" in message(tmp_path / "pipe.npz")


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def test_members_that_are_no_mask(good):
    parts = members(good)
    # 4*3*3*3 = 108 bits are 14 bytes behind a header of 128.
    assert len(parts["masks/0.npy"]) == 128 + 14
    for bad in (
        npy(np.array([{"a": 1}], object)),
        npy(np.zeros(14, np.int8)),
        npy(np.zeros((2, 7), np.uint8)),
        b"",
        b"x" * 142,
    ):
        rewrite(good, {**parts, "masks/0.npy": bad})
        assert "masks/0.npy" in message(good)
    flipped = bytearray(parts["masks/0.npy"])
    flipped[130] ^= 4
    rewrite(good, {**parts, "masks/0.npy": bytes(flipped)})
    assert "digest" in message(good)
    flipped = bytearray(parts["masks/0.npy"])
    flipped[-1] |= 1
    rewrite(good, {**parts, "masks/0.npy": bytes(flipped)})
    assert "behind the end" in message(good)


def test_missing_and_unlisted_masks(good):
    parts = members(good)
    rewrite(good, {name: data for name, data in parts.items() if name != "masks/1.npy"})
    assert "'masks/1.npy' is missing" in message(good)
    rewrite(good, {**parts, "masks/7.npy": parts["masks/0.npy"]})
    assert "'masks/7.npy' is not listed" in message(good)


def change(path, value):
    """A manifest change that puts `value` at a path of keys."""

    def apply(manifest):
        *front, last = path
        for key in front:
            manifest = manifest[key]
        manifest[last] = value

    return apply


MASK = ("masks", "task_masks", "c.weight")
WRONG = [
    (change(("schema",), 2), "schema: is 2"),
    (change(("ops", 0, "dims", "groups"), 2), "computes|does not divide"),
    (change(("ops", 1, "dims", "c"), 2**39), "more than 2^62|parameter has"),
    (change(("schema",), True), "schema: is True"),
    (change(("extra",), 1), "unknown key 'extra'"),
    (lambda m: m.pop("ops") and None, "lacks ops"),
    (change(("ops",), {}), "ops: must be a list"),
    (change(("ops", 0, "dims", "n"), True), r"ops[0].dims.n: is True; an integer"),
    (change(("ops", 0, "dims", "n"), 1.0), r"ops[0].dims.n: is 1.0"),
    (change(("ops", 0, "dims", "n"), -1), r"ops[0].dims.n: is -1"),
    (change(("ops", 0, "dims", "n"), 2**41), r"ops[0].dims.n"),
    (change(("ops", 0, "dims", "n"), 0), "computes|n = 0 is outside"),
    (change(("ops", 0, "dims", "k"), 2**40), "computes"),
    (change(("ops", 0, "dims", "stride"), [0, 1]), "stride and groups"),
    (change(("ops", 0, "dims", "stride"), [1]), "must be two integers"),
    (change(("ops", 0, "dims", "type"), "tensor"), "dims.type: is 'tensor'"),
    (change(("ops", 0, "dims", "type"), ["conv"]), "dims.type: is list"),
    (change(("ops", 0, "kind"), "magic"), "unknown kind 'magic'"),
    (change(("ops", 0, "phase"), "sleep"), "unknown phase 'sleep'"),
    (change(("ops", 0, "inputs"), ["nowhere"]), "unknown tensor 'nowhere'"),
    (change(("ops", 0, "name"), "a\x1b[31m"), "ops[0].name: is 'a\\x1b[31m'"),
    (change(("ops", 0, "name"), "safe\u202etxe"), "printable"),
    (change(("ops", 0, "name"), "a" * 301), "at most 300 characters"),
    (change(("ops", 0, "name"), ""), "printable name"),
    (change(("ops", 0, "name"), None), "is None"),
    (change(("tensors", 0, "kind"), "magic"), "tensors[0].kind"),
    (change(("tensors", 0, "shape"), [2**40, 2**40]), "above 2^62"),
    (change(("tensors", 0, "shape"), [1] * 9), "at most 8"),
    (change(("tensors", 0, "dtype"), "O"), "tensors[0].dtype"),
    (change(("tensors", 0, "grad_of"), "nothing"), "unknown tensor 'nothing'"),
    (change(("tensors", 1, "name"), "x"), "appears twice"),
    (change((*MASK, "shape"), [3, 4, 3, 3]), "digest|has shape"),
    (change((*MASK, "shape"), [2**20, 2**20]), "takes"),
    (change((*MASK, "shape"), [4, 3, 3]), "takes|digest|shape"),
    (change((*MASK, "sha256"), "0" * 64), "digest"),
    (change((*MASK, "sha256"), "xyz"), "64 hexadecimal"),
    (change((*MASK, "member"), "../x"), "'../x' is missing"),
    (change(("masks", "update_masks", "zzz"), {"shape": [], "sha256": "0" * 64, "member": "masks/0.npy"}), "takes"),
    (change(("masks", "more"), {}), "unknown key 'more'"),
    (change(("masks", "observed"), []), "must be an object"),
    (change(("meta",), []), "meta: must be an object"),
    (change(("meta", "x"), "y" * 20_001), "at most 20000"),
    (lambda m: '{"schema": 1, "schema": 1}', "a key appears twice"),
    (lambda m: '{"schema": NaN}', "NaN is not allowed"),
    (lambda m: '{"schema": 1e999}', "not finite"),
    (lambda m: '{"schema": ' + "9" * 5000 + "}", "64 bits"),
    (lambda m: "[" * 100_000, "nested too deeply|not valid JSON"),
    (lambda m: '{"schema": 1', "not valid JSON"),
    (lambda m: "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "not valid JSON"),
    (lambda m: "null", "manifest: must be an object"),
]


@pytest.mark.parametrize("how, words", WRONG, ids=range(len(WRONG)))
def test_wrong_manifests(good, how, words):
    with_manifest(good, how)
    text = message(good)
    assert any(word in text for word in words.split("|")), text


def test_deep_meta(good):
    deep: list = []
    for _ in range(50):
        deep = [deep]
    with_manifest(good, change(("meta", "x"), deep))
    assert "levels" in message(good)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 7)), min_size=1, max_size=4))
def test_flipped_bits_give_success_or_one_error(good, flips):
    data = bytearray(good.read_bytes())
    for position, bit in flips:
        data[position % len(data)] ^= 1 << bit
    path = good.with_name("flipped.npz")
    path.write_bytes(data)
    try:
        step = trace.read(path)
    except TraceError as error:
        assert str(path) in str(error)
    else:
        assert step.ops == small_step().ops


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)


def _nested(part):
    return st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.recursive(LEAVES, _nested, max_leaves=5), st.integers(0, 10**6))
def test_any_value_anywhere_in_the_manifest(good, value, where):
    parts = members(good)
    manifest = json.loads(parts["manifest.json"])
    spots = list(_spots(manifest))
    place, key = spots[where % len(spots)]
    place[key] = value
    path = rewrite(good.with_name("changed.npz"), {**parts, "manifest.json": json.dumps(manifest).encode()})
    try:
        trace.read(path)
    except TraceError as error:
        assert str(path) in str(error)


def _spots(value):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in list(items):
        yield value, key
        if isinstance(part, (dict, list)):
            yield from _spots(part)
