"""What fuzzing found, and what Hypothesis draws: `tests/fuzz` without its fuzzer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fuzz import targets
from fuzz.targets import SEEDS, TARGETS

CASES = [
    file
    for file in sorted((Path(__file__).parents[1] / "fuzz/cases").glob("*-*"))
    if file.name.partition("-")[0] in TARGETS
]


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.name)
def test_what_was_found_once_stands(file: Path) -> None:
    TARGETS[file.name.partition("-")[0]](file.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_where_fuzzing_begins_stands(name: str) -> None:
    for seed in SEEDS[name]:
        TARGETS[name](seed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=60) | JSON.map(lambda value: targets.json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"a":' * 40 + b"1" + b"}" * 40)
@example(b"1" * 5_000)
@example(b"1e400")
@example(b"-0")
@example(b'"\\ud800"')
@example(b"\xef\xbb\xbf{}")
def test_a_body_is_read_as_it_came_or_refused(data: bytes) -> None:
    targets.body(data)


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=80).map(str.encode) | st.binary(max_size=80))
@example(b'"' + b"a" * 200_000)
@example(b";" * 100_000)
@example(b"\0")
@example(b"cu-1" + b";9" * 30)
@example("\N{ARABIC-INDIC DIGIT ONE};²;½;1e999;nan;inf\n".encode())
def test_a_table_of_units_is_read_or_refused(data: bytes) -> None:
    targets.table(data)
    targets.columns(data)


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=60))
@example(b"<row><c t='d'><v>2026-13-99</v></c></row>")
@example(b"<row r='99999999'><c r='ZZZZ1'><v>1</v></c></row>")
@example(b"<row><c t='s'><v>7</v></c></row>")
@example(b"<row><c><v>not a number</v></c></row>")
@example(b"<!DOCTYPE a [<!ENTITY b 'b'>]>&b;")
def test_a_workbook_is_read_or_refused(data: bytes) -> None:
    targets.workbook(data)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: f"cursor={text}".encode()))
@example(b"limit=%D9%A1")
@example(b"limit=00000000000000000000000001")
@example(b"cursor=")
@example(b"cursor=%ED%A0%80")
@example(b"limit=1&limit=2")
def test_a_query_gives_a_page_or_is_refused(query: bytes) -> None:
    targets.cursor(query)


@pytest.mark.parametrize("limit", [1, 7, 49, 50, 51])
def test_pages_that_are_followed_give_the_whole_list(limit: int) -> None:
    assert targets.followed(limit) == list(range(50))
