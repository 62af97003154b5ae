"""JSON from others is read as the standard library reads it, and never so deep that a stack could end."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.adapters.field.link import read_answer
from coflex.domain.errors import Refused
from coflex.evidence.certificate import parse
from coflex.evidence.message import Malformed, decode_document
from coflex.json_text import DEEPEST, loads

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(values, st.booleans())
def test_a_text_is_read_as_the_standard_library_reads_it(value: Any, ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii)
    assert loads(text) == json.loads(text)
    if ascii:
        assert loads(text.encode()) == json.loads(text)


@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}"), ('[{"b]":', "}]")])
def test_what_nests_as_deep_as_it_may_is_read_and_deeper_is_refused(begin: str, end: str) -> None:
    levels = begin.count("[") + begin.count("{")
    most = DEEPEST // levels
    assert loads(begin * most + "1" + end * most) is not None
    with pytest.raises(ValueError, match="nests deeper"):
        loads(begin * (most + 1) + "1" + end * (most + 1))


def test_brackets_in_strings_and_side_by_side_do_not_nest() -> None:
    assert loads(json.dumps(["[{" * 500, '\\"[' * 500])) == ["[{" * 500, '\\"[' * 500]
    assert loads(json.dumps([[]] * 1000)) == [[]] * 1000


def test_nothing_that_nests_too_deep_ends_a_process_whatever_limit_a_library_has_set() -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        deep = b"[" * 200_000
        with pytest.raises(ValueError, match="nests deeper"):
            read_answer(deep)
        with pytest.raises(Malformed):
            decode_document(deep)
        for text in (deep, b'{"x":' + deep, b'[{"x":' + deep):
            with pytest.raises(Refused):
                parse(text)
    finally:
        sys.setrecursionlimit(before)
