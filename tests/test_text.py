"""Untrusted text, numbers for people, and files that appear whole."""

import os
import stat

import pytest
from steps import HOSTILE

from npusim import atomic, text
from npusim.errors import NpusimError


def test_clean_escapes_what_no_reader_can_see():
    assert text.clean("a\x00b\x1b[0m\x7f\u202e\u2028\ud800\n") == "a\\x00b\\x1b[0m\\x7f\\u202e\\u2028\\ud800\\n"
    assert text.clean("a\nb\t", keep="\n") == "a\nb\\t"
    assert text.clean("Größe 日本語 ✓") == "Größe 日本語 ✓"


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1"])
def test_csv_cells_are_no_formulas(start):
    assert not text.csv_cell(start).startswith(("=", "+", "-", "@", " =", "\t"))
    assert text.csv_cell("conv=1") == "conv=1"


@pytest.mark.parametrize(
    "shown, expected",
    [
        (text.joules(0), "0 pJ"),
        (text.joules(7), "7 pJ"),
        (text.joules(16.42), "16.4 pJ"),
        (text.joules(999.4), "999 pJ"),
        (text.joules(999.6), "1.00 nJ"),
        (text.joules(1.2345e9), "1.23 mJ"),
        (text.joules(5e18), "5000 kJ"),
        (text.size(1023), "1023 B"),
        (text.size(1024), "1.00 KiB"),
        (text.size(1.5 * 2**20), "1.50 MiB"),
        (text.count(999), "999"),
        (text.count(1_819_000_000), "1.82 G"),
        (text.three_digits(24), "24.0"),
        (text.three_digits(9.996), "10.0"),
        (text.three_digits(0), "0"),
        (text.three_digits(0.5841), "0.584"),
        (text.three_digits(1234.5), "1234"),
        (text.percent(0.1234), "12.3 %"),
        (text.times(1.519), "1.52x"),
        (text.times(123.4), "123x"),
    ],
)
def test_numbers_for_people(shown, expected):
    assert shown == expected


def test_files_are_replaced_and_others_stay(tmp_path):
    (tmp_path / "old.txt").write_text("old")
    (tmp_path / "other.txt").write_text("other")
    atomic.write_files(tmp_path, {"old.txt": "new", "picture.png": b"\x00\xff"})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        "old.txt": b"new",
        "other.txt": b"other",
        "picture.png": b"\x00\xff",
    }
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "old.txt").stat().st_mode) == 0o666 & ~mask


def test_a_failure_while_writing_changes_nothing(tmp_path, monkeypatch):
    atomic.write(tmp_path / "a", "old")
    written = []

    def full(handle):
        written.append(handle)
        if len(written) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        atomic.write_files(tmp_path, {"a": "new", "b": "new"})
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old"}


def test_a_folder_below_a_file_is_refused_before_anything_is_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NpusimError) as error:
        atomic.check(tmp_path / "file" / "sub" / "folder")
    assert str(error.value) == f"cannot write to {tmp_path}/file/sub/folder: {tmp_path}/file is not a folder"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(NpusimError, match="no permission to write"):
        atomic.check(tmp_path / "new")


def test_the_hostile_name_is_harmless():
    assert "\x1b" not in text.clean(HOSTILE) and "\u202e" not in text.clean(HOSTILE)
