"""From orders to money, with every figure worked out by hand (SET-02, SET-03)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.domain.activation import Piece
from coflex.domain.clearing import Award
from coflex.domain.errors import Refused
from coflex.domain.product import QuantityKind
from coflex.domain.quantity import Direction
from coflex.domain.reading import Quality
from coflex.register.activations import ActivationOrder, OrderKind, OrderState, SetPointEntry
from coflex.register.market import SessionEntry
from coflex.register.outcomes import SessionOutcome, Step, outcome_id, pack, unpack
from coflex.register.products import ProductEntry
from coflex.register.resources import UnitEntry
from coflex.register.settlement import OwnerContract, ReadyDay, SettlementTerms, Terms
from coflex.service.deliveries import Prepared, energies, need_of, prepare, responses
from coflex.service.gates import plan_of
from coflex.service.posting import propose
from coflex.service.reading import records
from coflex.service.settling import due_ready, period_of
from coflex.settlement.document import Need
from coflex.settlement.inputs import Delivery
from support.ordered import BEGIN, GLOBAL, at, award, offer
from support.platform import DAY, put
from support.settled import LOG, PERIOD, QUARTERS, UNITS, Settled, euros

D = Decimal


def prepared(world: Settled) -> Prepared:
    return prepare(world.state, period_of(world.state, PERIOD))


def deliveries(world: Settled, unit: str) -> list[Delivery]:
    return sorted((one for one in prepared(world).inputs.deliveries if one.unit == unit), key=lambda one: one.start)


def settled(world: Settled) -> list[Any]:
    world.settle(incomplete=True)
    return world.lines()


# ---------------------------------------------------------------- what was ordered, bought and metered


@pytest.mark.spec("SET-02")
def test_what_was_told_and_read_becomes_one_delivery_a_quarter_hour_with_its_evidence() -> None:
    world = Settled()
    world.bring_all(u0001="-25", u0003="-37.5")
    first = deliveries(world, "cu-0003")[0]
    assert (first.ordered_kwh, first.baseline_kwh, first.measured_kwh) == (D("12.5"), D(-50), D("-37.5"))
    assert [(one.award, one.energy_kwh, one.bid_eur_mwh) for one in first.bought] == [("sp-1/g.1", D("12.5"), D(40))]
    assert (first.buyer, first.provider, first.session, first.need) == ("tso", "sp-1", GLOBAL, Need.TSO_BALANCING)
    evidence = first.evidence
    assert (evidence.offer, evidence.measurements, evidence.log_size) == ("sp-1/g", LOG, 100)
    assert evidence.set_point == f"{world.order.id}.cu-0003" and GLOBAL in evidence.baseline
    assert prepared(world).inputs.platform == "mo" and len(prepared(world).inputs.deliveries) == 8


@pytest.mark.spec("SET-02", "SET-03")
def test_inside_the_tolerance_what_was_requested_is_paid_and_beyond_it_what_was_delivered_less_the_penalty() -> None:
    """cu-0001: 23 of 25 kWh, 92 %: paid as ordered, 4 x 25 x 0.040 = 4.00 EUR. cu-0003: 5 of 12.5 kWh: paid
    4 x 5 x 0.040 = 0.80, and half the price for 12.5 x 0.9 - 5 = 6.25 kWh: 4 x 0.5 x 0.040 x 6.25 = 0.50 EUR."""
    world = Settled()
    world.bring_all(u0001="-27", u0003="-45")
    lines = settled(world)
    assert (euros(lines, "cu-0001"), euros(lines, "cu-0003")) == (D("4.00"), D("0.30"))
    assert {line.charge.cause.value for line in lines if line.charge.unit == "cu-0003"} == {"activation", "penalty"}


@pytest.mark.spec("SET-02")
def test_without_a_reading_or_a_baseline_nothing_is_paid_and_nothing_punished() -> None:
    world = Settled()
    world.bring_all(u0001=None, u0003="-37.5")
    assert prepared(world).unmetered == tuple(one.id for one in deliveries(world, "cu-0001"))
    assert {one.quality for one in deliveries(world, "cu-0001")} == {Quality.MISSING}
    lines = settled(world)
    assert (euros(lines, "cu-0001"), euros(lines, "cu-0003")) == (0, D(2))
    bare = Settled(foreseen=None)
    bare.bring_all(u0001="-25", u0003="-37.5")
    assert len(prepared(bare).unmetered) == 8


@pytest.mark.spec("SET-01")
def test_the_first_baseline_method_that_is_there_counts() -> None:
    world = Settled()
    world.bring_all(u0001="-25", u0003="-37.5")
    brought = [world.baseline("cu-0001", ["-40"] * 96), world.baseline("cu-0003", [], "nominated")]
    world.bring({}, baselines=brought)
    # nominated stands before last_4_alike, and a nomination that was found not to be trusted does not count
    assert (deliveries(world, "cu-0001")[0].baseline_kwh, deliveries(world, "cu-0003")[0].baseline_kwh) == (-50, None)
    terms = Terms(DAY, "x", '{"id":"x"}', ("last_4_alike", "nominated"))
    document = prepared(world).documents["catalogue-global_energy"]
    own = replace(terms, rule="catalogue-global_energy", document=document)
    world.sequencer.submit(put([SettlementTerms("global_energy", (own,))]))
    first = deliveries(world, "cu-0001")[0]
    assert (first.baseline_kwh, first.baseline_method) == (-40, "last_4_alike@1")
    assert first.evidence.baseline.startswith("last_4_alike@1 abab")


@pytest.mark.spec("SET-02", "ACT-03")
def test_what_a_limit_takes_off_is_not_owed_and_what_takes_over_is_paid_at_its_own_price() -> None:
    """From minute 20 cu-0001 gives nothing: 100 kW x 5 min = 8.333 kWh are left of its second quarter-hour. cu-0006
    takes over at 60 EUR/MWh: 100 kW x 10 min = 16.667 kWh, then 25 kWh twice: 1.00002 + 1.5 + 1.5 EUR."""
    world = Settled(minutes=0)
    world.to(20)
    form = {"unit": "cu-0001", "to_kw": 0, "element": "line 1", "value": 1.2, "bound": 1.0}
    world.do("activation.limit", "dso", world.order.id, **form)
    world.to(25 * 60)
    mine = deliveries(world, "cu-0001")
    assert [(one.ordered_kwh, one.limited) for one in mine] == [(25, False), (D("8.333"), True)]
    assert sum(one.energy_kwh for one in mine[1].bought) == D("25.000")
    world.bring({("cu-0001", QUARTERS[0]): "-25", ("cu-0001", QUARTERS[1]): "-41.667"})
    world.bring_all(u0003="-37.5")
    world.bring({("cu-0006", start): "-25" for start in QUARTERS[2:]} | {("cu-0006", QUARTERS[1]): "-33.333"})
    lines = settled(world)
    assert euros(lines, "cu-0001") == D("1") + D("0.33332") and euros(lines, "cu-0006") == D("4.00002")
    (said,) = (one.charge.remark for one in lines if one.charge.start == QUARTERS[1] and one.charge.unit == "cu-0001")
    assert said == (
        "limited by the system operator from 25.000 to 8.333 kWh, no penalty for the limited part; delivered as ordered"
    )
    assert {one.charge.seller for one in lines} == {"sp-1", "sp-2"} and not prepared(world).left_out


@pytest.mark.spec("SET-02", "ACT-06")
def test_what_fails_and_nobody_replaces_is_missed_by_the_provider_that_sold_it() -> None:
    """cu-0001 stops at minute 5: 8.333 kWh were given. What is missing of its 100 kWh, 16.667 and three times 25, is
    owed by the group that was sold: half the price for all but the tolerance."""
    world = Settled(minutes=0)
    world.do("activation.fail", "sp-1", world.order.id, unit="cu-0001")
    world.to(20)
    assert world.order.lost and world.successors()
    world.to(25 * 60)
    rest = deliveries(world, "sp-1-global")
    assert [one.ordered_kwh for one in rest] == [D("16.667"), 25, 25, 25]
    assert [one.ordered_kwh for one in deliveries(world, "cu-0001")] == [D("8.333")]
    world.bring({("cu-0001", QUARTERS[0]): "-41.667"})
    lines = settled(world)
    # 0.5 x 40 EUR/MWh x (0.9 x 91.667 kWh)
    assert euros(lines, "sp-1-global") == -D("0.02") * D("0.9") * D("91.667")
    assert euros(lines, "cu-0001") == D("0.33332")


def with_awards(world: Settled, *steps: tuple[int, int, str, str]) -> None:
    """The offer of the order is bought in these steps: number, kW, its own price, and the price it is paid."""
    result = world.state.get(SessionOutcome, outcome_id(GLOBAL, Step.RESULT))
    sold = offer("sp-1/g", 1, "40", 150, group="sp-1-global")
    rows = [
        replace(award(sold, start, kw), step=step, bid_eur_mwh=D(bid), price_eur_mwh=D(paid))
        for start in QUARTERS
        for step, kw, bid, paid in steps
    ]
    world.sequencer.submit(put([replace(result, added=pack(rows))]))


@pytest.mark.spec("SET-02", "ACT-06")
def test_a_limit_hides_nothing_of_what_another_unit_failed_to_give() -> None:
    """cu-0001 gives 100 kW and 50 after half an hour, and is limited to nothing; cu-0003, which gives the rest, fails
    at the same time. What cu-0003 was to give after half an hour, 100 kW, is owed: 25 kWh a quarter-hour."""
    world = Settled(minutes=0)
    world.sequencer.submit(put([replace(one, unit=replace(one.unit, up_kw=0, max_quantity_kw=0))
                                for one in world.state.all(UnitEntry) if one.id not in UNITS]))  # fmt: skip
    now, half, end = at(5), at(30), at(60)
    own = [
        {
            "unit": unit,
            "pieces": [{"starts": now, "ends": half, "kw": first}, {"starts": half, "ends": end, "kw": then}],
        }
        for unit, first, then in (("cu-0001", 100, 50), ("cu-0003", 50, 100))
    ]
    world.do("activation.split", "sp-1", world.order.id, units=own)
    limit = {"unit": "cu-0001", "to_kw": 0, "element": "line 1", "value": 1.2, "bound": 1.0}
    world.do("activation.limit", "dso", world.order.id, **limit)
    assert [(one.starts, one.ends, one.from_kw, one.to_kw) for one in world.order.notices] == [
        (now, half, 100, 0), (half, end, 50, 0)
    ]  # fmt: skip
    world.do("activation.fail", "sp-1", world.order.id, unit="cu-0003")
    world.to(21)
    world.to(25 * 60)
    assert [one.ordered_kwh for one in deliveries(world, "sp-1-global")][-2:] == [25, 25]


class Paused(Settled):
    """The platform is down between two minutes."""

    def __init__(self, first: float, last: float) -> None:
        self.down = first, last
        super().__init__()

    def to(self, minutes: float) -> None:
        if not self.down[0] <= minutes < self.down[1]:
            super().to(minutes)


@pytest.mark.spec("SET-02", "ACT-01")
def test_an_order_that_no_unit_was_told_of_is_withdrawn_and_nobody_is_charged_for_it() -> None:
    world = Paused(-7, 24 * 60)
    assert (world.order.state, world.order.reason) == (OrderState.WITHDRAWN, "No unit was told of it in time.")
    assert world.notes("tso", "activation.withdrawn") and prepared(world).inputs.deliveries == ()


@pytest.mark.spec("SET-02", "ACT-01")
def test_an_order_that_units_were_told_of_late_begins_then() -> None:
    world = Paused(-7, 5)
    assert [(one.starts, one.ends) for one in world.order.profile] == [(at(5), at(60))]
    assert len(world.notes("tso", "activation.changed")) == 1
    assert [one.ordered_kwh for one in deliveries(world, "cu-0001")] == [D("16.667"), 25, 25, 25]
    assert deliveries(world, "sp-1-global") == []


@pytest.mark.spec("SET-03")
def test_the_cheapest_step_is_bought_first_and_of_the_first_unit() -> None:
    """120 kW at 40 and 30 kW at 60 EUR/MWh: cu-0001 has 25 kWh at 40, cu-0003 5 kWh at 40 and 7.5 at 60: in the hour
    4 EUR, and 4 x (0.20 + 0.45) EUR."""
    world = Settled()
    with_awards(world, (2, 30, "60", "60"), (1, 120, "40", "40"))
    world.bring_all(u0001="-25", u0003="-37.5")
    bought = [[(one.award, one.energy_kwh) for one in deliveries(world, unit)[0].bought] for unit in UNITS]
    assert bought == [[("sp-1/g.1", 25)], [("sp-1/g.1", 5), ("sp-1/g.2", D("7.5"))]]
    lines = settled(world)
    assert (euros(lines, "cu-0001"), euros(lines, "cu-0003")) == (4, D("2.60"))


@pytest.mark.spec("SET-03")
def test_by_the_catalogue_the_price_of_the_award_is_paid_and_by_a_rule_the_one_it_names() -> None:
    """Bid at 40, cleared at 55 EUR/MWh: 150 kWh are 8.25 EUR, and 6 EUR as bid."""
    world = Settled()
    with_awards(world, (1, 150, "40", "55"))
    world.bring_all(u0001="-25", u0003="-37.5")
    assert euros(propose(world.state, period_of(world.state, PERIOD)).run.lines) == D("8.25")
    terms = Terms(DAY, "usef", USEF, ("nominated",))
    world.sequencer.submit(put([SettlementTerms("global_energy", (terms,))]))
    assert euros(settled(world)) == 6


@pytest.mark.spec("SET-02", "ACT-04")
def test_two_orders_on_one_offer_are_one_delivery_of_the_unit() -> None:
    """Stopped at minute 5, called again from 6 to 12: 100 kW x 5 min + 100 kW x 6 min = 18.333 kWh."""
    world = Settled(minutes=0)
    world.do("activation.stop", "tso", world.order.id)
    form = {"session": GLOBAL, "offer": "sp-1/g", "direction": "up", "starts": at(6), "ends": at(12)}
    world.do("activation.order", "tso", quantity_kw=150, **form)
    world.to(25 * 60)
    (one,) = deliveries(world, "cu-0001")
    assert one.ordered_kwh == D("8.333") + D("10.000") == sum(part.energy_kwh for part in one.bought)
    assert one.evidence.set_point.count("cu-0001") == 2


@pytest.mark.spec("SET-02", "SET-05")
def test_a_delivery_of_two_offers_names_both_as_its_evidence() -> None:
    world = Settled()
    order, point = another_order(world, at(0), at(15), 40)
    world.sequencer.submit(put([replace(order, product=world.order.product), point]))
    first = deliveries(world, "cu-0001")[0]
    assert [one.award for one in first.bought] == ["sp-1/g.1", "sp-1/x.activation-x"]
    assert first.evidence.offer == "sp-1/g, sp-1/x"


def another_order(world: Settled, starts: datetime, ends: datetime, kw: int) -> tuple[ActivationOrder, SetPointEntry]:
    """An order of another product on cu-0001, which came after the one of the session."""
    pieces = (Piece(starts, ends, kw),)
    other = replace(
        world.order, id="activation-x", kind=OrderKind.SUCCESSION, product="local_energy", offer="sp-1/x",
        unit="cu-0001", group=None, awarded=pieces, profile=pieces, ordered_at=at(1), price_eur_mwh=D(50),
        state=OrderState.SPLIT,
    )  # fmt: skip
    point = world.state.get(SetPointEntry, f"{world.order.id}.cu-0001")
    return other, replace(point, id="activation-x.cu-0001", order="activation-x", profile=pieces)


@pytest.mark.spec("SET-02")
def test_of_two_products_in_one_quarter_hour_the_one_ordered_first_is_delivered_first() -> None:
    """25 kWh for one, then 10 for the other; the unit moved by 30. The first has its 25, the second 5."""
    world = Settled()
    world.sequencer.submit(put(another_order(world, at(0), at(15), 40)))
    world.bring_all(u0001="-20", u0003="-37.5")
    first = [one for one in deliveries(world, "cu-0001") if one.start == BEGIN]
    parts = {one.rule: (one.measured_kwh or 0) - (one.baseline_kwh or 0) for one in first}
    assert parts == {"catalogue-global_energy": 25, "catalogue-local_energy": 5}
    assert {one.measured_kwh for one in first} == {D(-20)}


quantities = st.integers(0, 50_000).map(lambda number: D(number).scaleb(-3))


@pytest.mark.spec("SET-02")
def test_where_the_first_order_lacks_its_baseline_the_second_is_not_credited_with_its_response() -> None:
    """25 kWh were ordered first and are what was given; the 10 of the order that came later were not."""
    world = Settled()
    world.sequencer.submit(put(another_order(world, at(0), at(15), 40)))
    world.bring_all(u0001="-25", u0003="-37.5")
    documents = prepared(world).documents
    own = {
        product: documents[f"catalogue-{product}"].replace(f"catalogue-{product}", f"own-{product}")
        for product in ("global_energy", "local_energy")
    }
    methods = {"global_energy": ("last_4_alike",), "local_energy": ("nominated",)}
    world.sequencer.submit(
        put([SettlementTerms(name, (Terms(DAY, f"own-{name}", own[name], tried),)) for name, tried in methods.items()])
    )
    world.bring({}, baselines=[world.baseline("cu-0001", [])])
    made = prepared(world)
    of_first = [one for one in made.inputs.deliveries if (one.unit, one.start) == ("cu-0001", BEGIN)]
    response = {one.rule: one.response_kwh(made.rules[one.rule]) for one in of_first}
    assert response == {"own-global_energy": None, "own-local_energy": 0}


@pytest.mark.spec("SET-02")
def test_no_two_deliveries_have_one_name() -> None:
    """Ids may have points: a unit 'x' of the product 'p.y', and a unit 'y.x' of the product 'p'."""
    world = Settled()
    whole = world.state.get(ProductEntry, "global_energy")
    dotted = replace(whole, id="global_energy.y", product=replace(whole.product, id="global_energy.y"))
    made: list[Any] = [dotted]
    for name, unit, product in (("a-1", "y.x", "global_energy"), ("a-2", "x", "global_energy.y")):
        order, point = another_order(world, at(0), at(60), 50)
        made.append(replace(order, id=name, offer=f"sp-1/{name}", unit=unit, product=product))
        made.append(replace(point, id=f"{name}.{unit}", order=name, unit=unit))
    world.sequencer.submit(put(made))
    assert (len(deliveries(world, "y.x")), len(deliveries(world, "x"))) == (4, 4)


@pytest.mark.spec("SET-02")
def test_what_a_provider_bought_of_itself_is_left_out_and_named_and_stops_nothing() -> None:
    world = Settled()
    world.bring_all(u0001="-25", u0003="-37.5")
    before = prepared(world).inputs.deliveries
    world.sequencer.submit(put([replace(world.order, id="other", provider="tso", unit="cu-0005", group=None)]))
    assert prepared(world).inputs.deliveries == before
    assert [(one.set_point, "itself" in one.reason) for one in prepared(world).left_out] == [("other", True)]
    assert propose(world.state, period_of(world.state, PERIOD)).run.lines


@pytest.mark.spec("SET-02")
@given(
    st.integers(-90_000, 90_000).map(lambda number: D(number).scaleb(-3)),
    st.lists(st.tuples(st.sampled_from([1, -1]), quantities), min_size=1, max_size=4),
)
def test_parts_of_a_response_add_to_it_and_nobody_gains_by_another_ones_order(total: Any, orders: Any) -> None:
    parts = responses(total, orders)
    assert sum(sign * part for (sign, _), part in zip(orders, parts, strict=True)) == total
    # but for the first one, who takes what is left, a part moves against its order for nobody
    assert all(part >= 0 for part in parts[1:])
    if total == sum(sign * energy for sign, energy in orders):
        assert list(parts) == [energy for _, energy in orders]
    if len({sign for sign, _ in orders}) == 1 and orders[0][0] * total >= 0:
        # filled in their order: who was ordered later has something only where all before have theirs
        whole = [part >= energy for part, (_, energy) in zip(parts, orders, strict=True)]
        assert all(whole[:place] == [True] * place for place, part in enumerate(parts) if part)


def test_energy_of_a_profile_is_that_of_its_minutes_rounded_once() -> None:
    pieces = (Piece(at(7), at(40), 100), Piece(at(40), at(41), 7))
    assert energies(pieces, BEGIN, at(60)) == {
        BEGIN: D("13.333"), at(15): D("25.000"), at(30): D("16.783")
    }  # fmt: skip
    assert energies(pieces, at(15), at(30)) == {at(15): D("25.000")}


def test_an_offer_that_is_bought_no_more_is_left_out_and_told() -> None:
    world = Settled()
    world.bring_all(u0001="-25", u0003="-37.5")
    result = world.state.get(SessionOutcome, outcome_id(GLOBAL, Step.RESULT))
    world.sequencer.submit(put([replace(result, added=())]))
    found = prepared(world)
    assert found.inputs.deliveries == () and len(found.left_out) == 8
    assert found.left_out[0].set_point == f"{world.order.id}.cu-0001"


def test_why_a_session_buys_follows_from_its_buyer_and_its_services() -> None:
    world = Settled(minutes=0)
    entries = {one.session: plan_of(world.state, one) for one in world.state.all(SessionEntry)}
    needs = {name: need_of(plan) for name, plan in entries.items()}
    assert needs["local-1"] is Need.DSO_CONGESTION and needs["global-1"] is Need.TSO_BALANCING


# ---------------------------------------------------------------- capacity


def holding_ready(kw: int = 150, **seller: str) -> Settled:
    """Capacity of sp-1's group, or of another seller, bought for the hour at 8 EUR for a MW and an hour."""
    world = Settled()
    world.bring_all(u0001="-25", u0003="-37.5")
    entry = world.state.get(ProductEntry, "global_energy")
    product = replace(entry.product, id="global_capacity", kind=QuantityKind.ACTIVE_CAPACITY)
    sold = replace(offer("sp-1/c", 9, "8", kw, **(seller or {"group": "sp-1-global"})), product="global_capacity")
    result = world.state.get(SessionOutcome, outcome_id(GLOBAL, Step.RESULT))
    rows = pack([*unpack(result.added, Award), *(award(sold, start, kw) for start in QUARTERS)])
    world.sequencer.submit(put([ProductEntry("global_capacity", product, ("tso",)), replace(result, added=rows)]))
    return world


