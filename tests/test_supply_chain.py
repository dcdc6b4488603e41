"""The lock file pins and hashes everything; a wheel built twice is the same file."""

import hashlib
import re
import tomllib
from pathlib import Path

import wheels

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


def test_a_wheel_built_twice_is_the_same_file(tmp_path, monkeypatch):
    """Other folders, other file times, another hash seed; one SOURCE_DATE_EPOCH, one umask (file modes are in it)."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    digests = set()
    for number in (1, 2):
        monkeypatch.setenv("PYTHONHASHSEED", str(number))
        folder = tmp_path / f"copy{number}"
        folder.mkdir()
        digests.add(hashlib.sha256(wheels.build(folder, number * 10**8).read_bytes()).hexdigest())
    assert len(digests) == 1
