"""Who tells whom what: the exchanges of designs as the sources' diagrams show them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from random_designs import designs as drawn

from coflex.market.coordination.outcome import Actor
from coflex.market.design import Design, Needs, designs, load_design, read_design
from coflex.market.design.exchanges import (
    FUNCTIONS,
    Exchange,
    Information,
    Per,
    Phase,
    exchanges,
    operator,
)

SHIPPED = [load_design(name) for name in designs()]


def lines(told: Iterable[Exchange]) -> list[str]:
    return [f"{one.phase} {one.sender} {one.receiver} {one.information} {one.per}" for one in told]


def one_session(**changes: Any) -> Design:
    session = yaml.safe_load("""
        id: only
        buyers: [tso]
        sellers: {levels: [distribution]}
        gate: {opens: D-1T08:00, closes: D-1T09:00}
        horizon: {starts: D, ends: D+1, firm: rest}
        needs: requests
        grid: {distribution: none, transmission: none}
        interface: free
        pricing: pay_as_bid
        validation: none
    """)
    document = {"id": "one", "title": "One", "source": {"document": "T", "section": "I"}}
    return read_design(yaml.safe_dump(document | {"sessions": [session | changes]}), "one.yaml")


@pytest.mark.spec("MKT-07")
def test_the_offering_with_the_dso_is_that_of_document_t_scenario_one() -> None:
    """Figures 4, 6 and 7 with their steps: request, validation and acknowledgement of units; offers to the TSO, its
    list to the DSO and back, acceptance to both; orders to providers, who answer with what they do."""
    assert lines(exchanges(one_session(validation="merit_order"))) == [
        "prequalification sp tso qualification_request per_seller",
        "prequalification tso dso qualification_request per_seller",
        "prequalification dso tso qualification per_seller",
        "prequalification tso sp qualification per_seller",
        "plan tso sp announcement per_provider",
        "bidding sp tso offers per_offer",
        "selection tso dso merit_order_list per_grid",
        "selection dso tso validation per_line",
        "selection tso sp results per_provider",
        "selection tso dso results per_grid",
        "delivery tso sp activation per_seller",
        "delivery sp tso acknowledgement per_seller",
        "settlement sp tso baseline per_seller",
        "settlement tso sp settlement per_provider",
    ]


@pytest.mark.spec("MKT-07")
def test_without_the_dso_its_validation_alone_is_missing() -> None:
    """Figure 5: the DSO hears of the acceptance and of nothing else in the offering."""
    with_dso, without = (exchanges(one_session(validation=word)) for word in ("merit_order", "none"))
    missing = [one for one in with_dso if one not in without]
    assert [one.information for one in missing] == [Information.MERIT_ORDER_LIST, Information.VALIDATION]
    assert set(without) < set(with_dso)


def test_the_dso_as_provider_is_that_of_document_t_scenario_two() -> None:
    """Figures 8 to 10: no provider takes part; the DSO offers with its consumption forecast and is called."""
    sellers = {"levels": ["distribution"], "resources": ["voltage_reduction"]}
    assert lines(exchanges(one_session(sellers=sellers))) == [
        "prequalification dso tso qualification_request per_grid",
        "prequalification tso dso qualification per_grid",
        "bidding dso tso consumption_forecast per_grid",
        "bidding dso tso offers per_offer",
        "selection tso dso results per_grid",
        "delivery tso dso activation per_grid",
        "delivery dso tso acknowledgement per_grid",
        "settlement dso tso baseline per_grid",
        "settlement tso dso settlement per_grid",
    ]


@pytest.mark.parametrize(
    ("buyers", "runs"),
    [(["tso"], Actor.TSO), (["dso"], Actor.DSO), (["brp"], "mo"), (["dso", "tso"], "mo"), (["tso", "brp"], "mo")],
)
def test_the_only_operator_that_buys_runs_the_market_else_a_neutral_one(buyers: list[str], runs: str) -> None:
    (session,) = one_session(buyers=buyers).sessions
    assert operator(session) == runs


@pytest.mark.spec("MKT-16")
def test_buyers_of_a_neutral_market_send_what_they_need_and_hear_what_they_got() -> None:
    grid = {"distribution": "ac", "transmission": "ac"}
    told = exchanges(one_session(buyers=["dso", "tso", "brp"], priority="none", needs="both", grid=grid))
    needed = [one for one in told if one.phase is Phase.PLAN and one.receiver is Actor.MARKET_OPERATOR]
    assert [(one.sender, one.information, one.per) for one in needed] == [
        (Actor.DSO, Information.NEEDS, Per.GRID),
        (Actor.TSO, Information.NEEDS, Per.ONCE),
        (Actor.TSO, Information.REQUESTS, Per.ONCE),
        (Actor.BALANCE_RESPONSIBLE_PARTY, Information.REQUESTS, Per.LINE),
    ]
    for information in (Information.RESULTS, Information.SETTLEMENT, Information.ANNOUNCEMENT):
        hearing = {one.receiver for one in told if one.information is information}
        assert hearing == set(Actor) - {Actor.MARKET_OPERATOR}


@pytest.mark.spec("MKT-09", "MKT-11")
def test_of_six_pairs_each_local_session_hands_on_offers_lights_and_what_it_holds() -> None:
    told = exchanges(load_design("beflexible_six"))
    for k in range(1, 7):
        mine = [one for one in told if one.session == f"local-{k}" and one.receiver is Actor.TSO]
        handed = {(one.information, one.per) for one in mine}
        forwarded = {(Information.UNUSED_OFFERS, Per.OFFER), (Information.TRAFFIC_LIGHT, Per.GRID)}
        # The last pair has no later session of the TSO's that it does not feed.
        assert handed == forwarded | ({(Information.UNAVAILABLE_UNITS, Per.ONCE)} if k < 6 else set())
        netted = [one for one in told if one.session == f"global-{k}" and one.sender is Actor.DSO]
        assert [one.information for one in netted] == [Information.INTERFACE_SCHEDULE]


@pytest.mark.parametrize(
    ("offers", "carry", "handed"),
    [
        ("unused", "traffic_light", ["unused_offers per_offer", "traffic_light per_grid"]),
        ("unused", "filter", ["unused_offers per_offer", "offer_filter per_offer"]),
        ("aggregated", "none", ["aggregated_offers per_grid"]),
    ],
)
def test_what_is_forwarded_goes_to_the_later_operator_and_is_not_offered_again(
    offers: str, carry: str, handed: list[str]
) -> None:
    first, second = (one_session().model_dump(mode="json")["sessions"][0] for _ in range(2))
    first |= {"id": "local", "buyers": ["dso"], "gate": {"opens": "D-1T06:00", "closes": "D-1T07:00"}}
    first["forward"] = {"to": "only", "offers": offers, "carry": carry}
    document = {"id": "two", "title": "Two", "source": {"document": "B", "section": "3"}, "sessions": [first, second]}
    told = exchanges(read_design(yaml.safe_dump(document), "two.yaml"))
    between = [one for one in told if (one.sender, one.receiver) == (Actor.DSO, Actor.TSO)]
    assert [f"{one.information} {one.per}" for one in between if one.phase is Phase.SELECTION] == handed
    offering = [one for one in told if one.information is Information.OFFERS]
    assert [(one.session, one.receiver) for one in offering] == [("local", Actor.DSO)]


def test_of_two_gates_at_once_only_the_one_that_keeps_units_tells_the_other() -> None:
    first, second = (one_session().model_dump(mode="json")["sessions"][0] for _ in range(2))
    first |= {"id": "local", "buyers": ["dso"]}
    told = {}
    for keeps in ("local", "only"):
        second["exclusion"] = {"session": "local", "first": keeps}
        document = {"id": "two", "title": "T", "source": {"document": "B", "section": "3"}, "sessions": [first, second]}
        made = exchanges(read_design(yaml.safe_dump(document), "two.yaml"))
        told[keeps] = [one for one in made if one.information is Information.UNAVAILABLE_UNITS]
    assert [(one.sender, one.receiver) for one in told["local"]] == [(Actor.DSO, Actor.TSO)]
    assert [(one.sender, one.receiver) for one in told["only"]] == [(Actor.TSO, Actor.DSO)]


@pytest.mark.parametrize("design", SHIPPED, ids=[design.id for design in SHIPPED])
def test_in_every_shipped_design_whoever_is_asked_can_answer(design: Design) -> None:
    told = exchanges(design)
    assert len(set(told)) == len(told)
    sessions = {session.id: session for session in design.sessions}
    assert {one.session for one in told} == {"", *sessions}
    for one in told:
        assert one.sender is not one.receiver
        assert (one.session == "") is (one.phase is Phase.PREQUALIFICATION)
        # A provider and a BRP talk to operators of markets alone.
        outside = {Actor.SERVICE_PROVIDER, Actor.BALANCE_RESPONSIBLE_PARTY}
        assert not {one.sender, one.receiver} <= outside
        assert one.function == FUNCTIONS[one.information]
    for name, session in sessions.items():
        mine = [one for one in told if one.session == name]
        assert operator(session) in {actor for one in mine for actor in (one.sender, one.receiver)}
        sold = [one for one in mine if one.phase is Phase.BIDDING]
        fed = [one for one in design.sessions if one.forward is not None and one.forward.to == name]
        assert sold or fed or session.admits
        if session.needs is not Needs.REQUESTS and len(session.buyers) > 1:
            assert Information.NEEDS in {one.information for one in mine}
    order = list(Phase)
    for phases in ([one.phase for one in told if one.session == name] for name in sessions):
        assert all(order.index(a) <= order.index(b) for a, b in pairwise(phases))


@settings(max_examples=40, deadline=None)
@given(drawn())
def test_what_is_told_belongs_to_one_session_whatever_the_others_are_called(design: Design) -> None:
    told = exchanges(design)
    names = {session.id: f"s{k}" for k, session in enumerate(design.sessions)}
    renamed = [session.model_copy(update={"id": names[session.id]}) for session in design.sessions]
    again = exchanges(design.model_copy(update={"sessions": tuple(renamed)}))
    assert [names.get(one.session, "") for one in told] == [one.session for one in again]
    assert lines(told) == lines(again)
