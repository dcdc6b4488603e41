"""The frame of every page: one HTML file with its style and script inside, whose policy allows no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from string import Template


def page(
    title: str, about: str, sections: Mapping[str, str], main: str, styles: Sequence[str], script: str,
    extra: str = "",
) -> str:  # fmt: skip
    """A page. `title` and `about` are plain text; `sections` maps the ids of headings to their names; `main` and
    `extra` (what stands before the script) are HTML; `styles` and `script` are names of files in this folder."""
    return Template(part("frame.html")).substitute(
        title=escape(title),
        heading=escape(title),
        about=escape(about),
        skip="Skip to the results",
        links="".join(f'<li><a href="#{anchor}">{escape(name)}</a></li>' for anchor, name in sections.items()),
        main=main,
        style="".join(part(name) for name in styles),
        script=part(script),
        extra=extra,
    )


def part(name: str) -> str:
    """A file of this folder."""
    return resources.files("npusim.html").joinpath(name).read_text(encoding="utf-8")
