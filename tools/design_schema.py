"""Writes docs/design.schema.json, and the table of designs in docs/designs.md, from the code and its documents.

`python tools/design_schema.py` writes both; `tests/market/test_design_schema.py` fails when one of them is stale.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coflex.market.design import Design, design_schema, designs, load_design

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "docs" / "design.schema.json"
PAGE = ROOT / "docs" / "designs.md"


def schema_text() -> str:
    """The schema as its file holds it."""
    return json.dumps(design_schema(), indent=2, ensure_ascii=False) + "\n"


def page_text(page: str) -> str:
    """The page with its tables written anew between their marks. Raises ValueError where a mark is missing."""
    for name, lines in (("keys", key_lines()), ("designs", design_lines())):
        begin, end = f"<!-- {name}: written by tools/design_schema.py -->\n", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"docs/designs.md lacks the marks of its {name}.")
        page = f"{before}{begin}\n" + "\n".join(lines) + f"\n\n{end}{after}"
    return page


# ---------------------------------------------------------------- the designs


def design_lines() -> Iterator[str]:
    """A row for each design that comes with coflex."""
    yield "| design | what it is | sessions | who buys | source | same as |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name in designs():
        design = load_design(name)
        same = f"`{design.same_as}`" if design.same_as else ""
        source = f"{design.source.document} {design.source.section}"
        yield f"| `{name}` | {design.title} | {_sessions(design)} | {_buyers(design)} | {source} | {same} |"


def _sessions(design: Design) -> str:
    repeated = [session for session in design.sessions if session.repeat is not None]
    return f"{len(design.sessions)}, {len(repeated)} repeated" if repeated else str(len(design.sessions))


def _buyers(design: Design) -> str:
    return ", ".join(sorted({buyer.value.upper() for session in design.sessions for buyer in session.buyers}))


# ---------------------------------------------------------------- the keys


def key_lines() -> Iterator[str]:
    """A table for each part of a document, from the schema: key, what is written, meaning."""
    schema = design_schema()
    parts = {"Design": schema} | {name: part for name, part in schema["$defs"].items() if "properties" in part}
    for name in ("Design", "Session", *(name for name in parts if name not in ("Design", "Session"))):
        part = parts[name]
        yield f"**{name.lower() if name == 'Design' else _key(schema, name)}.** {part['description']}"
        yield ""
        yield "| key | what is written | meaning |"
        yield "| --- | --- | --- |"
        for key, value in part["properties"].items():
            needed = "" if key in part["required"] else _default(value)
            yield f"| `{key}` | {_kind(schema, value)}{needed} | {_meaning(schema, value)} |"
        yield ""


def _key(schema: Mapping[str, Any], name: str) -> str:
    """The key that a part stands under."""
    parts = [schema, *schema["$defs"].values()]
    under = [key for part in parts for key, value in part.get("properties", {}).items() if f"/{name}" in str(value)]
    return under[0]


def _chosen(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """What may be written but for nothing at all."""
    options = [one for one in value.get("anyOf", ()) if one.get("type") != "null"]
    chosen: Mapping[str, Any] = options[0] if options else value
    return chosen


def _part(schema: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
    chosen = _chosen(value)
    if "$ref" in chosen:
        part: Mapping[str, Any] = schema["$defs"][chosen["$ref"].rpartition("/")[2]]
        return part
    return chosen


def _kind(schema: Mapping[str, Any], value: Mapping[str, Any]) -> str:
    part = _part(schema, value)
    if "enum" in part:
        return ", ".join(f"`{word}`" for word in part["enum"])
    if part.get("type") == "array":
        return f"list of {_kind(schema, part['items'])}"
    if "properties" in part:
        return "part"
    if "examples" in part:
        return "such as " + ", ".join(f"`{example}`" for example in part["examples"])
    limits = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    told = " ".join(f"{word} {part[limit]:g}" for limit, word in limits.items() if limit in part)
    kind = {"string": "text", "integer": "whole number", "number": "number"}[part["type"]]
    return f"{kind} {told}".rstrip()


def _default(value: Mapping[str, Any]) -> str:
    given = value.get("default")
    if given in (None, []):
        return " (may be left out)"
    told = ", ".join(given) if isinstance(given, list) else given
    return f" (`{told}` if left out)"


def _meaning(schema: Mapping[str, Any], value: Mapping[str, Any]) -> str:
    """What the key says, and what its words mean."""
    part = _part(schema, value)
    items = _part(schema, part["items"]) if part.get("type") == "array" else part
    words = items.get("description", "") if "enum" in items else ""
    return f"{value['description']} {words}".strip().replace("|", "\\|")


if __name__ == "__main__":
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    PAGE.write_text(page_text(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
