"""Many points at once: the same lines and the same cents as one line after another, whatever the engine is handed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coflex.adapters.warehouse.engine import Warehouse, open_warehouse
from coflex.domain.errors import Refused
from coflex.domain.quantity import Direction
from coflex.domain.reading import Quality
from coflex.settlement import column_books, columns
from coflex.settlement.column_rules import rule_row
from coflex.settlement.document import (
    By,
    Delivered,
    Fee,
    Need,
    Payer,
    Payment,
    Penalty,
    PenaltyKind,
    Rule,
    Sides,
    Source,
)
from coflex.settlement.inputs import Bought, Delivery, Inputs
from coflex.settlement.rules import Response, SettlementRule
from coflex.settlement.summary import settled
from support.plain_settlement import Booking, PlainLine, plain_cents, plain_lines, plain_postings
from support.warehouse import put

D = Decimal
MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
FEE = D("0.0123")


def rule(name: str, delivered: Delivered, penalty: Penalty, payment: Payment = Payment()) -> Rule:  # noqa: B008
    return Rule(
        id=name, version=1, title=name, source=Source(document="test", section="1"), delivered=delivered,
        payment=payment, penalty=penalty, payers={Need.DSO_CONGESTION: Payer.BUYER}, fee=Fee(share=FEE),
    )  # fmt: skip


DOCUMENTS = (
    rule("plain", Delivered(by=By.METERED, tolerance=D("0.1")), Penalty(kind=PenaltyKind.SHARE, share=D("0.5"))),
    rule(
        "two_sided",
        Delivered(by=By.REQUESTED, tolerance=D("0.0123")),
        Penalty(kind=PenaltyKind.SHARE, share=D("1.5"), sides=Sides.TWO),
    ),
    rule(
        "curve",
        Delivered(by=By.METERED),
        Penalty(kind=PenaltyKind.FIXED, eur_mwh=D("11.11")),
        Payment(curve=((D("0.5"), D(0)), (D("0.75"), D("0.6")), (D(1), D(1)), (D("1.2"), D("1.1"))), cap=D("1.05")),
    ),
    # The USEF settlement, with its penalty price for every order.
    rule("usef", Delivered(by=By.METERED, opposite_counts=True), Penalty(kind=PenaltyKind.FIXED, eur_mwh=D(11))),
)
RULES = tuple(one.terms() for one in DOCUMENTS)
BOOKINGS = (
    ("global-1", "tso", "sp-1", Direction.UP, 1),
    ("local-1", "dso", "sp-1", Direction.DOWN, 0),
    ("local-1", "dso", "sp-2", Direction.UP, 2),
    ("local-2", "dso", "sp-2", Direction.DOWN, 3),
)
POINTS, QUARTERS = range(1, 5), range(3)


@dataclass(frozen=True)
class Order:
    """One order: which booking, where and when, its steps (kW, cents per MWh) and how much of it stood."""

    booking: int
    point: int
    quarter: int
    steps: tuple[tuple[int, int], ...]
    standing: float

    @property
    def start(self) -> datetime:
        return MIDNIGHT + self.quarter * timedelta(minutes=15)

    @property
    def awarded(self) -> int:
        return sum(kw for kw, _ in self.steps)

    @property
    def ordered(self) -> int:
        return round(self.standing * self.awarded)


wh = st.integers(-40_000, 40_000)
orders = st.lists(
    st.builds(
        Order,
        st.integers(0, len(BOOKINGS) - 1),
        st.sampled_from(POINTS),
        st.sampled_from(QUARTERS),
        st.lists(
            st.tuples(st.integers(0, 60), st.integers(-40_000, 40_000)),
            min_size=1,
            max_size=3,
            unique_by=lambda s: s[1],
        ).map(tuple),
        st.sampled_from((1.0, 1.0, 0.6, 0.0)),
    ),
    max_size=30,
    unique_by=lambda order: (order.booking, order.point, order.quarter),
)
meters = st.fixed_dictionaries(
    {
        (point, quarter): st.tuples(wh, wh, st.sampled_from((Quality.MEASURED,) * 5 + (Quality.MISSING,)))
        for point in POINTS
        for quarter in QUARTERS
    }
)
Meters = dict[tuple[int, int], tuple[int, int, Quality]]


@pytest.fixture(scope="module")
def house() -> Iterator[Warehouse]:
    with open_warehouse("duckdb:", threads=1) as opened:
        yield opened


def one_by_one(given: list[Order], metered: Meters) -> list[tuple[Booking, PlainLine]]:
    """The lines of plain arithmetic, in the order in which `_activations` numbers the offers."""
    made = []
    for order in given:
        session, buyer, provider, _, terms = BOOKINGS[order.booking]
        response = response_of(order, metered)
        steps = [(D(kw) / 4, D(price) / 100) for kw, price in order.steps]
        lines = plain_lines(RULES[terms], FEE, D(order.ordered) / 4, steps, response)
        made += [((session, buyer, provider), line) for line in lines]
    return made


def response_of(order: Order, metered: Meters) -> Decimal | None:
    measured, baseline, quality = metered[order.point, order.quarter]
    missing = quality is Quality.MISSING
    return None if missing else BOOKINGS[order.booking][3].sign * D(measured - baseline) / 1000


def as_deliveries(given: list[Order], metered: Meters) -> Inputs:
    """The orders as the settlement of documents takes them, their awards named by the numbers of their offers."""
    made, number = [], 0
    for order in given:
        session, buyer, provider, direction, terms = BOOKINGS[order.booking]
        measured, baseline, quality = metered[order.point, order.quarter]
        bought = []
        for kw, price in sorted(order.steps, key=lambda step: (step[1], step[0])):
            bought.append(Bought(str(number), D(kw) / 4, D(price) / 100))
            number += 1
        made.append(
            Delivery(
                id=f"{order.booking} {order.point} {order.quarter}",
                rule=DOCUMENTS[terms].id,
                unit=f"u{order.point}",
                provider=provider,
                buyer=buyer,
                session=session,
                need=Need.DSO_CONGESTION,
                start=order.start,
                minutes=15,
                direction=direction,
                ordered_kwh=D(order.ordered) / 4,
                bought=tuple(bought),
                baseline_kwh=D(baseline) / 1000,
                measured_kwh=D(measured) / 1000,
                quality=quality,
            )
        )
    return Inputs("2026-11", tuple(made))


def at_once(house: Warehouse, given: list[Order], metered: Meters) -> dict[str, list[dict[str, Any]]]:
    """The same from tables, on the engine, from the activations outward and from all rows."""
    with tempfile.TemporaryDirectory() as room:
        _put_tables(Path(room), given, metered)
        taken = {
            name: house.take(name, kinds, Path(room) / f"{name}.parquet")
            for name, kinds in (
                ("readings", columns.READINGS),
                ("baselines", columns.BASELINES),
                ("activations", columns.ACTIVATIONS),
                ("bookings", columns.BOOKINGS),
                ("rules", columns.RULES),
            )
        }
        used = taken["readings"], taken["baselines"], taken["activations"]
        outward = house.keep("energies", columns.energies_of_activated(*used))
        every = columns.energies_of_all(*used)
        exact = house.keep("exact", columns.lines(taken["activations"], outward, taken["rules"]))
        totals = house.keep("totals", column_books.totals(exact))
        expressions = {
            "outward": outward,
            "all": every.filter(every.start.notnull()),
            "lines": column_books.rounded(exact, totals),
            "postings": column_books.postings(totals, taken["bookings"], "platform"),
        }
        return {name: house.rows(expression).to_pylist() for name, expression in expressions.items()}


def _put_tables(folder: Path, given: list[Order], metered: Meters) -> None:
    slots = [(point, MIDNIGHT + quarter * timedelta(minutes=15), *found) for (point, quarter), found in metered.items()]
    put(
        folder,
        "readings",
        columns.READINGS,
        [
            {"point": point, "start": start, "wh": measured, "quality": 2 * (quality is Quality.MISSING), "version": 0}
            for point, start, measured, _, quality in slots
        ],
    )
    put(
        folder,
        "baselines",
        columns.BASELINES,
        [{"point": point, "start": start, "wh": baseline} for point, start, _, baseline, _ in slots],
    )
    put(folder, "activations", columns.ACTIVATIONS, list(_activations(given)))
    names = ("booking", "session", "buyer", "provider")
    put(
        folder,
        "bookings",
        columns.BOOKINGS,
        [dict(zip(names, (i, *one[:3]), strict=True)) for i, one in enumerate(BOOKINGS)],
    )
    put(folder, "rules", columns.RULES, [rule_row(number, rule, FEE) for number, rule in enumerate(RULES)])


def _activations(given: list[Order]) -> Iterator[dict[str, Any]]:
    """One row a step, what stood laid on the cheapest first; offers are numbered as the lines of `one_by_one`."""
    number = 0
    for order in given:
        *_, direction, rule = BOOKINGS[order.booking]
        left = order.ordered
        for kw, price in sorted(order.steps, key=lambda step: (step[1], step[0])):
            taken = min(left, kw)
            left -= taken
            yield {
                "point": order.point,
                "start": order.start,
                "booking": order.booking,
                "offer": number,
                "rule": rule,
                "sign": direction.sign,
                "ordered_wh": 250 * taken,
                "price": price,
            }
            number += 1


def exact_eur(line: dict[str, Any], kind: str) -> Decimal:
    return (D(line[f"{kind}_cents"]) + D(line[f"{kind}_rest"]) / columns.REST) / 100


@pytest.mark.spec("SET-02", "SET-06")
@given(orders, meters)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_many_at_once_are_settled_as_one_after_another_to_the_last_digit_and_the_last_cent(
    house: Warehouse, given: list[Order], metered: Meters
) -> None:
    expected = one_by_one(given, metered)
    found = at_once(house, given, metered)
    lines = sorted(found["lines"], key=lambda line: line["offer"])
    assert [line["offer"] for line in lines] == list(range(len(expected)))
    names = [one[:3] for one in BOOKINGS]
    for line, (booking, one), cents in zip(lines, expected, plain_cents(expected), strict=True):
        assert names[line["booking"]] == booking
        assert (line["ordered_wh"], line["delivered_wh"]) == (1000 * one.ordered, 1000 * one.delivered)
        assert D(line["paid"]) / columns.GRAIN == 1000 * one.paid
        assert tuple(exact_eur(line, kind) for kind in columns.KINDS) == one.amounts
        assert tuple(line[kind] for kind in columns.KINDS) == cents
    postings = plain_postings(expected, "platform")
    assert {tuple(posting.values()) for posting in found["postings"]} == postings
    assert len(found["postings"]) == len(postings)


@pytest.mark.spec("SET-02", "SET-03")
@given(orders, meters)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_city_is_settled_as_the_documents_of_its_rules_say(
    house: Warehouse, given: list[Order], metered: Meters
) -> None:
    expected, _ = settled(as_deliveries(given, metered), {one.id: one for one in DOCUMENTS})
    by_offer = {int(line.award): line for line in expected}
    found = at_once(house, given, metered)["lines"]
    assert {line["offer"] for line in found} == by_offer.keys()
    for line in found:
        one = by_offer[line["offer"]]
        assert (line["ordered_wh"], line["delivered_wh"]) == (1000 * one.ordered_kwh, 1000 * one.delivered_kwh)
        # What documents round to 1e-6 kWh and 1e-9 EUR is exact here.
        assert abs(D(line["paid"]) / columns.GRAIN / 1000 - one.paid_kwh) <= D("1e-6")
        assert abs(exact_eur(line, "amount") - one.amount_eur) <= D("2e-9")
        assert abs(exact_eur(line, "penalty") - one.penalty_eur) <= D("2e-9")


@pytest.mark.spec("SET-02")
def test_the_usef_numbers_come_out_of_the_columns(house: Warehouse) -> None:
    """Baseline 10, order 2, price 7, penalty 11: allocation 7 to 11 gives 14, 14, -4, -22, -33 (UFTP specification)."""
    given = [Order(3, point, 0, ((2 * 4000, 700),), 1.0) for point in range(1, 6)]
    # A withdrawal is negative; the order asks for less of it, which is down for the injection of a source.
    metered: Meters = {(point, 0): ((6 + point) * 10**6, 10 * 10**6, Quality.MEASURED) for point in range(1, 6)}
    found = sorted(at_once(house, given, metered)["lines"], key=lambda line: line["point"])
    assert [exact_eur(line, "amount") - exact_eur(line, "penalty") for line in found] == [14, 14, -4, -22, -33]


@pytest.mark.spec("SET-02")
def test_both_ways_find_the_same_energies(house: Warehouse) -> None:
    given = [Order(1, point, quarter, ((5, 1000),), 1.0) for point in (1, 3) for quarter in (0, 2)]
    metered: Meters = {
        (point, quarter): (
            100 * point + quarter,
            7 * quarter,
            Quality.MISSING if point == quarter else Quality.MEASURED,
        )
        for point in POINTS
        for quarter in QUARTERS
    }
    found = at_once(house, given, metered)
    by_slot = [sorted(found[way], key=lambda row: (row["point"], row["start"])) for way in ("all", "outward")]
    assert by_slot[0] == by_slot[1]
    assert [(row["point"], row["measured_wh"]) for row in by_slot[0]] == [(1, 100), (1, 102), (3, 300), (3, 302)]


def test_a_payment_curve_is_cut_off_where_thirds_have_no_end(house: Warehouse) -> None:
    table = _numbers(house, [20_000, 29_999, 0])
    found = house.rows(table.mutate(third=columns.divided(table.value, 3))).to_pylist()
    assert sorted(row["third"] for row in found) == [0, 6_666, 9_999]


def test_whole_numbers_are_divided_exactly_where_floating_point_is_not(house: Warehouse) -> None:
    values = [2**53 + 1, 3 * 10**18 + 2 * 10**10 - 1, 10**10 - 1, 10**10, 0, 9 * 10**18 + 7]
    table = _numbers(house, values)
    found = house.rows(table.mutate(quotient=columns.divided(table.value, 10**10))).to_pylist()
    assert {row["value"]: row["quotient"] for row in found} == {value: value // 10**10 for value in values}


def _numbers(house: Warehouse, values: list[int]) -> Any:
    with tempfile.TemporaryDirectory() as room:
        house.take(
            "given", {"value": "int64"}, put(Path(room), "given", {"value": "int64"}, [{"value": v} for v in values])
        )
        return house.keep("numbers", house.table("given"))


@pytest.mark.spec("SET-02")
def test_what_a_row_cannot_hold_is_refused_with_every_reason() -> None:
    curve = tuple((D(k) / 7, D(k) / 8) for k in range(8))
    rule = SettlementRule(Response.METERED, D("0.12345"), D(1), penalty_eur_mwh=D("0.005"), payment=curve)
    with pytest.raises(Refused) as refused:
        rule_row(7, rule, D("1.5"), "sideways")
    codes = [finding.code for finding in refused.value.findings]
    assert {"too_fine", "too_long", "unknown", "out_of_range"} == set(codes)
    assert "rule 7: tolerance" in {finding.place for finding in refused.value.findings}
