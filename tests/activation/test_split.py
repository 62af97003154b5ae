"""The platform's split and the check of a provider's own, by law and by hand (ACT-01)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.activation.split import Able, check_split, split

PERIODS = 4
HOURS = [0.25] * PERIODS
STARTS = [datetime(2026, 7, 5, 10, tzinfo=UTC) + k * timedelta(minutes=15) for k in range(PERIODS)]

ables = st.lists(
    st.builds(
        Able,
        st.sampled_from([f"u{k}" for k in range(6)]),
        st.tuples(*[st.integers(0, 60)] * PERIODS),
        st.one_of(st.none(), st.floats(0, 40)),
        st.integers(0, 20),
        st.tuples(*[st.booleans()] * PERIODS),
    ),
    max_size=6,
    unique_by=lambda one: one.unit,
)
orders = st.lists(st.integers(0, 200), min_size=PERIODS, max_size=PERIODS)


@pytest.mark.spec("ACT-01")
@settings(max_examples=50, deadline=None)
@given(orders, ables, st.randoms())
def test_a_split_adds_up_and_asks_nobody_for_more_than_it_can(
    order: list[int], able: list[Able], chance: object
) -> None:
    found = split(order, HOURS, able)
    assert (found.power.sum(axis=0) + found.short).tolist() == order
    assert (found.short >= 0).all() and (found.power >= 0).all()
    for unit, power in zip(found.units, found.power.tolist(), strict=True):
        one = next(one for one in able if one.unit == unit)
        assert all(kw <= one.most(t) for t, kw in enumerate(power))
        assert all(kw == 0 or kw >= one.least for kw in power)
        assert one.energy is None or sum(power) * 0.25 <= one.energy + 1e-6
    mixed = list(able)
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    again = split(order, HOURS, mixed)
    assert again.units == found.units and (again.power == found.power).all()


@pytest.mark.spec("ACT-01")
@settings(max_examples=50, deadline=None)
@given(orders, ables)
def test_nothing_is_short_that_units_without_a_least_can_give(order: list[int], able: list[Able]) -> None:
    free = [Able(one.unit, one.power, None, 0, one.late) for one in able]
    found = split(order, HOURS, free)
    room = [sum(one.most(t) for one in free) for t in range(PERIODS)]
    assert found.short.tolist() == [max(0, wanted - most) for wanted, most in zip(order, room, strict=True)]


@pytest.mark.spec("ACT-01")
@settings(max_examples=50, deadline=None)
@given(orders, ables)
def test_the_platforms_own_split_passes_the_check_of_a_providers(order: list[int], able: list[Able]) -> None:
    found = split(order, HOURS, able)
    given_whole = [wanted - int(short) for wanted, short in zip(order, found.short, strict=True)]
    own = {unit: power.tolist() for unit, power in zip(found.units, found.power, strict=True)}
    assert check_split(given_whole, HOURS, STARTS, able, own) == ()


def test_the_longest_lasting_goes_first_and_each_is_filled_before_the_next() -> None:
    able = [
        Able("battery", (100,) * PERIODS, 50.0),
        Able("small", (30,) * PERIODS),
        Able("large", (40,) * PERIODS),
        Able("short", (100,) * PERIODS, 25.0),
    ]
    found = split([90] * PERIODS, HOURS, able)
    by_unit = dict(zip(found.units, found.power.tolist(), strict=True))
    assert by_unit["large"] == [40] * 4 and by_unit["small"] == [30] * 4
    assert by_unit["battery"] == [20] * 4 and by_unit["short"] == [0] * 4


def test_a_unit_with_a_least_is_made_room_for_or_left_out() -> None:
    able = [Able("a", (50,)), Able("b", (40,), None, 30)]
    assert split([60], [1.0], able).power.tolist() == [[30], [30]]
    assert split([60], [1.0], [Able("a", (50,), None, 45), Able("b", (40,), None, 30)]).short.tolist() == [10]


def test_a_providers_split_is_refused_with_every_fault() -> None:
    able = [Able("a", (50,) * 4, 20.0, 10, (True, False, False, False)), Able("b", (40,) * 4)]
    own = {"a": [20, 5, 60, 50], "b": [10, -1, 10, 10], "c": [1, 1, 1, 1], "d": [1]}
    found = check_split([30, 30, 70, 60], HOURS, STARTS, able, own)
    assert {one.code for one in found} == {
        "too_late", "least", "above_able", "negative", "unknown_unit", "energy", "sum",
    }  # fmt: skip
    assert check_split([10], [1.0], STARTS[:1], [Able("a", (50,))], {"a": [10, 10]})[0].code in ("periods", "sum")


def test_a_unit_that_stands_twice_is_no_question() -> None:
    with pytest.raises(ValueError, match="twice"):
        split([1], [1.0], [Able("a", (1,)), Able("a", (1,))])
