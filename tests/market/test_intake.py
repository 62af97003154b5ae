"""The intake: a session's offers, parcel by parcel, as plain loops over instants decide them (MKT-03)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import chain
from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_intake import (
    AUTUMN,
    DAY,
    GROUPS,
    SPRING,
    UNITS,
    Plain,
    contexts,
    label,
    offers,
    parcels,
    plain_context,
    plain_offer,
    session,
    stretch,
    unit,
)

from coflex.domain.errors import CoflexError, Finding
from coflex.domain.offer import Offer
from coflex.domain.qualification import ProductLimit
from coflex.domain.quantity import Direction
from coflex.domain.unit import Level
from coflex.market.design import SessionPlan
from coflex.market.intake import Intake, IntakeContext, intake, no_longer
from coflex.market.intake.laid import Cells, Laid

PLAN = session(DAY)
PLANS = (PLAN, session(DAY, firm_quarters=6), session(DAY, sees_grid=True), session(SPRING), session(AUTUMN))
CONTEXT = plain_context(PLAN)


def told(findings: tuple[Finding, ...]) -> set[tuple[str, str]]:
    return {(finding.place, finding.code) for finding in findings}


def codes(findings: tuple[Finding, ...]) -> set[str]:
    return {finding.code for finding in findings}


@st.composite
def worlds(draw: st.DrawFn, most: int = 5) -> tuple[SessionPlan, IntakeContext, list[list[Offer]]]:
    plan = draw(st.sampled_from(PLANS))
    return plan, draw(contexts(plan)), draw(parcels(plan, most))


# ---------------------------------------------------------------- laws


@pytest.mark.spec("MKT-03", "MKT-09")
@settings(max_examples=60, deadline=None)
@given(worlds())
def test_parcel_after_parcel_the_intake_takes_and_refuses_what_plain_loops_do(
    world: tuple[SessionPlan, IntakeContext, list[list[Offer]]],
) -> None:
    plan, context, sent = world
    plain, kept = Plain(plan, context), Intake(plan, context)
    for parcel in sent:
        expected = plain.take(parcel)
        assert told(kept.check(parcel)) == expected
        assert told(kept.take(parcel)) == expected
        assert dict(kept.offers) == {offer.id: offer for offer in plain.taken}


@pytest.mark.spec("MKT-03", "MKT-09")
@settings(max_examples=40, deadline=None)
@given(worlds())
def test_of_offers_that_come_all_at_once_those_without_a_fault_are_taken(
    world: tuple[SessionPlan, IntakeContext, list[list[Offer]]],
) -> None:
    plan, context, sent = world
    together = list(chain.from_iterable(sent))
    accepted, findings = intake(plan, together, context)
    assert (list(accepted), told(findings)) == Plain(plan, context).judge(together)


@pytest.mark.spec("MKT-03", "MKT-19")
@settings(max_examples=40, deadline=None)
@given(worlds(), st.data())
def test_the_order_of_the_offers_in_a_parcel_does_not_matter(
    world: tuple[SessionPlan, IntakeContext, list[list[Offer]]], data: st.DataObject
) -> None:
    plan, context, sent = world
    one, other = Intake(plan, context), Intake(plan, context)
    for parcel in sent:
        assert one.take(parcel) == other.take(data.draw(st.permutations(parcel)))
        assert dict(one.offers) == dict(other.offers)


@pytest.mark.spec("MKT-03")
@settings(max_examples=40, deadline=None)
@given(worlds(), st.data())
def test_what_is_given_back_leaves_no_trace(
    world: tuple[SessionPlan, IntakeContext, list[list[Offer]]], data: st.DataObject
) -> None:
    plan, context, sent = world
    kept, before = Intake(plan, context), Intake(plan, context)
    for parcel in sent:
        kept.take(parcel)
    gone = data.draw(st.sets(st.sampled_from(sorted(kept.offers)))) if kept.offers else set()
    before.put([offer for offer in kept.offers.values() if offer.id not in gone])
    back = [kept.offers[name] for name in sorted(gone)]
    kept.give_back(gone)
    assert dict(kept.offers) == dict(before.offers)
    for parcel in sent:
        assert kept.check(parcel) == before.check(parcel)
    # And taken again it stands where it stood.
    kept.put(back)
    before.put(back)
    probe = data.draw(st.lists(offers(plan, "probe"), min_size=1, max_size=3))
    for offer in probe:
        assert kept.check([offer]) == before.check([offer])


@pytest.mark.spec("MKT-03")
@settings(max_examples=40, deadline=None)
@given(worlds(), st.data())
def test_against_a_new_context_it_answers_as_if_it_had_never_known_another(
    world: tuple[SessionPlan, IntakeContext, list[list[Offer]]], data: st.DataObject
) -> None:
    plan, context, (*sent, last) = world
    kept = Intake(plan, context)
    for parcel in sent:
        kept.take(parcel)
    groups = GROUPS | {"ga": replace(GROUPS["ga"], units=data.draw(st.sampled_from([("a1", "a2"), ("a2", "a3"), ()])))}
    units = {name: UNITS[name] for name in data.draw(st.sampled_from([tuple(UNITS), ("a1", "a2", "a3", "t1")]))}
    later = replace(data.draw(contexts(plan)), groups=groups, units=units)
    kept.renew(later)
    anew = Intake(plan, replace(later, taken=tuple(kept.offers.values())))
    for parcel in (*sent, last):
        assert kept.check(parcel) == anew.check(parcel)
    assert kept.take(last) == anew.take(last)
    assert dict(kept.offers) == dict(anew.offers)


# ---------------------------------------------------------------- one account of energy


def at(first: int, *kw: int) -> dict[str, object]:
    """Terms of an offer of one step."""
    return {"steps": (stretch(PLAN, first, kw),)}


GROUP: dict[str, object] = {"unit": None, "group": "ga"}


@pytest.mark.spec("MKT-03")
def test_a_unit_s_own_offers_and_its_group_s_are_two_accounts() -> None:
    context = plain_context(PLAN, energy_kwh={"a1": (30.0, 0.0)})
    taken = (plain_offer(PLAN, "o1", **at(4, 80)), plain_offer(PLAN, "o2", **GROUP, **at(5, 100, 100)))
    kept = Intake(PLAN, replace(context, taken=taken))
    assert not kept.check([plain_offer(PLAN, "o3", **at(9, 40))])  # 20 and 10 kWh
    assert codes(kept.check([plain_offer(PLAN, "o3", **at(9, 45))])) == {"above_energy"}


@pytest.mark.spec("MKT-03")
def test_of_a_group_s_alternatives_the_largest_in_each_quarter_hour_counts() -> None:
    """The two units have 25 kWh each, 100 kW for a quarter of an hour; the larger alternative claims one unit's."""
    kept = Intake(PLAN, plain_context(PLAN, energy_kwh={"a1": (25.0, 0.0), "a2": (25.0, 0.0)}))
    either = [plain_offer(PLAN, f"o{kw}", exclusive="one", **GROUP, **at(4, kw)) for kw in (100, 60)]
    assert not kept.take(either)
    assert not kept.check([plain_offer(PLAN, "o3", **GROUP, **at(9, 50, 50))])
    beyond = plain_offer(PLAN, "o3", **GROUP, **at(9, 50, 55))
    assert told(kept.check([beyond])) == {(f"offer o3, {label(PLAN.horizon[10])}", "above_energy")}


