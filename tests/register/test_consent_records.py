"""Consents that together cover a time, and the least that an owner's windows leave."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.domain.quantity import Direction
from coflex.register.consents import Availability, Consent, ConsentScope, Window, covered

START = datetime(2026, 7, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def at(hour: int) -> datetime:
    return START + hour * HOUR


@st.composite
def consents(draw: st.DrawFn) -> Consent:
    starts = draw(st.integers(0, 10))
    ends = draw(st.integers(starts + 1, 12))
    withdrawn = draw(st.none() | st.integers(0, 12))
    return Consent(
        "c", draw(st.sampled_from(["own", "other"])), "u", draw(st.sampled_from(["sp", "sp-2"])),
        draw(st.sampled_from([(ConsentScope.OFFER,), (ConsentScope.MEASURE,), tuple(ConsentScope)])),
        at(starts), at(ends), None if withdrawn is None else at(withdrawn),
    )  # fmt: skip


@pytest.mark.spec("REG-10")
@given(st.lists(consents(), max_size=6), st.integers(0, 11), st.integers(1, 12))
def test_a_time_is_covered_when_each_of_its_hours_is(given_: list[Consent], first: int, count: int) -> None:
    """The second way: hour by hour, which is exact since everything begins and ends on hours."""
    last = first + count
    hours = [
        any(
            one.owner == "own" and one.provider == "sp" and ConsentScope.OFFER in one.scope
            and one.starts <= at(hour) and at(hour + 1) <= one.ends
            and (one.withdrawn is None or at(hour + 1) <= one.withdrawn)
            for one in given_
        )
        for hour in range(first, last)
    ]  # fmt: skip
    assert covered(given_, "own", "u", "sp", ConsentScope.OFFER, at(first), at(last)) == all(hours)


@pytest.mark.spec("REG-10")
def test_a_withdrawn_consent_holds_up_to_its_withdrawal_and_not_after() -> None:
    one = Consent("c", "own", "u", "sp", (ConsentScope.OFFER,), at(0), at(10), at(4))
    assert one.holds(ConsentScope.OFFER, at(0), at(4))
    assert not one.holds(ConsentScope.OFFER, at(3), at(5))
    assert not one.holds(ConsentScope.MEASURE, at(0), at(1))


@pytest.mark.spec("ACT-07")
def test_the_least_of_the_windows_that_concern_a_time_is_what_is_left() -> None:
    owner = Availability("u", "own", (Window(at(0), at(2), 5, 9), Window(at(2), at(4), 3, 10)))
    assert owner.limit_kw(Direction.UP, at(1), at(3)) == 3
    assert owner.limit_kw(Direction.DOWN, at(1), at(3)) == 9
    assert owner.limit_kw(Direction.UP, at(1), at(2)) == 5
    assert owner.limit_kw(Direction.UP, at(4), at(6)) is None
