"""HTML for notebooks: small tables of text that is cleaned and escaped. No style beyond alignment: the notebook's own
theme decides the colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from npusim.text import clean


def paragraph(text: object) -> str:
    """One paragraph of plain text."""
    return f"<p>{safe(text)}</p>"


def table(header: Sequence[object], rows: Iterable[Sequence[object]], words: int = 1, caption: object = "") -> str:
    """A table whose first `words` columns are text (left) and the rest numbers (right)."""
    shown = f"<caption>{safe(caption)}</caption>" if caption else ""
    head = "".join(_cell("th", cell, i < words) for i, cell in enumerate(header))
    body = "".join(
        "<tr>" + "".join(_cell("td", cell, i < words) for i, cell in enumerate(row)) + "</tr>" for row in rows
    )
    return f"<table>{shown}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def safe(value: object) -> str:
    """Text without control characters, fit for an HTML element or a quoted attribute."""
    return escape(clean(value))


def _cell(tag: str, value: object, word: bool) -> str:
    return f'<{tag} style="text-align: {"left" if word else "right"}">{safe(value)}</{tag}>'
