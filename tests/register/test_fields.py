"""The table of fields: whole, closed by default, and with the rights that the documents name."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from coflex.register import fields
from coflex.register.fields import FIELDS, NOBODY, Relation, paths, readable, rights, writable
from coflex.register.market import SessionEntry
from coflex.register.outcomes import SessionOutcome
from coflex.register.parties import PartyEntry
from coflex.register.records import KIND_OF, KINDS
from coflex.register.resources import UnitEntry, UnitStatus
from coflex.service.machine import decode, encode
from coflex.service.relations import KIN
from coflex.service.verbs.resource_forms import UnitForm, unit_of
from support.registers import START, unit_form

NOT_RECORDS = {"personal"}  # kept beside the records


@pytest.mark.spec("REG-11")
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_field_of_every_record_has_a_row_and_every_row_a_field(kind: str) -> None:
    assert set(FIELDS.get(kind, {})) == set(paths(KINDS[kind]))


@pytest.mark.spec("REG-11")
def test_there_is_no_row_of_a_record_that_does_not_exist() -> None:
    assert set(FIELDS) - NOT_RECORDS == set(KINDS)


@pytest.mark.spec("REG-11")
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_whoever_a_row_names_can_come_from_the_caller_or_from_the_record(kind: str) -> None:
    of_record = {relation for row in FIELDS[kind].values() for relation in row.read} - {
        Relation.ANYONE, Relation.MEMBER, Relation.MARKET_OPERATOR, Relation.REGISTER_OPERATOR, Relation.PLATFORM,
    }  # fmt: skip
    assert not of_record or KINDS[kind] in KIN, f"nobody says who the {of_record} of a {kind} are"


@pytest.mark.spec("REG-11")
def test_a_field_without_a_row_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, slots=True)
    class Fresh:
        id: str
        secret: str

    monkeypatch.setitem(KINDS, "fresh", Fresh)
    monkeypatch.setitem(KIND_OF, Fresh, "fresh")
    everybody = frozenset(Relation)
    assert readable(Fresh, everybody) == writable(Fresh, everybody) == frozenset()
    fields._readable.cache_clear()
    fields._writable.cache_clear()
    fields._paths.cache_clear()


@pytest.mark.spec("REG-11")
def test_nobody_updates_a_market_outcome() -> None:
    everybody = frozenset(Relation) - {Relation.PLATFORM, Relation.CONSEQUENCE}
    assert writable(SessionOutcome, everybody) == frozenset()
    assert not writable(SessionEntry, everybody) & {"state", "opens", "closes", "outcome", "offers"}


@pytest.mark.spec("REG-11")
def test_proofs_of_identity_are_read_by_nobody() -> None:
    for kind, name in (("client", "secret_hash"), ("client", "previous_hash"), ("user", "password"), ("user", "login")):
        assert rights(kind, name).read == NOBODY


@pytest.mark.spec("REG-11")
def test_a_provider_writes_its_units_and_their_owner_does_not() -> None:
    assert "unit.up_kw" in writable(UnitEntry, frozenset({Relation.PROVIDER}))
    assert writable(UnitEntry, frozenset({Relation.OWNER})) == {"status"}


@pytest.mark.spec("REG-01")
def test_a_party_does_not_give_itself_roles() -> None:
    assert "party.roles" not in writable(PartyEntry, frozenset({Relation.ITSELF}))


def test_differences_are_the_fields_that_differ() -> None:
    def entry(**changes: object) -> UnitEntry:
        form = decode(encode(unit_form(1, **changes)), UnitForm)
        return UnitEntry("u1", unit_of(form, "sp-1"), UnitStatus.NEW, START, START)

    assert fields.differences(entry(), entry(up_kw=7, category="x")) == {"unit.up_kw", "unit.category"}
    assert fields.differences(entry(), entry()) == frozenset()
    assert fields.differences(None, entry()) == set(paths(UnitEntry))
