"""Parties ask once, are approved, lose and regain their roles, and their personal data can go (REG-01, REG-10)."""

from __future__ import annotations

import pytest

from coflex.domain.errors import Conflict, Forbidden, NotFound, Refused
from coflex.domain.party import Role
from coflex.register.parties import PartyEntry, PartyStatus, Person, commitment
from coflex.service import chain
from coflex.service.machine import encode
from coflex.service.ports import Personal
from coflex.service.reading import may_read_personal, record
from support.registers import World, add_unit, populated


def codes(caught: pytest.ExceptionInfo[Refused]) -> set[str]:
    return {finding.code for finding in caught.value.findings}


@pytest.fixture
def world() -> World:
    world = World()
    world.party("mo", Role.MARKET_OPERATOR)
    world.party("fro", Role.REGISTER_OPERATOR)
    return world


@pytest.mark.spec("REG-01")
def test_a_party_asks_once_and_its_roles_count_once_it_is_approved(world: World) -> None:
    world.do("party.register", "sp", id="sp", name="SP", roles=["service_provider", "asset_owner"])
    assert world.notes[0].audience == ("fro", "mo", "sp")
    assert world.machine.roles("t", "sp") == frozenset()
    with pytest.raises(Conflict):
        world.do("party.register", "sp", id="sp", name="Another", roles=["observer"])
    world.later(hours=1)
    reply = world.do("party.approve", "mo", "sp")
    assert reply["status"] == "approved" and reply["status_since"] == "2026-07-01T13:00:00Z"
    assert world.machine.roles("t", "sp") == {Role.SERVICE_PROVIDER, Role.ASSET_OWNER}


@pytest.mark.spec("REG-01")
def test_a_code_is_one_partys(world: World) -> None:
    eic = "10XES-REE------E"
    world.party("one", Role.TSO, code=eic)
    with pytest.raises(Conflict, match="registers once"):
        world.do("party.register", "two", id="two", name="Two", roles=[Role.TSO], code=eic)
    world.do("party.end", "one", "one", reason="merged")
    world.do("party.register", "two", id="two", name="Two", roles=[Role.TSO], code=eic)


@pytest.mark.spec("REG-01")
def test_a_balancing_provider_comes_with_a_contract_or_with_every_duty(world: World) -> None:
    world.party("with", Role.SERVICE_PROVIDER, tso_contract="BSP-2026-7")
    both = [{"duty": "technical", "proxy": "Scheduling Ltd"}, {"duty": "communication"}]
    world.party("without", Role.SERVICE_PROVIDER, duties=both)
    world.party("local-only", Role.SERVICE_PROVIDER)
    balancing = {one.id for one in world.state.all(PartyEntry) if one.may_balance}
    assert balancing == {"with", "without"}
    with pytest.raises(Refused) as caught:
        world.do("party.register", "x", id="x", name="X", roles=["service_provider"], duties=both[:1])
    assert codes(caught) == {"duty_missing"}


@pytest.mark.spec("REG-01")
def test_all_faults_of_a_registration_are_told_at_once(world: World) -> None:
    with pytest.raises(Refused) as caught:
        world.do("party.register", "x", id="no blanks", roles=[Role.TSO, Role.TSO], code="10XES-REE------F",
                 tso_contract="")  # fmt: skip
    assert codes(caught) == {"id", "role_repeated", "name_or_person", "eic", "not_a_provider", "contract"}
    assert world.state.find(PartyEntry, "no blanks") is None


@pytest.mark.spec("SET-06")
@pytest.mark.parametrize("id", ["rounding", "platform"])
def test_no_party_is_called_as_an_account_of_the_settlement(world: World, id: str) -> None:
    with pytest.raises(Refused) as caught:
        world.do("party.register", id, id=id, name="X", roles=[Role.TSO])
    assert codes(caught) == {"id"}


def test_a_typo_in_a_form_is_refused(world: World) -> None:
    with pytest.raises(Refused, match="The request"):
        world.do("party.register", "x", id="x", name="X", roles=["observer"], colour="red")
    with pytest.raises(Refused, match="The request"):
        world.do("party.register", "x", id="x", name="X", roles=["service_provider"], duties=[{"dutty": "technical"}])


