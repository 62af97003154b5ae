"""Bodies of requests are read strictly: what passes is one JSON text within the limits, what does not is told where."""

from __future__ import annotations

import json
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.adapters.web.api.body import MOST_BYTES, MOST_FINDINGS, MOST_LEVELS, read_body
from coflex.adapters.web.api.problems import Malformed, TooLarge

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NUMBERS = st.integers(-(10**15), 10**15) | st.floats(-1e12, 1e12)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=30,
)


def refused(raw: bytes) -> list[tuple[str, str]]:
    """Places and codes of the faults of a body."""
    with pytest.raises(Malformed) as fault:
        read_body(raw)
    return [(one.place, one.code) for one in fault.value.findings]


@given(VALUES, st.booleans())
def test_any_plain_value_passes_as_the_bytes_that_came(value: Any, ascii_only: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert read_body(raw) is raw


@given(VALUES, st.sampled_from(["a", "é", "x.y", ""]), VALUES)
def test_a_key_that_stands_twice_is_refused_wherever_it_stands(value: Any, key: str, other: Any) -> None:
    name = json.dumps(key)
    raw = f'{{"in": [{json.dumps(value)}, {{{name}: {json.dumps(value)}, {name}: {json.dumps(other)}}}]}}'.encode()
    assert refused(raw) == [(f"in[1].{key}", "key_twice")]


def test_keys_are_compared_as_they_read_not_as_they_are_written() -> None:
    assert refused(b'{"a": 1, "\\u0061": 2}') == [("a", "key_twice")]


@pytest.mark.parametrize(
    ("raw", "place", "code"),
    [
        (b"", "line 1, column 1", "not_json"),
        (b"{", "line 1, column 2", "not_json"),
        (b'{"a": 1}\n{}', "line 2, column 1", "not_json"),
        (b"\xef\xbb\xbf{}", "line 1, column 1", "not_json"),
        (b'{"a": "\x01"}', "line 1, column 8", "not_json"),
        (b'["\xff"]', "byte 3", "not_utf8"),
        (b"[1, NaN]", "[1]", "not_a_number"),
        (b'{"a": -Infinity}', "a", "not_a_number"),
        (b'{"a": 1e400}', "a", "number_too_large"),
        (b'{"a": {"kw": 1000000000000001}}', "a.kw", "number_too_large"),
        (b'{"a": -1e16}', "a", "number_too_large"),
        (b'{"a": 0.' + b"1" * 30 + b"}", "a", "number_too_long"),
        (b'{"a": "x\\u0000"}', "a", "null_character"),
        (b'["\\ud83d"]', "[0]", "half_surrogate"),
    ],
)  # fmt: skip
def test_each_fault_has_its_code_and_its_place(raw: bytes, place: str, code: str) -> None:
    assert refused(raw) == [(place, code)]


def test_all_faults_are_told_at_once_but_no_more_than_an_answer_holds() -> None:
    assert refused(b'{"a": NaN, "b": {"c": 1e99}}') == [("a", "not_a_number"), ("b.c", "number_too_large")]
    assert len(refused(b"[" + b"NaN," * 5000 + b"NaN]")) == MOST_FINDINGS


def test_numbers_within_the_limits_pass_however_they_are_written() -> None:
    for number in (b"1000000000000000", b"-1e15", b"1.5E3", b"0." + b"1" * 29, b"1e-300"):
        assert read_body(b'{"a": ' + number + b"}")


@given(st.integers(1, 2 * MOST_LEVELS), st.sampled_from("[{"), st.booleans())
def test_a_value_nests_so_deep_and_no_deeper(levels: int, first: str, beside: bool) -> None:
    raw = "0"
    for level in range(levels):
        inside = f"{raw}, [], 1" if beside and level > 0 else raw
        raw = f"[{inside}]" if (first == "[") == (level % 2 == 0) else f'{{"k": {raw}}}'
    if levels <= MOST_LEVELS:
        assert read_body(raw.encode())
    else:
        assert {code for _, code in refused(raw.encode())} == {"too_deep"}


def test_brackets_in_texts_are_no_levels_and_hide_none() -> None:
    assert read_body(b'["' + b"[{" * 500 + b'"]')
    hidden = b'["' + b"]" * 100 + b'", ' + b"[" * 40 + b"]" * 40 + b"]"
    assert {code for _, code in refused(hidden)} == {"too_deep"}


@pytest.mark.parametrize("raw", [b"[" * 500_000, b'{"a":' * 100_000, b"[" * 3000 + b"]" * 3000])
def test_a_body_made_to_exhaust_the_reader_is_refused_quickly(raw: bytes) -> None:
    begun = perf_counter()
    assert refused(raw) == [("body", "too_deep")]
    assert perf_counter() - begun < 1


def test_a_body_above_the_limit_is_too_large() -> None:
    assert read_body(b'"' + b"x" * (MOST_BYTES - 2) + b'"')
    with pytest.raises(TooLarge):
        read_body(b'"' + b"x" * (MOST_BYTES - 1) + b'"')


def test_reading_costs_microseconds() -> None:
    """Best of several, against ten times what it takes on a machine that is busy with other things."""
    small = json.dumps({"id": "o-1", "up_kw": 100, "price_eur_mwh": "81.20"}).encode()
    offer = {"id": "o-1", "product": "p", "steps": [{"start": "2016-07-05T10:00:00Z", "quantity_kw": [100, 50]}]}
    batch = json.dumps([offer] * 250).encode()
    assert 25_000 < len(batch) < 35_000
    assert _best(small, 200) < 25e-6
    assert _best(batch, 5) < 6e-3


def _best(raw: bytes, times: int) -> float:
    spent = []
    for _ in range(5):
        begun = perf_counter()
        for _ in range(times):
            read_body(raw)
        spent.append((perf_counter() - begun) / times)
    return min(spent)
