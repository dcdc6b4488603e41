"""The two kinds of failure: the user's (`NpusimError`, exit code 2) and ours (any other exception)."""

from collections.abc import Iterable


class NpusimError(Exception):
    """A user's mistake: the message names the file, the key, the value and what is allowed."""


class ConfigError(NpusimError):
    """A hand-written file or option with one or more wrong keys; the message lists all of them."""


class TraceError(NpusimError):
    """A trace file that is corrupt, hostile, truncated or inconsistent."""


class CatalogueError(NpusimError):
    """A name that no catalogue knows; the message gives the closest known one."""


class CapacityError(NpusimError):
    """An operation that cannot be tiled into the buffers of the machine."""


class ResultsError(NpusimError):
    """Saved results that are missing, of another version, or do not fit together."""


class TooLongError(NpusimError, OverflowError):
    """A program whose cycles cannot be counted in 64 bits."""


class CaptureError(NpusimError):
    """A training step that the capture cannot record completely."""


class BrokenLaw(Exception):
    """npusim's own fault: a simulation or a lowered program that breaks its own laws."""


def closest(name: str, known: Iterable[str]) -> str:
    """' (did you mean X?)' for the closest of `known`, or ''."""
    import difflib

    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def unknown(what: str, name: str, known: list[str]) -> CatalogueError:
    """The error for an unknown `name`; lists every known one and suggests the closest."""
    listing = ", ".join(sorted(known)) or "none"
    return CatalogueError(f"unknown {what} {name!r}{closest(name, known)}; known: {listing}")
