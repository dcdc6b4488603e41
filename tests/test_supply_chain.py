"""The lock file pins and hashes everything; a wheel built twice is the same file."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements-dev.lock"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, list[str]]:
    """Pinned names -> hashes."""
    found: dict[str, list[str]] = {}
    for line in LOCK.read_text().splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)", line):
            found[canonical(match[1])] = []
            current = canonical(match[1])
        found.setdefault(current, []).extend(re.findall(r"sha256:[0-9a-f]{64}", line)) if "--hash" in line else None
    return found


def test_every_dependency_is_pinned_and_hashed():
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {canonical(re.match(r"[A-Za-z0-9._-]+", text)[0]) for text in wanted}
    found = locked()
    assert names <= set(found), f"make lock: {sorted(names - set(found))}"
    assert all(found.values())


def test_the_lock_file_names_no_place():
    text = LOCK.read_text()
    assert "://" not in text and "index-url" not in text and "find-links" not in text


def wheel(folder: Path, stamp: int) -> Path:
    """The wheel of a copy of the sources in `folder`, all files of the time `stamp`."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pyc")
    for name in ("npusim", "dataflows", "workloads"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    for path in folder.rglob("*"):
        os.utime(path, (stamp, stamp))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", "out", "."]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    (path,) = (folder / "out").glob("*.whl")
    return path


def test_a_wheel_built_twice_is_the_same_file(tmp_path, monkeypatch):
    """Other folders, other file times, another hash seed; one SOURCE_DATE_EPOCH, one umask (file modes are in it)."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    digests = set()
    for number in (1, 2):
        monkeypatch.setenv("PYTHONHASHSEED", str(number))
        folder = tmp_path / f"copy{number}"
        folder.mkdir()
        digests.add(hashlib.sha256(wheel(folder, number * 10**8).read_bytes()).hexdigest())
    assert len(digests) == 1