def ready(world: Settled, share: str, band: str = "sp-1-global", **more: Any) -> Any:
    rows = [{"band": band, "start": start, "share": share} for start in QUARTERS]
    return world.do("metered.bring", actor="field", **({"log": LOG, "log_size": 100, "ready": rows} | more))


@pytest.mark.spec("SET-02", "SET-03")
def test_capacity_is_paid_as_far_as_it_was_ready() -> None:
    """150 kW x 0.25 h x 8 EUR/MW/h = 0.30 EUR a quarter-hour; ready for 80 % of it: 0.24, in the hour 0.96 EUR."""
    world = holding_ready()
    (asked,) = due_ready(world.state, world.now)
    assert (asked.band, asked.quarters) == ("sp-1-global", QUARTERS) and "cu-0001" in asked.units
    assert len(prepared(world).unmetered) == 4
    assert ready(world, "0.8")["taken"] == 4 and ready(world, "0.80")["same"] == 4
    assert due_ready(world.state, world.now) == (asked,)  # more may have been ready than is known on the first day
    assert due_ready(world.state, at(48 * 60)) == () and prepared(world).unmetered == ()
    lines = settled(world)
    assert euros(lines, "sp-1-global") == D("0.96") and world.statement("sp-1").balance_cents == 696
    assert {one.charge.cause.value for one in lines if one.charge.unit == "sp-1-global"} == {
        "availability", "claw_back"
    }  # fmt: skip
    assert lines[-1].charge.evidence.measurements == LOG


