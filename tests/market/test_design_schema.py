"""The schema of a design document and the page about designs: current, and true of every document that is read."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from random_designs import placed, written
from test_design import FAULTS, shipped
from test_design_rules import SOUND

from coflex.adapters.cli.main import coflex as commands
from coflex.domain.errors import Refused
from coflex.market.design import design_schema, design_text, designs, read_design
from coflex.market.design.document import Design, Part
from coflex.market.design.exchanges import exchanges

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/designs.md").read_text(encoding="utf-8")
SPOKEN = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "null": type(None)}
# What says nothing about what is valid.
TOLD = {"$schema", "$id", "$defs", "title", "description", "default", "examples"}


# Word of JSON Schema -> whether a value keeps it, by what the word says and the part of the schema it stands in.
KEEPS: dict[str, Callable[[Any, Any, dict[str, Any]], bool]] = {
    "type": lambda value, said, part: isinstance(value, SPOKEN[said]) and not isinstance(value, bool),
    "enum": lambda value, said, part: value in said,
    "pattern": lambda value, said, part: not isinstance(value, str) or bool(re.search(said, value)),
    "minLength": lambda value, said, part: not isinstance(value, str) or len(value) >= said,
    "minItems": lambda value, said, part: not isinstance(value, list) or len(value) >= said,
    "minimum": lambda value, said, part: not isinstance(value, int | float) or value >= said,
    "maximum": lambda value, said, part: not isinstance(value, int | float) or value <= said,
    "exclusiveMinimum": lambda value, said, part: not isinstance(value, int | float) or value > said,
    "exclusiveMaximum": lambda value, said, part: not isinstance(value, int | float) or value < said,
    "required": lambda value, said, part: not isinstance(value, dict) or set(said) <= set(value),
    "additionalProperties": lambda value, said, part: (
        said or not isinstance(value, dict) or set(value) <= set(part["properties"])
    ),
}


def broken(schema: dict[str, Any], value: Any, root: dict[str, Any], path: str = "") -> list[str]:
    """Paths at which a value breaks a schema, by the words of JSON Schema that ours uses and no others (KeyError)."""
    found: list[str] = []
    for word, said in schema.items():
        if word == "$ref":
            found += broken(root["$defs"][said.removeprefix("#/$defs/")], value, root, path)
        elif word == "anyOf":
            found += [] if any(not broken(one, value, root, path) for one in said) else [path]
        elif word == "properties":
            inside = value if isinstance(value, dict) else {}
            found += [at for k, one in said.items() if k in inside for at in broken(one, value[k], root, f"{path}.{k}")]
        elif word == "items":
            entries = value if isinstance(value, list) else []
            found += [at for k, one in enumerate(entries) for at in broken(said, one, root, f"{path}[{k}]")]
        elif word not in TOLD and not KEEPS[word](value, said, schema):
            found.append(path)
    return found


def faults(document: Any) -> list[str]:
    schema = design_schema()
    return [path.removeprefix(".") for path in broken(schema, document, schema)]


def tool() -> Any:
    spec = importlib.util.spec_from_file_location("design_schema", ROOT / "tools/design_schema.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.spec("MKT-01")
def test_the_schema_and_the_tables_in_the_docs_are_those_of_the_code() -> None:
    written = (ROOT / "docs/design.schema.json").read_text(encoding="utf-8")
    assert tool().schema_text() == written, "run python tools/design_schema.py"
    assert tool().page_text(PAGE) == PAGE, "run python tools/design_schema.py"
    assert json.loads(written) == design_schema()


@pytest.mark.parametrize("name", designs())
def test_the_schema_takes_every_design_that_comes_with_coflex(name: str) -> None:
    assert faults(yaml.safe_load(design_text(name))) == []


def test_the_schema_takes_a_document_with_one_of_each_part() -> None:
    assert faults(SOUND) == []


# Faults of form as a schema can know them: not a moment that is no clock time, nor one too far away.
FORM = [
    (change, place)
    for change, place, code in FAULTS
    if code in ("unknown_key", "missing_key", "not_offered", "malformed")
    and not any(part in place for part in ("gate.closes", "horizon.starts", "horizon.firm"))
]


@pytest.mark.spec("MKT-01")
@pytest.mark.parametrize(("change", "place"), FORM, ids=[place for _, place in FORM])
def test_what_the_schema_refuses_is_refused_when_it_is_read_at_the_same_place(change: Any, place: str) -> None:
    document = shipped()
    assert faults(document) == []
    change(document)
    (at,) = faults(document)
    # Of keys too many or too few, a schema names the part around them.
    assert place == at or place.rpartition(".")[0] == at
    with pytest.raises(Refused) as refused:
        read_design(yaml.safe_dump(document), "mine.yaml")
    assert any(fault.place.endswith(f": {place}") for fault in refused.value.findings)


@pytest.mark.parametrize(
    ("place", "given"),
    [("gate.closes", "noon"), ("gate.closes", "D+PT"), ("horizon.starts", "D1"), ("horizon.firm", "4h"), ("id", "A b")],
)
def test_texts_of_their_own_form_are_refused_by_the_schema_too(place: str, given: str) -> None:
    document = shipped()
    *steps, last = place.split(".")
    target = document["sessions"][0]
    for step in steps:
        target = target[step]
    target[last] = given
    assert faults(document) == [f"sessions[0].{place}"]
    with pytest.raises(Refused):
        read_design(yaml.safe_dump(document), "mine.yaml")


def test_every_part_and_every_key_is_explained() -> None:
    schema = design_schema()
    assert schema["$schema"].startswith("https://json-schema.org/") and schema["$id"]
    for name, part in [("Design", schema), *schema["$defs"].items()]:
        assert part["description"].endswith("."), name
        for key, value in part.get("properties", {}).items():
            assert value["description"].endswith("."), f"{name}.{key}"
    parts = {part.__name__ for part in Part.__subclasses__()} - {Design.__name__}
    assert parts <= set(schema["$defs"])


# ---------------------------------------------------------------- the page


def example() -> str:
    (document,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    return document


@pytest.mark.spec("MKT-01")
def test_the_document_on_the_page_is_sound_and_its_summary_true() -> None:
    design = read_design(example(), "mine.yaml")
    assert faults(yaml.safe_load(example())) == []
    assert f"{len(design.sessions)} sessions held 97 times a day, {len(exchanges(design))} kinds of message." in PAGE


def test_the_faults_on_the_page_are_those_of_the_document_with_its_two_mistakes() -> None:
    text = example().replace('closes: "D-1T10:00"', 'closes: "D+PT1H10M"').replace("to: balancing", "to: balance")
    with pytest.raises(Refused) as refused:
        read_design(text, "mine.yaml")
    told = [str(finding) for finding in refused.value.findings]
    shown = re.findall(r"^  (mine\.yaml, line .*)$", PAGE, re.MULTILINE)
    assert sorted(shown) == sorted(told)


def test_commands_on_the_page_are_there() -> None:
    (group,) = [one.typer_instance for one in commands.registered_groups if one.name == "design"]
    assert group is not None
    there = {one.name or one.callback.__name__ for one in group.registered_commands if one.callback}
    assert set(re.findall(r"coflex design (\w+)", PAGE)) == there == {"list", "show", "check", "schema"}


def test_places_are_found_in_what_is_written() -> None:
    text, lines = written(SOUND)
    assert yaml.safe_load(text) == SOUND
    for path, line in lines.items():
        key = path.rpartition(".")[2]
        assert text.splitlines()[line - 1].lstrip(" -").startswith(f"{key}:" if "]" not in key else "")
    around = lines["sessions[0].gate"]
    assert placed(SOUND, "sessions[0].gate.shuts") == f"mine.yaml, line {around}: sessions[0].gate.shuts"
