"""What is qualified now, to the instant, and fast enough for every offer."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.qualification import ProductLimit
from coflex.domain.quantity import Direction
from coflex.register.prequalification import GridAnswer, GridPrequalification, GridStatus
from coflex.register.resources import PointEntry, UnitEntry, UnitStatus
from coflex.service.limits import (
    asked_now,
    operators_of,
    product_limits,
    qualified_kw,
    qualified_products,
)
from support.qualifying import START, Desk, grid
from support.tested import product

UP, DOWN = Direction.UP, Direction.DOWN
HOURS = st.integers(0, 20)


def answered(
    desk: Desk, unit: str, operator: str, up: int, down: int, begin: int = 0, end: int | None = None
) -> GridPrequalification:
    """An answer for a unit as it is, valid from hour `begin` to hour `end`."""
    until = None if end is None else START + timedelta(hours=end)
    answer = GridAnswer(
        GridStatus.CONDITIONALLY_APPROVED, up, down, "r", "p", (), operator, START + timedelta(hours=begin), until,
        desk.the(UnitEntry, unit).changed_materially,
    )  # fmt: skip
    record = GridPrequalification(
        grid(unit, operator), unit, operator, "sp", operator == "dso", answer.status, START, answer=answer
    )
    desk.put(record)
    return record


@pytest.mark.spec("REG-03", "REG-04")
@given(
    answers=st.lists(st.tuples(st.integers(0, 800), st.integers(0, 800), HOURS, st.none() | HOURS), min_size=1,
                     max_size=3),
    given_by=st.integers(1, 3),
    now=st.integers(-1, 21),
)  # fmt: skip
@settings(deadline=None, max_examples=80)
def test_the_smallest_of_all_answers_in_force_counts_and_none_where_one_is_missing(
    answers: list[tuple[int, int, int, int | None]], given_by: int, now: int
) -> None:
    desk = Desk()
    desk.unit("cu-1")
    operators = ("dso", "dso-2", "tso")[: len(answers)]
    desk.impacts("cu-1", *operators[1:])
    for operator, (up, down, begin, end) in list(zip(operators, answers, strict=True))[:given_by]:
        answered(desk, "cu-1", operator, up, down, begin, end)
    # The same in a few words: all there, all in time, the least of them, at most what is registered.
    force = given_by >= len(answers) and all(begin <= now and (end is None or now < end) for *_, begin, end in answers)
    expected = {
        ("cu-1", direction): kw
        for direction, kw in ((UP, min(500, *(one[0] for one in answers))), (DOWN, min(500, *(a[1] for a in answers))))
        if force and kw > 0
    }
    assert qualified_kw(desk.state, START + timedelta(hours=now)) == expected


@pytest.mark.spec("REG-03")
def test_the_connecting_operator_comes_first_and_nobody_twice() -> None:
    desk = Desk()
    desk.unit("cu-1")
    desk.impacts("cu-1", "tso", "dso", "dso-2", "tso")
    assert operators_of(desk.the(PointEntry, "pod-cu-1")) == ("dso", "dso-2", "tso")


@pytest.mark.spec("REG-03")
def test_an_operator_that_becomes_concerned_has_to_answer_too() -> None:
    desk = Desk()
    desk.unit("cu-1")
    desk.approved("cu-1")
    assert qualified_kw(desk.state, desk.now)
    desk.impacts("cu-1", "tso")
    assert not qualified_kw(desk.state, desk.now)


@pytest.mark.spec("REG-04")
def test_an_answer_to_what_a_unit_was_counts_no_more() -> None:
    desk = Desk()
    desk.unit("cu-1")
    desk.approved("cu-1")
    desk.later(days=1)
    desk.changed("cu-1")
    assert not qualified_kw(desk.state, desk.now)
    desk.approved("cu-1")
    assert qualified_kw(desk.state, desk.now)


@pytest.mark.spec("REG-04")
def test_a_unit_that_registers_less_is_qualified_for_less_at_once() -> None:
    desk = Desk()
    desk.unit("cu-1")
    desk.approved("cu-1")
    entry = desk.the(UnitEntry, "cu-1")
    desk.put(replace(entry, unit=replace(entry.unit, up_kw=200)))
    assert qualified_kw(desk.state, desk.now) == {("cu-1", UP): 200, ("cu-1", DOWN): 500}
    desk.put(replace(entry, status=UnitStatus.TERMINATED))
    assert not qualified_kw(desk.state, desk.now)


@pytest.mark.spec("REG-07")
def test_the_quantity_that_was_tested_is_known_by_product_and_direction() -> None:
    desk = Desk()
    desk.unit("cu-1")
    desk.product("mfrr")
    desk.group("g", ("cu-1",))
    desk.approved("cu-1")
    desk.passed(up=400)
    assert product_limits(desk.state, "g", desk.now) == {"mfrr": ProductLimit("g", "mfrr", 400, 0, ("cu-1",))}
    assert product_limits(desk.state, "nothing", desk.now) == {}
    assert qualified_products(desk.state, "nothing", desk.now) == frozenset()


def test_what_an_unknown_product_asks_for_is_nothing() -> None:
    desk = Desk()
    assert asked_now(desk.state, "nothing") == ()
    desk.product("mfrr")
    (asked,) = asked_now(desk.state, "mfrr")
    assert asked.full_activation_time_s == product().full_activation_time_s


@pytest.mark.spec("REG-03")
def test_five_thousand_units_are_looked_up_without_being_gone_through_again() -> None:
    desk = Desk()
    for i in range(5_000):
        desk.unit(f"cu-{i:04d}")
        answered(desk, f"cu-{i:04d}", "dso", 400, 300, end=20)
    now = START + timedelta(hours=1)
    first = qualified_kw(desk.state, now)
    assert len(first) == 10_000
    began = time.perf_counter()
    for second in range(1_000):
        assert qualified_kw(desk.state, now + timedelta(seconds=second)) is first
    assert time.perf_counter() - began < 0.5
    assert not qualified_kw(desk.state, START + timedelta(hours=20))
    with pytest.raises(TypeError):
        first["cu-0000", UP] = 1  # type: ignore[index]
