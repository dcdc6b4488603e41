import sys
from pathlib import Path
from typing import NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).parent))


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def npusim(monkeypatch, capsys):
    """Run the command line in this process."""
    from npusim.cli import main

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["npusim", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return Result(stopped.value.code or 0, captured.out, captured.err)

    return call
