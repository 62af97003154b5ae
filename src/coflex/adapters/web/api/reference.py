"""The OpenAPI document as one page for people, without a script and without another server."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

_CODE = re.compile(r"`([^`]+)`")
_METHODS = ("get", "post", "put", "patch", "delete")


def page(document: Mapping[str, Any]) -> bytes:
    """The page, in UTF-8."""
    loader = PackageLoader("coflex.adapters.web.api", "pages")
    pages = Environment(loader=loader, autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True)
    pages.filters["prose"] = _prose
    parts = {tag["name"]: list(_operations(document, tag["name"])) for tag in document["tags"]}
    text = pages.get_template("reference.html.j2").render(
        document=document, parts=parts, schemas=document["components"]["schemas"], kind=_kind
    )
    return text.encode()


def _prose(text: str) -> str:
    """A description as HTML, what stands between backticks as code."""
    return _CODE.sub(r"<code>\1</code>", escape(text))


def _operations(document: Mapping[str, Any], tag: str) -> Iterator[dict[str, Any]]:
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods and tag in methods[method]["tags"]:
                yield {"path": path, "method": method.upper(), **methods[method]}


def _kind(schema: Any) -> list[tuple[str, str]]:
    """A schema in words: parts of text, each with the name of a schema to link to, or none."""
    if not isinstance(schema, Mapping) or not schema:
        return [("anything", "")]
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return [(name, name)]
    if "enum" in schema or "const" in schema:
        return [(" | ".join(map(str, schema.get("enum", [schema.get("const")]))), "")]
    for way in ("anyOf", "oneOf"):
        if way in schema:
            parts = [part for one in schema[way] for part in [(" or ", ""), *_kind(one)]]
            return parts[1:]
    kind = schema.get("type", "anything")
    if kind == "array":
        return [("list of ", ""), *_kind(schema.get("items"))]
    if kind == "object" and "items" in schema.get("properties", {}):
        return [("page of ", ""), *_kind(schema["properties"]["items"].get("items"))]
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    return [(f"{words} ({schema['format']})" if "format" in schema else words, "")]