@pytest.mark.spec("MKT-03")
def test_a_unit_without_end_carries_its_group() -> None:
    kept = Intake(PLAN, plain_context(PLAN, energy_kwh={"a1": (5.0, 0.0)}))
    assert not kept.check([plain_offer(PLAN, **GROUP, **at(4, *[100] * 20))])
    assert codes(kept.check([plain_offer(PLAN, **GROUP, **at(4, *[110] * 3))])) == {"above_energy"}


@pytest.mark.spec("MKT-03")
def test_an_offer_for_which_the_energy_does_not_last_still_stands_in_the_way_of_later_ones() -> None:
    kept = Intake(PLAN, plain_context(PLAN, energy_kwh={"a1": (20.0, 0.0)}))
    parcel = [
        plain_offer(PLAN, "o1", receipt=1, **at(4, 60)),
        plain_offer(PLAN, "o2", receipt=2, **at(5, 60)),
        plain_offer(PLAN, "o3", receipt=3, **GROUP, **at(5, 20)),
    ]
    assert told(kept.check(parcel)) == {
        ("offer o2", "above_energy"),
        (f"offer o3, {label(PLAN.horizon[5])}", "offered_twice"),
    }


@pytest.mark.spec("MKT-03")
def test_the_account_follows_a_new_context() -> None:
    some = plain_context(PLAN, energy_kwh={"a1": (20.0, 0.0)})
    kept = Intake(PLAN, some)
    assert not kept.take([plain_offer(PLAN, "o1", exclusive="one", **at(4, 80))])
    later = plain_offer(PLAN, "o2", receipt=2, **at(20, 60))
    assert codes(kept.check([later])) == {"above_energy"}
    # What is not available any more is not asked for either; what is left may be less than what is asked for.
    declared = np.full(len(PLAN.horizon), 100)
    declared[4] = 0
    kept.renew(replace(some, available_kw={"a1": (declared, declared)}))
    assert not kept.check([later])
    kept.renew(replace(some, energy_kwh={"a1": (15.0, 0.0)}))
    assert not kept.take([plain_offer(PLAN, "o3", receipt=3, exclusive="one", **at(20, 40))])
    assert codes(kept.check([plain_offer(PLAN, "o4", receipt=4, **at(30, 10))])) == {"above_energy"}
    kept.give_back(["o1"])
    assert not kept.check([plain_offer(PLAN, "o4", receipt=4, **at(30, 20))])


