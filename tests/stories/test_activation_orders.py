"""Stories of an order: from the result to the units, changed, stopped, limited, failed and taken over (ACT-01, 03, 04,
06, 07)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from coflex.activation.profile import plus
from coflex.domain.activation import Hop, Verdict
from coflex.domain.errors import Conflict, Forbidden, NotFound, Refused
from coflex.register.activations import ActivationOrder, Backup, OrderState, SetPointEntry
from coflex.register.consents import Consent
from coflex.register.market import SessionEntry
from coflex.register.outcomes import SessionOutcome, Step
from coflex.register.resources import GroupEntry, UnitEntry
from coflex.service.books import context
from coflex.service.field import REPLACES, order_bytes, outbox
from coflex.service.gates import plan_of
from coflex.service.ledger import holdings
from coflex.service.machine import Machine
from coflex.service.reading import records
from coflex.service.replay import fingerprint, replay
from support.ordered import BEGIN, GLOBAL, QUARTER, Ordered, at
from support.platform import DAY, TEST_VERBS, put
from support.watched import watched


@pytest.fixture(autouse=True, scope="module")
def _the_table_of_fields_holds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Machine, "apply", watched(Machine.apply))
        yield


@pytest.fixture
def world() -> Ordered:
    return Ordered()


def codes(caught: pytest.ExceptionInfo[Refused]) -> set[str]:
    return {finding.code for finding in caught.value.findings}


def share(unit: str, kw: int, first: float = 0, last: float = 60) -> dict[str, Any]:
    return {"unit": unit, "pieces": [{"starts": at(first), "ends": at(last), "kw": kw}]}


def limit(world: Ordered, unit: str, to_kw: int = 0, party: str = "dso", **more: Any) -> Any:
    form = {"unit": unit, "to_kw": to_kw, "element": "line 1", "value": 1.2, "bound": 1.0} | more
    return world.do("activation.limit", party, world.order.id, **form)


def begun(world: Ordered, minutes: float) -> None:
    """Let the platform split in time, then go on to a minute of the delivery."""
    world.to(-7)
    world.to(minutes)


# ---------------------------------------------------------------- from the result to the customer


@pytest.mark.spec("ACT-01")
def test_a_definitive_result_is_ordered_at_once_and_everybody_concerned_is_told(world: Ordered) -> None:
    order = world.order
    assert (order.buyer, order.provider, order.group) == ("tso", "sp-1", "sp-1-global")
    assert order.profile == order.awarded and order.profile[0].kw == 150 and order.operators == ("dso",)
    for party in ("tso", "sp-1", "dso"):
        assert len(world.notes(party, "activation.ordered")) == 1
    assert world.notes("sp-2", "activation.ordered") == []


@pytest.mark.spec("ACT-01")
def test_the_provider_splits_until_the_deadline_and_the_platform_after_it(world: Ordered) -> None:
    split = {"units": [share("cu-0001", 60), share("cu-0003", 90)]}
    own = world.do("activation.split", "sp-1", world.order.id, **split)
    assert own["state"] == "split" and own["own_split"]
    assert (world.gives("cu-0001", 1), world.gives("cu-0003", 1)) == (60, 90)
    world.to(-5)
    assert (world.gives("cu-0001", 1), world.gives("cu-0003", 1)) == (60, 90)
    other = Ordered()
    other.to(-8)
    assert other.order.state is OrderState.ORDERED
    other.to(-7)
    assert other.order.state is OrderState.SPLIT and not other.order.own_split
    assert (other.gives("cu-0001", 1), other.gives("cu-0003", 1)) == (100, 50)


@pytest.mark.spec("ACT-01")
def test_a_split_of_more_pieces_than_a_device_can_be_told_is_refused_before_it_is_computed(world: Ordered) -> None:
    def pieces(count: int, kw: int) -> list[dict[str, Any]]:
        second = timedelta(seconds=1)
        return [
            {"starts": at(0) + k * second, "ends": at(0) + (k + 1) * second, "kw": kw + k % 2} for k in range(count)
        ]

    for count in (1_001, 14_000):
        with pytest.raises(Refused) as caught:
            world.do(
                "activation.split", "sp-1", world.order.id, units=[{"unit": "cu-0001", "pieces": pieces(count, 1)}]
            )
        assert codes(caught) == {"too_many"}
    # and where quarter-hours cut them into more
    rest = {"starts": at(0) + timedelta(seconds=998), "ends": at(60), "kw": 1}
    with pytest.raises(Refused) as caught:
        own = {"unit": "cu-0001", "pieces": [*pieces(998, 1), rest]}
        world.do("activation.split", "sp-1", world.order.id, units=[own])
    assert codes(caught) == {"too_many"}
    assert world.order.state is OrderState.ORDERED


@pytest.mark.spec("ACT-01")
def test_a_split_that_does_not_add_up_or_asks_too_much_is_refused_whole(world: Ordered) -> None:
    bad = {"units": [share("cu-0001", 120), share("cu-0005", 40), share("cu-0002", 1)]}
    with pytest.raises(Refused) as caught:
        world.do("activation.split", "sp-1", world.order.id, **bad)
    assert codes(caught) == {"above_able", "unknown_unit", "sum"}
    for_ever = share("cu-0001", 1) | {"pieces": [{"starts": at(0), "ends": "9999-12-31T23:59:59Z", "kw": 1}]}
    with pytest.raises(Refused) as caught:
        world.do("activation.split", "sp-1", world.order.id, units=[for_ever])
    assert codes(caught) == {"beyond_order"}
    with pytest.raises(NotFound):
        world.do("activation.split", "sp-2", world.order.id, units=[])
    with pytest.raises(Forbidden):
        world.do("activation.split", "tso", world.order.id, units=[])
    assert world.order.state is OrderState.ORDERED


@pytest.mark.spec("ACT-01")
def test_every_hop_acknowledges_with_its_time(world: Ordered) -> None:
    enrol(world, "cu-0001", 1)
    enrol(world, "cu-0002", 2)
    world.to(-6)
    order = world.do("activation.acknowledge", "dso", world.order.id)
    assert [(one["hop"], one["by"]) for one in order["acknowledgements"]] == [
        ("market", "market"), ("dso_platform", "dso"),
    ]  # fmt: skip
    with pytest.raises(Conflict):
        world.do("activation.acknowledge", "dso", world.order.id)
    (out,) = outbox(world.state, world.now)
    assert out.point == 1 and len(out.order) == 16 and out.order == order_bytes("demo", world.order.id)
    assert [(told.change_w, told.flags) for told in out.messages] == [(100_000, 0)] * 4
    field(world, "set_point.sent", set_points=[{"id": out.id, "version": out.version, "sequences": [7, 8, 9, 10]}])
    assert outbox(world.state, world.now) == ()
    words = [
        {"point": 1, "sequence": 7, "hop": "light_node", "verdict": "taken", "at": at(-5)},
        {"point": 1, "sequence": 7, "hop": "energy_management_system", "verdict": "refused", "at": at(-4)},
        {"point": 1, "sequence": 7, "hop": "light_node", "verdict": "taken", "at": at(-3)},
        {"point": 1, "sequence": 99, "hop": "light_node", "verdict": "taken", "at": at(-5)},
        # Of what another unit was told nobody else says anything, and nobody who is none.
        {"point": 2, "sequence": 7, "hop": "light_node", "verdict": "done", "at": at(-3)},
        {"point": 3, "sequence": 7, "hop": "light_node", "verdict": "done", "at": at(-3)},
    ]
    told = world.do("set_point.heard", actor="field", acknowledgements=words)
    assert told == {"taken": 3, "unknown": [99, 7, 7]}
    marks = world.state.get(SetPointEntry, out.id).acknowledgements
    assert [(one.hop, one.verdict, one.at) for one in marks] == [
        (Hop.LIGHT_NODE, Verdict.TAKEN, at(-5)),
        (Hop.ENERGY_MANAGEMENT_SYSTEM, Verdict.REFUSED, at(-4)),
    ]
    assert world.notes("sp-1", "set_point.not_taken") == [
        {"unit": "cu-0001", "hop": "energy_management_system", "verdict": "refused"}
    ]


def enrol(world: Ordered, unit: str, number: int) -> Any:
    return world.do("device.enrol", "owner", unit=unit, public_key=f"{number:064x}")


def field(world: Ordered, verb: str, **form: Any) -> Any:
    return world.do(verb, actor="field", at=world.now, **form)


@pytest.mark.spec("ACT-01")
def test_nobody_but_the_platform_says_what_was_sent(world: Ordered) -> None:
    for party in ("mo", "tso", "dso", "sp-1", "owner"):
        with pytest.raises(Forbidden):
            world.do("set_point.sent", party, set_points=[], at=world.now)


@pytest.mark.spec("ACT-01", "ACT-04")
def test_a_change_replaces_what_was_sent_and_an_old_version_is_stale(world: Ordered) -> None:
    enrol(world, "cu-0001", 1)
    world.to(5)
    (out,) = outbox(world.state, world.now)
    world.do("activation.change", "tso", world.order.id, quantity_kw=60)
    stale = field(world, "set_point.sent", set_points=[{"id": out.id, "version": out.version, "sequences": [1]}])
    assert stale == {"sent": 0, "stale": [out.id]}
    (again,) = outbox(world.state, world.now, after=out.number)
    assert again.version == out.version + 1 and again.messages[0].flags == REPLACES
    assert [told.change_w for told in again.messages] == [60_000] * 4
    world.do("activation.stop", "tso", world.order.id)
    (end,) = outbox(world.state, world.now)
    assert [(told.change_w, told.flags) for told in end.messages] == [(0, REPLACES)]


@pytest.mark.spec("ACT-07")
def test_an_owner_sees_its_plan_and_its_signals_and_not_the_order(world: Ordered) -> None:
    world.to(0)
    mine = [one.unit for one, _ in records(world.state, world.who("owner"), SetPointEntry)]
    assert mine == ["cu-0001", "cu-0003"]
    assert records(world.state, world.who("owner"), ActivationOrder) == []
    assert records(world.state, world.who("sp-2"), SetPointEntry) == []
    assert world.notes("owner", "set_points.changed") != []


@pytest.mark.spec("ACT-07")
def test_what_an_owner_takes_back_is_not_asked_of_its_unit(world: Ordered) -> None:
    windows = [{"starts": at(0), "ends": at(60), "up_kw": 20, "down_kw": 0}]
    world.do("availability.set", "owner", "cu-0003", windows=windows)
    world.to(0)
    assert (world.gives("cu-0001", 1), world.gives("cu-0003", 1)) == (100, 20)
    assert world.order.missing[0].kw == 30 and world.notes("tso", "activation.missing") != []


# ---------------------------------------------------------------- the buyer


@pytest.mark.spec("ACT-04")
def test_the_buyer_changes_quantity_and_end_and_extends_never_above_the_award(world: Ordered) -> None:
    begun(world, 10)
    changed = world.do("activation.change", "tso", world.order.id, quantity_kw=90, ends=at(30))
    assert changed["version"] == 3
    assert sum(world.gives(unit, 20) for unit in ("cu-0001", "cu-0003")) == 90
    assert sum(world.gives(unit, 5) for unit in ("cu-0001", "cu-0003")) == 150
    assert world.gives("cu-0001", 40) == 0
    world.do("activation.change", "tso", world.order.id, ends=at(45))
    assert sum(world.gives(unit, 40) for unit in ("cu-0001", "cu-0003")) == 90
    for form in ({"quantity_kw": 151}, {"ends": at(75)}):
        with pytest.raises(Refused) as caught:
            world.do("activation.change", "tso", world.order.id, **form)
        assert codes(caught) == {"above_award"}
    for party, kind in (("dso", Forbidden), ("sp-1", Forbidden), ("sp-2", Forbidden)):
        with pytest.raises(kind):
            world.do("activation.change", party, world.order.id, quantity_kw=1)


@pytest.mark.spec("ACT-04")
def test_a_stopped_order_gives_nothing_more_and_what_is_left_can_be_called_again(world: Ordered) -> None:
    begun(world, 10)
    world.do("activation.stop", "tso", world.order.id, reason="The need is over.")
    assert world.order.state is OrderState.STOPPED and world.gives("cu-0001", 11) == 0
    assert world.gives("cu-0001", 9) == 100
    with pytest.raises(Conflict):
        world.do("activation.change", "tso", world.order.id, quantity_kw=10)
    form = {"session": GLOBAL, "offer": "sp-1/g", "direction": "up", "starts": at(20), "ends": at(40)}
    direct = world.do("activation.order", "tso", quantity_kw=120, **form)
    assert direct["kind"] == "direct" and direct["state"] in ("ordered", "split")
    with pytest.raises(Refused) as caught:
        world.do("activation.order", "tso", quantity_kw=31, **form)
    assert codes(caught) == {"above_award"}
    with pytest.raises(Refused) as caught:
        world.do("activation.order", "dso", quantity_kw=1, **form)
    assert codes(caught) == {"not_bought"}


# ---------------------------------------------------------------- the system operator


@pytest.mark.spec("ACT-03")
def test_the_dso_ends_a_unit_the_tso_is_told_why_and_the_next_outside_the_perimeter_takes_over(world: Ordered) -> None:
    begun(world, 5)
    reply = limit(world, "cu-0001", reason="overloaded")
    assert reply["notices"][0] | {"at": "", "starts": "", "ends": ""} == {
        "unit": "cu-0001", "operator": "dso", "starts": "", "ends": "", "from_kw": 100, "to_kw": 0, "element": "line 1",
        "value": 1.2, "bound": 1.0, "reason": "overloaded", "at": "",
    }  # fmt: skip
    (told,) = world.notes("tso", "activation.limited")
    assert (told["element"], told["value"], told["bound"]) == ("line 1", 1.2, 1.0)
    (next_one,) = world.successors()
    assert (next_one.offer, next_one.provider, next_one.buyer) == ("sp-2/b", "sp-2", "tso")
    assert (world.gives("cu-0001", 6), world.gives("cu-0003", 6), world.gives("cu-0006", 6)) == (0, 50, 100)
    assert plus(world.order.profile, world.order.lost) == world.order.awarded
    assert str(next_one.price_eur_mwh) == "60" and world.notes("sp-2", "activation.ordered") != []


@pytest.mark.spec("ACT-03")
@pytest.mark.parametrize("buyer", ["tso", "dso"])
def test_an_order_of_which_limits_leave_nothing_is_stopped_whoever_bought_it(world: Ordered, buyer: str) -> None:
    begun(world, 5)
    world.sequencer.submit(put([replace(world.order, buyer=buyer)]))
    for unit in ("cu-0001", "cu-0003"):
        assert world.order.state is OrderState.SPLIT
        limit(world, unit)
    assert (world.order.state, world.order.due) == (OrderState.STOPPED, None)
    assert bool(world.successors()) == (buyer == "tso")


@pytest.mark.spec("ACT-03")
def test_what_the_list_and_its_light_cannot_give_stays_uncovered_and_is_told(world: Ordered) -> None:
    world.to(0)
    limit(world, "cu-0001")
    limit(world, "cu-0003")
    assert [(one.offer, one.profile[0].kw) for one in world.successors()] == [("sp-2/b", 100), ("sp-1/d", 30)]
    (rest,) = world.notes("tso", "activation.not_replaced")
    assert rest["kwh"] == pytest.approx(20.0)
    assert world.order.state is OrderState.STOPPED


@pytest.mark.spec("ACT-03")
def test_a_limit_is_of_the_operator_of_the_unit_and_lowers_what_is_given(world: Ordered) -> None:
    world.to(0)
    for party in ("tso", "sp-1"):
        with pytest.raises(Forbidden):
            limit(world, "cu-0001", party=party)
    limit(world, "cu-0001", 40, ends=at(30))
    assert (world.gives("cu-0001", 10), world.gives("cu-0001", 40)) == (40, 100)
    with pytest.raises(Conflict):
        limit(world, "cu-0001", 40, ends=at(30))
    with pytest.raises(NotFound):
        limit(world, "cu-0006")
    with pytest.raises(Refused) as caught:
        world.do("activation.split", "sp-1", world.order.id, units=[share("cu-0001", 90), share("cu-0003", 20)])
    assert "above_able" in codes(caught)


@pytest.mark.spec("ACT-03", "MKT-09")
def test_what_took_over_stands_in_the_ledger_and_cannot_be_offered(world: Ordered) -> None:
    world.to(5)
    limit(world, "cu-0001")
    held = {(one.unit, one.start): one for one in holdings(world.state, DAY)}
    assert len(held) == 12 and held["cu-0006", BEGIN].buyer == "tso"
    entry = world.state.get(SessionEntry, f"{DAY}.local-2")
    seen = context(world.state, plan_of(world.state, entry), entry, world.now).held
    assert ("cu-0006", BEGIN) in seen
    (call,) = [one for one in world.state.all(SessionOutcome) if one.step is Step.CALL]
    assert call.session == "global-1" and call.buyer == "tso"


@pytest.mark.spec("ACT-03", "REG-05")
def test_a_unit_that_went_to_another_provider_is_not_called_from_the_old_one_s_offer(world: Ordered) -> None:
    state, name = world.state, "cu-0006"
    entry, given = state.get(UnitEntry, name), state.get(Consent, f"consent-{name}")
    theirs, ours = state.get(GroupEntry, "sp-2-global"), state.get(GroupEntry, "sp-1-global")
    left = tuple(one for one in theirs.group.units if one != name)
    world.sequencer.submit(put([
        replace(entry, unit=replace(entry.unit, provider="sp-1")),
        replace(given, provider="sp-1"),
        replace(theirs, group=replace(theirs.group, units=left)),
        replace(ours, group=replace(ours.group, units=(*ours.group.units, name))),
    ]))  # fmt: skip
    world.to(5)
    limit(world, "cu-0001")
    assert "sp-2/b" not in {one.offer for one in world.successors()}
    assert world.gives(name, 6) == 0


# ---------------------------------------------------------------- failures and backups


@pytest.mark.spec("ACT-06")
def test_a_failed_unit_is_replaced_by_reserved_backups_of_the_same_provider(world: Ordered) -> None:
    reserve(world, "cu-0005")
    begun(world, 5)
    failed = world.do("activation.fail", "sp-1", world.order.id, unit="cu-0001", remaining_kw=30, reason="tripped")
    assert failed["due"] == at(20).isoformat().replace("+00:00", "Z") and world.gives("cu-0001", 6) == 30
    assert world.gives("cu-0005", 6) == 0
    world.do("activation.rebalance", "sp-1", world.order.id)
    assert (world.gives("cu-0001", 6), world.gives("cu-0003", 6), world.gives("cu-0005", 6)) == (30, 50, 70)
    assert world.order.missing == () and world.order.due is None and world.order.profile == world.order.awarded
    world.to(30)
    assert world.successors() == []
    with pytest.raises(Conflict):
        world.do("activation.rebalance", "sp-1", world.order.id)
    with pytest.raises(Conflict):
        world.do("backup.release", "sp-1", world.state.all(Backup)[0].id)


def reserve(world: Ordered, unit: str, party: str = "sp-1", first: float = 0, last: float = 60) -> Any:
    return world.do("backup.reserve", party, unit=unit, starts=at(first), ends=at(last))


@pytest.mark.spec("ACT-06")
def test_a_backup_gives_no_more_energy_than_it_has(world: Ordered) -> None:
    entry = world.state.get(UnitEntry, "cu-0005")
    world.sequencer.submit(put([replace(entry, unit=replace(entry.unit, energy_up_kwh=30))]))
    reserve(world, "cu-0005")
    begun(world, 15)
    world.do("activation.fail", "sp-1", world.order.id, unit="cu-0001", remaining_kw=20)
    world.do("activation.rebalance", "sp-1", world.order.id)
    assert [world.gives("cu-0005", minute) for minute in (16, 31, 46)] == [80, 40, 0]
    assert [piece.kw for piece in world.order.missing] == [40, 80]
    with pytest.raises(Conflict, match="No reserved backup"):
        world.do("activation.rebalance", "sp-1", world.order.id)


@pytest.mark.spec("ACT-04")
def test_an_order_that_is_moved_forward_is_split_in_time(world: Ordered) -> None:
    begun(world, 1)
    world.do("activation.stop", "tso", world.order.id)
    form = {"session": GLOBAL, "offer": "sp-1/g", "direction": "up", "starts": at(50), "ends": at(60)}
    direct = world.do("activation.order", "tso", quantity_kw=120, **form)
    assert direct["state"] == "ordered"
    world.to(10)
    world.do("activation.change", "tso", direct["id"], starts=at(20), quantity_kw=120)
    world.to(20)
    assert sum(world.gives(unit, 20) for unit in ("cu-0001", "cu-0003")) == 120


@pytest.mark.spec("ACT-06")
def test_what_is_missing_after_a_quarter_of_an_hour_is_called_from_the_list(world: Ordered) -> None:
    world.to(5)
    world.do("activation.fail", "sp-1", world.order.id, unit="cu-0001")
    with pytest.raises(Conflict):
        world.do("activation.rebalance", "sp-1", world.order.id)
    world.to(19)
    assert world.successors() == []
    world.to(20)
    assert [(one.offer, one.reason) for one in world.successors()] == [("sp-2/a", "failure"), ("sp-2/b", "failure")]
    assert [world.gives(unit, 21) for unit in ("cu-0001", "cu-0002", "cu-0006")] == [0, 80, 20]


@pytest.mark.spec("ACT-06")
def test_backups_do_not_pass_the_light_of_another_perimeter() -> None:
    world = Ordered(lights=(400, 25))
    reserve(world, "cu-0005")
    reserve(world, "cu-0007")
    world.to(5)
    world.do("activation.fail", "sp-1", world.order.id, unit="cu-0001")
    world.do("activation.rebalance", "sp-1", world.order.id)
    assert world.gives("cu-0005", 6) + world.gives("cu-0007", 6) == 25
    assert world.order.missing[0].kw == 75
    own = [share("cu-0003", 50, 6), share("cu-0005", 100, 6)]
    world.to(6)
    with pytest.raises(Refused) as caught:
        world.do("activation.split", "sp-1", world.order.id, units=own)
    assert "light" in codes(caught)


@pytest.mark.spec("ACT-06", "MKT-09")
def test_a_reserved_unit_is_not_sold_and_a_sold_one_is_not_reserved(world: Ordered) -> None:
    reserve(world, "cu-0005")
    entry = world.state.get(SessionEntry, f"{DAY}.local-1")
    up, down = context(world.state, plan_of(world.state, entry), entry, world.now).available_kw["cu-0005"]
    assert up[:4].tolist() == down[:4].tolist() == [0] * 4 and set(up[4:].tolist()) == {100}
    for unit, kind in (("cu-0001", Conflict), ("cu-0005", Conflict), ("cu-0002", NotFound), ("nobody", NotFound)):
        with pytest.raises(kind):
            reserve(world, unit)
    with pytest.raises(Refused) as caught:
        reserve(world, "cu-0007", first=1, last=1)
    assert codes(caught) == {"quarter", "ends_first"}
    world.to(5)
    limit(world, "cu-0001")
    assert "cu-0005" not in {one.unit for one in holdings(world.state, DAY)}
    world.do("backup.release", "sp-1", world.state.all(Backup)[0].id)
    reserve(world, "cu-0005", first=15)


@pytest.mark.spec("ACT-06")
def test_the_provider_may_split_over_its_backups_too(world: Ordered) -> None:
    reserve(world, "cu-0005")
    world.do("activation.split", "sp-1", world.order.id, units=[share("cu-0001", 70), share("cu-0005", 80)])
    assert (world.gives("cu-0001", 1), world.gives("cu-0003", 1), world.gives("cu-0005", 1)) == (70, 0, 80)


# ---------------------------------------------------------------- taken back, and told again


@pytest.mark.spec("PLAT-07")
def test_orders_of_a_result_that_is_taken_back_are_withdrawn_and_made_anew(world: Ordered) -> None:
    first = world.order
    entry = world.state.get(SessionEntry, GLOBAL)
    world.sequencer.submit(put([replace(entry, state="closed", outcome="")]))
    world.sequencer.pass_gates()
    assert world.state.get(ActivationOrder, first.id).state is OrderState.WITHDRAWN
    world.sequencer.submit(put([entry]))
    world.sequencer.pass_gates()
    live = [one for one in world.state.all(ActivationOrder) if one.state is not OrderState.WITHDRAWN]
    assert [(one.offer, one.profile) for one in live] == [(first.offer, first.profile)]


@pytest.mark.spec("ACT-01", "PLAT-05")
def test_the_journal_alone_gives_the_same_orders(world: Ordered) -> None:
    reserve(world, "cu-0005")
    world.to(5)
    limit(world, "cu-0003", 10)
    world.do("activation.fail", "sp-1", world.order.id, unit="cu-0001")
    world.do("activation.rebalance", "sp-1", world.order.id)
    world.to(30)
    machine = Machine(TEST_VERBS)
    assert list(replay(world.journal.entries(0, 10_000), machine)) == []
    assert fingerprint(machine) == fingerprint(world.machine)
    assert QUARTER.total_seconds() == 900
