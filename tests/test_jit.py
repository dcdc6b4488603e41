"""Compiled kernels can never be stale: their folder is named by everything they depend on."""

import shutil
from pathlib import Path

from npusim import jit

PACKAGE = Path(jit.__file__).parent


def test_editing_any_kernel_names_another_folder(tmp_path):
    copy = tmp_path / "npusim"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert jit.sources_digest(copy) == jit.sources_digest(PACKAGE)
    kernels = sorted(path for path in copy.rglob("*.py") if "@njit" in path.read_text())
    assert len(kernels) >= 4
    seen = {jit.sources_digest(copy)}
    for path in [*kernels, copy / "program.py"]:
        path.write_text(path.read_text() + "\n# edited\n")
        digest = jit.sources_digest(copy)
        assert digest not in seen
        seen.add(digest)


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    jit.cache_folder.cache_clear()
    try:
        assert jit.cache_folder().parent == tmp_path / "npusim"
    finally:
        jit.cache_folder.cache_clear()


def test_every_kernel_file_uses_the_keyed_cache():
    wrong = [p.name for p in PACKAGE.rglob("*.py") if p.name != "jit.py" and "from numba import" in p.read_text()]
    assert wrong == []


def test_every_compiled_function_stands_in_a_file_that_names_the_cache():
    import importlib
    import pkgutil

    from numba.core.dispatcher import Dispatcher

    import npusim
    from npusim.jit import kernel_files

    known = {str(path) for path in kernel_files()}
    found = set()
    for module in pkgutil.walk_packages(npusim.__path__, "npusim."):
        if "_builtin" not in module.name and "__main__" not in module.name:
            values = vars(importlib.import_module(module.name)).values()
            found |= {value.py_func.__code__.co_filename for value in values if isinstance(value, Dispatcher)}
    assert len(found) > 8
    assert found <= known
