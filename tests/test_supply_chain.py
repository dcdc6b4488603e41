"""The lock file pins and hashes everything; the audit claims what it looked up; a wheel built twice is the same."""

import hashlib
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import requests
import wheels

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements-dev.lock"
sys.path.insert(0, str(ROOT))


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


def pinned() -> set[str]:
    """Of the lock file, for every Python and system, and of the extra `torch`."""
    extra = re.findall(r'"(torch==[^"]+)"', (ROOT / "pyproject.toml").read_text())
    return {*re.findall(r"^[\w.-]+==[^\s;]+", LOCK.read_text(), re.MULTILINE), *extra}


def explained() -> set[str]:
    with (ROOT / "reliability" / "not_looked_up.toml").open("rb") as file:
        return set(tomllib.load(file)["pins"])


WEAKNESS = {"id": "PYSEC-1", "aliases": ["CVE-1"], "details": "bad", "fixed_in": [], "withdrawn": None}


class Index:
    """An index of packages that has no page of a version; `pages` overrules pages by the end of their address."""

    def __init__(self):
        self.latest = dict(pin.split("==") for pin in sorted(pinned() - explained()))
        self.pages = {}

    def page(self, version, *weaknesses, **fields):
        return {"info": {"version": version}, "vulnerabilities": list(weaknesses), **fields}

    def get(self, url, timeout):
        *_, name, last = url.removesuffix("/json").split("/")
        answer = requests.Response()
        found = self.pages.get(f"{name}/{last}", self.pages.get(last) if name == "pypi" else None)
        if found is None and name == "pypi":
            found = self.page(self.latest.get(last, "99"))
        answer.status_code = found if isinstance(found, int) else 404 if found is None else 200
        answer._content = json.dumps(found).encode()
        return answer


@pytest.fixture
def audit(monkeypatch, capsys):
    """The audit of the real lock file against an index: whether it passed, and its lines."""
    import pip_audit._service.pypi

    from reliability import audit

    def call(index):
        monkeypatch.setattr(pip_audit._service.pypi, "caching_session", lambda *_: index)
        failed = audit.main()
        return not failed, [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    return call


def test_the_audit_takes_the_page_of_a_package_for_its_latest_version_alone(audit):
    """Pins of every Python are asked for; those of which nothing is found out are exactly the explained ones."""
    passed, lines = audit(Index())
    assert passed
    total, older = len(pinned()), len(explained())
    assert f"{total - older} of {total} pinned versions looked up, 0 with known weaknesses." in lines
    assert f"{older} not looked up, 0 of them without an explanation." in lines
    assert {f"{line.split()[0]}=={line.split()[1][:-1]}" for line in lines[2 : 2 + older]} == explained()


def test_explanations_are_of_pins():
    assert explained() <= pinned()


@pytest.mark.parametrize("page", ["other version", "says nothing of weaknesses", "no page"])
def test_a_pin_that_was_not_looked_up_fails_the_audit(audit, page):
    index = Index()
    version = index.latest["click"]
    index.pages["click"] = {
        "other version": index.page("99"),
        "says nothing of weaknesses": {"info": {"version": version}},
        "no page": 404,
    }[page]
    passed, lines = audit(index)
    assert not passed
    assert f"{len(explained()) + 1} not looked up, 1 of them without an explanation." in lines
    assert any(line.startswith(f"click {version}: ") for line in lines)


def test_a_weakness_fails_the_audit(audit):
    index = Index()
    version = index.latest["click"]
    index.pages["click"] = index.page(version, WEAKNESS, WEAKNESS | {"id": "GHSA-1", "withdrawn": "2026-01-01"})
    passed, lines = audit(index)
    assert not passed and f"click {version} PYSEC-1 CVE-1" in lines and not any("GHSA-1" in line for line in lines)


def test_the_page_of_a_version_counts_more_than_that_of_the_package(audit):
    index = Index()
    version = index.latest["click"]
    index.pages[f"click/{version}"] = index.page(version, WEAKNESS)
    passed, lines = audit(index)
    assert not passed and f"click {version} PYSEC-1 CVE-1" in lines


def test_an_explained_pin_is_looked_up_where_it_can_be(audit):
    index = Index()
    pin = min(explained())
    index.pages[pin.replace("==", "/")] = index.page(pin.split("==")[1])
    passed, lines = audit(index)
    assert passed and f"{len(explained()) - 1} not looked up, 0 of them without an explanation." in lines


def test_an_index_out_of_order_ends_the_audit(audit):
    from pip_audit._service.interface import ServiceError

    index = Index()
    index.pages["click"] = 500
    with pytest.raises(ServiceError):
        audit(index)


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
