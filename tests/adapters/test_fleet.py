"""Simulated fleets: the messages of a day from a response alone, units that move, and live devices without a wire."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.adapters.field.author import Acknowledged
from coflex.adapters.field.fleet import Fleet, FleetDevice, Member, Rhythm
from coflex.adapters.field.link import MqttLink
from coflex.adapters.field.setpoints import Owner, Pinned
from coflex.device import FleetOrder, Plans, _links, members, prepare_fleet
from coflex.device import fleet as run_fleet
from coflex.domain.errors import CoflexError, Refused
from coflex.domain.series import Series
from coflex.domain.time import Axis
from coflex.evidence.keys import public_of, signer, verify
from coflex.evidence.message import (
    Hop,
    Kind,
    Quantity,
    Verdict,
    decode,
    decode_acknowledgement,
    decode_measurement,
    decode_readings,
    split,
)
from coflex.simulation.fleet import Device, Plan, Platform, SimulatedUnit, daily_kw, day, devices, seed_of, spread
from support.command import coflex
from support.field import NOON, PLATFORM, PLATFORM_SEED, HandClock, set_point

SEED = bytes(range(32))
START = datetime(2026, 1, 5, tzinfo=UTC)
MIDNIGHT = NOON - 12 * 3_600_000


def response(units: int, quarters: int = 96, seed: int = 1) -> Series:
    values = np.random.default_rng(seed).normal(0.0, 20.0, (units, quarters))
    return Series(tuple(f"u{place}" for place in range(units)), Axis(START, quarters), values)


def fleet_of(units: int) -> tuple[Device, ...]:
    return devices([f"u{place}" for place in range(units)], SEED)


# ---------------------------------------------------------------- a day


@pytest.mark.spec("ACT-02", "CERT-01")
def test_a_day_of_quarter_hours_says_what_flowed_under_each_devices_key() -> None:
    flowed, fleet = response(3), fleet_of(3)
    messages = list(day(fleet, flowed, Plan()))
    read = decode_readings(messages)
    assert len(messages) == 3 * 24 and len(read) == 3 * 96 and not read.missing.any()
    for device, row in zip(fleet, flowed.values, strict=True):
        mine = read.point == device.point
        assert np.array_equal(read.at[mine], MIDNIGHT + 900_000 * np.arange(96))
        assert np.abs(read.values[mine] - 250 * row).max() <= 0.5  # Wh
        own = [one for one in map(decode, messages) if one.signer == device.point]
        assert [one.sequence for one in own] == list(range(1, 25))
        assert all(verify(public_of(device.seed), one.signed, one.signature) for one in own)
        assert all(one.signed_at >= decode_measurement(one.body).end for one in own)


@pytest.mark.spec("ACT-02")
def test_four_second_readings_waver_and_their_quarter_hours_are_what_flowed() -> None:
    flowed, fleet = response(2, 4), fleet_of(2)
    messages = list(day(fleet, flowed, Plan(step_s=4, count=15)))
    assert len(messages) == 2 * 60
    read = decode_readings(messages)
    for device, row in zip(fleet, flowed.values, strict=True):
        power = read.values[read.point == device.point].reshape(4, 225)
        assert np.abs(power.mean(axis=1) - 1000 * row).max() <= 0.5 / 225 + 1e-9
        assert (power.std(axis=1) > 0).all()


def test_the_same_day_has_the_same_bytes_and_another_seed_has_others() -> None:
    flowed = response(2, 8)
    once = list(day(fleet_of(2), flowed, Plan(step_s=60)))
    assert once == list(day(tuple(reversed(fleet_of(2))), flowed, Plan(step_s=60)))
    other = devices(["u0", "u1"], bytes(32))
    assert not set(once) & set(day(other, flowed, Plan(step_s=60)))
    assert sorted(decode(one).signed_at for one in once) == [decode(one).signed_at for one in once]


@pytest.mark.spec("ACT-01", "CERT-01")
def test_set_points_are_answered_at_both_hops_in_the_devices_own_series() -> None:
    early, late = MIDNIGHT + 900_000, MIDNIGHT + 1_800_000
    good = set_point(3, early, late, 500, point=1)
    forged = set_point(4, early, late, 500, point=1, seed=SEED)
    older = set_point(2, early + 120_000, late, 500, point=1)
    platform = Platform(PLATFORM, public_of(PLATFORM_SEED))
    messages = [decode(one) for one in day(fleet_of(2), response(2), Plan(), [older, forged, good], platform)]
    mine = [one for one in messages if one.signer == 1]
    assert [one.sequence for one in mine] == list(range(1, len(mine) + 1))
    assert [one.signed_at for one in mine] == sorted({one.signed_at for one in mine})
    said = [decode_acknowledgement(one.body) for one in mine if one.kind is Kind.ACKNOWLEDGEMENT]
    assert {(one.of_sequence, one.hop, one.verdict) for one in said} == {
        (2, Hop.LIGHT_NODE, Verdict.TAKEN),
        (2, Hop.ENERGY_MANAGEMENT_SYSTEM, Verdict.TAKEN),
        (2, Hop.ENERGY_MANAGEMENT_SYSTEM, Verdict.DONE),
        (3, Hop.LIGHT_NODE, Verdict.TAKEN),
        (3, Hop.ENERGY_MANAGEMENT_SYSTEM, Verdict.TAKEN),
        (3, Hop.ENERGY_MANAGEMENT_SYSTEM, Verdict.DONE),
        (4, Hop.LIGHT_NODE, Verdict.REFUSED),
    }
    assert all(one.kind is Kind.MEASUREMENT for one in messages if one.signer == 2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6), st.integers(1, 225), st.floats(0, 0.5))
def test_readings_add_up_to_their_mean(means: list[float], parts: int, waver: float) -> None:
    found = spread(np.array(means), parts, waver, np.random.default_rng(0)).reshape(len(means), parts)
    assert np.abs(found.sum(axis=1) - parts * np.array(means)).max() <= 0.5 + 1e-6
    assert np.array_equal(found, np.rint(found))


def test_what_cannot_be_made_into_a_day_is_refused() -> None:
    with pytest.raises(CoflexError, match="do not divide"):
        list(day(fleet_of(1), response(1), Plan(step_s=7)))
    with pytest.raises(CoflexError, match="no response"):
        list(day(devices(["x"], SEED), response(1), Plan()))
    with pytest.raises(CoflexError, match="32 bytes"):
        seed_of(b"short", 1)
    missing = Series(("u0",), Axis(START, 2), np.array([[1.0, np.nan]]))
    read = decode_readings(list(day(fleet_of(1), missing, Plan())))
    assert read.missing.tolist() == [False, True]


# ---------------------------------------------------------------- a unit


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 100), st.one_of(st.none(), st.floats(-1e4, 1e4))), min_size=1, max_size=20),
    st.floats(1, 1e4),
    st.floats(0, 60),
)
def test_a_unit_never_moves_faster_than_its_ramp_and_arrives(
    orders: list[tuple[float, float | None]], ramp: float, preparation: float
) -> None:
    unit, at, before = SimulatedUnit(100.0, ramp, preparation), 0.0, 100.0
    wanted: float | None = None
    for seconds, wanted in orders:
        unit.hold(wanted, at)
        at += seconds
        power = unit.advance(at)
        assert abs(power - before) <= ramp * seconds + 1e-6
        before = power
    assert unit.advance(at + preparation + 3e4 / ramp) == pytest.approx(100.0 if wanted is None else wanted)


def test_a_unit_prepares_before_it_moves_and_one_that_fails_gives_a_share() -> None:
    unit = SimulatedUnit(0.0, 100.0, preparation_s=10.0)
    unit.hold(1_000.0, 0.0)
    assert [unit.advance(at) for at in (5.0, 10.0, 15.0, 30.0)] == [0.0, 0.0, 500.0, 1_000.0]
    unit.hold(None, 30.0)
    assert [unit.advance(at) for at in (31.0, 60.0)] == [900.0, 0.0]
    failed = SimulatedUnit(0.0, 100.0, remaining=0.25)
    failed.hold(1_000.0, 0.0)
    assert failed.advance(100.0) == 250.0


def test_plain_days_have_their_signs() -> None:
    seconds = np.arange(0, 86_400, 900.0)
    assert (daily_kw(2, seconds) >= 0).all() and daily_kw(2, seconds).max() > 4
    assert all((daily_kw(kind, seconds) < 0).all() for kind in (0, 1, 3))


# ---------------------------------------------------------------- live devices


def live(count: int, clock: HandClock, failing: dict[str, float], spread_ms: int = 1) -> Fleet:
    chance = Random(3)
    made = devices([f"u{place}" for place in range(count)], SEED)
    platform = Pinned(PLATFORM, public_of(PLATFORM_SEED))
    plans = Plans(count, chance)
    return Fleet(members(made, plans), plans, platform, clock, chance, Rhythm(spread_ms=spread_ms), 1, failing)


def minutes(fleet: Fleet, clock: HandClock, count: int, plan_w: float = 1_000.0) -> None:
    for _ in range(15 * count):
        clock.pass_(4_000)
        for one in fleet.devices:
            ahead = 3_600_000 if one.failure == "clock" else 0
            one.step(clock.utc + ahead, plan_w, one.failure != "missing", fleet.rhythm)


def sent(one: FleetDevice, clock: HandClock) -> list[bytes]:
    one.courier.connected(clock.monotonic)
    return split(one.courier.next(clock.monotonic))[0]


@pytest.mark.spec("ACT-02")
def test_a_live_fleet_signs_a_message_a_minute_each_and_follows_set_points() -> None:
    clock = HandClock()
    fleet = live(4, clock, {})
    minutes(fleet, clock, 1)
    first = fleet.devices[0]
    first.order(set_point(1, clock.utc, clock.utc + 600_000, 1_300, point=first.point))
    minutes(fleet, clock, 8)
    for one in fleet.devices:
        messages = [decode(raw) for raw in sent(one, clock)]
        read = decode_readings([raw for raw in sent(one, clock) if decode(raw).kind is Kind.MEASUREMENT])
        assert [message.sequence for message in messages] == list(range(1, len(messages) + 1))
        assert len(read) == 15 * 9 and (np.diff(read.at) == 4_000).all()
        assert read.values[-1] == (1_300 if one is first else 1_000)
        one.courier.answered(Acknowledged(len(messages)), clock.monotonic)
    counted = fleet.counted([])
    assert (counted.devices, counted.buffered, counted.signed) == (4, 0, 4 * 9 + 2)


@pytest.mark.spec("ACT-02")
def test_a_plan_of_a_day_costs_no_message_that_waits() -> None:
    clock = HandClock()
    fleet = live(1, clock, {})
    (one,) = fleet.devices
    minutes(fleet, clock, 30)
    for k in range(1, 97):
        starts = clock.utc + k * 900_000
        one.order(set_point(k, starts, starts + 900_000, 100, point=one.point, order=k.to_bytes(16, "big")))
    minutes(fleet, clock, 14)
    assert (len(one.node.outbox), one.node.outbox.lost) == (30 + 96 + 14, ())


def test_failures_are_what_they_say() -> None:
    clock = HandClock()
    fleet = live(50, clock, {"missing": 0.1, "deaf": 0.1, "clock": 0.1, "forged": 0.1, "offline": 0.1})
    by_failure: dict[str, FleetDevice] = {one.failure: one for one in fleet.devices}
    assert {name: sum(one.failure == name for one in fleet.devices) for name in by_failure} == {
        "": 25, "missing": 5, "deaf": 5, "clock": 5, "forged": 5, "offline": 5,
    }  # fmt: skip
    for one in fleet.devices:
        one.order(set_point(1, clock.utc - 60_000, clock.utc + 7_200_000, 1_300, point=one.point))
    minutes(fleet, clock, 8)

    def measured(name: str) -> list[float]:
        raws = [raw for raw in sent(by_failure[name], clock) if decode(raw).kind is Kind.MEASUREMENT]
        values: list[float] = decode_readings(raws).values.tolist()
        return values

    assert measured("")[-1] == 1_300 and measured("deaf")[-1] == 1_000
    assert np.isnan(measured("missing")).all()
    late = decode(sent(by_failure["clock"], clock)[-1])
    assert late.signed_at > clock.utc + 3_000_000
    forged = by_failure["forged"]
    raw = decode(sent(forged, clock)[0])
    assert not verify(public_of(seed_of(SEED, forged.point)), raw.signed, raw.signature)


def test_unknown_failures_and_shares_are_refused_at_once() -> None:
    with pytest.raises(Refused) as refused:
        live(2, HandClock(), {"tired": 0.1, "deaf": 1.5})
    assert {one.code for one in refused.value.findings} == {"unknown_failure", "bad_share"}


def test_a_fleet_has_one_seed_its_table_of_points_and_never_the_same_numbers(tmp_path: Path) -> None:
    order = FleetOrder(tmp_path / "fleet", 3, broker="mqtt://127.0.0.1:1", seconds=0.2, platform="ab" * 32)
    told: list[str] = []
    run_fleet(order, told.append)
    seed = (tmp_path / "fleet" / "fleet.seed").read_bytes()
    assert (tmp_path / "fleet" / "fleet.seed").stat().st_mode & 0o777 == 0o600
    rows = list(csv.DictReader((tmp_path / "fleet" / "points.csv").open()))
    assert [row["public_key"] for row in rows[:3]] == [public_of(seed_of(seed, point)).hex() for point in (1, 2, 3)]
    assert (rows[3]["kind"], rows[3]["public_key"], len(rows)) == ("party", "ab" * 32, 4)
    numbers = tmp_path / "fleet" / "numbers.json"
    numbers.write_text('{"next": 77}')
    made, _ = prepare_fleet(order)
    assert [one.seed for one in made] == [seed_of(seed, point) for point in (1, 2, 3)]
    run_fleet(order, told.append)
    assert json.loads(numbers.read_text()) == {"next": 77}  # none of them was used
    with pytest.raises(CoflexError, match="one of the two"):
        run_fleet(FleetOrder(tmp_path, 1), told.append)


def test_the_ingest_reads_the_table_of_points(tmp_path: Path) -> None:
    points = pytest.importorskip("coflex.adapters.measurements.points")
    made, path = prepare_fleet(FleetOrder(tmp_path, 5, first_point=100, platform="cd" * 32, platform_signer=9))
    signers = points.load(path)
    row = signers.row(100)
    assert len(signers) == 6 and signers.key(row, NOON) == public_of(made[0].seed)
    assert (signers.units[row], signers.owners[row]) == ("unit-100", "owner-100")
    assert signers.row(9, party=True) is not None


def test_a_fleets_broker_is_read_as_the_ingests_is(tmp_path: Path) -> None:
    found = Fleet([], lambda at: [], Pinned(1, bytes(32)), HandClock(), Random(1), Rhythm(), 1, {})
    order = FleetOrder(tmp_path, 0, broker="mqtt://me:p%40ss@here:99")
    found.devices = [SimpleNamespace(point=1, group=None)]  # type: ignore[list-item]
    (link,) = _links(order, found, HandClock(), Random(1))
    assert isinstance(link, MqttLink)
    assert (link._broker.port, link._broker.username, link._broker.password) == (99, "me", "p@ss")
    for bad in ("here:1883", "mqtt://here:x"):
        with pytest.raises(CoflexError, match="no address of a broker"):
            _links(replace(order, broker=bad), found, HandClock(), Random(1))


def test_a_wrong_word_is_told(tmp_path: Path) -> None:
    answer = coflex("device", "fleet", "--count", 1, "--folder", tmp_path, "--broker", "x", "--fail", "deaf=lots")
    assert answer.exit_code == 2 and "give it as" in answer.stderr


def test_numbers_of_a_fleet_begin_where_it_is_told() -> None:
    clock = HandClock()
    units: Sequence[Member] = [Member(1, signer(seed_of(SEED, 1)), SimulatedUnit(0.0, 1.0), Owner(-1, 1))]
    pinned = Pinned(1, bytes(32))
    fleet = Fleet(units, lambda at: [0.0], pinned, clock, Random(1), Rhythm(spread_ms=1), 501, {})
    minutes(fleet, clock, 2)
    assert [decode(raw).sequence for raw in sent(fleet.devices[0], clock)] == [501, 502]
    assert (fleet.last, fleet.counted([]).signed) == (502, 2)
    assert decode_measurement(decode(sent(fleet.devices[0], clock)[0]).body).quantity is Quantity.ACTIVE_POWER_W
