"""The chain: any change of any part of any entry is found, and the first entry that is not as it was is named."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.service import chain
from coflex.service.ports import Change, Command, Entry, Note

START = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\n"), max_size=6)
BYTES = st.binary(max_size=6)


@st.composite
def entries(draw: st.DrawFn) -> list[Entry]:
    made: list[Entry] = []
    before = chain.FIRST
    for number in range(1, draw(st.integers(2, 5)) + 1):
        command = Command(*(draw(TEXT) for _ in range(6)), draw(BYTES), draw(st.none() | TEXT))
        entry = Entry(
            number,
            START + timedelta(microseconds=draw(st.integers(0, 10**12))),
            command,
            draw(st.sampled_from([200, 201, 202])),
            draw(BYTES),
            tuple(draw(st.lists(st.builds(Change, TEXT, TEXT, st.none() | BYTES), max_size=2))),
            tuple(
                draw(st.lists(st.builds(Note, TEXT, TEXT, st.lists(TEXT, max_size=2).map(tuple), BYTES), max_size=2))
            ),
            b"",
        )
        entry = replace(entry, digest=chain.of(entry, before))
        before = entry.digest
        made.append(entry)
    return made


def another(value: Any) -> Any:
    """A value of the same kind that is not the same."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1]) if value else b"x"
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, datetime):
        return value + timedelta(microseconds=1)
    return value + 1


@pytest.mark.spec("PLAT-05")
@given(entries(), st.data())
def test_a_change_of_any_field_is_found_and_named(made: list[Entry], data: st.DataObject) -> None:
    assert list(chain.breaks(made)) == []
    at = data.draw(st.integers(0, len(made) - 1))
    entry = made[at]
    outer = data.draw(st.sampled_from(["at", "status", "reply", "digest", "command", "changes", "notes"]))
    if outer == "command":
        name = data.draw(st.sampled_from(["tenant", "verb", "subject", "party", "by", "actor", "body", "key"]))
        changed = replace(entry, command=replace(entry.command, **{name: another(getattr(entry.command, name))}))
    elif outer in ("changes", "notes"):
        rows = getattr(entry, outer)
        if not rows:
            extra: Any = Change("", "", None) if outer == "changes" else Note("", "", ())
            changed = replace(entry, **{outer: (extra,)})
        else:
            changed = replace(entry, **{outer: (replace(rows[0], kind=another(rows[0].kind)), *rows[1:])})
    else:
        changed = replace(entry, **{outer: another(getattr(entry, outer))})
    found = list(chain.breaks([*made[:at], changed, *made[at + 1 :]]))
    assert found[0][0] == entry.number


@given(entries(), st.data())
def test_a_missing_or_moved_entry_is_found(made: list[Entry], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(made) - 2))
    assert list(chain.breaks([*made[:at], *made[at + 1 :]]))
    assert list(chain.breaks([*made[:at], made[at + 1], made[at], *made[at + 2 :]]))


def test_the_digest_is_the_one_that_the_description_gives() -> None:
    command = Command("t", "v", "s", "p", "b", "a", b"{}", None)
    change, note = Change("k", "i", None), Note("n", "s", ("x", "y"), b"[]")
    at = datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC)
    parts = [b"1", b"1000005", b"t", b"v", b"s", b"p", b"b", b"a", None, b"{}", b"201", b"r", b"1", b"1"]
    parts += [b"k", b"i", None, b"n", b"s", b"x\ny", b"[]"]
    text = bytes(32)
    for part in parts:
        text += b"\xff" * 8 if part is None else len(part).to_bytes(8, "big") + part
    found = chain.digest(chain.FIRST, 1, at, command, 201, b"r", (change,), (note,))
    assert found == hashlib.sha256(text).digest()
