"""`coflex design ...`: the shelf, one's own documents, and what is said of their faults."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from coflex.market.design import design_schema, design_text, designs, load_design
from coflex.market.design.exchanges import exchanges
from coflex.reporting.sequence import sequence_svg, sequence_text
from support.command import coflex


def say(*words: Any) -> Any:
    told = coflex("design", *words, "--json")
    assert told.exit_code == 0, told.stderr
    return json.loads(told.stdout)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(design_text("smartnet_b"), encoding="utf-8")
    return file


@pytest.mark.spec("MKT-01")
def test_the_list_names_every_design_with_its_source_and_whether_it_runs() -> None:
    answer = say("list")
    assert [one["id"] for one in answer["designs"]] == list(designs())
    assert {one["status"] for one in answer["designs"]} == {"runs"}
    assert answer["count"] == answer["runs"] == len(designs())
    (multi,) = [one for one in answer["designs"] if one["id"] == "coordinet_multi_level"]
    assert multi["same_as"] == "smartnet_b" and multi["source"].startswith("B 3.3")
    text = coflex("design", "list").stdout
    assert all(name in text for name in designs())


def test_a_design_that_cannot_be_read_is_listed_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from coflex.market.design import shelf

    monkeypatch.setattr(shelf, "design_text", lambda name: design_text(name).replace("pay_as_bid", "pay_as_asked"))
    answer = say("list")
    (local,) = [one for one in answer["designs"] if one["id"] == "coordinet_local"]
    assert local["status"].startswith("not yet: coordinet_local.yaml, line ")
    assert "'pay_as_asked' is not offered" in local["status"]
    assert answer["runs"] < answer["count"]


def test_a_design_is_shown_as_text_as_a_picture_or_as_data(mine: Path, tmp_path: Path) -> None:
    design = load_design("smartnet_b")
    assert coflex("design", "show", "smartnet_b").stdout == sequence_text(design)
    assert coflex("design", "show", mine).stdout == sequence_text(design)
    picture = tmp_path / "picture.svg"
    told = coflex("design", "show", "smartnet_b", "--svg", picture)
    assert told.exit_code == 0 and told.stdout == f"Diagram: {picture}\n"
    assert picture.read_text(encoding="utf-8") == sequence_svg(design)
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    answer = say("show", "smartnet_b")
    assert answer["operators"] == {"local": "dso", "central": "tso"}
    assert len(answer["exchanges"]) == len(exchanges(design))
    assert {"session", "phase", "sender", "receiver", "information", "per", "function"} == set(answer["exchanges"][0])


def test_an_unknown_design_is_answered_with_near_ones() -> None:
    told = coflex("design", "show", "smartnet_f")
    assert told.exit_code == 1 and "smartnet_a" in told.stderr and told.stdout == ""


@pytest.mark.spec("MKT-01")
def test_a_sound_document_is_called_sound_with_its_sessions(mine: Path) -> None:
    told = coflex("design", "check", mine)
    assert told.exit_code == 0
    assert told.stdout.splitlines() == [
        f"{mine} is sound: 2 sessions held 2 times a day, 22 kinds of message.",
        "  local: DSO, gate closes D-1T10:00, for D to D+1",
        "  central: TSO, gate closes D-1T12:00, for D to D+1",
    ]
    assert say("check", mine) == {"id": "smartnet_b", "sessions": ["local", "central"], "rounds": 2, "messages": 22}


@pytest.mark.spec("MKT-01")
def test_all_faults_of_a_document_are_told_by_line_and_end_the_command(mine: Path) -> None:
    lines = mine.read_text(encoding="utf-8").splitlines()
    pricing = max(k for k, line in enumerate(lines) if "pay_as_bid" in line)
    (forward,) = [k for k, line in enumerate(lines) if "to: central" in line]
    (title,) = [k for k, line in enumerate(lines) if line.startswith("title:")]
    lines[pricing] = "  pricing: pay_as_asked"
    lines[forward] = lines[forward].replace("central", "centre")
    lines[title] = "heading: none"
    mine.write_text("\n".join(lines), encoding="utf-8")
    told = coflex("design", "check", mine)
    assert told.exit_code == 1 and told.stdout == ""
    found = [line.strip() for line in told.stderr.splitlines() if line.startswith("  ")]
    # In the order of the lines; what is missing has none.
    assert [line.partition(": ")[0] for line in found] == [
        *(f"{mine}, line {k + 1}" for k in (title, forward, pricing)),
        f"{mine}",
    ]
    answer = json.loads(coflex("design", "check", mine, "--json").stdout)
    assert answer["error"] == "REFUSED" and len(answer["findings"]) == len(found)


def test_what_is_no_text_and_what_is_not_there_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"id: \xff\xfe")
    told = coflex("design", "check", file)
    assert told.exit_code == 1 and "no UTF-8 text" in told.stderr
    assert coflex("design", "check", tmp_path / "other.yaml").exit_code == 2
    told = coflex("design", "show", tmp_path / "other.yaml")
    assert told.exit_code == 1 and "No such file" in told.stderr
    assert coflex("design", "check", tmp_path).exit_code == 2


def test_the_schema_is_printed_as_it_is() -> None:
    told = coflex("design", "schema")
    assert told.exit_code == 0 and json.loads(told.stdout) == design_schema()


@pytest.mark.parametrize("command", ["list", "show", "check", "schema"])
def test_each_command_says_what_it_does_with_an_example(command: str) -> None:
    told = coflex("design", command, "--help")
    assert told.exit_code == 0 and f"Example: coflex design {command}" in told.stdout


def test_the_group_is_known_without_reading_a_design() -> None:
    code = "import sys, coflex.adapters.cli.main; print([m for m in ('pydantic', 'yaml', 'numpy') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