@pytest.mark.spec("SET-02", "SET-05")
def test_the_owner_has_its_share_of_capacity_whether_or_not_the_unit_was_called() -> None:
    """100 kW for an hour at 8 EUR/MW/h, wholly ready: 0.80 EUR, 60 % of it the owner's."""
    world = holding_ready(100, unit="cu-0005")
    share = OwnerContract("oc-1", "cu-0005", "sp-1", "owner", D("0.6"), D(0), D(0), DAY, None, at(-60))
    world.sequencer.submit(put([share]))
    ready(world, "1", band="cu-0005")
    lines = [line.charge for line in settled(world) if line.charge.unit == "cu-0005"]
    assert sum(one.amount_eur for one in lines if one.seller == "owner") == D("0.48")


@pytest.mark.spec("SET-02", "SET-03")
def test_capacity_nobody_knows_the_readiness_of_is_paid_when_it_is_known() -> None:
    world = holding_ready()
    assert euros(settled(world), "sp-1-global") == 0
    ready(world, "1")
    world.by_two("settlement.rerun", PERIOD, inputs=propose(world.state, period_of(world.state, PERIOD)).digest,
                 reason="The logs arrived.")  # fmt: skip
    assert euros(world.lines(), "sp-1-global") == D("1.20")
    assert ready(world, "0.5", log_size=99)["stale"] == [f"sp-1-global@{start.isoformat()}" for start in QUARTERS]
    others = [{"band": band, "start": start, "share": "1"}
              for band, start in (("sp-1-global", at(60)), ("sp-2-global", BEGIN))]  # fmt: skip
    assert len(ready(world, "1", ready=others)["unknown"]) == 2
    with pytest.raises(Refused) as caught:
        ready(world, "1.5")
    assert {one.code for one in caught.value.findings} == {"out_of_range"}
    assert [one.band for one, _ in records(world.state, world.who("sp-1"), ReadyDay)] == ["sp-1-global"]
    assert records(world.state, world.who("sp-2"), ReadyDay) == []