@pytest.mark.spec("REG-01")
def test_only_operators_approve_and_only_the_market_operator_makes_operators(world: World) -> None:
    world.do("party.register", "sp", id="sp", name="SP", roles=["service_provider"])
    world.do("party.register", "mo-2", id="mo-2", name="MO 2", roles=["market_operator"])
    with pytest.raises(Forbidden):
        world.do("party.approve", "sp", "sp")
    with pytest.raises(Forbidden):
        world.do("party.approve", "fro", "mo-2")
    world.do("party.approve", "fro", "sp")
    world.do("party.approve", "mo", "mo-2")
    with pytest.raises(Forbidden):
        world.do("party.change", "fro", "sp", roles=["service_provider", "market_operator"])


@pytest.mark.spec("REG-01")
def test_the_operator_may_grant_other_roles_than_asked_for(world: World) -> None:
    world.do("party.register", "sp", id="sp", name="SP", roles=["service_provider", "market_operator"])
    world.do("party.approve", "mo", "sp", roles=["service_provider"])
    assert world.machine.roles("t", "sp") == {Role.SERVICE_PROVIDER}


@pytest.mark.spec("REG-01")
def test_the_status_goes_only_its_way(world: World) -> None:
    world.do("party.register", "sp", id="sp", name="SP", roles=["service_provider"])
    for verb in ("suspend", "resume", "end"):
        with pytest.raises(Conflict):
            world.do(f"party.{verb}", "mo", "sp", **({} if verb == "resume" else {"reason": "r"}))
    world.do("party.approve", "mo", "sp")
    world.do("party.suspend", "mo", "sp", reason="unpaid")
    assert world.machine.roles("t", "sp") == frozenset()
    with pytest.raises(Conflict):
        world.do("party.approve", "mo", "sp")
    world.do("party.resume", "mo", "sp")
    assert world.machine.roles("t", "sp") == {Role.SERVICE_PROVIDER}
    world.do("party.end", "sp", "sp", reason="leaving")
    with pytest.raises(Conflict):
        world.do("party.resume", "mo", "sp")
    world.do("party.register", "no", id="no", name="No", roles=["observer"])
    assert world.do("party.reject", "mo", "no", reason="unknown here")["reason"] == "unknown here"


@pytest.mark.spec("REG-01")
def test_the_last_market_operator_stays(world: World) -> None:
    for verb in ("suspend", "end"):
        with pytest.raises(Conflict, match="last market operator"):
            world.do(f"party.{verb}", "mo", "mo", reason="r")
    with pytest.raises(Conflict, match="last market operator"):
        world.do("party.change", "mo", "mo", roles=["observer"])
    world.party("mo-2", Role.MARKET_OPERATOR)
    world.do("party.suspend", "mo-2", "mo", reason="r")


@pytest.mark.spec("REG-01")
def test_a_party_changes_what_it_says_of_itself_and_not_its_roles(world: World) -> None:
    world.party("sp", Role.SERVICE_PROVIDER)
    world.party("other", Role.SERVICE_PROVIDER)
    assert world.do("party.change", "sp", "sp", name="SP Ltd")["party"]["name"] == "SP Ltd"
    with pytest.raises(Forbidden, match=r"party\.roles"):
        world.do("party.change", "sp", "sp", roles=["market_operator"])
    with pytest.raises(Forbidden):
        world.do("party.change", "other", "sp", name="Taken over")
    with pytest.raises(Refused):
        world.do("party.change", "sp", "sp", name="")
    world.do("party.change", "mo", "sp", roles=["service_provider", "asset_owner"])
    assert Role.ASSET_OWNER in world.machine.roles("t", "sp")


@pytest.mark.spec("REG-01")
def test_who_is_named_by_the_register_keeps_its_role_and_stays() -> None:
    world = populated()
    add_unit(world, 1)
    for party in ("sp-1", "own-1", "brp-1", "dso"):
        with pytest.raises(Conflict, match="is named by"):
            world.do("party.end", "mo", party, reason="r")
        with pytest.raises(Conflict, match="is named by"):
            world.do("party.change", "mo", party, roles=["observer"])
    world.do("party.suspend", "mo", "brp-1", reason="r")
    world.do("unit.terminate", "sp-1", "u1")
    world.do("party.end", "mo", "brp-1", reason="r")
    world.do("party.end", "mo", "sp-1", reason="r")


def test_another_partys_entry_answers_like_none_until_it_is_a_company_that_stands(world: World) -> None:
    world.party("sp", Role.SERVICE_PROVIDER)
    world.do("party.register", "new", id="new", name="New", roles=["observer"])
    answers = set()
    for subject in ("new", "nobody"):
        with pytest.raises(NotFound) as caught:
            world.do("party.change", "sp", subject, name="X")
        answers.add(str(caught.value).replace(subject, "?"))
    assert len(answers) == 1


