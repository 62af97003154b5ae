"""Devices, their point numbers and keys, and who sees what they measure (ACT-02, CERT-02)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from coflex.domain.errors import Conflict, Forbidden, NotFound, Refused
from coflex.register.consents import Consent, ConsentScope
from coflex.register.devices import DataGrant, DataScope, Device
from coflex.register.resources import UnitEntry
from coflex.service.field import (
    device_of,
    may_see,
    outbox,
    points,
    points_of,
    regulating,
    seen_points,
    signed_for,
)
from coflex.service.reading import records
from support.ordered import PUBLISHED, Ordered, at
from support.platform import LONG_AGO, put

LIVE = DataScope.LIVE
KEY, OTHER, THIRD = "aa" * 32, "bb" * 32, "cc" * 32


@pytest.fixture
def world() -> Ordered:
    return Ordered()


def enrol(world: Ordered, unit: str = "cu-0001", key: str = KEY, party: str = "owner") -> Any:
    return world.do("device.enrol", party, unit=unit, public_key=key)


def codes(caught: pytest.ExceptionInfo[Refused]) -> set[str]:
    return {finding.code for finding in caught.value.findings}


@pytest.mark.spec("ACT-02")
def test_every_device_gets_the_next_number_and_none_comes_back(world: Ordered) -> None:
    first, second = enrol(world), enrol(world, "cu-0003", OTHER)
    assert (first["point"], second["point"]) == (1, 2)
    world.do("device.revoke", "owner", first["id"], reason="stolen")
    third = enrol(world, key=THIRD)
    assert third["point"] == 3 and device_of(world.state, "cu-0001").id == third["id"]  # type: ignore[union-attr]
    assert [(one.number, one.active) for one in points(world.state)] == [(1, False), (2, True), (3, True)]


@pytest.mark.spec("ACT-02", "REG-10")
def test_a_provider_enrols_with_the_owners_consent_to_measure_alone(world: Ordered) -> None:
    assert enrol(world, party="sp-1")["owner"] == "owner"
    offer_only = Consent("c", "owner", "cu-0003", "sp-1", (ConsentScope.OFFER,), LONG_AGO, at(600))
    world.sequencer.submit(put([offer_only]))
    world.do("consent.withdraw", "owner", "consent-cu-0003")
    with pytest.raises(Refused) as caught:
        enrol(world, "cu-0003", OTHER, "sp-1")
    assert codes(caught) == {"no_consent"}
    for party, kind in (("sp-2", NotFound), ("dso", Forbidden), ("mo", Forbidden)):
        with pytest.raises(kind):
            enrol(world, "cu-0003", OTHER, party)


@pytest.mark.spec("ACT-02")
def test_a_unit_has_one_device_and_a_key_is_one_devices_for_ever(world: Ordered) -> None:
    made = enrol(world)
    with pytest.raises(Conflict):
        enrol(world, key=OTHER)
    for key, code in ((KEY.upper(), "key_taken"), ("zz" * 32, "key"), ("aa", "key")):
        with pytest.raises(Refused) as caught:
            enrol(world, "cu-0003", key)
        assert codes(caught) == {code}
    world.do("device.revoke", "sp-1", made["id"])
    with pytest.raises(Refused):
        enrol(world, "cu-0003", KEY)
    with pytest.raises(Conflict):
        world.do("device.rotate_key", "owner", made["id"], public_key=OTHER)


@pytest.mark.spec("ACT-02")
def test_keys_follow_each_other_and_what_was_signed_before_is_held_against_the_old_one(world: Ordered) -> None:
    made = enrol(world)
    world.to(-60)
    world.do("device.rotate_key", "owner", made["id"], public_key=OTHER)
    world.to(-30)
    device = world.state.get(Device, made["id"])
    assert device.key_at(PUBLISHED) == KEY and device.key_at(at(-60)) == OTHER
    assert device.key_at(PUBLISHED - timedelta(seconds=1)) is None
    world.do("device.revoke", "owner", made["id"])
    assert world.state.get(Device, made["id"]).key_at(at(-30)) is None
    (point,) = points(world.state)
    assert [one.public for one in point.keys] == [KEY, OTHER] and not point.active
    with pytest.raises(NotFound):
        world.do("device.rotate_key", "sp-2", made["id"], public_key=THIRD)


@pytest.mark.spec("ACT-02")
def test_a_device_of_an_owner_who_sold_the_unit_is_trusted_no_more(world: Ordered) -> None:
    enrol(world)
    world.sequencer.submit(put([other_owner(world, "cu-0001")]))
    assert [one.active for one in points(world.state)] == [False]


def other_owner(world: Ordered, unit: str) -> UnitEntry:
    from dataclasses import replace

    entry = world.state.get(UnitEntry, unit)
    return replace(entry, unit=replace(entry.unit, owner="brp"))


@pytest.mark.spec("ACT-01")
def test_a_set_point_waits_for_a_device_and_is_found_from_when_it_can_be_sent(world: Ordered) -> None:
    world.to(-6)
    assert outbox(world.state, world.now) == ()
    seen = world.sequencer.number
    enrol(world)
    (out,) = outbox(world.state, world.now, after=seen)
    assert (out.point, out.number) == (1, world.sequencer.number)
    assert outbox(world.state, world.now, after=out.number) == ()
    enrol(world, "cu-0003", OTHER)
    assert [one.point for one in outbox(world.state, world.now)] == [1, 2]
    assert len(outbox(world.state, world.now, limit=1)) == 1


@pytest.mark.spec("CERT-02")
def test_an_owner_grants_by_scope_and_time_and_takes_it_back(world: Ordered) -> None:
    form = {"unit": "cu-0001", "party": "dso", "scope": ["live"], "starts": at(0), "ends": at(60)}
    made = world.do("data_grant.give", "owner", **form)
    now = world.now

    def sees(party: str, scope: DataScope = DataScope.LIVE, minutes: float = 10) -> bool:
        return may_see(world.state, party, "cu-0001", scope, at(minutes), at(minutes + 1), now)

    assert sees("owner") and sees("dso") and sees("sp-1")
    assert not sees("dso", DataScope.CERTIFIED) and not sees("dso", minutes=60) and not sees("dso", minutes=-1)
    assert not sees("tso") and not sees("sp-2") and not may_see(world.state, "dso", "cu-9", LIVE, now, now, now)
    assert [one.party for one, _ in records(world.state, world.who("dso"), DataGrant)] == ["dso"]
    assert records(world.state, world.who("tso"), DataGrant) == []
    for party in ("sp-1", "dso"):
        with pytest.raises(Forbidden):
            world.do("data_grant.withdraw", party, made["id"])
    world.do("data_grant.withdraw", "owner", made["id"])
    assert not sees("dso")
    with pytest.raises(Conflict):
        world.do("data_grant.withdraw", "owner", made["id"])
    world.do("consent.withdraw", "owner", "consent-cu-0001")
    assert not sees("sp-1") and sees("owner")


@pytest.mark.spec("CERT-02")
def test_a_time_is_seen_that_grants_cover_together_and_none_with_a_gap(world: Ordered) -> None:
    def sees(first: float, last: float) -> bool:
        return may_see(world.state, "dso", "cu-0001", LIVE, at(first), at(last), world.now)

    grant = {"unit": "cu-0001", "party": "dso", "scope": ["live"]}
    for starts, ends in ((0, 20), (20, 40), (30, 50), (60, 80)):
        world.do("data_grant.give", "owner", **grant, starts=at(starts), ends=at(ends))
    assert sees(0, 50) and sees(10, 45) and sees(60, 80) and sees(20, 21)
    assert not sees(0, 51) and not sees(40, 70) and not sees(-1, 10) and not sees(70, 81) and not sees(52, 58)


@pytest.mark.spec("CERT-02")
def test_a_new_owner_does_not_see_what_was_measured_for_the_one_before(world: Ordered) -> None:
    enrol(world)
    assert seen_points(world.state, "cu-0001") == (1,)
    entry = world.state.get(UnitEntry, "cu-0001")
    world.sequencer.submit(put([replace(entry, unit=replace(entry.unit, owner="owner-2"))]))
    assert seen_points(world.state, "cu-0001") == () and points_of(world.state, "cu-0001") == (1,)
    assert signed_for(world.state, "cu-0001", at(0), at(60)) == ()


@pytest.mark.spec("CERT-02")
def test_a_grant_names_a_party_a_scope_and_a_time(world: Ordered) -> None:
    with pytest.raises(Refused) as caught:
        world.do("data_grant.give", "owner", unit="cu-0001", party="nobody", scope=[], starts=at(9), ends=at(9))
    assert codes(caught) == {"unknown_party", "scope", "ends_first"}
    with pytest.raises(Forbidden):
        world.do("data_grant.give", "sp-1", unit="cu-0001", party="dso", scope=["live"], ends=at(9))


def test_nothing_regulates_where_nothing_was_started(world: Ordered) -> None:
    assert regulating(world.state, world.now) == ()
