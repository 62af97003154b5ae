"""The JSON Schema of a design document, with which editors help to write one.

It knows the form: keys, words, texts of their own form. The rules between keys are beyond a schema; `read_design`
checks both.
"""

from __future__ import annotations

from typing import Any

from coflex.market.design.document import Design

SCHEMA_ID = "urn:coflex:schema:design"


def design_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) as plain values, made from the classes that read documents.

    Every part and every key has its description. What the schema refuses, `read_design` refuses too.
    """
    made = Design.model_json_schema()
    definitions = {name: _plain(part) for name, part in sorted(made.pop("$defs").items())}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **_plain(made),
        "title": "Market design",
        "$defs": definitions,
    }


def _plain(part: dict[str, Any]) -> dict[str, Any]:
    """A part with its descriptions on one line, and without titles that only repeat the keys."""
    plain = {key: value for key, value in part.items() if key != "title"}
    if "description" in plain:
        plain["description"] = " ".join(plain["description"].split())
    if "properties" in plain:
        plain["properties"] = {name: _plain(one) for name, one in plain["properties"].items()}
    return plain
