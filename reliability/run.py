"""Long reliability runs; the tests run the same code in a short form.

python reliability/run.py model --cases 20000 --seed 1

Results and what is needed to go on lie in reliability/work; `page` takes them into reliability/results and the page.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORK = HERE / "work"
sys.path.insert(0, str(HERE.parent))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    model = commands.add_parser("model", help="random steps, machines, dataflows and methods against the laws")
    model.add_argument("--cases", type=int, default=20_000)
    model.add_argument("--seed", type=int, default=1)
    model.add_argument("--seconds", type=float, default=1e9, help="stop after so long; run again to go on")
    model.add_argument("--again", action="store_true", help="try cases again that failed before something was mended")
    model.add_argument("--out", type=Path, default=WORK / "model.csv")
    fuzz = commands.add_parser("fuzz", help="atheris (libFuzzer) on every reader of files and options")
    fuzz.add_argument("--targets", default="all", help="names with commas between")
    fuzz.add_argument("--seconds", type=int, default=600, help="for each target")
    fuzz.add_argument("--folder", type=Path, default=WORK / "fuzz", help="corpora and what was found")
    fuzz.add_argument("--out", type=Path, default=WORK / "fuzz.csv")
    faults = commands.add_parser("faults", help="kill -9 while run, report, trace and sweep write")
    faults.add_argument("--works", default="trace,run,report,sweep", help="names with commas between")
    faults.add_argument("--kills", type=int, default=100, help="of each kind of work")
    faults.add_argument("--seed", type=int, default=1)
    faults.add_argument("--folder", type=Path, default=WORK / "faults")
    faults.add_argument("--out", type=Path, default=WORK / "faults.json")
    large = commands.add_parser("large", help="seconds and memory of long and large inputs")
    large.add_argument("--short", action="store_true", help="small sizes, to see that it works")
    large.add_argument("--out", type=Path, default=WORK / "large.json")
    kept = commands.add_parser("kept", help="the worst cases of `model` with the mapping that they had before")
    kept.add_argument("--model", type=Path, default=WORK / "model.csv", help="rows of `model`")
    kept.add_argument("--out", type=Path, default=WORK / "kept.json")
    pages = commands.add_parser("page", help="docs/reliability.md from the results")
    pages.add_argument("--work", type=Path, default=WORK, help="folder of new results, if there are any")
    given = parser.parse_args()
    if given.command == "model":
        from reliability import model as cases

        if given.again and given.out.exists():
            print(f"{cases.move_failed(given.out)} cases are tried again")
        left = cases.run(given.out, given.seed, given.cases, given.seconds)
        print(f"{left} of {given.cases} cases are left")
        return 3 if left else 0
    if given.command == "fuzz":
        from reliability import fuzz_runs

        crashes = fuzz_runs.run(fuzz_runs.names(given.targets), given.seconds, given.folder.resolve(), given.out)
        print(f"{crashes} inputs found that break something")
        return 1 if crashes else 0
    if given.command == "page":
        from reliability import page

        page.write(given.work)
    if given.command == "kept":
        from reliability import kept as mappings

        if not given.out.exists() or given.out.stat().st_mtime < given.model.stat().st_mtime:
            mappings.run(given.model, given.out)
    if given.command == "large":
        from reliability import large as sizes

        sizes.run(given.out, given.short)
    if given.command == "faults":
        from reliability import faults as kills

        return 1 if kills.run(given.works.split(","), given.kills, given.seed, given.folder.resolve(), given.out) else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
