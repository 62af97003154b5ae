"""Sessions from the announcement to the published result, computed outside, never sold twice, whatever dies (MKT-02,
MKT-09, PLAT-05, PLAT-07)."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from coflex.adapters.store.memory import MemoryStore
from coflex.domain.clearing import Award, Holding, MeritLine, Status
from coflex.domain.errors import CoflexError, Conflict, Forbidden, GateClosed, Refused, SoldTwice
from coflex.domain.need import LocalNeed, Request
from coflex.domain.offer import Offer
from coflex.domain.party import Party, Role
from coflex.domain.quantity import Direction
from coflex.process.answering import _Asked, _kept, _Scene
from coflex.process.clear import clear
from coflex.process.plan import plan
from coflex.register.consents import Consent, Window
from coflex.register.market import Proposal, SessionEntry, SessionRequests
from coflex.register.outcomes import SessionOutcome, Span, Step, outcome_id, pack, unpack
from coflex.register.parties import PartyEntry, PartyStatus
from coflex.register.prequalification import GridPrequalification, GridStatus, ProductQualification, grid_id
from coflex.register.resources import GroupEntry, UnitEntry, UnitStatus
from coflex.register.work import Answer, Job, Work
from coflex.service import engine, rules
from coflex.service.engine import Engine, Pending, Worker, job, pending, work_off
from coflex.service.gates import next_gate, plan_of
from coflex.service.ledger import awards, buyer_of, decided, free_kw, held, holdings, merit_order, needs, planned
from coflex.service.machine import Context, Machine, Outcome, Verb, encode, now
from coflex.service.replay import fingerprint
from coflex.service.standing import register
from coflex.service.verbs import VERBS, prequalification
from coflex.service.verbs.sessions import Again, AskedForm, Nothing, Requests, Retry
from coflex.service.who import Who
from coflex.simulation import demo
from coflex.simulation.demo import Counterparts, demo_case
from support.computing import computing
from support.markets import (
    BEGIN,
    COMPUTED,
    LONG_AGO,
    TENANT,
    Hand,
    World,
    after,
    demo_jobs,
    demo_world,
    opened,
    play,
    putting,
    table,
)

DAY = date(2016, 7, 5)
LOCAL, GLOBAL = "2016-07-05.local-1", "2016-07-05.global-1"


def number_of(verb: str, subject: str) -> int:
    """Number of the entry of the played day that took a command."""
    return next(entry.number for entry in demo_world().entries(verb) if entry.command.subject == subject)


def just_before(verb: str, subject: str) -> World:
    return after(demo_world(), number_of(verb, subject) - 1)


def just_after(verb: str, subject: str) -> World:
    return after(demo_world(), number_of(verb, subject))


def who(party: str) -> Who:
    entry = demo_world().state.get(PartyEntry, party)
    return Who(TENANT, party, party, "client", frozenset(entry.roles), frozenset())


# ---------------------------------------------------------------- the life of a session


@pytest.mark.spec("MKT-02", "MKT-10")
def test_every_session_of_the_day_lives_from_the_announcement_to_the_publication() -> None:
    world = demo_world()
    for entry in world.state.all(SessionEntry):
        life = [one.state for one in entry.reached]
        # Local sessions are validated by static lights, global ones by dynamic lights.
        assert life == ["announced", "open", "closed", "cleared", "validated", "definitive", "published"], entry.id
        assert [one.at for one in entry.reached[1:3]] == [entry.opens, entry.closes]
        assert not entry.alarm and entry.offers == len(unpack(outcome(world, entry.id).given, Offer)) > 0
    firm = [plan_of(world.state, entry).firm for entry in world.state.all(SessionEntry) if "local" in entry.id]
    assert [axis.count for axis in firm] == [16] * 6
    assert all(one.end == other.start for one, other in pairwise(firm))


def outcome(world: World, session: str, step: Step = Step.RESULT) -> SessionOutcome:
    return world.state.get(SessionOutcome, outcome_id(session, step))


@pytest.mark.spec("MKT-02")
def test_everybody_is_told_of_gates_and_lists_and_each_provider_of_its_own_awards() -> None:
    world = demo_world()
    feed = [item.note for item in world.journal.feed(TENANT, "sp-01", (0, 0), 10_000)]
    mine = [note.kind for note in feed if note.subject == LOCAL]
    assert mine == [
        "session.opened",
        "session.planned",
        "session.closed",
        "session.awarded",
        "session.published",
    ]
    (note,) = (note for note in feed if note.subject == LOCAL and note.kind == "session.awarded")
    own = [award for award in decided(world.state, LOCAL, Award) if award.provider == "sp-01"]
    kwh = sum(award.quantity_kw for award in own if award.direction is Direction.DOWN) / 4
    assert msgspec.json.decode(note.body)["awards"] == len(own) > 0
    assert msgspec.json.decode(note.body)["kwh"]["down"] == pytest.approx(kwh)
    bought = [item.note for item in world.journal.feed(TENANT, "dso", (0, 0), 10_000)]
    assert [note.subject for note in bought if note.kind == "session.cleared"] == [
        f"{DAY}.local-{k}" for k in range(1, 7)
    ]


# ---------------------------------------------------------------- never sold twice


@pytest.mark.spec("MKT-09")
def test_no_unit_is_ever_held_twice_in_a_quarter_hour_and_what_is_definitive_stays() -> None:
    world = demo_world()
    ledger: dict[tuple[str, datetime], Holding] = {}
    for entry in world.entries("session.cleared"):
        decision = msgspec.json.decode(entry.command.body, type=SessionOutcome)
        for gone in unpack(decision.removed, Holding):
            assert ledger.pop((gone.unit, gone.start)) == gone
            assert gone.status is Status.PRELIMINARY and gone.buyer == decision.buyer
        for holding in unpack(decision.added, Holding):
            assert (holding.unit, holding.start) not in ledger
            ledger[holding.unit, holding.start] = holding
    assert holdings(world.state, DAY) == tuple(ledger[cell] for cell in sorted(ledger))
    assert {holding.buyer for holding in ledger.values()} == {"dso", "tso"}
    assert {holding.status for holding in ledger.values()} == {Status.DEFINITIVE}


@pytest.mark.spec("MKT-19")
def test_steps_computed_one_by_one_give_what_the_verbs_of_the_day_give_on_one_store() -> None:
    world, jobs = demo_world(), demo_jobs()
    store = MemoryStore(demo_case().zone)
    for one in jobs:
        scene = _Scene(one, demo_case())
        session = scene.day.plan(one.session)
        if one is jobs[0]:
            with store.transaction() as t:
                t.add(tuple(scene._lights()))
        if one.work is Work.PLAN:
            plan(scene.day, store, session, one.at, scene.nominate, _Asked(one.requests))
        else:
            with store.transaction() as t:
                t.add([replace(_kept(offer), id=f"{session.id}/{offer.id}") for offer in one.offers])
            clear(scene.day, store, session, one.at)
    with store.transaction() as t:
        ledger, lines, needed = t.all(Holding), t.all(MeritLine), t.all(LocalNeed)
        bought, asked = t.all(Award), t.all(Request)
    named = [replace(one, offer=f"{one.session}/{one.offer}") for one in holdings(world.state, DAY)]
    assert tuple(named) == ledger
    sessions = [entry.id for entry in world.state.all(SessionEntry)]
    ours = {line for id in sessions for line in decided(world.state, id, MeritLine)}
    assert {replace(line, offer=f"{line.session}/{line.offer}") for line in ours} == set(lines)
    assert {need for id in sessions for need in planned(world.state, id, LocalNeed)} == set(needed)
    assert {request for id in sessions for request in planned(world.state, id, Request)} == set(asked)
    assert {award.start for award in bought} == {holding.start for holding in ledger}


@pytest.mark.spec("MKT-09")
def test_a_result_that_sells_a_unit_again_is_refused_and_changes_nothing() -> None:
    world = just_before("session.cleared", GLOBAL)
    body = demo_world().entries()[number_of("session.cleared", GLOBAL) - 1].command.body
    result = msgspec.json.decode(body, type=SessionOutcome)
    taken = holdings(world.state, DAY)[0]
    more = [*unpack(result.added, Holding), replace(taken, session="global-1", buyer="tso")]
    twice = replace(result, added=(*(one for one in result.added if one.table != "holding"), *pack(more)))
    before = fingerprint(world.machine)
    with pytest.raises(SoldTwice):
        bring(world, "session.cleared", GLOBAL, twice)
    forged = replace(result, removed=pack([taken]))
    with pytest.raises(Conflict, match="does not follow from the ledger"):
        bring(world, "session.cleared", GLOBAL, forged)
    assert fingerprint(world.machine) == before
    bring(world, "session.cleared", GLOBAL, result)
    assert world.state.get(SessionEntry, GLOBAL).state == "published"


def bring(world: World, verb: str, session: str, form: object) -> None:
    world.do(verb, session, form, "", "engine")


@pytest.mark.spec("MKT-09", "PLAT-05")
def test_a_second_result_of_a_step_and_one_out_of_turn_are_refused() -> None:
    world = just_after("session.cleared", LOCAL)
    result = outcome(world, LOCAL)
    with pytest.raises(Conflict, match="not due"):
        bring(world, "session.cleared", LOCAL, result)
    with pytest.raises(Conflict, match="not due"):
        bring(world, "session.planned", LOCAL, outcome(world, LOCAL, Step.PLAN))
    world = just_before("session.planned", LOCAL)
    with pytest.raises(Conflict, match="waits for plan of"):
        bring(world, "session.cleared", LOCAL, result)
    with pytest.raises(Conflict, match="is not the plan"):
        bring(world, "session.planned", LOCAL, result)


# ---------------------------------------------------------------- crashes


def goes_on(number: int) -> None:
    world = play(after(demo_world(), number), COMPUTED)
    assert fingerprint(world.machine) == fingerprint(demo_world().machine), number
    assert world.journal.head().digest == demo_world().journal.head().digest, number


@pytest.mark.spec("PLAT-05")
@pytest.mark.parametrize("number", range(3, 120, 17))
def test_a_server_killed_between_two_commands_goes_on_to_the_same_bytes(number: int) -> None:
    goes_on(min(number, demo_world().sequencer.number))


@pytest.mark.slow
@pytest.mark.spec("PLAT-05")
def test_a_server_killed_between_any_two_commands_goes_on_to_the_same_bytes() -> None:
    for number in range(3, demo_world().sequencer.number + 1):
        goes_on(number)


@pytest.mark.slow
@pytest.mark.spec("PLAT-05", "MKT-19")
def test_a_job_gives_the_same_bytes_in_every_process_whatever_the_seed_of_hashes(tmp_path: Path) -> None:
    chosen = [one for one in demo_jobs() if one.subject == GLOBAL]
    (tmp_path / "jobs").write_bytes(pickle.dumps(chosen))
    program = (
        "import pickle, sys, hashlib; from coflex.adapters.store.memory import MemoryStore;"
        "from coflex.process.answering import answer; from coflex.simulation.demo import demo_case;"
        "jobs = pickle.loads(open(sys.argv[1], 'rb').read());"
        "print([hashlib.sha256(answer(job, demo_case(), MemoryStore).body).hexdigest() for job in jobs])"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "jobs")],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("1", "4711")
    ]
    assert told[0] == told[1] and told[0].count("'") == 4


def test_the_server_loads_no_solver_and_no_grid() -> None:
    program = (
        "import sys, coflex.service.engine;"
        "print([name for name in ('scipy', 'highspy', 'clarabel', 'power_grid_model') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.strip() == "[]"


# ---------------------------------------------------------------- what fails, and what is taken back


@pytest.mark.spec("PLAT-07")
def test_a_step_that_fails_raises_the_alarm_and_its_day_waits_for_the_market_operator() -> None:
    world = just_before("session.cleared", LOCAL)
    assert [one.work for one in pending(world.machine)] == [Work.CLEAR]
    assert work_off(world.sequencer, lambda job: Answer(fault="The solver found no end.")) == 1
    entry = world.state.get(SessionEntry, LOCAL)
    assert (entry.state, entry.alarm) == ("closed", "The solver found no end.")
    assert pending(world.machine) == ()
    play(world, COMPUTED, until=entry.closes + timedelta(hours=1))
    assert world.state.get(SessionEntry, GLOBAL).plan == ""
    feed = [item.note.kind for item in world.journal.feed(TENANT, "mo", (0, 0), 1000)]
    assert feed.count("session.failed") == 1
    with pytest.raises(Conflict):
        world.do("session.retry", GLOBAL, Retry("why not"), "mo", "ann")
    with pytest.raises(Forbidden):
        world.do("session.retry", LOCAL, Retry("mine"), "dso", "dan")
    world.do("session.retry", LOCAL, Retry("the solver was mended"), "mo", "ann")
    work_off(world.sequencer, COMPUTED)
    assert world.state.get(SessionEntry, LOCAL).state == "published"
    assert world.state.get(SessionEntry, GLOBAL).plan


def test_a_result_that_the_machine_refuses_is_an_alarm_and_no_endless_circle() -> None:
    world = just_before("session.cleared", GLOBAL)

    def forging(job: Job) -> Answer:
        result = msgspec.json.decode(COMPUTED(job).body, type=SessionOutcome)
        return Answer(encode(replace(result, removed=pack([holdings(world.state, DAY)[0]]))))

    assert work_off(world.sequencer, forging) == 1
    assert "does not follow from the ledger" in world.state.get(SessionEntry, GLOBAL).alarm


def propose(world: World, form: Again, session: str = LOCAL) -> str:
    receipt = world.do("session.rerun", session, form, "mo", "ann")
    return msgspec.json.decode(receipt.reply, type=Proposal).id


@pytest.mark.spec("PLAT-07")
def test_two_persons_take_a_result_back_and_it_is_computed_anew_without_an_offer() -> None:
    world = just_after("session.planned", GLOBAL)
    best = max(decided(world.state, LOCAL, Award), key=lambda award: award.quantity_kw)
    proposal = propose(world, Again("the provider mistyped its quantity", (best.offer,)))
    assert world.state.get(SessionEntry, LOCAL).state == "published"
    world.do("proposal.confirm", proposal, party="mo", actor="bob")
    entry = world.state.get(SessionEntry, LOCAL)
    assert (entry.state, entry.outcome) == ("closed", "")
    assert holdings(world.state, DAY) == ()
    assert world.state.get(SessionEntry, GLOBAL).plan == ""
    again = after(world, world.sequencer.number)
    for one in (world, again):
        play(one, COMPUTED, until=one.state.get(SessionEntry, GLOBAL).closes)
    bought = {award.offer for award in decided(world.state, LOCAL, Award)}
    assert best.offer not in bought and len(bought) > 0
    assert {world.state.get(SessionEntry, one).state for one in (LOCAL, GLOBAL)} == {"published"}
    assert fingerprint(again.machine) == fingerprint(world.machine)


@pytest.mark.spec("PLAT-07")
def test_a_rerun_leaves_offers_out_of_that_result_alone_and_names_those_of_its_book() -> None:
    world = just_after("session.cleared", LOCAL)
    first, second = sorted({award.offer for award in decided(world.state, LOCAL, Award)})[:2]
    whole = outcome(world, LOCAL)
    for without in ((first,), (second,), ()):
        world.do("proposal.confirm", propose(world, Again("again", without)), party="mo", actor="bob")
        work_off(world.sequencer, COMPUTED)
        result = outcome(world, LOCAL)
        assert result.given == whole.given
        assert tuple(name for name, _ in result.left_out) == without
        assert not {award.offer for award in decided(world.state, LOCAL, Award)} & set(without)
    assert outcome(world, LOCAL) == whole
    with pytest.raises(Refused) as told:
        propose(world, Again("mistyped", (first, "sp-01/nothing", "no one's")))
    assert [finding.place for finding in told.value.findings] == ["without[1]", "without[2]"]


@pytest.mark.spec("PLAT-07")
def test_one_person_who_has_a_step_retried_leaves_nothing_out() -> None:
    with pytest.raises(Refused, match="The request"):
        just_before("session.cleared", LOCAL).do("session.retry", LOCAL, Again("why not", ("sp-01/a",)), "mo", "ann")


@pytest.mark.spec("PLAT-07")
def test_a_result_others_were_cleared_on_or_that_is_being_delivered_is_not_taken_back() -> None:
    world = just_after("session.cleared", GLOBAL)
    with pytest.raises(Conflict, match="cleared on this result"):
        world.do("proposal.confirm", propose(world, Again("too late")), party="mo", actor="bob")
    world.clock.at = datetime(2016, 7, 4, 22, tzinfo=UTC)
    with pytest.raises(Conflict, match="began at 2016-07-05T00:00"):
        world.do("proposal.confirm", propose(world, Again("too late"), GLOBAL), party="mo", actor="bob")
    with pytest.raises(Conflict, match="has no result"):
        world.do("proposal.confirm", propose(world, Again("too early"), f"{DAY}.local-2"), party="mo", actor="bob")


# ---------------------------------------------------------------- the register of now


@pytest.mark.spec("MKT-02")
def test_what_may_not_be_offered_any_more_at_the_gate_is_left_out_and_its_provider_told() -> None:
    def suspend(state, context: Context, form: Nothing) -> Outcome:  # type: ignore[no-untyped-def]
        entry = state.get(UnitEntry, context.subject)
        return Outcome({}, ((UnitEntry, entry.id, replace(entry, status=UnitStatus.INACTIVE)),))

    verbs = table(extra=(putting(demo_case()), Verb("test.suspend", Nothing, suspend)))
    before = just_before("session.close", LOCAL)
    world = World(verbs, before.clock, before.journal)
    gone = decided(demo_world().state, LOCAL, Award)[0]
    world.do("test.suspend", gone.unit or "")
    play(world, COMPUTED, until=world.state.get(SessionEntry, LOCAL).closes)
    result = outcome(world, LOCAL)
    assert {name for name, _ in result.left_out} == {
        offer.id for offer in unpack(result.given, Offer) if offer.unit == gone.unit
    }
    assert all("the unit is inactive" in why for _, why in result.left_out)
    assert gone.unit not in {holding.unit for holding in holdings(world.state, DAY)}
    told = [item.note for item in world.journal.feed(TENANT, gone.provider, (0, 0), 1000)]
    assert "offers.left_out" in {note.kind for note in told}


def test_after_the_gate_the_register_changes_nothing_of_a_result_whenever_it_is_computed() -> None:
    def anything(state, context: Context, form: Nothing) -> Outcome:  # type: ignore[no-untyped-def]
        """Everybody is suspended, every unit gone, every consent withdrawn, every qualification another one."""
        units = [replace(one, status=UnitStatus.TERMINATED) for one in state.all(UnitEntry)]
        groups = [replace(one, status=UnitStatus.TERMINATED) for one in state.all(GroupEntry)]
        parties = [
            replace(one, status=PartyStatus.SUSPENDED)
            for one in state.all(PartyEntry)
            if one.party.roles == (Role.SERVICE_PROVIDER,)
        ]
        consents = [replace(one, withdrawn=context.now) for one in state.all(Consent)]
        checks = [replace(one, answer=None) for one in state.all(GridPrequalification)]
        buyer = PartyEntry("aaa", Party("aaa", "Another", (Role.DSO,)), PartyStatus.APPROVED, LONG_AGO)
        return Outcome({}, tuple((type(one), one.id, one) for one in (
            *units, *groups, *parties, *consents, *checks, buyer
        )))  # fmt: skip

    verbs = table(extra=(putting(demo_case()), Verb("test.anything", Nothing, anything)))
    before = just_before("session.cleared", LOCAL)
    world = World(verbs, before.clock, before.journal)
    (work,) = pending(world.machine)
    made = job(world.machine, work)
    assert made.offers and made.register.limits and not made.without and made.buyer == "dso"
    world.do("test.anything")
    assert job(world.machine, work) == made
    world.restart()
    assert job(world.machine, work) == made


@pytest.mark.spec("REG-04", "REG-10", "ACT-07")
def test_at_the_gate_a_unit_is_held_to_the_limits_of_then_and_sold_by_its_provider_of_then() -> None:
    made = next(one for one in demo_jobs() if one.work is Work.CLEAR)
    bought = [award for award in decided(demo_world().state, LOCAL, Award) if award.unit]
    late, weak, shut, moved = sorted({award.unit for award in bought if award.quantity_kw > 1})[:4]
    far = made.at + timedelta(days=30)
    limits = {one.unit: one for one in made.register.limits}
    limits[late] = replace(limits[late], allowed=(Span(far, far + timedelta(days=1)),))
    limits[weak] = replace(limits[weak], up_kw=1, down_kw=1)
    limits[shut] = replace(limits[shut], owner=(Window(made.at, far, 0, 0),))
    units = tuple(replace(one, provider="sp-99") if one.id == moved else one for one in made.register.units)
    held_to = replace(made, register=replace(made.register, units=units, limits=tuple(limits.values())))
    result = msgspec.json.decode(COMPUTED(held_to).body, type=SessionOutcome)
    why = dict(result.left_out)
    for unit, reason in ((late, "declared"), (weak, "qualified"), (shut, "declared"), (moved, "another provider's")):
        mine = [offer.id for offer in made.offers if offer.unit == unit]
        assert mine and all(reason in why[name] for name in mine), (unit, [why.get(name) for name in mine])
    kept = [award for award in unpack(result.added, Award) if award.unit in (late, weak, shut, moved)]
    assert not kept and len(unpack(result.added, Award)) > 0
    # Who took the unit over offers it in its turn.
    taken_over = tuple(replace(one, provider="sp-99") if one.unit == moved else one for one in made.offers)
    result = msgspec.json.decode(COMPUTED(replace(held_to, offers=taken_over)).body, type=SessionOutcome)
    assert {award.provider for award in unpack(result.added, Award) if award.unit == moved} == {"sp-99"}


@pytest.mark.spec("REG-07", "MKT-02")
def test_at_the_gate_offers_are_held_to_what_their_group_is_qualified_for_then() -> None:
    made = next(one for one in demo_jobs() if one.work is Work.CLEAR)
    limits = made.register.product_limits
    under = {(name, one.product): one.group for one in limits for name in (one.group, *one.units)}
    assert {(offer.unit or offer.group or "", offer.product) for offer in made.offers} <= under.keys()

    def sold(awards: Sequence[Award]) -> dict[tuple[str, Direction, datetime], int]:
        kw: dict[tuple[str, Direction, datetime], int] = {}
        for one in awards:
            key = under[one.unit or one.group or "", one.product], one.direction, one.start
            kw[key] = kw.get(key, 0) + one.quantity_kw
        return kw

    before = sold(decided(demo_world().state, LOCAL, Award))
    less = max(before.values()) - 1
    lowered = tuple(replace(one, up_kw=less, down_kw=less) for one in limits)
    held_to = replace(made, register=replace(made.register, product_limits=lowered))
    result = msgspec.json.decode(COMPUTED(held_to).body, type=SessionOutcome)
    assert 0 < max(sold(unpack(result.added, Award)).values()) <= less
    assert any("qualified" in why and f"{less} kW" in why for _, why in result.left_out)


@pytest.mark.spec("MKT-03")
def test_an_offer_that_the_cap_of_its_time_let_in_is_not_dismissed_for_another_cap() -> None:
    made = next(one for one in demo_jobs() if one.work is Work.CLEAR)
    first = made.offers[0]
    dear = replace(first, steps=tuple(replace(step, price_eur_mwh=Decimal(1001)) for step in first.steps[:1]))
    result = COMPUTED(replace(made, offers=(dear, *made.offers[1:])))
    assert msgspec.json.decode(result.body, type=SessionOutcome).left_out == ()


def test_offers_of_what_came_after_the_plan_are_left_out_and_it_is_said_why() -> None:
    made = next(one for one in demo_jobs() if one.work is Work.CLEAR)
    new = replace(made.offers[0], id="new", unit="cu-new")
    result = msgspec.json.decode(COMPUTED(replace(made, offers=(*made.offers, new))).body, type=SessionOutcome)
    assert result.left_out == (("new", "cu-new was not registered and qualified when the session was planned."),)


@pytest.mark.spec("MKT-04")
def test_the_buyer_of_a_session_that_opened_stays_its_buyer() -> None:
    def approve(state, context: Context, form: Nothing) -> Outcome:  # type: ignore[no-untyped-def]
        one = PartyEntry("aaa", Party("aaa", "Another", (Role.DSO, Role.TSO)), PartyStatus.APPROVED, LONG_AGO)
        return Outcome({}, ((PartyEntry, one.id, one),))

    verbs = table(extra=(putting(demo_case()), Verb("test.approve", Nothing, approve)))
    before = just_after("session.open", LOCAL)
    world = World(verbs, before.clock, before.journal)
    world.do("test.approve")
    asked = world.state.find(SessionRequests, GLOBAL)
    assert asked is not None and asked.buyer == "tso"
    play(world, COMPUTED, until=world.state.get(SessionEntry, GLOBAL).closes)
    buyers = {entry.id: outcome(world, entry.id).buyer for entry in world.state.all(SessionEntry) if entry.outcome}
    assert buyers == {LOCAL: "dso", GLOBAL: "tso"}
    later = world.state.get(SessionEntry, f"{DAY}.local-3")
    assert later.state == "announced" and buyer_of(world.state, plan_of(world.state, later)) == "aaa"


def test_a_unit_leaves_the_register_of_offers_with_its_status_consent_or_qualification() -> None:
    state = just_after("session.planned", LOCAL).state
    now = register(state, BEGIN)
    assert {unit.id for unit in now.units} == {unit.id for unit in demo_case().units}
    assert {limit.unit for limit in now.limits} == {unit.id for unit in now.units}
    late = register(state, datetime(2031, 1, 1, tzinfo=UTC))
    assert late.units == late.groups == ()


def test_a_market_without_any_unit_clears_empty_sessions() -> None:
    bare = replace(demo_case(), points=(), units=(), groups=())
    world = opened(table(extra=(putting(bare),)))
    world.do("test.put", "", 1)
    play(world, COMPUTED, until=datetime(2016, 7, 4, 10, tzinfo=UTC))
    assert world.state.get(SessionEntry, GLOBAL).state == "published"
    assert len(planned(world.state, LOCAL, LocalNeed)) > 0


def test_a_day_that_the_case_does_not_hold_is_an_alarm_that_says_so() -> None:
    world = opened(
        table(extra=(putting(demo_case()),)), date(2020, 1, 2), date(2020, 1, 2), datetime(2020, 1, 1, tzinfo=UTC)
    )
    world.do("test.put", "", 1)
    play(world, COMPUTED)
    alarms = {entry.alarm for entry in world.state.all(SessionEntry)} - {""}
    assert alarms == {"The case 'demo' has no profiles of 2020-01-02. Choose days it holds."}


# ---------------------------------------------------------------- requests


def ask(world: World, session: str, *asked: AskedForm, party: str = "tso") -> None:
    world.do("request.submit", session, Requests(asked), party, "tom")


START = datetime(2016, 7, 5, 10, tzinfo=UTC)


@pytest.mark.spec("MKT-04")
def test_a_buyer_asks_until_the_session_opens_and_the_last_word_counts() -> None:
    world = just_before("session.open", LOCAL)
    limit = Decimal("250.5")
    ask(world, GLOBAL, AskedForm(START, Direction.UP, 500, limit))
    ask(world, GLOBAL, AskedForm(START, Direction.DOWN, 300, limit))
    play(world, COMPUTED, until=world.state.get(SessionEntry, GLOBAL).opens)
    netted = {request.start: request for request in planned(world.state, GLOBAL, Request)}
    assert (netted[START].asked_kw, netted[START].price_limit_eur_mwh) == (300, limit)
    with pytest.raises(Conflict, match="until it opened"):
        ask(world, GLOBAL, AskedForm(START, Direction.UP, 1, limit))


@pytest.mark.spec("MKT-04")
def test_requests_are_the_buyers_alone_and_every_fault_is_told() -> None:
    world = just_before("session.open", LOCAL)
    with pytest.raises(Forbidden, match="does not buy for dso"):
        ask(world, GLOBAL, party="dso")
    with pytest.raises(Forbidden):
        ask(world, GLOBAL, party="sp-01")
    with pytest.raises(Conflict, match="from the grid"):
        ask(world, LOCAL, party="dso")
    wrong = AskedForm(START + timedelta(minutes=1), Direction.UP, 0, Decimal("NaN"))
    with pytest.raises(Refused) as told:
        ask(world, GLOBAL, wrong, wrong, AskedForm(START.replace(tzinfo=None), Direction.UP, 5, Decimal(1)))
    codes = [finding.code for finding in told.value.findings]
    assert sorted(set(codes)) == ["outside_horizon", "price", "quantity", "twice"]
    assert world.state.get(SessionRequests, GLOBAL).buyer == "tso"


# ---------------------------------------------------------------- who sees what


@pytest.mark.spec("MKT-05")
def test_a_provider_sees_its_own_awards_and_the_list_without_who_offers_what_where() -> None:
    state = demo_world().state
    mine = awards(state, who("sp-01"), LOCAL)
    assert mine and {award.provider for award in mine} == {"sp-01"}
    assert len(awards(state, who("dso"), LOCAL)) > len(mine)
    seen, whole = merit_order(state, who("sp-01"), LOCAL), merit_order(state, who("tso"), LOCAL)
    assert {line.provider for line in seen} == {"", "sp-01"}
    assert all(not line.offer and not line.location and not line.detail for line in seen if not line.provider)
    open_to_all = [(line.rank, line.price_eur_mwh, line.offered_kw, line.accepted_kw, line.reason) for line in seen]
    assert open_to_all == [(w.rank, w.price_eur_mwh, w.offered_kw, w.accepted_kw, w.reason) for w in whole]
    units = {unit.id for unit in demo_case().units if unit.provider == "sp-01"}
    assert {holding.unit for holding in held(state, who("sp-01"), DAY)} <= units
    assert len(held(state, who("mo"), DAY)) == len(holdings(state, DAY))
    with pytest.raises(CoflexError):
        needs(state, who("sp-01"), LOCAL)


@pytest.mark.spec("MKT-09")
def test_units_offered_for_local_needs_alone_have_nothing_to_give_in_the_global_session() -> None:
    world = just_after("session.planned", GLOBAL)
    kept = {offer.unit for offer in unpack(outcome(world, LOCAL).given, Offer) if offer.local_only}
    free = free_kw(world.state, world.state.get(SessionEntry, GLOBAL))
    assert kept and free is not None
    for unit in kept:
        assert not free[0].row(str(unit)).any() and not free[1].row(str(unit)).any()


@pytest.mark.spec("MKT-02", "PLAT-05")
def test_an_offer_sequenced_in_the_microsecond_of_the_gate_is_refused_with_the_gates_time() -> None:
    number = next(e.number for e in demo_world().entries("offer.submit") if e.command.subject == LOCAL)
    world = after(demo_world(), number)
    sent = world.entries()[-1].command
    closes = world.state.get(SessionEntry, LOCAL).closes
    world.clock.at = closes - timedelta(microseconds=1)
    body = sent.body.replace(b'"id":"', b'"id":"again-')
    with pytest.raises(Refused):  # in time: the book is asked, and finds the units offered already
        world.sequencer.submit(replace(sent, key="a", body=body))
    world.clock.at = closes
    with pytest.raises(GateClosed, match="2016-07-04T10:00"):
        world.sequencer.submit(replace(sent, key="b", body=body))


# ---------------------------------------------------------------- grid checks


@pytest.mark.spec("PLAT-05")
def test_grid_checks_in_progress_are_computed_together_and_answered_with_their_proof() -> None:
    verbs = table(prequalification, extra=(putting(demo_case()),))
    world = opened(verbs)
    world.do("test.put", "", 1)
    units = [unit for unit in demo_case().units if unit.provider == "sp-01" and unit.element]
    world.do("grid_prequalification.request", "", {"units": [unit.id for unit in units]}, "sp-01", "sam")
    world.do("grid_check.request", "", {"mode": "one_by_one", "units": [units[0].id, units[1].id]}, "dso", "dan")
    (waiting,) = pending(world.machine)
    made = job(world.machine, waiting)
    assert (waiting.work, made.only) == (Work.GRID_CHECK, tuple(sorted(unit.id for unit in units[:2])))
    assert work_off(world.sequencer, COMPUTED) == 1 and pending(world.machine) == ()
    for unit in units[:2]:
        record = world.state.get(GridPrequalification, grid_id(unit.id, "dso"))
        assert record.answer is not None and record.answer.lights
        assert record.status in (GridStatus.APPROVED, GridStatus.CONDITIONALLY_APPROVED, GridStatus.NOT_APPROVED)


def test_a_unit_outside_the_modelled_grid_goes_back_to_its_operator() -> None:
    world = opened(table(prequalification, extra=(putting(demo_case()),)))
    world.do("test.put", "", 1)
    plant = next(unit for unit in demo_case().units if not unit.element)
    world.do("grid_prequalification.request", "", {"units": [plant.id]}, plant.provider, "sam")
    world.do("grid_check.request", "", {"mode": "one_by_one"}, "tso", "tom")
    work_off(world.sequencer, COMPUTED)
    record = world.state.get(GridPrequalification, grid_id(plant.id, "tso"))
    assert (record.status, pending(world.machine)) == (GridStatus.REQUESTED, ())
    assert "outside the modelled grid" in record.reason


# ---------------------------------------------------------------- the engine


def any_job(case: str) -> Job:
    return replace(demo_jobs()[0], case=case)


@pytest.mark.slow
def test_the_worker_outlives_what_happens_to_its_process() -> None:
    async def scene() -> None:
        worker = Worker(computing)
        try:
            first = await worker(any_job("fine"))
            assert first.body == str(worker.pid).encode()
            assert (await worker(any_job("raises"))).fault == "A fault of the program: ValueError('no such thing')."
            worker.longest_s = 0.5
            assert (await worker(any_job("sleeps"))).fault == "It took longer than 0.5 s."
            worker.longest_s = 60.0
            assert (await worker(any_job("dies"))).fault == "The process that computes ended 3 times."
            again = await worker(any_job("fine"))
            assert again.body and again.body != first.body
        finally:
            worker.close()

    asyncio.run(scene())


@pytest.mark.spec("PLAT-05")
def test_the_engine_brings_results_back_as_they_become_due() -> None:
    world = just_before("session.planned", LOCAL)

    async def compute(job: Job) -> Answer:
        return COMPUTED(job)

    async def scene() -> None:
        task = asyncio.create_task(Engine(world.sequencer, compute).run())
        counterparts = Counterparts(demo_case(), TENANT)
        for _ in range(400):
            await asyncio.sleep(0.005)
            world.sequencer.pass_gates()
            for command in counterparts.commands(world.state, now(world.state, world.clock.at)):
                world.sequencer.submit(command)
            entry = world.state.get(SessionEntry, LOCAL)
            if (
                entry.plan
                and entry.state == "open"
                and not counterparts.commands(world.state, now(world.state, world.clock.at))
            ):
                world.clock.at = entry.closes
            if entry.state == "published":
                break
        task.cancel()

    asyncio.run(scene())
    assert world.state.get(SessionEntry, LOCAL).state == "published"
    assert outcome(world, LOCAL) == outcome(demo_world(), LOCAL)


@pytest.mark.spec("PLAT-05")
@pytest.mark.parametrize("session", [LOCAL, GLOBAL])
def test_a_job_that_cannot_be_made_is_an_alarm_and_no_circle_at_full_speed(
    session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = just_before("session.cleared", session)
    tried: list[str] = []

    def broken(machine: Machine, work: Pending) -> Job:
        tried.append(work.subject)
        raise KeyError("cu-0001")

    async def compute(job: Job) -> Answer:
        raise AssertionError("there is nothing to compute")

    async def scene() -> None:
        task = asyncio.create_task(Engine(world.sequencer, compute).run())
        await asyncio.sleep(0.2)
        task.cancel()

    monkeypatch.setattr(engine, "job", broken)
    asyncio.run(scene())
    assert tried == [session]
    assert "KeyError('cu-0001')" in world.state.get(SessionEntry, session).alarm


# ---------------------------------------------------------------- the demo


@pytest.mark.slow
def test_the_demo_lives_a_week_on_a_fast_clock() -> None:
    world = opened(table(extra=(putting(demo_case()),)), DAY, date(2016, 7, 11))
    world.do("test.put", "", 1)
    play(world, COMPUTED)
    days = {entry.day for entry in world.state.all(SessionEntry) if entry.state == "published"}
    assert len(days) == 7 and next_gate(world.state) is None
    assert not any(entry.alarm for entry in world.state.all(SessionEntry))


@pytest.mark.spec("REG-04", "MKT-02")
def test_the_demo_opens_by_commands_alone_and_can_be_begun_again_in_the_middle() -> None:
    world = World(VERBS, Hand(datetime(2026, 1, 1, tzinfo=UTC)), tenant=demo.TENANT)
    commands = demo.seed(demo_case(), speed=1000)
    for command in commands[:100]:
        world.sequencer.submit(command)
    assert not demo.seeded(demo_case(), world.state)
    for command in commands:
        world.sequencer.submit(command)
    assert demo.seeded(demo_case(), world.state)
    assert len(world.entries()) == len(commands) + len(world.entries("session.announce"))
    assert {party for party, _ in demo.visitors(world.state)} >= {"mo", "dso", "tso"}
    world.sequencer.submit(demo.first_client("dso", "0" * 64))
    play(world, COMPUTED, until=datetime(2016, 7, 4, 10, tzinfo=UTC))
    assert {one.status for one in world.state.all(UnitEntry)} == {UnitStatus.ACTIVE}
    checked = [one for one in world.state.all(GridPrequalification) if one.operator == "dso"]
    assert all(one.answer is not None and one.answer.lights for one in checked)
    assert all(one.grant is not None for one in world.state.all(ProductQualification))
    for session, buyer in ((LOCAL, "dso"), (GLOBAL, "tso")):
        entry = world.state.get(SessionEntry, session)
        assert (entry.state, entry.alarm) == ("published", "") and entry.offers > 0
        assert {award.buyer for award in decided(world.state, session, Award)} == {buyer}
    assert not rules.whole(world.state)


def test_the_demo_trades_local_and_global_energy_in_both_directions() -> None:
    state = demo_world().state
    found = {(holding.buyer, holding.direction) for holding in holdings(state, DAY)}
    assert found == {(buyer, direction) for buyer in ("dso", "tso") for direction in Direction}
    assert {award.provider for award in decided(state, LOCAL, Award)} == {"sp-01", "sp-02", "sp-03", "sp-04"}
