"""Whatever bytes a reader gets: it succeeds, or raises one NpusimError that names the file."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reliability.targets import TARGETS

NAMES = list(TARGETS)
QUICK = settings(max_examples=60, deadline=5000, derandomize=True, suppress_health_check=list(HealthCheck))


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
@QUICK
@given(data=st.binary(max_size=400))
def test_any_bytes(name, data):
    TARGETS[name].consume(data)


@pytest.mark.parametrize("name", NAMES)
@QUICK
@given(choice=st.randoms(use_true_random=False))
def test_broken_seeds(name, choice):
    """A few cuts, repetitions, changed characters and words of the format in a good input."""
    target = TARGETS[name]
    data = bytearray(choice.choice(list(target.seeds())))
    for _ in range(choice.randint(1, 4)):
        mutate(data, choice, target.tokens)
    target.consume(bytes(data))


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


TEXTS = {
    name: [seed for seed in target.seeds() if not seed.startswith(b"PK")]
    for name, target in TARGETS.items()
    if name != "onnx"
}


@pytest.mark.parametrize("name", list(TEXTS))
@QUICK
@given(choice=st.randoms(use_true_random=False))
def test_numbers_of_any_size(name, choice):
    """Every number of a good input may become any other: huge, negative, fractional, not finite."""
    import re

    text = choice.choice(TEXTS[name]).decode()
    found = list(re.finditer(r"-?\d+(\.\d+)?", text))
    for match in sorted(choice.sample(found, min(len(found), choice.randint(1, 3))), key=lambda m: -m.start()):
        new = choice.choice(("0", "-1", "0.5", "1e308", "nan", "inf", "9" * 5000, str(2**63), str(2**40), str(2**31)))
        text = text[: match.start()] + new + text[match.end() :]
    TARGETS[name].consume(text.encode())


def nested(opening: str, closing: str, depth: int) -> bytes:
    return (opening * depth + closing * depth).encode()


@pytest.mark.parametrize("depth", [50, 5_000, 200_000])
@pytest.mark.parametrize("name", [n for n in NAMES if n != "command-line"])
def test_deep_nesting(name, depth):
    prefix = b"value = " if TARGETS[name].suffix == ".toml" else b""
    for opening, closing in (("[", "]"), ("{a=", "}"), ('{"a":', "}"), ("[" * 2, "]" * 2)):
        assert TARGETS[name].consume(prefix + nested(opening, closing, depth)) == "refused"
    assert TARGETS[name].consume(b"[" + b"a." * depth + b"a]\n") == "refused"
