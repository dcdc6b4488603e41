"""Whatever bytes a reader gets: it succeeds, or raises one NpusimError that names the file."""

import random
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reliability import mutation
from reliability.targets import TARGETS

NAMES = list(TARGETS)
# Fewer examples of what takes tens of milliseconds: tables, simulated rows.
EXAMPLES = {"results": 6, "dram-files": 6, "measurements": 10, "command-line": 30, "store": 30}


def tried(name, strategy, check, most=60):
    """`check` with examples of `strategy`: as many as are quick, the same ones in every run."""
    quick = settings(
        max_examples=min(most, EXAMPLES.get(name, most)), deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    quick(given(strategy)(check))()


CHOICES = st.randoms(use_true_random=False)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_are_read(name):
    target = TARGETS[name]
    seeds = list(target.seeds())
    assert seeds
    accepted = [target.consume(seed) for seed in seeds]
    assert "ok" in accepted


@pytest.mark.parametrize("name", NAMES)
def test_found_inputs_stay_harmless(name):
    for path in TARGETS[name].corpus():
        assert TARGETS[name].consume(path.read_bytes()) in ("ok", "refused"), path


@pytest.mark.parametrize("name", NAMES)
def test_any_bytes(name):
    def check(data):
        TARGETS[name].consume(data)

    tried(name, st.binary(max_size=400), check)


@pytest.mark.parametrize("name", NAMES)
def test_broken_seeds(name):
    """A few cuts, repetitions, changed characters and words of the format in a good input."""
    target = TARGETS[name]

    def check(choice):
        data = bytearray(choice.choice(list(target.seeds())))
        for _ in range(choice.randint(1, 4)):
            mutate(data, choice, target.tokens)
        target.consume(bytes(data))

    tried(name, CHOICES, check)


def mutate(data: bytearray, choice: random.Random, tokens) -> None:
    start = choice.randint(0, len(data))
    end = min(len(data), start + choice.randint(0, 12))
    match choice.randint(0, 5):
        case 0:
            del data[start:end]
        case 1:
            data[start:start] = data[start:end] * choice.randint(1, 3)
        case 2:
            data[start:end] = bytes(choice.randint(0, 255) for _ in range(end - start))
        case 3:
            data[start:end] = choice.choice(tokens).encode()
        case 4:
            data[start:end] = choice.choice((b"-1", b"0", b"9" * 30, b"1e999", b"nan", b"\xff\xfe", "\u202e".encode()))
        case 5:
            del data[start:]


NUMBERS = ("0", "-1", "0.5", "1e308", "nan", "inf", "9" * 5000, str(2**63), str(2**40), str(2**31))
TEXTS = {
    name: [seed for seed in target.seeds() if not seed.startswith((b"PK", b"SQLite"))]
    for name, target in TARGETS.items()
    if name != "onnx"
}


@pytest.mark.parametrize("name", list(TEXTS))
def test_numbers_of_any_size(name):
    """Every number of a good input may become any other: huge, negative, fractional, not finite."""

    def check(choice):
        text = choice.choice(TEXTS[name]).decode()
        found = list(re.finditer(r"-?\d+(\.\d+)?", text))
        for match in sorted(choice.sample(found, min(len(found), choice.randint(1, 3))), key=lambda m: -m.start()):
            text = text[: match.start()] + choice.choice(NUMBERS) + text[match.end() :]
        TARGETS[name].consume(text.encode())

    tried(name, CHOICES, check)


def nested(opening: str, closing: str, depth: int) -> bytes:
    return (opening * depth + closing * depth).encode()


@pytest.mark.parametrize("depth", [50, 5_000, 200_000])
@pytest.mark.parametrize("name", [n for n in NAMES if n != "command-line"])
def test_deep_nesting(name, depth):
    heads = {"dram-files": b"@@ input.tables\n", "results": b"@@ manifest.json\n"}
    prefix = heads.get(name, b"value = " if TARGETS[name].suffix == ".toml" else b"")
    for opening, closing in (("[", "]"), ("{a=", "}"), ('{"a":', "}"), ("[" * 2, "]" * 2)):
        assert TARGETS[name].consume(prefix + nested(opening, closing, depth)) == "refused"
    assert TARGETS[name].consume(heads.get(name, b"") + b"[" + b"a." * depth + b"a]\n") == "refused"


JSONS = [name for name, target in TARGETS.items() if target.suffix == ".json"]
CELLS = [name for name, target in TARGETS.items() if target.suffix in (".csv", ".tables")]


@pytest.mark.parametrize("name", JSONS)
def test_json_with_changed_parts(name):
    """Still JSON, with some of its parts removed, repeated, moved or replaced."""
    target = TARGETS[name]

    def check(choice):
        changed = mutation.mutated(choice.choice(list(target.seeds())), choice, target.tokens)
        if changed is not None:
            target.consume(changed)

    tried(name, CHOICES, check)


@pytest.mark.parametrize("name", CELLS)
def test_tables_with_changed_cells(name):
    """Still a table, with some cells, columns or rows changed."""
    target = TARGETS[name]

    def check(choice):
        target.consume(mutation.mutated_cells(choice.choice(list(target.seeds())), choice))

    tried(name, CHOICES, check)
