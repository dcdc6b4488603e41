"""Known weaknesses of every pinned version, looked up by the code of pip-audit.

python reliability/audit.py

Fails on a known weakness, and on a pin that was not looked up, save those that not_looked_up.toml explains. pip-audit
asks an index for the page of a version. Some have only the page of a package; it tells about the latest version alone.
"""

from __future__ import annotations

import re
import sys
import tomllib
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import Version
from pip_audit._audit import Auditor
from pip_audit._dependency_source import RequirementSource
from pip_audit._format import ColumnsFormat
from pip_audit._service import PyPIService, ResolvedDependency, SkippedDependency

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent


class Pins(RequirementSource):
    """The lock file, for every Python and system (pip-audit takes those of the one it runs on), and pinned extras."""

    def _collect_preresolved_deps(self, reqs: Iterator[Any], require_hashes: bool) -> Iterator[Any]:
        for req in reqs:
            req.marker = None
            yield from super()._collect_preresolved_deps(iter([req]), require_hashes)

    def collect(self) -> Iterator[Any]:
        yield from super().collect()
        project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
        for text in chain(*project["optional-dependencies"].values()):
            if pin := re.fullmatch(r"([\w.-]+)==([^\s;]+)", text):
                yield ResolvedDependency(pin[1], Version(pin[2]))


class PackagePages:
    """A session that answers with the page of the package if the version has none, is the latest, and is told about."""

    def __init__(self, session: Any) -> None:
        self.session = session

    def get(self, url: str, timeout: int | None) -> Any:
        answer = self.session.get(url=url, timeout=timeout)
        if answer.status_code != 404:
            return answer
        package, version, page = url.rsplit("/", 2)
        latest = self.session.get(url=f"{package}/{page}", timeout=timeout)
        if not latest.ok:
            return latest
        told = latest.json()
        return latest if Version(told["info"]["version"]) == Version(version) and "vulnerabilities" in told else answer


def main() -> int:
    pins = Pins([HERE.parent / "requirements-dev.lock"], require_hashes=True, disable_pip=True)
    service = PyPIService(timeout=60)
    service.session = PackagePages(service.session)
    explained = tomllib.loads((HERE / "not_looked_up.toml").read_text())["pins"]
    found, skipped = {}, []
    for pin, (looked_up, weaknesses) in zip(pins.collect(), Auditor(service).audit(pins), strict=True):
        if looked_up.is_skipped():
            skipped.append(f"{pin.canonical_name}=={pin.version}")
            reason = explained.get(skipped[-1], looked_up.skip_reason)
            looked_up = SkippedDependency(pin.name, f"{pin.version}: {reason}")
        found[looked_up] = weaknesses
    print(ColumnsFormat(output_desc=False, output_aliases=True).format(found, []))
    weak, unexplained = sum(map(bool, found.values())), len(set(skipped) - set(explained))
    print(f"{len(found) - len(skipped)} of {len(found)} pinned versions looked up, {weak} with known weaknesses.")
    print(f"{len(skipped)} not looked up, {unexplained} of them without an explanation.")
    return 1 if weak or unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