# ---------------------------------------------------------------- somebody else's figures

USEF = """
id: usef
version: 1
title: USEF, settle phase
source: {document: UFTP, section: settle phase}
delivered: {by: metered, opposite_counts: true}
payment: {cap: 1}
pricing: pay_as_bid
penalty: {kind: fixed, eur_mwh: 11}
payers: {tso_balancing: buyer}
"""


@pytest.mark.spec("SET-02", "SET-03")
def test_the_example_of_the_usef_specification_comes_out_of_the_service() -> None:
    """Baseline 10 MW, 2 MW less ordered for an hour at 7 EUR/MWh, 11 EUR/MWh for what is missing; metered 7, 8, 9, 10
    and 11 MW give 14, 14, -4, -22 and -33 EUR."""
    world = Settled()
    names = [f"cu-000{k}" for k in range(1, 6)]
    world.foresee(dict.fromkeys(names, 10_000.0))
    sold = {name: replace(offer(f"sp-1/{name}", k, "7", 2000, unit=name), direction=Direction.DOWN)
            for k, name in enumerate(names)}  # fmt: skip
    result = world.state.get(SessionOutcome, outcome_id(GLOBAL, Step.RESULT))
    awards = [award(one, start, 2000) for one in sold.values() for start in QUARTERS]
    hour = (Piece(BEGIN, BEGIN + timedelta(hours=1), 2000),)
    point = world.state.get(SetPointEntry, f"{world.order.id}.cu-0001")
    gone = replace(world.order, awarded=(), profile=())
    rows: list[Any] = [gone, *(replace(one, profile=()) for one in world.state.all(SetPointEntry))]
    for name, one in sold.items():
        order: ActivationOrder = replace(
            world.order, id=f"usef-{name}", offer=one.id, direction=Direction.DOWN, unit=name, group=None,
            awarded=hour, profile=hour,
        )  # fmt: skip
        told = replace(
            point, id=f"{order.id}.{name}", order=order.id, unit=name, direction=Direction.DOWN, profile=hour
        )
        rows += [order, replace(told, direction=Direction.DOWN)]
    terms = SettlementTerms("global_energy", (Terms(DAY, "usef", USEF, ("nominated",)),))
    world.sequencer.submit(put([*rows, replace(result, added=pack(awards)), terms]))
    for name, mw in zip(names, (7, 8, 9, 10, 11), strict=True):
        world.bring({(name, start): str(mw * 250) for start in QUARTERS})
    world.settle()
    lines = world.lines()
    assert [euros(lines, name) for name in names] == [14, 14, -4, -22, -33]
    assert world.statement("sp-1").balance_cents == -3_100 == -world.statement("tso").balance_cents