@pytest.mark.spec("MKT-03")
def test_where_less_energy_is_left_than_was_asked_for_a_smaller_alternative_does_not_help() -> None:
    kept = Intake(PLAN, plain_context(PLAN, energy_kwh={"a1": (30.0, 0.0)}))
    assert not kept.take([plain_offer(PLAN, "o1", exclusive="one", **at(4, 80)), plain_offer(PLAN, "o2", **at(9, 20))])
    smaller = plain_offer(PLAN, "o3", receipt=3, exclusive="one", **at(4, 40))
    assert not kept.check([smaller])
    kept.renew(plain_context(PLAN, energy_kwh={"a1": (20.0, 0.0)}))
    assert codes(kept.check([smaller])) == {"above_energy"}
    kept.give_back(["o1"])
    assert not kept.check([smaller])


@pytest.mark.spec("MKT-03")
def test_a_unit_that_joins_a_group_joins_what_the_group_has_offered() -> None:
    kept = Intake(PLAN, CONTEXT)
    assert not kept.take([plain_offer(PLAN, **GROUP)])
    alone = plain_offer(PLAN, "o2", receipt=2, unit="a3")
    assert not kept.check([alone])
    kept.renew(replace(CONTEXT, groups=GROUPS | {"ga": replace(GROUPS["ga"], units=("a2", "a3"))}))
    assert codes(kept.check([alone])) == {"offered_twice"}
    assert not kept.check([replace(alone, unit="a1")])


# ---------------------------------------------------------------- withdrawal


@pytest.mark.spec("MKT-03")
def test_a_unit_whose_offer_was_withdrawn_can_be_offered_again() -> None:
    kept = Intake(PLAN, CONTEXT)
    assert not kept.take([plain_offer(PLAN)])
    again = plain_offer(PLAN, "o2", receipt=2)
    assert told(kept.take([again])) == {(f"offer o2, {label(PLAN.horizon[4])}", "offered_twice")}
    kept.give_back(["o1"])
    assert not kept.take([again])
    assert list(kept.offers) == ["o2"]


