"""Profiles over time: the laws of their arithmetic, against one power a minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.activation.profile import (
    Profile,
    between,
    bounds,
    constant,
    exceeds,
    kw_at,
    kwh,
    least,
    minus,
    plus,
    profile,
    without,
)
from coflex.domain.activation import Piece

BEGIN = datetime(2026, 7, 5, 10, tzinfo=UTC)
MINUTES = 12


def at(minute: int) -> datetime:
    return BEGIN + timedelta(minutes=minute)


def of(powers: list[int]) -> Profile:
    return profile(Piece(at(m), at(m + 1), kw) for m, kw in enumerate(powers))


def minutes(one: Profile) -> list[int]:
    return [kw_at(one, at(m)) for m in range(MINUTES)]


powers = st.lists(st.integers(0, 3), min_size=MINUTES, max_size=MINUTES)
instants = st.integers(-1, MINUTES + 1)


@settings(deadline=None)
@given(powers, powers)
def test_sums_differences_and_least_are_those_of_every_minute(a: list[int], b: list[int]) -> None:
    one, other = of(a), of(b)
    assert minutes(plus(one, other)) == [x + y for x, y in zip(a, b, strict=True)]
    assert (
        minutes(minus(one, other)) == minutes(exceeds(one, other)) == [max(0, x - y) for x, y in zip(a, b, strict=True)]
    )
    assert minutes(least(one, other)) == [min(x, y) for x, y in zip(a, b, strict=True)]
    assert plus(minus(one, other), least(one, other)) == one
    assert kwh(one) == pytest.approx(sum(a) / 60)


@settings(deadline=None)
@given(powers, instants, instants)
def test_a_part_and_the_rest_are_the_whole(a: list[int], first: int, last: int) -> None:
    one, starts, ends = of(a), at(min(first, last)), at(max(first, last))
    inside = between(one, starts, ends)
    assert minutes(inside) == [kw if starts <= at(m) < ends else 0 for m, kw in enumerate(a)]
    if starts < ends:
        assert profile((*inside, *without(one, starts, ends))) == one


@settings(deadline=None)
@given(powers)
def test_equal_profiles_are_equal_values_and_have_the_fewest_pieces(a: list[int]) -> None:
    one = of(a)
    changes = sum(x != y for x, y in zip([0, *a], [*a, 0], strict=True))
    assert len(bounds([one])) == changes
    assert all(piece.kw > 0 for piece in one)
    assert of(a) == profile(reversed(one))


def test_pieces_that_overlap_or_run_backwards_are_no_profile() -> None:
    for bad in ([Piece(at(0), at(2), 1), Piece(at(1), at(3), 1)], [Piece(at(1), at(1), 1)], [Piece(at(0), at(1), -1)]):
        with pytest.raises(ValueError, match=r"overlap|no power"):
            profile(bad)
    assert constant(0, at(0), at(1)) == constant(5, at(1), at(1)) == ()