# ---------------------------------------------------------------- natural persons


SALT = bytes(range(16))
PERSON = encode(Person("Ada Byron", "ada@example.org", "1 St James's Square"))


def with_person(world: World) -> None:
    """A natural person as the door sends it: the data beside the command, its commitment inside."""
    world.do(
        "party.register", "own", id="own", roles=["asset_owner"], personal_commitment=commitment(SALT, PERSON),
        private=(Personal("own", SALT, PERSON),),
    )  # fmt: skip
    world.do("party.approve", "fro", "own")


@pytest.mark.spec("REG-10")
def test_no_record_note_or_command_holds_a_word_of_a_person(world: World) -> None:
    with_person(world)
    kept = world.journal.personal("t", "own")
    assert kept is not None and kept.body == PERSON
    for entry in world.journal.entries():
        written = [
            entry.command.body,
            entry.reply,
            *(c.body or b"" for c in entry.changes),
            *(n.body for n in entry.notes),
        ]
        assert not any(word in part for part in written for word in (b"Ada", b"ada@", b"James"))
    with pytest.raises(Refused) as caught:
        world.do("party.register", "p", id="p", roles=["asset_owner", "observer"], name="Ada Byron", code="7",
                 personal_commitment="00")  # fmt: skip
    assert codes(caught) == {"name_or_person", "commitment", "person"}


@pytest.mark.spec("REG-10")
def test_erased_data_is_gone_while_record_history_and_chain_stay(world: World) -> None:
    with_person(world)
    before = world.journal.entries()
    world.later(days=1)
    reply = world.do("party.erase_personal", "own", "own", private=(Personal("own", b"", None),))
    assert reply["personal_erased"] == "2026-07-02T12:00:00Z"
    assert world.journal.personal("t", "own") is None
    entries = world.journal.entries()
    assert entries[: len(before)] == before
    assert list(chain.breaks(entries)) == []
    kept = world.state.get(PartyEntry, "own")
    assert kept.status is PartyStatus.APPROVED and kept.personal_commitment == commitment(SALT, PERSON)
    with pytest.raises(Conflict):
        world.do("party.erase_personal", "own", "own")


@pytest.mark.spec("REG-10")
def test_personal_data_is_erased_and_read_by_the_person_or_the_register_operator_alone(world: World) -> None:
    with_person(world)
    world.party("sp", Role.SERVICE_PROVIDER)
    with pytest.raises(NotFound):
        world.do("party.erase_personal", "sp", "own")
    with pytest.raises(Forbidden):
        world.do("party.erase_personal", "mo", "own")
    with pytest.raises(NotFound):
        record(world.state, world.who("sp"), PartyEntry, "own")
    may = {name for name in ("own", "fro", "mo", "sp") if may_read_personal(world.state, world.who(name), "own")}
    assert may == {"own", "fro"}
    world.do("party.erase_personal", "fro", "own", private=(Personal("own", b"", None),))


@pytest.mark.spec("REG-10")
def test_data_that_is_given_after_an_erasure_can_be_erased_again(world: World) -> None:
    with_person(world)
    world.do("party.erase_personal", "own", "own", private=(Personal("own", b"", None),))
    again, salt = encode(Person("Ada King", "ada@example.net")), SALT[::-1]
    reply = world.do(
        "party.change", "own", "own", personal_commitment=commitment(salt, again),
        private=(Personal("own", salt, again),),
    )  # fmt: skip
    assert reply["personal_erased"] is None and world.journal.personal("t", "own") is not None
    world.later(days=1)
    reply = world.do("party.erase_personal", "own", "own", private=(Personal("own", b"", None),))
    assert reply["personal_erased"] == "2026-07-02T12:00:00Z"
    assert world.journal.personal("t", "own") is None


@pytest.mark.spec("REG-10")
@pytest.mark.parametrize("change", [{"name": "Ada Byron"}, {"name": "Ada Byron", "personal_commitment": ""}])
@pytest.mark.parametrize("erased", [False, True])
def test_no_natural_person_comes_into_the_clear(world: World, change: dict[str, str], erased: bool) -> None:
    with_person(world)
    if erased:
        world.do("party.erase_personal", "own", "own", private=(Personal("own", b"", None),))
    with pytest.raises(Refused):
        world.do("party.change", "own", "own", **change)
    assert world.state.get(PartyEntry, "own").party.name == ""