@pytest.mark.spec("MKT-03")
def test_an_id_and_a_label_are_free_again_when_nobody_uses_them() -> None:
    kept = Intake(PLAN, CONTEXT)
    mine = plain_offer(PLAN, exclusive="one")
    theirs = plain_offer(PLAN, receipt=2, provider="bruno", unit="b1", exclusive="one")
    kept.take([mine, replace(mine, id="o2", steps=(stretch(PLAN, 9, (40,)),))])
    assert codes(kept.check([theirs])) == {"duplicate_id", "foreign_label"}
    kept.give_back(["o1"])
    assert codes(kept.check([theirs])) == {"foreign_label"}
    kept.give_back(["o2"])
    assert not kept.take([theirs])


@pytest.mark.spec("MKT-03")
def test_of_two_alternatives_one_withdrawn_the_other_still_stands_for_its_unit() -> None:
    kept = Intake(PLAN, CONTEXT)
    one, two = plain_offer(PLAN, exclusive="one"), plain_offer(PLAN, "o2", receipt=2, exclusive="one")
    assert not kept.take([one, two])
    kept.give_back(["o1"])
    assert codes(kept.check([plain_offer(PLAN, "o3", receipt=3)])) == {"offered_twice"}
    kept.give_back(["o2"])
    assert not kept.check([plain_offer(PLAN, "o3", receipt=3)])


@pytest.mark.spec("MKT-03")
def test_the_energy_of_a_withdrawn_offer_is_there_again() -> None:
    kept = Intake(PLAN, plain_context(PLAN, energy_kwh={"a1": (25.0, 0.0)}))
    first, later = plain_offer(PLAN), plain_offer(PLAN, "o2", receipt=2, steps=(stretch(PLAN, 20, (40,)),))
    assert not kept.take([first])  # 70 kW for a quarter of an hour each: 17.5 kWh
    assert told(kept.take([later])) == {("offer o2", "above_energy")}  # 10 kWh more
    kept.give_back(["o1"])
    assert not kept.check([later])
    kept.put([first])
    assert codes(kept.check([later])) == {"above_energy"}
    kept.give_back(["o1"])
    assert not kept.take([later])
    assert not kept.take([replace(first, energy_limit_kwh=15)])
    assert codes(kept.check([plain_offer(PLAN, "o3", steps=(stretch(PLAN, 30, (20,)),))])) == {"above_energy"}


def test_what_is_not_there_cannot_be_given_back_and_what_is_there_not_put_in_twice() -> None:
    kept = Intake(PLAN, CONTEXT)
    kept.take([plain_offer(PLAN)])
    with pytest.raises(CoflexError, match="'o2' is not taken"):
        kept.give_back(["o1", "o2"])
    with pytest.raises(CoflexError, match="already taken"):
        kept.put([plain_offer(PLAN, "o3"), plain_offer(PLAN)])
    with pytest.raises(CoflexError, match="already taken"):
        Intake(PLAN, replace(CONTEXT, taken=(plain_offer(PLAN), plain_offer(PLAN))))
    assert list(kept.offers) == ["o1"]


