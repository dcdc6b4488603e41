"""Untrusted text and numbers made fit for terminals, tables and CSV cells."""

from __future__ import annotations

import unicodedata

# Control, format (bidirectional overrides, zero width), surrogate, and line or paragraph separators.
_UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")
_FORMULA = ("=", "+", "-", "@")


def clean(text: object, keep: str = "") -> str:
    """`text` with every control or invisible character shown as a backslash escape, except those in `keep`."""
    return "".join(
        char if char in keep or unicodedata.category(char) not in _UNSAFE else char.encode("unicode_escape").decode()
        for char in str(text)
    )


def csv_cell(text: object) -> str:
    """A text cell that no spreadsheet takes for a formula: one that starts with = + - @ gets a leading quote."""
    shown = clean(text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def from_csv_cell(cell: str) -> str:
    """What `csv_cell` made `cell` from (cleaned)."""
    return cell[1:] if cell.startswith("'") and cell[1:].lstrip().startswith(_FORMULA) else cell


def joules(picojoules: float) -> str:
    """Three significant digits with the unit that fits: '12.3 uJ'."""
    return _scaled(picojoules, ("pJ", "nJ", "uJ", "mJ", "J", "kJ"), 1000)


def size(nbytes: float) -> str:
    """'1.5 MiB'."""
    return _scaled(nbytes, ("B", "KiB", "MiB", "GiB", "TiB"), 1024)


def count(number: float) -> str:
    """'1.82 G'; below a thousand the number itself."""
    return _scaled(number, ("", "k", "M", "G", "T", "P"), 1000).rstrip()


def three_digits(value: float) -> str:
    """'24.0', '0.584'; more before the point when the number has them."""
    rounded = abs(float(f"{value:.3g}"))
    return f"{value:.{max(0, 3 - len(str(int(rounded))))}f}" if rounded >= 1 else f"{value:.3g}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def times(ratio: float) -> str:
    """'1.52x'."""
    return f"{ratio:.2f}x" if ratio < 100 else f"{ratio:.0f}x"


def _scaled(value: float, units: tuple[str, ...], step: int) -> str:
    """Three significant digits (1024 and more of bytes: four at most), whole numbers of the first unit as they are."""
    power = 0
    # What would be printed as 1000 of a unit is 1.00 of the next.
    while abs(value) >= (999.5 if step == 1000 else 1023.5) and power < len(units) - 1:
        value /= step
        power += 1
    shown = f"{value:.0f}" if power == 0 and value == int(value) else three_digits(value)
    return f"{shown} {units[power]}"
