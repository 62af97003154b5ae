"""The machine decides from the command and the state alone: default deny, one truth, nothing half-done."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest

from coflex.domain.errors import Forbidden, NotFound, Outdated, Refused
from coflex.domain.party import Party, Role
from coflex.register.access import ClientScope, User
from coflex.register.market import Market, Proposal
from coflex.register.parties import PartyEntry, PartyStatus
from coflex.service.machine import ACCEPTED, Context, Machine, Outcome, Verb, encode, now
from coflex.service.ports import Command
from coflex.service.state import State

START = datetime(2026, 1, 1, tzinfo=UTC)


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    title: str
    speed: int = 1


def _put(state: State, context: Context, form: Form) -> Outcome:
    day = date(2026, 1, 1)
    market = Market("market", form.title, "UTC", "", "", day, day, START, START, form.speed)
    return Outcome(market, ((Market, "market", market),))


PROVIDER = frozenset({Role.SERVICE_PROVIDER})
VERBS = {
    verb.name: verb
    for verb in (
        Verb("open", Form, _put, PROVIDER, kind=Market),
        Verb("capped", Form, _put, PROVIDER, two_persons=True),
        Verb("internal", Form, _put),
        Verb("public", Form, _put, public=True),
    )
}


def machine(status: PartyStatus = PartyStatus.APPROVED) -> Machine:
    made = Machine(VERBS)
    state = made.tenants["t"] = State("t")
    party = Party("sp", "Provider", (Role.SERVICE_PROVIDER,))
    state.put("party", "sp", PartyEntry("sp", party, status, START), 1)
    return made


def command(verb: str, body: bytes = b'{"title":"a"}', party: str = "sp", **more: object) -> Command:
    return Command("t", verb, "market", party, party, "client", body, **more)  # type: ignore[arg-type]


@pytest.mark.spec("PLAT-01")
def test_a_role_may_and_everybody_else_may_not() -> None:
    assert machine().apply(command("open"), 2, START).status == 200
    with pytest.raises(Forbidden):
        machine().apply(command("open", party="stranger"), 2, START)
    with pytest.raises(Forbidden):
        machine(PartyStatus.SUSPENDED).apply(command("open"), 2, START)
    assert machine().apply(command("public", party="stranger"), 2, START).status == 200


@pytest.mark.spec("PLAT-01")
def test_a_verb_without_roles_is_for_the_platform_alone() -> None:
    with pytest.raises(Forbidden):
        machine().apply(command("internal"), 2, START)


def test_unknown_verbs_and_tenants_are_not_found() -> None:
    with pytest.raises(NotFound):
        machine().apply(command("fly"), 2, START)
    with pytest.raises(NotFound):
        Machine(VERBS).apply(command("open"), 2, START)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"title":1}', "title"),
        (b'{"titel":"a"}', "body"),
        (b'{"title":"a","colour":"red"}', "body"),
        (b'{"title":"a"', "body"),
        (b"\xff", "body"),
        (b'{"title":"a","speed":1e400}', "speed"),
    ],
)
def test_a_body_that_is_not_the_form_is_refused_with_its_place(body: bytes, place: str) -> None:
    with pytest.raises(Refused) as refused:
        machine().apply(command("open", body), 2, START)
    assert refused.value.findings[0].place == place


def test_a_change_of_what_was_read_insists_on_it() -> None:
    made = machine()
    made.apply(command("open"), 2, START)
    with pytest.raises(Outdated):
        made.apply(command("open", expects=1), 3, START)
    made.apply(command("open", expects=2), 3, START)


def test_what_was_taken_can_be_taken_back() -> None:
    made = machine()
    before = list(made.state("t").kinds())
    first = made.apply(command("open"), 2, START)
    second = made.apply(command("open", b'{"title":"b"}'), 3, START)
    made.take_back("t", second)
    assert made.state("t").get(Market, "market").title == "a"
    made.take_back("t", first)
    assert list(made.state("t").kinds()) == before


@pytest.mark.spec("PLAT-07")
@pytest.mark.parametrize("fault", ["reply", "record", "twice", "outdated"])
def test_a_verb_whose_outcome_cannot_be_kept_leaves_nothing_behind(fault: str) -> None:
    undone = []

    def act(state: State, context: Context, form: Form) -> Outcome:
        made = _put(state, context, form)
        others = {
            "record": ((Market, "other", object()),),
            "twice": ((Market, "market", None),),
        }.get(fault, ())
        reply = object() if fault == "reply" else {}
        return Outcome(reply, (*made.records, *others), undo=lambda: undone.append(fault))  # type: ignore[arg-type]

    made = machine()
    made.verbs = VERBS | {"broken": Verb("broken", Form, act, PROVIDER, kind=Market)}
    before, writes = list(made.tenants["t"].kinds()), made.writes
    with pytest.raises((TypeError, ValueError, Outdated)):
        made.apply(command("broken", expects=9 if fault == "outdated" else None), 2, START)
    assert (list(made.tenants["t"].kinds()), made.writes, undone) == (before, writes, [fault])


def test_what_needs_two_persons_only_waits() -> None:
    made = machine()
    with pytest.raises(Forbidden):
        made.apply(command("capped"), 2, START)  # a client is no person
    user = User("client", "sp", (ClientScope.WRITE,), "", "", START, START)
    made.state("t").put("user", "client", user, 1)
    with pytest.raises(Forbidden):
        made.apply(replace(command("capped"), by="mo"), 2, START)  # nor is somebody on behalf
    taken = made.apply(command("capped"), 2, START)
    assert taken.status == ACCEPTED
    (proposal,) = made.state("t").all(Proposal)
    assert (proposal.verb, proposal.body) == ("capped", '{"title":"a"}')
    assert made.state("t").find(Market, "market") is None


def test_the_tenants_time_runs_from_its_start_with_its_speed() -> None:
    state = State("t")
    then = datetime(2016, 7, 5, tzinfo=UTC)
    day = date(2016, 7, 5)
    state.put("market", "market", Market("market", "", "UTC", "", "", day, day, START, then, 60), 1)
    assert now(state, START + timedelta(minutes=1)) == then + timedelta(hours=1)


def test_values_derived_from_records_follow_them() -> None:
    made = machine()
    state = made.state("t")
    assert state.all(Market) == ()
    made.apply(command("open"), 2, START)
    assert [one.title for one in state.all(Market)] == ["a"]
    taken = made.apply(command("open", b'{"title":"b"}'), 3, START)
    assert [one.title for one in state.all(Market)] == ["b"]
    made.take_back("t", taken)
    assert [one.title for one in state.all(Market)] == ["a"]


ENCODE = """
from coflex.domain.party import Party, Role
from coflex.register.access import ClientScope, User
from coflex.service.machine import encode
print(encode({"b": frozenset({"x", "y", "z"}), "a": Party("p", "n", (Role.TSO, Role.DSO))}).decode())
"""


def test_equal_values_have_equal_bytes_under_any_hash_seed() -> None:
    texts = {
        subprocess.run(
            [sys.executable, "-c", ENCODE],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(texts) == 1
    assert encode({"b": 1, "a": 2}) == b'{"a":2,"b":1}'
