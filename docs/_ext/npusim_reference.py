"""Reference pages made from the code when the documentation is built, so that they cannot go stale.

A line `<!-- generated: NAME -->` of a page is replaced by what PARTS[NAME] returns, as Markdown.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel, BeforeValidator
from pydantic_core import PydanticUndefined

MARK = re.compile(r"^<!-- generated: (\S+) -->$", re.M)


def setup(app: Any) -> dict[str, Any]:
    app.connect("source-read", lambda _app, _page, source: source.__setitem__(0, filled(source[0])))
    app.connect("env-get-outdated", lambda _app, env, *_: generated(env))
    return {"parallel_read_safe": True}


def generated(env: Any) -> list[str]:
    """Pages with generated parts: what they are made from may have changed when the pages have not."""
    return [page for page in env.found_docs if MARK.search(Path(env.doc2path(page)).read_text(encoding="utf-8"))]


def filled(text: str) -> str:
    """`text` with every generated part in its place; KeyError names an unknown one."""
    return MARK.sub(lambda match: PARTS[match[1]](), text)


def commands() -> str:
    """Every command of `npusim` with its arguments, options and example."""
    from npusim.cli import app

    parts: list[str] = []

    def section(command: Any, path: str) -> None:
        parameters = [p for p in command.params if p.name not in ("help", "install_completion", "show_completion")]
        if not hasattr(command, "commands"):
            about, _, example = inspect.cleandoc(command.help or "").partition("\b\n")
            arguments = " ".join(_metavar(p) for p in parameters if p.param_type_name == "argument")
            parts.append(f"## {path}\n\n```text\n{path} {arguments} [OPTIONS]\n```\n\n{about.strip()}\n")
            if parameters:
                rows = [_parameter(p) for p in parameters]
                parts.append(_table(("argument or option", "default", "meaning"), rows))
            if example:
                lines = inspect.cleandoc(example.partition("\n")[2])
                parts.append(f"```bash\n{lines}\n```\n")
        for name, inner in sorted(getattr(command, "commands", {}).items()):
            section(inner, f"{path} {name}")

    section(typer.main.get_command(app), "npusim")
    return "\n".join(parts)


def _metavar(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required else f"[{name}]"


def _parameter(parameter: Any) -> tuple[str, str, str]:
    if parameter.param_type_name == "argument":
        names = f"`{parameter.metavar or parameter.name.upper()}`"
    else:
        names = ", ".join(f"`{name}`" for name in parameter.opts)
    shown = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    default = "" if shown in (None, False, "") or callable(shown) or parameter.required else f"`{shown}`"
    return names, default, _cell(getattr(parameter, "help", None) or "")


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table without its empty columns."""
    used = [i for i in range(len(header)) if i == 0 or any(row[i] for row in rows)]
    lines = [[row[i] for i in used] for row in (header, ["---"] * len(header), *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def counters() -> str:
    """The table of `npusim.counters`."""
    from npusim import counters as module

    rows = re.findall(r"^\| *(\w+) *\| *(\S+) *\| *(.+?) *\|$", module.__doc__ or "", re.M)
    found = {name: (unit, meaning) for name, unit, meaning in rows}
    lines = [f"| `{name}` | {found[name][0]} | {_cell(found[name][1])} |" for name in module.COUNTERS]
    return "\n".join(["| counter | unit | meaning |", "|---|---|---|", *lines])


def hardware() -> str:
    from npusim.npu import Hardware

    return _tables(Hardware, "")


def energy() -> str:
    from npusim.energy.table import EnergyTable

    return _tables(EnergyTable, "")


def sweep() -> str:
    from npusim.sweep import spec
    from npusim.sweep.metrics import METRICS

    lines = [_tables(spec._File, "")]
    lines.append(f"Constraints: {_names(spec.LIMITS)}. Objectives: {_names(METRICS)}.")
    return "\n".join(lines)


def dram() -> str:
    """Keys of a DRAM standard's file, with the values of one."""
    from npusim.config import read_toml
    from npusim.engine import dram_standards as module

    example = read_toml(module.data_files()["lpddr5-6400"])
    groups = (
        ("organisation", module.ORGANISATION, "whole numbers"),
        ("timing", (*module.TIMING, *module.OPTIONAL_TIMING), "clocks"),
        ("currents", module.CURRENTS, "volts and milliamperes"),
        ("commands", module.OPTIONAL, "optional"),
    )
    lines = [f"Top level: {_names([key for key in module.KEYS if key not in module.SECTIONS])}.", ""]
    lines += [f"Address fields: {', '.join(f'`{a}` {b}' for a, b in module.FIELD_NAMES.items())}.", ""]
    for name, keys, unit in groups:
        lines += [f"**`[{name}]`** ({unit})", "", "| key | in `lpddr5-6400` |", "|---|---|"]
        lines += [f"| `{key}` | {example.get(name, {}).get(key, '')} |" for key in keys] + [""]
    return "\n".join(lines)


def _tables(model: type[BaseModel], path: str, optional: bool = False, meaning: str = "") -> str:
    """A table for the keys of `model`, then one for each table inside it."""
    prose, meanings = _documented(model)
    parts = [f"**`[{path}]`**{' (may be left out)' if optional else ''}\n"] if path else []
    parts += [f"{paragraph}\n" for paragraph in (meaning, *prose) if paragraph]
    inner: list[tuple[str, type[BaseModel], bool, str]] = []
    rows: list[tuple[str, ...]] = []
    for key, field in model.model_fields.items():
        nested = _model_of(field.annotation)
        if nested is not None:
            named = typing.get_origin(_plain(field.annotation)) is dict
            name = f"{path}.{key}".lstrip(".") + (".NAME" if named else "")
            told = meanings.get(key, "")
            inner.append((name, nested, not field.is_required(), told and f"{told[0].upper()}{told[1:]}."))
            if not named:
                continue
        takes = _takes(field.annotation, field.metadata)
        default = "" if field.is_required() else _default(field)
        rows.append((f"`{key}`", takes, default, _cell(meanings.get(key, ""))))
    if rows:
        parts.append(_table(("key", "takes", "default", "meaning"), rows))
    seen: dict[type[BaseModel], str] = {}
    for name, nested, left_out, meaning in inner:
        if nested in seen:
            parts.append(f"**`[{name}]`**: the keys of `[{seen[nested]}]`.\n")
            continue
        seen[nested] = name
        parts.append(_tables(nested, name, left_out, meaning))
    return "\n".join(parts)


def _documented(model: type[BaseModel]) -> tuple[list[str], dict[str, str]]:
    """Paragraphs of a model's docstring, and what it says of single keys.

    Known forms: `key   text` with a margin of two spaces or more, and "`key`: text."; the first keys of a line may be
    several, with commas between.
    """
    paragraphs: list[str] = []
    meanings: dict[str, str] = {}
    for paragraph in inspect.cleandoc(model.__doc__ or "").split("\n\n"):
        lines, rest = paragraph.splitlines(), []
        current: list[str] = []
        for line in lines:
            row = re.match(r"(\w+(?:, \w+)*) {2,}(\S.*)$", line)
            if row and set(row[1].split(", ")) <= set(model.model_fields):
                current = row[1].split(", ")
                meanings |= dict.fromkeys(current, row[2])
            elif current and line.startswith(" "):
                meanings |= {key: f"{meanings[key]} {line.strip()}" for key in current}
            else:
                current = []
                rest.append(line)
        text = " ".join(rest)
        keys = "|".join(model.model_fields)
        for found in re.finditer(rf"((?:`(?:{keys})`, )*`(?:{keys})`): (.*?)(?=[.;] `(?:{keys})`[:,]|$)", text):
            meanings |= {key: found[2].rstrip(".") for key in re.findall(r"`(\w+)`", found[1])}
        text = re.sub(rf"((?:`(?:{keys})`, )*`(?:{keys})`): (.*?)([.;] (?=`(?:{keys})`[:,])|$)", "", text).strip()
        paragraphs += [re.sub(r";$", ".", text).replace("<", "&lt;")] if text else []
    return paragraphs, meanings


def _plain(annotation: Any) -> Any:
    """Without Annotated, and without `| None`."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _plain(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [part for part in typing.get_args(annotation) if part is not type(None)]
        return _plain(rest[0]) if len(rest) == 1 else annotation
    return annotation


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The model behind an annotation: itself, optional, or the rows of a dict."""
    plain = _plain(annotation)
    if typing.get_origin(plain) is dict:
        return _model_of(typing.get_args(plain)[1])
    return plain if isinstance(plain, type) and issubclass(plain, BaseModel) else None


def _takes(annotation: Any, metadata: list[Any]) -> str:
    if typing.get_origin(annotation) is typing.Annotated:
        kind, *more = typing.get_args(annotation)
        return _takes(kind, [*more, *metadata])
    plain = _plain(annotation)
    bounds = {}
    unit = ""
    for item in metadata:
        if isinstance(item, BeforeValidator):
            unit = item.func.keywords["what"]  # type: ignore[attr-defined]
        for source in (item, *getattr(item, "metadata", ())):
            for name in ("ge", "gt", "le", "lt", "pattern", "min_length"):
                if getattr(source, name, None) is not None:
                    bounds[name] = getattr(source, name)
    if typing.get_origin(plain) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(plain))
    if typing.get_origin(plain) is dict:
        return "a table" if _model_of(plain) is None else "a table per name, see below"
    if typing.get_origin(plain) is list:
        return "a list"
    names = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`"}
    text = unit or names.get(plain, "text or list")
    limits = [f"{sign} {_number(bounds[key])}" for key, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
              if key in bounds]  # fmt: skip
    return _cell(", ".join([text, *limits]))


def _number(value: float) -> str:
    if isinstance(value, int) and value >= 1024 and value & (value - 1) == 0:
        return f"2^{value.bit_length() - 1}"
    return f"{value:g}" if value >= 10**6 else f"{value}"


def _default(field: Any) -> str:
    if field.default is PydanticUndefined or field.default is None or field.default == "":
        return "none"
    value = field.default
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<name>", "`<name>`")


def _names(names: typing.Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


PARTS: Mapping[str, Callable[[], str]] = {
    "commands": commands, "counters": counters, "hardware": hardware, "energy": energy, "sweep": sweep, "dram": dram,
}  # fmt: skip