@pytest.mark.parametrize("place", range(1, 5))
def test_what_breaks_in_the_middle_of_a_parcel_leaves_nothing_behind(
    place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory ends at some place of a parcel of four units behind two offers."""
    kept, count, add = Intake(PLAN, CONTEXT), iter(range(1, 99)), Cells.add

    def failing(cells: Cells, laid: Laid) -> None:
        add(cells, laid)
        if next(count) == place:
            raise MemoryError

    parcel = [plain_offer(PLAN, unit=None, group="ga"), plain_offer(PLAN, "o2", product="vc", unit=None, group="gv")]
    parcel[1] = replace(parcel[1], direction=Direction.DOWN, exclusive="one")
    with monkeypatch.context() as patched, pytest.raises(MemoryError):
        patched.setattr(Cells, "add", failing)
        kept.take(parcel)
    assert not kept.offers
    assert not kept.check([plain_offer(PLAN, "o9", receipt=9, provider="bruno", unit="b1", exclusive="one")])
    assert not kept.take(parcel)


def test_what_is_no_offer_at_all_leaves_nothing_behind() -> None:
    kept, broken = Intake(PLAN, CONTEXT), plain_offer(PLAN, "o2", receipt=2, steps=None)
    with pytest.raises(TypeError):
        kept.take([plain_offer(PLAN), broken])
    assert not kept.offers
    assert not kept.take([plain_offer(PLAN)])


# ---------------------------------------------------------------- units that may not be offered


@pytest.mark.spec("REG-10", "MKT-03")
def test_a_barred_unit_is_refused_with_the_reason_alone_and_in_a_group() -> None:
    context = plain_context(PLAN, barred={"a2": "its owner has given no consent"})
    (finding,) = intake(PLAN, [plain_offer(PLAN, unit="a2")], context)[1]
    assert (finding.place, finding.code) == ("offer o1", "barred")
    assert finding.message.startswith("Unit a2 may not be offered: its owner has given no consent;")
    assert codes(intake(PLAN, [plain_offer(PLAN, unit=None, group="ga")], context)[1]) == {"barred"}
    assert not intake(PLAN, [plain_offer(PLAN)], context)[1]


@pytest.mark.spec("REG-10")
def test_a_unit_is_barred_from_the_moment_of_the_new_context_on_and_its_taken_offers_stay() -> None:
    kept = Intake(PLAN, CONTEXT)
    kept.take([plain_offer(PLAN)])
    more = plain_offer(PLAN, "o2", receipt=2, steps=(stretch(PLAN, 9, (40,)),))
    assert not kept.check([more])
    kept.renew(plain_context(PLAN, barred={"a1": "it is suspended"}))
    assert codes(kept.check([more])) == {"barred"}
    assert list(kept.offers) == ["o1"]
    kept.renew(CONTEXT)
    assert not kept.take([more])


@pytest.mark.spec("MKT-03", "SET-06")
def test_nobody_offers_where_only_the_party_itself_would_buy() -> None:
    alone = plain_context(PLAN, buyers=("anna",))
    (finding,) = intake(PLAN, [plain_offer(PLAN)], alone)[1]
    assert (finding.place, finding.code) == ("offer o1", "own_account")
    assert finding.message == f"{PLAN.id} buys for 'anna', which would pay itself; offer in another session."
    assert set(no_longer(PLAN, [plain_offer(PLAN)], alone)) == {"o1"}
    assert not intake(PLAN, [plain_offer(PLAN)], plain_context(PLAN, buyers=("anna", "tso")))[1]


@pytest.mark.spec("MKT-03")
def test_a_seller_that_is_not_qualified_for_the_product_is_refused() -> None:
    qualified = plain_context(PLAN, products_of={"a1": within("cm", 10**6), "ga": within("vc", 10**6)})
    assert not intake(PLAN, [plain_offer(PLAN)], qualified)[1]
    refused = [plain_offer(PLAN, "o1", product="vc"), plain_offer(PLAN, "o2", unit="a3")]
    refused.append(plain_offer(PLAN, "o3", unit=None, group="ga", steps=(stretch(PLAN, 30, (20,)),)))
    assert told(intake(PLAN, refused, qualified)[1]) == {(f"offer o{i}", "not_qualified") for i in (1, 2, 3)}


def within(product: str, up_kw: int, group: str = "ga", units: str = "a1 a2") -> dict[str, ProductLimit]:
    """What a group and its units are qualified for, upwards."""
    return {product: ProductLimit(group, product, up_kw, 0, tuple(units.split()))}


@pytest.mark.spec("REG-07", "MKT-03")
def test_a_group_offers_no_more_than_its_test_showed_and_is_told_how_much_that_is() -> None:
    context = plain_context(PLAN, products_of=dict.fromkeys(("a1", "a2", "ga"), within("cm", 120)))
    kept = Intake(PLAN, context)
    (finding,) = kept.take([plain_offer(PLAN, **GROUP, **at(4, 120, 125))])
    assert (finding.place, finding.code) == (f"offer o1, step 1, {label(PLAN.horizon[5])}", "above_qualified")
    assert "only 120 kW" in finding.message
    (down,) = kept.take([plain_offer(PLAN, **GROUP, **at(4, 10), direction=Direction.DOWN)])
    assert down.code == "above_qualified" and "only 0 kW" in down.message
    assert not kept.take([plain_offer(PLAN, **GROUP, **at(4, 120, 120))])


@pytest.mark.spec("REG-07", "MKT-03")
def test_units_together_offer_no_more_than_the_group_under_whose_test_they_do() -> None:
    context = plain_context(PLAN, products_of=dict.fromkeys(("a1", "a2", "ga"), within("cm", 120)))
    kept = Intake(PLAN, context)
    assert not kept.take([plain_offer(PLAN, "o1", unit="a1", **at(4, 80, 80))])
    second = plain_offer(PLAN, "o2", receipt=2, unit="a2", **at(5, 45, 45))
    (finding,) = kept.check([second])
    assert (finding.place, finding.code) == (f"offer o2, {label(PLAN.horizon[5])}", "above_qualified")
    assert "120 kW of cm up" in finding.message and "only 40 kW" in finding.message
    assert not kept.check([replace(second, exclusive="either", **at(5, 40, 100))])
    kept.give_back(["o1"])
    assert not kept.take([second])
    kept.renew(plain_context(PLAN, products_of=dict.fromkeys(("a1", "a2", "ga"), within("cm", 100))))
    first = plain_offer(PLAN, "o3", receipt=3, unit="a1", **at(5, 60))
    assert codes(kept.check([first])) == {"above_qualified"}
    assert not kept.check([replace(first, **at(5, 55))])


@pytest.mark.spec("REG-07", "MKT-03")
def test_what_goes_comes_back_or_changes_its_group_counts_where_it_is() -> None:
    context = plain_context(
        PLAN, products_of=dict.fromkeys(("a1", "a2", "a3", "ga"), within("cm", 120, units="a1 a2 a3"))
    )
    kept = Intake(PLAN, context)
    either = [
        plain_offer(PLAN, f"o{kw}", receipt=kw, unit=f"a{i}", exclusive="one", **at(4, kw))
        for i, kw in ((1, 90), (2, 60))
    ]
    probe = plain_offer(PLAN, "o3", receipt=100, unit="a3", **at(4, 35))

    def fits(kw: int) -> bool:
        found = kept.check([replace(probe, **at(4, kw))])
        assert codes(found) <= {"above_qualified"}
        return not found

    assert not kept.take(either)
    assert fits(30) and not fits(35)
    kept.give_back(["o90"])
    assert fits(60) and not fits(65)
    kept.put(either[:1])
    assert fits(30) and not fits(35)
    left = within("cm", 120, units="a2 a3")
    moved = {"a1": within("cm", 120, "gw", "a1"), "a2": left, "a3": left}
    kept.renew(plain_context(PLAN, products_of=moved))
    assert fits(60) and not fits(65)
    kept.renew(context)
    assert fits(30) and not fits(35)


def test_of_another_provider_s_unit_nothing_is_told_but_that_it_is_not_one_s_own() -> None:
    context = plain_context(
        PLAN, barred={"b1": "no consent"}, products_of={}, qualified_kw={}, energy_kwh={"b1": (0.0, 0.0)}, levels={}
    )
    for who, code in (({"unit": "b1"}, "foreign_unit"), ({"unit": None, "group": "gb"}, "foreign_group")):
        assert codes(intake(PLAN, [plain_offer(PLAN, **who)], context)[1]) == {code}


@pytest.mark.spec("REG-11", "MKT-03")
def test_whoever_takes_a_unit_over_is_told_that_it_is_offered_and_not_by_which_offer() -> None:
    kept = Intake(PLAN, CONTEXT)
    assert not kept.take([plain_offer(PLAN, "anna/sealed")])
    kept.renew(replace(CONTEXT, units=UNITS | {"a1": unit("a1", "bruno")}))
    (finding,) = kept.check([plain_offer(PLAN, "bruno/o2", receipt=2, provider="bruno")])
    assert (finding.place, finding.code) == (f"offer bruno/o2, {label(PLAN.horizon[4])}", "offered_twice")
    assert "sealed" not in finding.message and "anna" not in finding.message
    assert "still offered by the provider that it had before" in finding.message


@pytest.mark.spec("MKT-03", "REG-10")
def test_offers_of_sellers_that_may_not_sell_any_more_are_found_whatever_they_ask() -> None:
    taken = [
        plain_offer(PLAN, "switched"),
        plain_offer(PLAN, "switched too", direction=Direction.DOWN, steps=(stretch(PLAN, 90, (10_000,)),)),
        plain_offer(PLAN, "barred", unit="a2"),
        plain_offer(PLAN, "group with a barred unit", unit=None, group="ga"),
        plain_offer(PLAN, "gone", unit="t1"),
        plain_offer(PLAN, "unqualified", unit="a3", product="vc"),
        plain_offer(PLAN, "stands", unit="a3", steps=(stretch(PLAN, 90, (10_000,)),)),
    ]
    units = {name: one for name, one in UNITS.items() if name != "t1"} | {"a1": unit("a1", "bruno")}
    context = plain_context(
        PLAN, units=units, barred={"a2": "it is inactive"}, products_of={"a3": within("cm", 10**6), "a2": {}}
    )
    found = no_longer(PLAN, taken, context)
    assert set(found) == {offer.id for offer in taken} - {"stands"}
    assert "another provider's" in found["switched"] and found["switched"] == found["switched too"]
    assert "it is inactive" in found["barred"] and "not qualified" in found["unqualified"]


# ---------------------------------------------------------------- days and instants


@pytest.mark.spec("MKT-03")
@pytest.mark.parametrize(("day", "count"), [(SPRING, 92), (DAY, 96), (AUTUMN, 100)])
def test_a_day_is_offered_to_its_last_quarter_hour_and_no_further(day: date, count: int) -> None:
    plan = session(day)
    context = plain_context(plan)
    whole = plain_offer(plan, steps=(stretch(plan, 0, (20,) * count),))
    assert not intake(plan, [whole], context)[1]
    longer = plain_offer(plan, steps=(stretch(plan, 0, (20,) * (count + 1)),))
    (finding,) = intake(plan, [longer], context)[1]
    assert finding.code == "outside_horizon"
    assert finding.place == f"offer o1, step 1, {label(plan.horizon.end)}"


@pytest.mark.spec("MKT-03")
def test_the_two_hours_of_one_name_in_autumn_are_two() -> None:
    plan = session(AUTUMN)
    kept = Intake(plan, plain_context(plan))
    summer, winter = (plain_offer(plan, f"o{i}", receipt=i, steps=(stretch(plan, i, (20,)),)) for i in (8, 12))
    assert [label(one.steps[0].start) for one in (summer, winter)] == [
        "2016-10-30T02:00+02:00",
        "2016-10-30T02:00+01:00",
    ]
    assert not kept.take([summer])
    assert not kept.take([winter])
    (finding,) = kept.check([replace(winter, id="o3", receipt=13)])
    assert finding.place == "offer o3, 2016-10-30T02:00+01:00"


def test_an_instant_is_the_same_in_any_zone() -> None:
    tokyo = timezone(timedelta(hours=9))
    there = plain_offer(PLAN, steps=(replace(stretch(PLAN, 4, (20,)), start=PLAN.horizon[4].astimezone(tokyo)),))
    kept = Intake(PLAN, CONTEXT)
    assert not kept.take([there])
    assert codes(kept.check([plain_offer(PLAN, "o2", receipt=2)])) == {"offered_twice"}


@pytest.mark.parametrize("at", [datetime.min.replace(tzinfo=UTC), datetime(9999, 12, 31, 23, 45, tzinfo=UTC)])
def test_a_step_at_the_end_of_the_calendar_is_a_fault_like_any_other(at: datetime) -> None:
    steps = tuple(replace(stretch(PLAN, 0, (20, -7), number=number), start=at) for number in (1, 1))
    found = intake(PLAN, [plain_offer(PLAN, steps=steps)], CONTEXT)[1]
    assert codes(found) >= {"outside_horizon", "negative", "tick", "overlap"}


# ---------------------------------------------------------------- what is told


def test_the_first_received_of_the_offers_in_the_way_is_named_whatever_order_they_came_in() -> None:
    early, late = (plain_offer(PLAN, f"o{i}", receipt=i, steps=(stretch(PLAN, 10 - i, (20,)),)) for i in (1, 2))
    new = plain_offer(PLAN, "o9", receipt=9, steps=(stretch(PLAN, 7, (20,) * 4),))
    for taken in ((early, late), (late, early)):
        (finding,) = Intake(PLAN, replace(CONTEXT, taken=taken)).check([new])
        assert "already in offer o1;" in finding.message


def test_what_is_negative_in_one_step_takes_nothing_from_another() -> None:
    steps = (stretch(PLAN, 4, (105,), "80", 1), stretch(PLAN, 4, (-10,), "90", 2))
    found = intake(PLAN, [plain_offer(PLAN, steps=steps)], CONTEXT)[1]
    assert codes(found) == {"negative", "above_qualified"}


def test_a_rise_of_price_is_asked_for_only_where_steps_stand_above_each_other() -> None:
    apart = (stretch(PLAN, 4, (20,), "90", 1), stretch(PLAN, 5, (20,), "80", 2))
    assert not intake(PLAN, [plain_offer(PLAN, steps=apart)], CONTEXT)[1]
    assert not intake(PLAN, [plain_offer(PLAN, steps=apart[::-1])], CONTEXT)[1]
    above = (stretch(PLAN, 4, (20, 20), "90", 1), stretch(PLAN, 5, (20,), "80", 2))
    found = intake(PLAN, [plain_offer(PLAN, steps=above)], CONTEXT)[1]
    assert told(found) == {(f"offer o1, step 2, {label(PLAN.horizon[5])}", "price_order")}


# ---------------------------------------------------------------- speed


@pytest.mark.spec("MKT-03")
def test_the_time_of_an_offer_does_not_grow_with_those_that_are_taken() -> None:
    """Ten thousand offers into one session, in parcels of two hundred: well under 100 us for each, first and last."""
    names = [f"u{i}" for i in range(2000)]
    context = plain_context(
        PLAN,
        units={name: unit(name, "anna") for name in names},
        levels=dict.fromkeys(names, Level.DISTRIBUTION),
        qualified_kw=dict.fromkeys(((name, Direction.UP) for name in names), 100),
    )
    sent = [
        plain_offer(PLAN, f"{name}/{t}", receipt=t, unit=name, steps=(stretch(PLAN, t, (40, 30, 20, 10)),))
        for t in range(0, 20, 4)
        for name in names
    ]
    kept, times = Intake(PLAN, context), []
    for first in range(0, len(sent), 200):
        began = process_time()
        assert not kept.take(sent[first : first + 200])
        times.append(process_time() - began)
    assert sum(times) < len(sent) * 100e-6
    assert sum(times[-10:]) < 5 * sum(times[:10])
    assert len(kept.offers) == len(sent)


def test_putting_an_offer_back_does_not_take_longer_the_more_there_are() -> None:
    """Ten thousand offers put in one by one, as a book is read back: the last thousand like the first."""
    names = [f"u{i}" for i in range(10_000)]
    context = plain_context(PLAN, units={name: unit(name, "anna") for name in names})
    kept, times = Intake(PLAN, context), []
    for first in range(0, len(names), 1000):
        sent = [plain_offer(PLAN, name, unit=name) for name in names[first : first + 1000]]
        began = process_time()
        for offer in sent:
            kept.put([offer])
        times.append(process_time() - began)
    assert min(times[-3:]) < 3 * min(times[:3])
