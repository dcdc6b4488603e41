"""The same numbers whatever the process, the hash seed, the folder or the compiler; never those of an old kernel."""

import ast
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import npusim

PACKAGE = Path(npusim.__file__).parent
ROOT = PACKAGE.parent

RESULTS = """
import hashlib, sys
from random import Random
sys.path.insert(0, sys.argv[1])
from reliability import cases
from npusim import method, program
from npusim.method_runs import _fitting, machine_of
from npusim.simulation import simulate
from reliability.laws import planned
digest = hashlib.sha256()
for number in (3, 40, 77, 120, 200, 333):
    case = cases.numbered(9, number)
    try:
        plan = planned(case)
    except method.MisfitError as error:
        digest.update(str(error).encode())
        continue
    for part in plan.parts:
        graph = part.step()
        if graph.ops:
            run = simulate(graph, machine_of(part, case.hardware), _fitting(graph, case.dataflow))
            digest.update(f"{graph.digest()} {program.digest(run.lowered.program)} {run.schedule.cycles}".encode())
            digest.update(run.schedule.end.tobytes() + run.lowered.counts.tobytes() + run.energy.pj.tobytes())
            digest.update(run.layers.to_csv().encode())
print(digest.hexdigest())
"""
VARIANTS = {
    "hash seed 0": {"PYTHONHASHSEED": "0"},
    "hash seed 4242": {"PYTHONHASHSEED": "4242"},
    "plain Python": {"NUMBA_DISABLE_JIT": "1"},
    "another locale and time zone": {"LC_ALL": "C", "TZ": "Pacific/Kiritimati", "PYTHONUTF8": "0"},
}


def test_results_do_not_depend_on_the_process(tmp_path):
    found = {}
    for number, (name, environment) in enumerate(VARIANTS.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", RESULTS, ROOT], capture_output=True, text=True, cwd=folder, timeout=300,
            env=os.environ | {"NUMBA_DISABLE_JIT": "0"} | environment,
        )  # fmt: skip
        assert done.returncode == 0, f"{name}: {done.stderr}"
        found[name] = done.stdout
    assert len(set(found.values())) == 1, found


EDITED = """
import sys
sys.path.insert(0, sys.argv[1])
import npusim, numpy as np
from npusim import engine, jit, program as tp
assert npusim.__file__.startswith(sys.argv[1]), npusim.__file__
z, s = np.zeros(2, np.int64), np.zeros(2, np.uint8)
p = tp.TileProgram(np.full(2, tp.COMPUTE, np.uint8), np.zeros(2, np.int32), np.array([3, 4]), z, z, s, s, z,
                   np.array([0, 0, 1]), np.array([0], np.int32))
print(engine.run(p, np.ones(5, np.int64)).end.tolist(), jit.cache_folder().name)
"""


def test_an_edited_kernel_is_never_run_from_the_cache(tmp_path):
    """A copy with one edited line, of the same size and time stamp, on a cache that the original filled, and back."""
    original, edited, cache = tmp_path / "one", tmp_path / "two", tmp_path / "cache"
    for folder in (original, edited):
        shutil.copytree(PACKAGE, folder / "npusim", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "dataflows", folder / "dataflows", ignore=shutil.ignore_patterns("__pycache__"))
    kernel = edited / "npusim" / "engine" / "_segment_kernels.py"
    stamp, before = kernel.stat(), kernel.read_text()
    assert "begin + cycles[task]\n" in before
    kernel.write_text(before.replace("begin + cycles[task]\n", "7 + 0 * cycles[task]\n"))
    os.utime(kernel, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert (kernel.stat().st_size, kernel.stat().st_mtime_ns) == (stamp.st_size, stamp.st_mtime_ns)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "NUMBA_DISABLE_JIT": "0", "PYTHONDONTWRITEBYTECODE": "1"}

    def answer(folder):
        done = subprocess.run(
            [sys.executable, "-c", EDITED, folder], capture_output=True, text=True, cwd=tmp_path, env=environment
        )
        assert done.returncode == 0, done.stderr
        ends, _, name = done.stdout.strip().rpartition(" ")
        return ends, name

    first = answer(original)
    second = answer(edited)
    assert first[0] == "[3, 7]" and second[0] == "[7, 7]"
    assert first[1] != second[1]
    assert answer(original) == first
    assert sorted(path.name for path in (cache / "npusim").iterdir()) == sorted((first[1], second[1]))


def imported(path: Path) -> set[str]:
    """npusim modules that a file imports at its top level, but for type checkers."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("npusim"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*kernels.py")) + sorted((PACKAGE / "engine").glob("_dram_*.py")),
                         ids=lambda path: path.name)  # fmt: skip
def test_kernels_take_constants_only_from_files_of_the_cache_key(path):
    """A constant is compiled into a kernel: the file that defines it must be part of the folder's name."""
    from npusim import jit

    for name in imported(path) - {"npusim", "npusim.engine", "npusim.validate", "npusim.mapping", "npusim.jit"}:
        file = PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py")
        if file.exists():
            assert file in jit.kernel_files(PACKAGE), f"{path.name} imports {name}"


def test_the_digest_of_sources_does_not_depend_on_the_folder(tmp_path):
    from npusim import jit

    shutil.copytree(PACKAGE, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("__pycache__"))
    assert jit.sources_digest(tmp_path / "elsewhere") == jit.sources_digest(PACKAGE)
    assert len(jit.sources_digest()) == len(hashlib.sha256().hexdigest())
