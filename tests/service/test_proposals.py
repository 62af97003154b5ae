"""What needs two persons happens when the second one confirms it, and never before (PLAT-07)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from coflex.domain.errors import Conflict, Forbidden, NotFound, Outdated, Refused
from coflex.domain.party import Party, Role
from coflex.market.design import design_text
from coflex.register.access import User, login_digest
from coflex.register.market import DesignText, Market, Proposal, ProposalStatus, SessionEntry
from coflex.register.parties import PartyEntry, PartyStatus
from coflex.register.products import ProductEntry
from coflex.service.machine import Context, Outcome, Verb
from coflex.service.ports import Command
from coflex.service.state import State
from coflex.service.verbs import access
from coflex.service.verbs.proposals import Refuse
from coflex.service.verbs.tenants import ChangeMarket
from coflex.simulation.demo import demo_case
from support.markets import LONG_AGO, World, opened, putting, table, user

# The text form of argon2id, of no password.
PASSWORD = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzb21lc2FsdA$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA"
MO2 = Party("mo-2", "Another market operator", (Role.MARKET_OPERATOR,))


def _approve(state: State, context: Context, form: bool) -> Outcome:
    status = PartyStatus.APPROVED if form else PartyStatus.SUSPENDED
    entry = PartyEntry(MO2.id, MO2, status, LONG_AGO)
    persons = (user("ada", MO2.id), user("ben", MO2.id))
    return Outcome({}, ((PartyEntry, MO2.id, entry), *((User, one.id, one) for one in persons)))


def world() -> World:
    made = opened(table(extra=(putting(demo_case()), Verb("test.second", bool, _approve))))
    made.do("test.put", "", 1)
    made.do("test.second", "", True)
    return made


def propose(made: World, form: ChangeMarket, party: str = "mo", actor: str = "ann", **more: Any) -> str:
    receipt = made.do("market.change", "market", form, party, actor, **more)
    assert receipt.status == 202
    return msgspec.json.decode(receipt.reply, type=Proposal).id


def confirm(made: World, proposal: str, party: str = "mo", actor: str = "bob") -> None:
    made.do("proposal.confirm", proposal, party=party, actor=actor)


@pytest.mark.spec("PLAT-07")
def test_a_change_of_the_market_waits_for_a_second_person() -> None:
    made = world()
    proposal = propose(made, ChangeMarket(title="Another name", price_limit_eur_mwh=Decimal(150)))
    assert made.state.get(Market, "market").title == "Test"
    with pytest.raises(Forbidden, match="second person"):
        confirm(made, proposal, actor="ann")
    confirm(made, proposal)
    market, kept = made.state.get(Market, "market"), made.state.get(Proposal, proposal)
    assert (market.title, market.price_limit_eur_mwh) == ("Another name", 150)
    assert (kept.status, kept.proposed_by, kept.decided_by) == (ProposalStatus.CONFIRMED, "ann", "bob")
    with pytest.raises(Conflict, match="confirmed already"):
        confirm(made, proposal)


def put_user(made: World, name: str, party: str, **more: Any) -> None:
    made.state.put("user", name, replace(user(name, party), **more), made.sequencer.number)


@pytest.mark.spec("PLAT-07")
def test_the_two_persons_are_two_users_of_the_party_itself() -> None:
    made = world()
    put_user(made, "client's", "mo-2")
    with pytest.raises(Forbidden):
        propose(made, ChangeMarket(title="Mine"), "mo", "client-mo")
    proposal = propose(made, ChangeMarket(title="Mine"))
    for actor, by in (("client-mo", "mo"), ("operator", "mo"), ("bob", "mo-2"), ("client's", "mo")):
        with pytest.raises(Forbidden, match="by a person"):
            made.sequencer.submit(Command("t", "proposal.confirm", proposal, "mo", by, actor, b"{}"))
    put_user(made, "bob", "mo", locked=LONG_AGO)
    with pytest.raises(Forbidden, match="by a person"):
        confirm(made, proposal)
    put_user(made, "bob", "mo")
    confirm(made, proposal)
    assert made.state.get(Market, "market").title == "Mine"


class Office:
    """The market operator's people and programs, who make each other's accounts."""

    def __init__(self) -> None:
        self.made = opened(table(access, extra=(putting(demo_case()),)))
        self.made.do("test.put", "", 1)
        self.key = self._id("client.first", {"name": "First", "secret_hash": "a" * 64}, "operator")

    def _id(self, verb: str, form: dict[str, Any], by: str, subject: str = "") -> str:
        return msgspec.json.decode(self.made.do(verb, subject, form, "mo", by).reply)["id"]

    def user(self, name: str, by: str) -> str:
        form = {"login": login_digest("t", name), "password": PASSWORD, "scopes": ["read", "write", "manage"]}
        return self._id("user.create", form, by)

    def client(self, by: str) -> str:
        return self._id("client.create", {"name": "A", "scopes": ["manage"], "secret_hash": "a" * 64}, by)

    def rotate(self, client: str, by: str, overlap_s: int) -> None:
        self._id("client.rotate", {"secret_hash": "b" * 64, "overlap_s": overlap_s}, by, client)

    def set_password(self, user: str, by: str) -> None:
        self._id("user.change_password", {"password": PASSWORD}, by, user)

    def agree(self, first: str, second: str) -> bool:
        """Whether one may confirm what the other proposed, whoever of them it was."""
        told = set()
        for one, other in ((first, second), (second, first)):
            proposal = propose(self.made, ChangeMarket(title="New"), actor=one)
            try:
                confirm(self.made, proposal, actor=other)
                told.add(True)
            except Forbidden as fault:
                assert "second person" in str(fault)
                told.add(False)
        (both,) = told
        return both


@pytest.mark.spec("PLAT-07")
def test_nobody_confirms_with_an_account_of_its_own_making() -> None:
    office = Office()
    ada, ben = office.user("ada", office.key), office.user("ben", office.key)
    cleo = office.user("cleo", ada)
    dan = office.user("dan", office.client(cleo))
    eve = office.user("eve", dan)
    office.made.do("user.remove", dan, None, "mo", ada)
    for other in (cleo, eve):
        assert not office.agree(ada, other), "the same person made the other account, or made who made it"
        assert office.agree(ben, other)
    assert not office.agree(cleo, eve), "the same person made both"
    assert office.agree(ada, ben)


@pytest.mark.spec("PLAT-07")
def test_who_set_a_password_or_a_secret_is_behind_what_it_opens() -> None:
    office = Office()
    ada, ben, cleo = (office.user(name, office.key) for name in ("ada", "ben", "cleo"))
    office.set_password(ben, ben)
    assert office.agree(ada, ben)
    office.set_password(ben, ada)
    assert not office.agree(ada, ben)
    office.set_password(ben, ben)
    assert not office.agree(ada, ben), "ada may have done that as well"
    assert office.agree(ada, cleo) and office.agree(ben, cleo)
    office.rotate(office.key, ada, 60)
    dan = office.user("dan", office.key)
    assert not office.agree(ada, dan) and office.agree(cleo, dan)
    office.rotate(office.key, cleo, 0)
    assert office.agree(ada, office.user("eve", office.key)), "ada does not know the new secret"


def test_what_was_proposed_by_nobody_of_the_party_is_not_confirmed() -> None:
    made = world()
    proposal = propose(made, ChangeMarket(title="Mine"))
    made.state.put("user", "ann", None, 0)
    with pytest.raises(Forbidden, match="nobody who is a user"):
        confirm(made, proposal)


def test_what_another_party_proposed_is_not_there() -> None:
    made = world()
    proposal = propose(made, ChangeMarket(title="Mine"))
    for verb, form in (("proposal.confirm", None), ("proposal.refuse", Refuse("no"))):
        with pytest.raises(NotFound) as told:
            made.do(verb, proposal, form, "mo-2", "eve")
        with pytest.raises(NotFound) as unknown:
            made.do(verb, "proposal-00000000", form, "mo-2", "eve")
        assert str(told.value).replace(proposal, "proposal-00000000") == str(unknown.value)


def test_what_was_refused_or_taken_back_never_happens() -> None:
    made = world()
    for actor in ("bob", "ann"):
        proposal = propose(made, ChangeMarket(title="Not this"))
        made.do("proposal.refuse", proposal, Refuse("not agreed"), "mo", actor)
        with pytest.raises(Conflict, match="refused already"):
            confirm(made, proposal)
    assert made.state.get(Market, "market").title == "Test"
    feed = [item.note.kind for item in made.journal.feed("t", "mo", (0, 0), 100)]
    assert feed.count("proposal.waiting") == feed.count("proposal.refused") == 2


def test_who_lost_the_role_confirms_nothing_and_who_never_had_it_proposes_nothing() -> None:
    made = world()
    proposal = propose(made, ChangeMarket(title="By the second"), "mo-2", "ada")
    made.do("test.second", "", False)
    with pytest.raises(Forbidden, match="has not got it"):
        confirm(made, proposal, "mo-2", "ben")
    with pytest.raises(Forbidden):
        made.do("market.change", "market", ChangeMarket(title="By a provider"), "sp-01", "sam")


def test_a_proposal_that_turns_out_faulty_is_refused_at_its_confirmation_and_goes_on_waiting() -> None:
    made = world()
    with pytest.raises(Refused) as told:
        propose(made, ChangeMarket(last_day=date(2010, 1, 1), price_caps={"nothing": Decimal(1)}))
    assert [finding.code for finding in told.value.findings] == ["announced", "days", "unknown_product"]
    made.sequencer.pass_gates()
    proposal = propose(made, ChangeMarket(last_day=date(2016, 7, 6)))
    confirm(made, propose(made, ChangeMarket(last_day=date(2016, 7, 9))))
    made.sequencer.pass_gates()
    with pytest.raises(Refused) as told:
        confirm(made, proposal)
    assert [finding.code for finding in told.value.findings] == ["announced"]
    assert made.state.get(Proposal, proposal).status is ProposalStatus.WAITING


def test_a_confirmation_may_insist_on_what_was_read() -> None:
    made = world()
    proposal = propose(made, ChangeMarket(title="Read"))
    with pytest.raises(Outdated):
        made.do("proposal.confirm", proposal, party="mo", actor="bob", expects=1)


@pytest.mark.spec("PLAT-07")
def test_what_was_changed_since_it_was_proposed_stays_as_it_was_changed() -> None:
    made = world()
    read = made.state.number(Market, "market")
    proposal = propose(made, ChangeMarket(title="As read"), expects=read)
    other = propose(made, ChangeMarket(last_day=date(2016, 7, 9)))
    confirm(made, propose(made, ChangeMarket(title="Meanwhile"), expects=read))
    for stale in (proposal, other):
        with pytest.raises(Outdated, match="propose anew"):
            confirm(made, stale)
        assert made.state.get(Proposal, stale).status is ProposalStatus.WAITING
        made.do("proposal.refuse", stale, Refuse("outdated"), "mo", "bob")
    with pytest.raises(Outdated):
        propose(made, ChangeMarket(title="Too late"), expects=read)
    market = made.state.get(Market, "market")
    assert (market.title, market.last_day) == ("Meanwhile", date(2016, 7, 5))
    confirm(made, propose(made, ChangeMarket(title="As read"), expects=made.state.number(Market, "market")))
    assert made.state.get(Market, "market").title == "As read"


# ---------------------------------------------------------------- changes of a market


@pytest.mark.spec("MKT-01")
def test_another_design_is_for_the_days_that_are_not_announced_yet() -> None:
    made = world()
    made.sequencer.pass_gates()
    other = design_text("beflexible_six").replace("id: beflexible_six", "id: another_six")
    change = ChangeMarket(design="another_six", document=other, last_day=date(2016, 7, 20))
    confirm(made, propose(made, change))
    made.sequencer.pass_gates()
    designs = {entry.day: entry.design for entry in made.state.all(SessionEntry)}
    assert designs[date(2016, 7, 5)] == "beflexible_six"
    assert {name for day, name in designs.items() if day > date(2016, 7, 5)} == {"another_six"}
    assert {one.id for one in made.state.all(DesignText)} == {"beflexible_six", "another_six"}


def test_a_design_keeps_the_text_it_was_used_with() -> None:
    made = world()
    changed = design_text("beflexible_six").replace("{voltage_pu: 0.002", "{voltage_pu: 0.003")
    for form, code in (
        (ChangeMarket(design="beflexible_six", document=changed), "id_taken"),
        (ChangeMarket(design="mine", document=changed), "other_design"),
        (ChangeMarket(design="no_such_design"), "unknown_design"),
        (ChangeMarket(document=changed), "no_id"),
    ):
        with pytest.raises(Refused) as told:
            propose(made, form)
        assert [finding.code for finding in told.value.findings] == [code]
    mine = changed.replace("id: beflexible_six", "id: mine", 1)
    confirm(made, propose(made, ChangeMarket(design="mine", document=mine)))
    assert made.state.get(DesignText, "mine").text == mine


def test_price_caps_are_changed_at_the_products() -> None:
    made = world()
    product = made.state.all(ProductEntry)[0]
    confirm(made, propose(made, ChangeMarket(price_caps={product.id: Decimal(90)})))
    assert made.state.get(ProductEntry, product.id).product.price_cap_eur_mwh == 90
    feed = [item.note for item in made.journal.feed("t", "dso", (0, 0), 1000)]
    assert [note.subject for note in feed if note.kind == "product.changed"] == [product.id]
    for cap in (Decimal(-1), Decimal(1_000_001), Decimal("NaN")):
        with pytest.raises(Refused):
            propose(made, ChangeMarket(price_caps={product.id: cap}))
    gone = replace(made.state.get(ProductEntry, product.id), withdrawn=LONG_AGO)
    made.state.put("product", product.id, gone, 1)
    with pytest.raises(Refused, match="1 fault"):
        propose(made, ChangeMarket(price_caps={product.id: Decimal(90)}))


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        ({"zone": "Nowhere/Town"}, ["unknown_zone"]),
        ({"design": "nothing_like_it"}, ["unknown_design"]),
        ({"last": date(2016, 7, 4)}, ["days"]),
        ({"speed": 100_000}, ["speed"]),
        ({"sandbox": False, "speed": 2, "price_limit_eur_mwh": Decimal(-1)}, ["price", "real_clock"]),
        ({"begin": datetime(2016, 7, 4, 6, 0, 0, 1, tzinfo=UTC)}, ["too_late"]),
        ({"starts": datetime(2016, 7, 4, tzinfo=UTC).replace(tzinfo=None)}, ["no_zone"]),
    ],
)
def test_a_tenant_with_faults_is_not_opened_and_all_of_them_are_told(change: dict, codes: list[str]) -> None:
    with pytest.raises(Refused) as told:
        opened(table(), **change)
    assert sorted(finding.code for finding in told.value.findings) == sorted(codes)


def test_a_tenant_is_opened_once_and_begins_before_its_first_gate() -> None:
    made = opened(table(), begin=datetime(2016, 7, 4, 6, tzinfo=UTC))
    market = made.state.get(Market, "market")
    assert (market.since, market.starts) == (datetime(2016, 7, 4, 6, tzinfo=UTC),) * 2
    assert made.state.get(DesignText, "beflexible_six").text == design_text("beflexible_six")
    with pytest.raises(Conflict, match="there already"):
        made.sequencer.submit(made.entries("tenant.open")[0].command)
