"""Admission: each refusal with its code, gaps and late ones named, the same state after a restart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.domain.errors import Refused
from coflex.metering.admission import (
    CLOCK_OFF,
    DAY,
    FARTHEST_BACK,
    FARTHEST_JUMP,
    MINUTE,
    NOT_ASKED,
    OLDEST,
    REFUSALS,
    REMEMBERED,
    Admission,
    Candidate,
    Coverage,
    Gap,
    Signer,
    Signers,
)

NOW = 1_782_900_000_000
KEY, OTHER = bytes(range(32)), bytes(32)


def registered(count: int = 3, **more: Any) -> Signers:
    return Signers(Signer(100 + i, KEY, f"owner-{i}", **more) for i in range(count))


def told(sequence: int, row: int = 0, at: int | None = None, digest: int = 0, **more: Any) -> Candidate:
    """Message n covers the nth minute and is signed at its end."""
    first = NOW + (sequence - 1) * MINUTE
    fields: dict[str, Any] = {
        "first": first, "step": 4_000, "intervals": 15, "quantity": 1, "low": -5.0, "high": 5.0, **more
    }  # fmt: skip
    end = fields["first"] + fields["step"] * fields["intervals"]
    return Candidate(row, 1, sequence, end if at is None else at, digest or 1_000 * row + sequence, **fields)


def code(admission: Admission, one: Candidate, now: int | None = None, owners: frozenset[str] | None = None) -> str:
    return admission.admit(one, owners, one.signed_at if now is None else now)[0]


def taken(*sequences: int) -> Admission:
    admission = Admission(registered())
    for sequence in sequences:
        assert code(admission, told(sequence)) == ""
    return admission


# ---------------------------------------------------------------- sequence


def test_messages_in_order_are_taken() -> None:
    admission = taken(1, 2, 3)
    assert (admission.last(0), admission.last(1), admission.gaps) == (3, 0, {})


def test_the_same_bytes_again_are_a_duplicate_and_other_bytes_a_replay() -> None:
    admission = taken(1, 2, 3)
    assert code(admission, told(2)) == "duplicate"
    assert code(admission, told(2, digest=77)) == "replayed"
    assert code(admission, told(3, digest=77)) == "replayed"
    assert code(admission, told(4)) == ""


def test_what_is_remembered_no_more_is_asked_of_the_log() -> None:
    asked = []

    def known(row: int, sequence: int) -> int | None:
        asked.append((row, sequence))
        return sequence

    admission = Admission(registered(), known)
    for sequence in range(1, REMEMBERED + 3):
        assert code(admission, told(sequence)) == ""
    assert code(admission, told(REMEMBERED)) == "duplicate"
    assert asked == []
    assert code(admission, told(2)) == "duplicate"
    assert code(admission, told(1, digest=9)) == "replayed"
    assert asked == [(0, 2), (0, 1)]


def test_the_log_is_asked_about_what_is_not_too_far_back_and_says_when_it_cannot_be_asked() -> None:
    asked, answer = [], NOT_ASKED

    def known(row: int, sequence: int) -> int | None:
        asked.append(sequence)
        return sequence if answer is None else answer

    admission = Admission(registered(), known)
    assert code(admission, told(1)) == ""
    last = FARTHEST_BACK + 10
    assert code(admission, told(last)) == ""
    admission.gaps.clear()  # all that came between was refused
    state = admission.columns()
    assert code(admission, told(11), NOW + last * MINUTE) == "not_now"
    assert code(admission, told(10), NOW + last * MINUTE) == "replayed"
    assert asked == [11]
    answer = None
    assert code(admission, told(11), NOW + last * MINUTE) == "duplicate"
    assert all(np.array_equal(column, state[name]) for name, column in admission.columns().items())


def test_a_gap_is_named_and_what_comes_late_fills_it() -> None:
    admission = taken(1, 2)
    gap = admission.admit(told(6), None, NOW + 6 * MINUTE)
    assert gap == ("", Gap(100, 3, 5))
    assert admission.gaps == {0: [(3, 5)]}
    assert code(admission, told(4), NOW + 7 * MINUTE) == ""
    assert admission.gaps == {0: [(3, 3), (5, 5)]}
    assert code(admission, told(4), NOW + 7 * MINUTE) == "duplicate"
    assert code(admission, told(3), NOW + 7 * MINUTE) == ""
    assert code(admission, told(5), NOW + 7 * MINUTE) == ""
    assert admission.gaps == {}
    assert code(admission, told(7), NOW + 7 * MINUTE) == ""


def test_a_message_that_fills_a_gap_was_signed_before_the_last_one() -> None:
    admission = taken(1, 4)
    assert code(admission, told(2, at=NOW + 5 * MINUTE), NOW + 5 * MINUTE) == "clock_off"
    assert code(admission, told(2), NOW + 5 * MINUTE) == ""


def test_a_jump_too_far_is_refused_and_changes_nothing() -> None:
    admission = taken(1)
    far = told(2)._replace(sequence=1 + FARTHEST_JUMP + 1)
    assert code(admission, far) == "sequence_jump"
    assert (admission.last(0), admission.gaps) == (1, {})
    assert code(admission, told(2)) == ""


def test_what_was_refused_is_no_gap() -> None:
    admission = taken(1)
    assert code(admission, told(2, high=1e12)) == "bad_value"
    assert admission.admit(told(3), None, NOW + 3 * MINUTE) == ("", None)
    assert admission.last(0) == 3
    assert code(admission, told(2)) == "replayed"


# ---------------------------------------------------------------- clock


def test_a_clock_ahead_is_off() -> None:
    admission = taken()
    assert code(admission, told(1), NOW + MINUTE - CLOCK_OFF - 1) == "clock_off"
    assert code(admission, told(1), NOW + MINUTE - CLOCK_OFF) == ""


def test_a_clock_that_does_not_rise_is_off() -> None:
    admission = taken(1)
    for at in (NOW, NOW + MINUTE):
        assert code(admission, told(2, at=at), NOW + 2 * MINUTE) == "clock_off"


def test_the_first_word_of_a_device_is_not_an_hour_old() -> None:
    assert code(taken(), told(1), NOW + 61 * MINUTE) == "clock_off"


def test_a_buffer_that_is_sent_after_an_outage_is_late_and_not_off() -> None:
    """A day offline, then all at once, with another break in the middle."""
    admission = taken(1)
    back = NOW + DAY
    for sequence in range(2, 700):
        assert code(admission, told(sequence), back + sequence) == ""
    for sequence in range(700, 1_440):
        assert code(admission, told(sequence), back + 3 * 60 * MINUTE + sequence) == ""
    assert code(admission, told(1_441), NOW + 1_441 * MINUTE + 3 * 60 * MINUTE) == ""


def test_a_clock_that_stays_an_hour_behind_is_off_from_the_third_message() -> None:
    """It was right, then was set back an hour while the device was off for longer."""
    admission = taken(1)
    lag = 60 * MINUTE
    codes = [code(admission, told(2 + i), NOW + (2 + i) * MINUTE + lag) for i in range(8)]
    assert codes[0] == ""
    assert codes[4:] == ["clock_off"] * 4
    assert set(codes) == {"", "clock_off"}


# ---------------------------------------------------------------- measured


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"first": NOW + 60 * MINUTE, "at": NOW + MINUTE}, "bad_interval"),
        ({"first": NOW + 8_000, "at": NOW + MINUTE}, "bad_interval"),
        ({"first": NOW - OLDEST, "at": NOW + MINUTE}, "bad_interval"),
        ({"first": NOW - 33 * DAY, "step": 33 * DAY // 15, "at": NOW + MINUTE}, "bad_interval"),
        ({"high": 11_001.0}, "bad_value"),
        ({"low": -11_001.0}, "bad_value"),
        ({"quantity": 3, "low": -1.0, "high": 230.0}, "bad_value"),
        ({"quantity": 4, "low": 0.0, "high": 100.1}, "bad_value"),
        ({"quantity": 5, "low": 0.0, "high": 13.0}, "bad_value"),
        ({"quantity": 6}, "wrong_unit"),
        ({"quantity": 7, "first": NOW + 39 * DAY, "at": NOW + MINUTE}, ""),
        ({"quantity": 7, "first": NOW + 41 * DAY, "at": NOW + MINUTE}, "bad_interval"),
        ({"quantity": 5, "low": 0.0, "high": 12.0}, ""),
        ({}, ""),
    ],
)
def test_what_cannot_be_measured_is_refused(more: dict[str, Any], expected: str) -> None:
    admission = Admission(registered(most_w=11_000.0, quantities=frozenset({1, 3, 4, 5, 7})))
    assert code(admission, told(1, **more), NOW + MINUTE) == expected
    assert expected in ("", *REFUSALS)


def test_a_point_of_another_owner_is_refused() -> None:
    admission = taken()
    assert code(admission, told(1, row=1), owners=frozenset({"owner-0"})) == "wrong_owner"
    assert admission.last(1) == 0
    assert code(admission, told(1, row=0), owners=frozenset({"owner-0"})) == ""


def test_time_delivered_before_is_refused_but_as_a_correction() -> None:
    admission = taken(1, 2, 3)
    at = NOW + 10 * MINUTE
    assert code(admission, told(4, first=NOW + MINUTE, at=at)) == "overlaps"
    assert code(admission, told(5, first=NOW + MINUTE, at=at + 1, revision=1)) == ""
    assert code(admission, told(6, first=NOW + MINUTE, at=at + 2, revision=1)) == "overlaps"
    assert code(admission, told(7, first=NOW + MINUTE, at=at + 3, revision=2)) == ""
    assert code(admission, told(8, first=NOW, at=at + 4, revision=2, intervals=45)) == "overlaps"
    assert code(admission, told(9, first=NOW, at=at + 5, revision=3, intervals=45)) == ""
    assert code(admission, told(10, first=NOW + 2_000, at=at + 6, revision=9)) == "overlaps"
    assert code(admission, told(11, first=NOW, at=at + 7, revision=9, step=8_000)) == "overlaps"
    assert code(admission, told(12, first=NOW + MINUTE, at=at + 8, quantity=3, low=1.0)) == ""


def test_a_gap_in_time_can_be_filled_once() -> None:
    admission = taken(1)
    at = NOW + 20 * MINUTE
    assert code(admission, told(2, first=NOW + 5 * MINUTE, at=at)) == ""
    assert code(admission, told(3, first=NOW + 2 * MINUTE, at=at + 1)) == ""
    assert code(admission, told(4, first=NOW + 2 * MINUTE, at=at + 2)) == "overlaps"
    assert code(admission, told(5, first=NOW, at=at + 3)) == "overlaps"
    assert code(admission, told(6, first=NOW - MINUTE, at=at + 4)) == ""


# ---------------------------------------------------------------- keys


def test_a_key_is_valid_in_its_time_and_a_later_one_ends_it() -> None:
    signers = Signers([Signer(5, KEY, since=10, until=20)])
    row = signers.row(5)
    assert row == 0
    assert [signers.key(0, at) for at in (9, 10, 19, 20)] == [None, KEY, KEY, None]
    assert signers.put(Signer(5, OTHER, since=15)) == 0
    assert [signers.key(0, at) for at in (9, 10, 14, 15, 1 << 60)] == [None, KEY, KEY, OTHER, OTHER]
    assert signers.validity(0, 12) == (10, 15, KEY)
    assert (signers.row(5, party=True), signers.row(6)) == (None, None)
    assert signers.put(Signer(5, KEY, party=True)) == 1


def test_a_key_that_is_none_is_refused_with_every_fault() -> None:
    with pytest.raises(Refused) as fault:
        Signers([Signer(1 << 32, b"short", since=5, until=5)])
    assert sorted(one.code for one in fault.value.findings) == ["bad_key", "bad_number", "bad_validity"]


# ---------------------------------------------------------------- as properties

moves = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(1, 12), st.integers(0, 14), st.integers(0, 2), st.integers(1, 3),
        st.booleans(),
    ),
    max_size=40,
)  # fmt: skip


def candidates(drawn: Sequence[tuple[int, int, int, int, int, bool]]) -> list[tuple[Candidate, int]]:
    return [
        (
            told(sequence, row, NOW + (30 + sequence) * MINUTE, 1_000 * row + 10 * sequence + other,
                 first=NOW + minute * MINUTE, revision=revision, intervals=15 * length),
            NOW + (30 + sequence) * MINUTE + i,
        )
        for i, (row, sequence, minute, revision, length, other) in enumerate(drawn)
    ]  # fmt: skip


@given(moves)
def test_every_sequence_and_every_interval_and_revision_is_taken_once(
    drawn: list[tuple[int, int, int, int, int, bool]],
) -> None:
    admission = Admission(registered())
    sequences: set[tuple[int, int]] = set()
    covered: set[tuple[int, int, int]] = set()
    for one, now in candidates(drawn):
        if code(admission, one, now):
            continue
        assert (one.row, one.sequence) not in sequences
        sequences.add((one.row, one.sequence))
        times = {(one.row, one.first + i * one.step, one.revision) for i in range(one.intervals)}
        assert not times & covered
        assert not any((row, at, higher) in covered for row, at, revision in times for higher in range(revision, 3))
        covered |= times
    for row in range(3):
        missing = {s for first, last in admission.gaps.get(row, ()) for s in range(first, last + 1)}
        assert not {s for r, s in sequences if r == row} & missing
        assert all(1 <= s < admission.last(row) for s in missing)


@given(moves, st.integers(0, 40))
def test_a_kept_state_goes_on_as_if_nothing_had_happened(
    drawn: list[tuple[int, int, int, int, int, bool]], cut: int
) -> None:
    """Also with the signers registered in another order, and one of them no more."""
    whole, first = Admission(registered()), Admission(registered())
    every = candidates(drawn)
    for one, now in every[:cut]:
        assert code(whole, one, now) == code(first, one, now)
    again = Admission(Signers(Signer(100 + i, KEY, f"owner-{i}") for i in (2, 0)))
    again.restore(first.columns())
    rows = {row: again.signers.row(100 + row) for row in range(3)}
    for one, now in every[cut:]:
        moved = one._replace(row=rows[one.row])
        assert code(whole, one, now) == code(again, moved, now)
    for row, other in rows.items():
        assert other is not None
        assert whole.last(row) == again.last(other)
        assert whole.gaps.get(row) == again.gaps.get(other)


@given(moves)
def test_replaying_what_was_taken_gives_the_same_state(drawn: list[tuple[int, int, int, int, int, bool]]) -> None:
    """But for what was refused, of which the log knows nothing."""
    live, replayed = Admission(registered()), Admission(registered())
    for one, now in candidates(drawn):
        if not code(live, one, now):
            replayed.replay(one, now)
    for one, now in candidates([(0, 12, minute, revision, 1, True) for minute in range(16) for revision in range(3)]):
        free = one._replace(sequence=one.sequence + 30 + one.first % 97, signed_at=one.signed_at + 60 * MINUTE)
        assert live._coverage.put(free, now) == replayed._coverage.put(free, now)
        assert now


@given(
    st.lists(
        st.tuples(st.integers(0, 400), st.integers(1, 9), st.sampled_from((1, 2, 4)), st.integers(0, 3)), max_size=60
    ),
    st.integers(0, 60),
)
def test_what_was_delivered_is_known_as_if_each_message_was_kept(
    drawn: list[tuple[int, int, int, int]], cut: int
) -> None:
    """Against all of them looked at one by one; also after a restart, and at a time that drops what is too old."""
    coverage = Coverage()
    held: list[tuple[int, int, int, int]] = []
    begin = NOW
    for number, (at, intervals, step, revision) in enumerate(drawn):
        if number == cut:
            begin = NOW + 100
            columns = coverage.columns()
            coverage = Coverage()
            coverage.restore(columns, np.arange(1))
        first = max(NOW + at, begin)
        end = first + intervals * step
        one = told(1, first=first, step=step, intervals=intervals, revision=revision)
        meets = [(a, other, version) for a, b, other, version in held if a < end and first < b]
        free = all(version < revision and other == step and not (first - a) % step for a, other, version in meets)
        assert coverage.put(one, begin + OLDEST) == free
        if free:
            held.append((first, end, step, revision))


def test_work_and_memory_of_a_message_do_not_grow_with_what_came_before() -> None:
    """A point that measures every other interval: what is too old to be measured again is kept no more."""
    coverage, step = Coverage(), 60 * MINUTE
    for number in range(12_000):
        first = NOW + 2 * number * step
        assert coverage.put(told(1, first=first, step=step, intervals=1), first + step)
    assert 0 < len(coverage.columns()["spans"]) <= OLDEST // (2 * step) + 1
    late = told(1, first=NOW + 2 * 11_990 * step, step=step, intervals=1)
    assert not coverage.put(late, NOW + 24_000 * step)


def test_data_older_than_400_days_is_refused_whenever_it_was_signed() -> None:
    admission = taken(1, 3)
    late = NOW + OLDEST
    assert code(admission, told(2), late + MINUTE) == ""
    admission = taken(1, 3)
    assert code(admission, told(2), late + MINUTE + 1) == "bad_interval"
