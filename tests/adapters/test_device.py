"""The light node by itself: what it measures, signs, sends again, follows and refuses; its clock is set by hand."""

from __future__ import annotations

import os
from datetime import time
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.activation.droop import Droop
from coflex.adapters.field.author import WINDOW, Acknowledged
from coflex.adapters.field.clock import Watch
from coflex.adapters.field.enrolment import check_request, enrol, read_key
from coflex.adapters.field.link import read_answer
from coflex.adapters.field.meter import ModbusSource
from coflex.adapters.field.node import Containment
from coflex.adapters.field.sampling import Sampler, packed
from coflex.adapters.field.setpoints import UNANSWERED, Closed, Owner, Reason
from coflex.adapters.field.settings import read_settings
from coflex.device import make
from coflex.domain.errors import CoflexError, Refused
from coflex.evidence.keys import public_of, verify
from coflex.evidence.message import Acknowledgement, Hop, Kind, Quantity, Verdict, decode, decode_measurement
from support.field import NOON, POINT, SEED, Bench, HandClock, set_point
from support.field_disk import CutDisk

MINUTE, HOUR = 60_000, 3_600_000
LIGHT, EMS = Hop.LIGHT_NODE, Hop.ENERGY_MANAGEMENT_SYSTEM


# ---------------------------------------------------------------- measuring


@pytest.mark.spec("ACT-02", "CERT-01")
def test_a_minute_is_one_signed_message_of_fifteen_readings_on_the_clocks_grid() -> None:
    bench = Bench(clock=HandClock(NOON - 1_000))
    bench.run(121, power=321.4)
    first, second = bench.messages
    assert (first.sequence, second.sequence, first.signer) == (1, 2, POINT)
    assert verify(public_of(SEED), first.signed, first.signature)
    one, two = bench.measured
    assert (one.first, one.step, one.integers) == (NOON, 4_000, (321,) * 15)
    assert two.first == NOON + MINUTE
    assert NOON + MINUTE <= first.signed_at < second.signed_at


@pytest.mark.spec("ACT-02")
def test_what_the_meter_does_not_say_is_missing_and_nothing_is_invented() -> None:
    bench = Bench(clock=HandClock(NOON - 1_000))
    bench.run(9)
    bench.run(20, power=None)
    bench.run(9, power=float("nan"))
    bench.run(23, power=-7.0)
    (measured,) = bench.measured
    assert measured.integers == (100,) * 3 + (None,) * 6 + (-7,) * 6


def test_the_first_message_begins_where_somebody_began_to_look() -> None:
    bench = Bench(clock=HandClock(NOON + 30_000))
    bench.run(31)
    (measured,) = bench.measured
    assert (measured.first, len(measured.integers)) == (NOON + 28_000, 8)


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(-1e12, 1e12)), min_size=1, max_size=40))
def test_packed_values_are_as_near_as_their_scale_allows(values: list[float | None]) -> None:
    body = packed(Quantity.ACTIVE_POWER_W, 0, 4_000, values).encode()
    back = decode_measurement(body)
    for given_value, integer in zip(values, back.integers, strict=True):
        assert (given_value is None) == (integer is None)
        if given_value is not None and integer is not None:
            assert abs(integer * 10.0**back.scale - given_value) <= 0.5 * 10.0**back.scale * (1 + 1e-9)


def test_a_quarter_hours_energy_is_the_difference_of_its_counter_also_over_a_restart() -> None:
    bench = Bench(clock=HandClock(NOON - 1_000), samplers=(energy(),))
    for second in range(400):
        bench.run(1, None, ACTIVE_ENERGY_WH=1_000.0 + second)
    again = Bench(disk=bench.disk, clock=bench.clock, samplers=(energy(),))
    for second in range(400, 1_000):
        again.run(1, None, ACTIVE_ENERGY_WH=1_000.0 + second)
    (measured,) = again.measured
    assert (measured.first, measured.step, measured.integers) == (NOON, 900_000, (900,))


def test_a_counter_that_began_anew_gives_no_energy() -> None:
    bench = Bench(clock=HandClock(NOON - 1_000), samplers=(energy(),))
    bench.run(400, None, ACTIVE_ENERGY_WH=1_000.0)
    bench.run(1, None, ACTIVE_ENERGY_WH=float("nan"))
    bench.run(600, None, ACTIVE_ENERGY_WH=5.0)
    assert [one.integers for one in bench.measured] == [(None,)]


def test_a_counters_energy_is_signed_as_soon_as_it_is_known_and_comes_late_where_its_reading_does() -> None:
    for late, signed in ((1, 901), (60, 960)):
        bench = Bench(clock=HandClock(NOON - 1_000), samplers=(energy(),))
        for second in range(1, 1_000):
            known = second <= 900 or second >= 900 + late
            bench.run(1, None, **({"ACTIVE_ENERGY_WH": float(second)} if known else {}))
        (message,), (measured,) = bench.messages, bench.measured
        assert measured.integers == (900 + late - 1,) and message.signed_at == NOON + 1_000 * (signed - 1)


@pytest.mark.spec("ACT-02")
def test_a_quarter_hours_energy_is_sent_also_where_the_device_was_off_at_its_end() -> None:
    bench = Bench(clock=HandClock(NOON - 1_000), samplers=(Sampler(Quantity.ACTIVE_POWER_W, 4_000, 15), energy()))
    bench.run(880, ACTIVE_ENERGY_WH=1_000.0)
    bench.clock.pass_(40_000)  # over the quarter-hour
    again = Bench(disk=bench.disk, clock=bench.clock, samplers=(*bench.node.samplers[:1], energy()))
    again.run(120, ACTIVE_ENERGY_WH=1_400.0)
    found = [one for one in again.measured if one.quantity is Quantity.ACTIVE_ENERGY_WH]
    assert [(one.first, one.integers) for one in found] == [(NOON, (400,))]


def test_a_counter_that_began_anew_is_not_gone_on_with_after_a_restart() -> None:
    bench = Bench(clock=HandClock(NOON - 1_000), samplers=(energy(),))
    bench.run(400, None, ACTIVE_ENERGY_WH=1_000.0)
    bench.run(1, None, ACTIVE_ENERGY_WH=float("nan"))
    again = Bench(disk=bench.disk, clock=bench.clock, samplers=(energy(),))
    again.run(600, None, ACTIVE_ENERGY_WH=5.0)
    assert [one.integers for one in again.measured] == [(None,)]


def test_a_meter_that_was_exchanged_while_the_device_was_off_gives_no_energy(tmp_path: Path) -> None:
    path, disk, clock = tmp_path / "device.yaml", CutDisk(), HandClock(NOON - 1_000)
    meter = "{modbus: {host: here, registers: {energy_imported: {address: 1}, energy_exported: {address: 2}}}}"
    series = "series: [{quantity: energy, step_s: 900, count: 1}]\n"
    path.write_text(GOOD.replace("{simulated: {base_kw: 1}}", meter) + series)
    configured = read_settings(path)
    enrol(configured.state, 7, "battery", "house")

    def runs(seconds: int, imported: float) -> list[tuple[int | None, ...]]:
        """A device from its start on; its meter's counters stand still."""
        gateway = make(configured, clock, disk, lambda code, text: None)
        source = gateway._source
        assert isinstance(source, ModbusSource)
        for _ in range(seconds):
            clock.pass_(1_000)
            net = source._net({"energy_imported": imported, "energy_exported": 7.0})
            gateway.node.sample({Quantity.ACTIVE_ENERGY_WH: net})
            gateway.node.tick()
        said = [decode(one) for one in gateway.node.outbox._pending.values()]
        return [decode_measurement(one.body).integers for one in said]

    assert runs(300, 90_000.0) == []
    assert runs(300, 90_000.0) == []
    assert runs(400, 12.0) == [(None,)]


@pytest.mark.parametrize("value", [1e30, -1e30, 1.7e308, 2.2e18])
def test_a_value_that_no_message_can_hold_is_missing(value: float) -> None:
    bench = Bench(clock=HandClock(NOON - 1_000))
    bench.run(9)
    bench.run(12, power=value)
    bench.run(40, power=-7.0)
    (measured,) = bench.measured
    assert measured.integers == (100,) * 3 + (None,) * 2 + (-7,) * 10 and measured.scale == 0


def energy() -> Sampler:
    return Sampler(Quantity.ACTIVE_ENERGY_WH, 900_000, 1, from_counter=True)


# ---------------------------------------------------------------- sending until it is acknowledged


@pytest.mark.spec("ACT-02")
def test_a_message_stays_until_the_platform_acknowledged_it_and_is_sent_again_in_order() -> None:
    bench = Bench()
    bench.run(300)
    assert [one.sequence for one in bench.connect()] == [1, 2, 3, 4, 5]
    assert bench.send() == []
    assert bench.answer(2) == []
    assert [one.sequence for one in bench.connect()] == [3, 4, 5]  # a new connection
    bench.clock.pass_(10_001)  # nothing is heard
    assert [one.sequence for one in bench.send()] == [3, 4, 5]
    bench.clock.pass_(10_001)
    assert bench.send() == []  # its patience has doubled
    bench.answer(5)
    assert len(bench.node.outbox) == 0


def test_what_the_platform_says_is_missing_stays_until_it_has_come() -> None:
    bench = Bench()
    bench.run(360)
    bench.connect()
    assert [one.sequence for one in bench.answer(6, missing=((2, 3), (5, 5)))] == [2, 3, 4, 5, 6]  # at once again
    bench.answer(6)  # to something that was sent before
    again = Bench(disk=bench.disk, clock=bench.clock)
    again.connect()
    again.answer(6)
    again.clock.pass_(2_000)
    again.send()
    assert [one.sequence for one in again.messages] == [2, 3, 4, 5, 6]
    again.run(60)
    assert again.send()[-1].sequence == 7
    again.answer(7)  # first sent after the missing ones: they have been judged
    assert again.messages == []


def test_a_platform_that_tells_all_that_is_open_is_followed_to_the_number() -> None:
    bench = Bench()
    bench.run(360)
    bench.connect()
    bench.answer(6, open=((2, 3), (5, 5)))
    assert [one.sequence for one in bench.messages] == [2, 3, 4, 5, 6]
    bench.answer(6, open=((5, 5),))
    assert [one.sequence for one in bench.messages] == [5, 6]
    bench.clock.pass_(10_001)
    assert [one.sequence for one in bench.send()] == [5, 6]
    bench.answer(6, open=())
    assert bench.messages == []


def test_no_more_than_a_window_is_on_its_way() -> None:
    bench = Bench(samplers=(Sampler(Quantity.ACTIVE_POWER_W, 1_000, 1),))
    bench.connect()
    bench.run(2 * WINDOW // 3)
    bench.node.outbox.acknowledge(1)
    bench.run(2 * WINDOW // 3)
    assert WINDOW <= len(bench.send()) <= WINDOW + 200
    assert bench.send() == []


@pytest.mark.spec("ACT-02")
def test_after_a_start_nothing_new_leaves_before_the_platform_said_what_it_knows() -> None:
    bench = Bench()
    bench.run(120)
    bench.connect()
    again = Bench(disk=bench.disk, clock=bench.clock)
    again.run(120)
    assert {one.sequence for one in again.connect()} == {1}  # the hello
    again.answer(2)
    assert again.send() == []  # older answers may still come
    again.clock.pass_(2_000)
    assert [one.sequence for one in again.send()] == [3, 4]
    assert again.codes == []


@pytest.mark.spec("ACT-02", "CERT-01")
def test_a_restored_disk_uses_no_number_again() -> None:
    bench = Bench()
    bench.run(120)
    sent = bench.connect()
    image = bench.disk.copy()  # type: ignore[attr-defined]
    bench.run(180)
    sent += bench.send()
    old = Bench(disk=image, clock=bench.clock)
    old.run(60)
    sent += old.connect()
    old.answer(5)
    old.clock.pass_(2_000)
    sent += old.send()
    by_number = {one.sequence: one for one in sent}
    assert all(by_number[one.sequence] == one for one in sent)
    assert sorted(by_number) == [1, 2, 3, 4, 5, 6] and "restored" in old.codes


def test_a_device_that_the_platform_does_not_know_holds_what_it_has() -> None:
    bench = Bench()
    bench.run(60)
    bench.connect()
    again = Bench(disk=bench.disk, clock=bench.clock)
    again.connect()
    again.answer(0, refused=((1, "unknown_point"),))
    again.clock.pass_(5_000)
    again.run(60)
    assert again.node.outbox.held and "refused" not in again.codes
    again.clock.pass_(10_001)
    assert [one.sequence for one in again.send()] == [1]
    again.answer(1)
    again.clock.pass_(2_000)
    assert [one.sequence for one in again.send()] == [2]


def test_a_number_that_another_device_used_is_left_and_the_reading_is_sent_under_a_new_one() -> None:
    bench = Bench()
    bench.run(60)
    (first,) = bench.connect()
    sent = bench.answer(9, refused=((1, "replayed"),))
    assert [(one.sequence, one.body) for one in sent] == [(10, first.body)]
    assert "foreign" in bench.codes


WORDS = st.builds(
    Acknowledged,
    st.one_of(st.integers(0, 25), st.integers(0, (1 << 63) - 1)),
    st.lists(st.tuples(st.integers(1, 25), st.sampled_from(["replayed", "not_active", "clock_off"])), max_size=4).map(
        tuple
    ),
    st.one_of(st.none(), st.just(0)),
    st.just(()),
    st.one_of(st.none(), st.lists(st.integers(1, 25).map(lambda one: (one, one)), max_size=3).map(tuple)),
)


@pytest.mark.spec("ACT-02", "CERT-01")
@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=5), st.booleans())
def test_whatever_an_acknowledgement_says_what_never_left_stays(words: list[Acknowledged], started: bool) -> None:
    """Nobody signs it, so anybody with a right to the topic may write one."""
    bench = Bench()
    bench.run(300)
    bench.connect()
    if started:
        bench = Bench(disk=bench.disk, clock=bench.clock)
        bench.connect()
    bench.run(300)
    waiting = {one.body for one in bench.messages[-5:]}
    for one in words:
        bench.courier.answered(one, bench.clock.monotonic_ms())
        if started and not bench.node.author.opened:
            bench.clock.pass_(2_000)
            bench.courier._open(bench.clock.monotonic_ms())
    assert waiting <= {one.body for one in bench.messages}
    bench.run(60)
    numbers = [one.sequence for one in bench.messages]
    assert numbers == sorted(set(numbers)) and numbers[-1] < 10_000_000
    again = Bench(disk=bench.disk, clock=bench.clock)
    assert again.messages == bench.messages and "damaged" not in again.codes


def test_a_word_about_numbers_that_were_never_signed_is_left_out_and_told() -> None:
    bench = Bench()
    bench.run(120)
    bench.connect()
    assert bench.answer(5_000_000, open=()) == []
    assert [one.sequence for one in bench.messages] == [1, 2] and "implausible" in bench.codes
    again = Bench(disk=bench.disk, clock=bench.clock)
    again.connect()
    again.answer(5_000_000)
    again.clock.pass_(2_000)
    assert again.send() == [] and not again.node.author.opened
    again.answer(2)
    assert again.node.author.opened


@pytest.mark.spec("ACT-02")
def test_a_device_that_was_never_connected_asks_with_what_it_holds() -> None:
    """It was started twice, and its buffer ran over: nothing is left of what could have left."""
    bench = Bench(samplers=seconds())
    bench.run(300)
    again = Bench(disk=bench.disk, clock=bench.clock, samplers=seconds())
    again.run(4_000)
    (first,) = again.connect()
    assert first == again.messages[0] and again.node.outbox.held == len(again.messages)
    kept = [one.sequence for one in again.messages]
    again.answer(first.sequence, open=((1, first.sequence - 1),))
    again.clock.pass_(2_000)
    assert [one.sequence for one in again.send()][:2] == [first.sequence + 1, first.sequence + 2]
    assert [one.sequence for one in again.messages] == kept[1:] and "restored" not in again.codes


def seconds() -> tuple[Sampler, ...]:
    return (Sampler(Quantity.ACTIVE_POWER_W, 1_000, 1),)


def test_a_device_starts_on_a_full_disk_and_sends_what_it_has() -> None:
    bench = Bench()
    bench.run(300)
    bench.connect()
    bench.disk.room = 0  # type: ignore[attr-defined]
    again = Bench(disk=bench.disk, clock=bench.clock)
    again.run(60)
    assert "no_room" in again.codes and [one.sequence for one in again.connect()] == [1]
    again.answer(1)
    again.clock.pass_(2_000)
    assert [one.sequence for one in again.send()] == [2, 3, 4, 5]
    again.answer(5)
    again.disk.room = None  # type: ignore[attr-defined]
    again.run(60)
    assert [one.sequence for one in again.send()] == [6, 7]


def test_an_answer_is_read_and_what_is_none_is_refused() -> None:
    told = b'{"through":17,"refused":[{"sequence":16,"code":"bad_value","message":"x"}],"missing":[[12,13]],"at":5}'
    assert read_answer(told) == Acknowledged(17, ((16, "bad_value"),), 5, ((12, 13),))
    assert read_answer(b'{"through":2,"open":[]}') == Acknowledged(2, open=())
    beyond, deep = b'{"through":9223372036854775808}', b"[" * 100_000
    for bad in (
        b"", b"[]", b'{"through":"1"}', b'{"through":-1}', beyond, b'{"through":1,"missing":[[1]]}', b"\xff", deep
    ):  # fmt: skip
        with pytest.raises((ValueError, TypeError)):
            read_answer(bad)


@pytest.mark.parametrize("at", [10**400, -(10**400), 1 << 63])
def test_a_time_that_is_none_stops_no_device(at: int) -> None:
    bench = Bench()
    bench.run(60)
    bench.connect()
    bench.courier.answered(read_answer(b'{"through":1,"at":%d}' % at), bench.clock.monotonic_ms())
    bench.run(1)
    assert bench.node.status()["clock_offset_ms"] is None and "clock_off" not in bench.codes


# ---------------------------------------------------------------- the clock


@pytest.mark.spec("ACT-02", "CERT-01")
@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.integers(-3 * HOUR, 3 * HOUR), st.just(0)), min_size=1, max_size=6), st.data())
def test_a_clock_that_is_set_never_gives_a_lower_time_nor_an_interval_twice(
    steps: list[int], data: st.DataObject
) -> None:
    bench = Bench()
    for step in steps:
        bench.run(data.draw(st.integers(1, 200)))
        bench.clock.set(bench.clock.utc + step)
    bench.run(70)
    times = [one.signed_at for one in bench.messages]
    assert times == sorted(set(times))
    spans = [(one.first, one.end) for one in bench.measured]
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    assert bench.codes.count("clock_step") == sum(abs(step) >= 500 for step in steps)


def test_the_offset_to_the_platform_is_the_middle_of_the_round_trip() -> None:
    clock = HandClock()
    watch = Watch(clock, 0, 2_000)
    clock.pass_(800)
    watch.heard(NOON + 400 - 5_000, sent_monotonic_ms=clock.monotonic - 800)
    assert (watch.offset_ms, watch.uncertainty_ms, watch.off) == (5_000, 400, True)
    clock.set(clock.utc - 5_000)
    assert watch.look() == -5_000
    assert (watch.offset_ms, watch.off) == (0, False)


def test_a_clock_that_is_off_is_told_and_its_readings_are_marked() -> None:
    bench = Bench()
    bench.run(120)
    bench.connect()
    bench.answer(2, at=bench.clock.utc - HOUR)
    bench.run(60)
    assert bench.node.status()["doubtful"] == [[3, None]]
    bench.clock.set(bench.clock.utc - HOUR)
    bench.run(1)
    assert bench.node.status()["doubtful"] == [[3, 3]] and bench.node.status()["clock_offset_ms"] == 0
    assert [code for code in bench.codes if code.startswith("clock")] == ["clock_off", "clock_step", "clock_good"]


def test_the_mark_of_a_clock_that_is_off_ends_also_after_a_restart_and_on_a_full_disk() -> None:
    bench = Bench()
    bench.run(120)
    bench.connect()
    bench.answer(2, at=bench.clock.utc - HOUR)
    bench.run(60)
    again = Bench(disk=bench.disk, clock=bench.clock)
    again.run(1)
    assert again.node.status()["doubtful"] == [[3, None]]  # nothing is known of the clock yet
    again.connect()
    again.answer(3, at=again.clock.utc)
    again.clock.pass_(2_000)
    again.send()
    again.run(60)
    assert again.node.status()["doubtful"] == [[3, 3]] and "clock_good" in again.codes

    full = Bench()
    full.run(60)
    full.connect()
    full.disk.room = 0  # type: ignore[attr-defined]
    full.answer(1, at=full.clock.utc - HOUR)
    full.run(1)
    full.disk.room = None  # type: ignore[attr-defined]
    full.clock.set(full.clock.utc - HOUR)
    full.run(1)
    assert full.node.status()["doubtful"] == [] and full.codes[-1] == "clock_good"


def test_an_answer_that_comes_twice_does_not_change_what_is_known_of_the_clock() -> None:
    bench = Bench()
    bench.run(60)
    again = Bench(disk=bench.disk, clock=bench.clock)
    again.connect()
    again.answer(1, at=again.clock.utc)
    again.clock.pass_(2_000)
    again.send()
    again.run(7_200)
    again.send()
    for _ in range(2):
        again.answer(121, at=again.clock.utc)
        assert (again.node.watch.offset_ms, again.node.watch.uncertainty_ms) == (0, 0)


# ---------------------------------------------------------------- set points


@pytest.mark.spec("ACT-01", "ACT-02")
def test_a_set_point_is_taken_followed_and_ended_and_each_hop_says_so() -> None:
    bench = Bench()
    answer = bench.node.order(set_point(5, NOON + 10_000, NOON + 30_000, 2_000))
    assert answer.reason is None and bench.node.target().power_w is None
    bench.run(10)
    assert (bench.node.target().power_w, bench.node.target().sequence) == (2_000, 5)
    bench.node.reached(5, False)
    bench.node.reached(5, False)
    bench.node.reached(5, True)
    bench.node.reached(5, True)
    bench.run(20)
    assert bench.node.target().power_w is None
    assert bench.acknowledged == [
        Acknowledgement(5, LIGHT, Verdict.TAKEN),
        Acknowledgement(5, EMS, Verdict.NOT_REACHABLE),
        Acknowledgement(5, EMS, Verdict.TAKEN),
        Acknowledgement(5, EMS, Verdict.DONE),
    ]


@pytest.mark.spec("ACT-01")
def test_a_set_point_survives_a_restart_and_what_passed_meanwhile_is_said() -> None:
    bench = Bench()
    bench.node.order(set_point(5, NOON, NOON + HOUR, 2_000))
    bench.node.order(set_point(6, NOON + HOUR, NOON + HOUR + MINUTE, 1_000))
    bench.node.reached(5, True)
    again = Bench(disk=bench.disk, clock=bench.clock)
    assert again.node.target().power_w == 2_000
    again.node.reached(5, True)
    again.clock.pass_(2 * HOUR)
    again.node.tick()
    assert [(one.of_sequence, one.verdict) for one in again.acknowledged if one.hop is EMS] == [
        (5, Verdict.TAKEN),
        (5, Verdict.DONE),
        (6, Verdict.NOT_REACHABLE),
    ]


BAD = {
    "another key": (set_point(9, NOON, NOON + HOUR, 1, seed=SEED), Reason.WRONG_SIGNATURE),
    "another signer": (set_point(9, NOON, NOON + HOUR, 1, signer=2), Reason.WRONG_SIGNATURE),
    "one bit": (set_point(9, NOON, NOON + HOUR, 1)[:-1] + b"\x00", Reason.WRONG_SIGNATURE),
    "another point": (set_point(9, NOON, NOON + HOUR, 1, point=8), Reason.WRONG_POINT),
    "older": (set_point(4, NOON, NOON + HOUR, 1), Reason.OLDER),
    "same number, other bytes": (set_point(5, NOON, NOON + HOUR, 9), Reason.NUMBER_USED),
    "over": (set_point(9, NOON - HOUR, NOON, 1), Reason.EXPIRED),
    "no length": (set_point(9, NOON + HOUR, NOON + HOUR, 1), Reason.EXPIRED),
    "far ahead": (set_point(9, NOON, NOON + 30 * 24 * HOUR, 1), Reason.TOO_FAR_AHEAD),
    "noise": (b"\x01\x02\x03", Reason.BAD_FORMAT),
    "nothing": (b"", Reason.BAD_FORMAT),
}


@pytest.mark.spec("ACT-01", "CERT-01")
@pytest.mark.parametrize("name", BAD)
def test_a_bad_set_point_is_never_followed_and_only_the_platforms_own_is_answered(name: str) -> None:
    raw, reason = BAD[name]
    bench = Bench()
    bench.node.order(set_point(5, NOON, NOON + 1_000, 77))
    answer = bench.node.order(raw)
    assert answer.reason is reason
    bench.run(2)
    assert bench.node.target().power_w is None
    refused = [one for one in bench.acknowledged if one.verdict is Verdict.REFUSED]
    if reason in UNANSWERED:
        assert refused == [] and str(reason) in dict(bench.said)["set_point_left_out"]
        assert bench.node.status()["counts"]["set_point_left_out"] == 1
    else:
        assert refused == [Acknowledgement(answer.sequence, LIGHT, Verdict.REFUSED)]
        assert str(reason) in dict(bench.said)["set_point_refused"]


def test_a_set_point_that_comes_twice_is_taken_once() -> None:
    bench = Bench()
    raw = set_point(5, NOON, NOON + HOUR, 1_000)
    assert not bench.node.order(raw).again
    assert bench.node.order(raw).again
    assert [one.verdict for one in bench.acknowledged] == [Verdict.TAKEN, Verdict.TAKEN]
    assert len(bench.node.set_points.held) == 1


@pytest.mark.spec("ACT-01", "CERT-01")
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 8), st.sampled_from([-1, 1, 2])), min_size=1, max_size=20), st.booleans())
def test_a_set_point_is_given_the_same_word_however_often_it_comes(
    came: list[tuple[int, int]], restarted: bool
) -> None:
    """Also behind newer ones, once it is over, and after a restart: nothing that was held is ever called refused."""
    bench = Bench()
    words: dict[int, set[Verdict]] = {}
    for number, hours in came:
        bench.node.order(set_point(number, NOON - HOUR, NOON + (number % 3 - 1) * HOUR, 1_000 * number))
        bench.clock.pass_(hours * MINUTE if hours > 0 else 0)
        bench.node.tick()
        if restarted:
            bench = Bench(disk=bench.disk, clock=bench.clock)
    for one in bench.acknowledged:
        if one.hop is LIGHT:
            words.setdefault(one.of_sequence, set()).add(one.verdict)
    assert set(words) == {number for number, _ in came}
    assert all(len(some) == 1 for some in words.values())


def test_a_set_point_that_is_over_and_comes_again_is_not_refused() -> None:
    bench = Bench()
    raws = [set_point(number, NOON, NOON + MINUTE, number) for number in range(1, 101)]
    for raw in raws:
        bench.node.order(raw)
    bench.clock.pass_(HOUR)
    bench.node.tick()
    for raw in raws:
        bench.node.order(raw)
    assert bench.node.set_points.held == {}
    assert {one.verdict for one in bench.acknowledged if one.hop is LIGHT} == {Verdict.TAKEN}


def test_who_floods_the_channel_makes_no_message() -> None:
    bench = Bench()
    for number in range(500):
        bench.node.order(set_point(number + 1, NOON, NOON + HOUR, 1, seed=SEED))
    assert bench.messages == [] and len(bench.said) == 500


def test_who_repeats_a_set_point_does_not_fill_the_buffer() -> None:
    bench = Bench()
    raw = set_point(1, NOON, NOON + HOUR, 1)
    for _ in range(500):
        bench.node.order(raw)
    assert len(bench.messages) == 21
    bench.clock.pass_(MINUTE)
    bench.node.order(raw)
    assert len(bench.messages) == 22


@pytest.mark.spec("ACT-01", "ACT-04")
def test_an_order_is_changed_extended_and_stopped() -> None:
    bench = Bench()
    order = bytes(range(16))
    bench.node.order(set_point(1, NOON, NOON + 100_000, 1_000, order=order))
    bench.node.order(set_point(2, NOON + 20_000, NOON + 200_000, 2_000, order=order))  # changed and extended
    bench.node.order(set_point(3, NOON, NOON + 300_000, 500, order=bytes(16)))  # of another order: the newest rules
    bench.node.order(set_point(4, NOON + 150_000, NOON + 150_000, 0, order=order, stops=True))
    bench.node.order(set_point(5, NOON + 50_000, NOON + 50_000, 0, order=bytes(16), stops=True))
    found = []
    for _ in range(16):
        found.append(bench.node.target().power_w)
        bench.run(10)
    assert found[:5] == [500] * 5 and found[5:15] == [2_000] * 10 and found[15] is None
    assert bench.node.set_points.held == {}


@pytest.mark.spec("ACT-07")
def test_the_owners_limits_hold_whatever_is_ordered_and_what_is_cut_is_said() -> None:
    bench = Bench(owner=Owner(-1_000, 3_000))
    bench.node.order(set_point(1, NOON, NOON + HOUR, 50_000))
    assert (bench.node.target().power_w, bench.node.target().asked_w) == (3_000, 50_000)
    bench.node.order(set_point(2, NOON, NOON + HOUR, -50_000))
    assert bench.node.target().power_w == -1_000
    assert bench.codes == ["cut"] and "beyond the owner's limits" in bench.said[0][1]


@pytest.mark.spec("ACT-07")
def test_when_the_owner_keeps_the_unit_nothing_is_followed() -> None:
    lunch = Closed(time(13, 30), time(14, 0))  # in Rome 12:30 to 13:00 UTC
    bench = Bench(owner=Owner(-5_000, 5_000, (lunch,), ZoneInfo("Europe/Rome")))
    refused = bench.node.order(set_point(1, NOON + 30 * MINUTE, NOON + 60 * MINUTE, 1_000))
    taken = bench.node.order(set_point(2, NOON, NOON + 2 * HOUR, 1_000))
    assert refused.reason is Reason.NOT_AVAILABLE and taken.reason is None
    followed = []
    for _ in range(12):
        followed.append(bench.node.target().power_w)
        bench.clock.pass_(10 * MINUTE)
    assert followed == [1_000] * 3 + [None] * 3 + [1_000] * 6


def test_a_night_over_midnight_belongs_to_the_day_it_begins() -> None:
    night = Closed(time(22), time(6), frozenset({4}))  # Friday
    friday = NOON + 4 * 24 * HOUR
    closed = [hour for hour in range(36) if night.covers(friday + hour * HOUR, ZoneInfo("UTC"))]
    assert closed == list(range(10, 18))


# ---------------------------------------------------------------- reserves


@pytest.mark.spec("ACT-05")
def test_frequency_containment_follows_the_droop_around_plan_and_set_point() -> None:
    bench = Bench(containment=Containment(Droop(1_000.0), base_w=200.0))
    bench.run(1, FREQUENCY_HZ=49.8)
    assert bench.node.target().power_w == 1_200
    bench.run(1, FREQUENCY_HZ=50.105)
    assert bench.node.target().power_w == pytest.approx(200 - 500)
    bench.run(1, FREQUENCY_HZ=50.005)
    assert bench.node.target().power_w == 200
    bench.node.order(set_point(1, bench.clock.utc, bench.clock.utc + HOUR, 4_500))
    bench.run(1, FREQUENCY_HZ=49.0)
    assert bench.node.target().power_w == 5_000  # 5,500, cut to what the owner allows
    bench.run(1, FREQUENCY_HZ=None)
    assert bench.node.target().power_w == 4_500


@pytest.mark.spec("ACT-05")
def test_a_share_of_a_regulation_signal_is_followed_until_it_ends() -> None:
    bench = Bench(group=40)
    signal = {"point": 40, "continuous": True, "power_w": 10_000}
    bench.node.order(set_point(1, NOON, NOON + HOUR, 1_000, change_w=500, continuous=True))
    assert bench.node.target().power_w == 1_000
    assert bench.node.signal(set_point(2, NOON, NOON + 12_000, change_w=-5_000, **signal))
    assert bench.node.target().power_w == 750
    assert not bench.node.signal(set_point(2, NOON, NOON + 12_000, change_w=9_000, **signal))  # not newer
    assert not bench.node.signal(set_point(3, NOON, NOON + 12_000, change_w=9_000, seed=SEED, **signal))
    assert not bench.node.signal(set_point(3, NOON, NOON + 12_000, change_w=9_000, **(signal | {"point": 41})))
    assert bench.node.signal(set_point(3, NOON, NOON + 12_000, change_w=99_000, **signal))
    assert bench.node.target().power_w == 1_500  # never beyond its share
    bench.clock.pass_(12_000)
    assert bench.node.target().power_w == 1_000  # the signal is lost


@pytest.mark.spec("ACT-05")
@pytest.mark.parametrize("share", [500, -500])
def test_a_unit_that_gives_its_share_one_way_alone_gives_nothing_the_other_way(share: int) -> None:
    bench = Bench(group=40)
    for sequence, change_w in enumerate((0, share), start=1):
        bench.node.order(set_point(sequence, NOON, NOON + HOUR, 1_000, change_w=change_w, continuous=True))
    bench.run(2)
    for sequence, asked in enumerate((5_000, -5_000), start=3):
        more = {"point": 40, "continuous": True, "power_w": 10_000}
        assert bench.node.signal(set_point(sequence, NOON, NOON + HOUR, change_w=asked, **more))
        assert bench.node.target().power_w == 1_000 + (asked // 20 if asked * share > 0 else 0)


# ---------------------------------------------------------------- key and configuration


@pytest.mark.spec("ACT-02", "CERT-01")
def test_a_key_is_made_once_readable_by_its_owner_alone_and_its_request_proves_it(tmp_path: Path) -> None:
    made = enrol(tmp_path / "d", 7, "battery", "house")
    assert (tmp_path / "d" / "key").stat().st_mode & 0o777 == 0o600
    assert public_of(read_key(tmp_path / "d")).hex() == made.public_key
    told = check_request(made.request.read_bytes())
    assert (told["point"], told["public_key"]) == (7, made.public_key)
    with pytest.raises(Refused, match="1 fault"):
        check_request(made.request.read_bytes().replace(b'"point":7', b'"point":8'))
    with pytest.raises(CoflexError, match="has a key already"):
        enrol(tmp_path / "d", 7, "battery", "house")
    (tmp_path / "d" / "key").chmod(0o640)
    with pytest.raises(CoflexError, match="Others may read"):
        read_key(tmp_path / "d")


@pytest.mark.parametrize("full", ["fsync", "write_bytes"])
def test_a_key_that_a_full_disk_does_not_take_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os if full == "fsync" else Path, full, no_room)
        with pytest.raises(CoflexError, match="No space left"):
            enrol(tmp_path / "d", 7, "battery", "house")
    assert enrol(tmp_path / "d", 7, "battery", "house").request.exists()


GOOD = """
tenant: rome
point: 7
unit: battery
owner: house
state: here
platform: {signer: 1, key: "%s"}
link: {mqtt: {host: broker.example}}
meter: {simulated: {base_kw: 1}}
limits: {min_kw: -5, max_kw: 5, zone: Europe/Rome, unavailable: [{begin: "22:00", end: "06:00", days: [fri]}]}
""" % ("ab" * 32)


def test_a_configuration_is_read_and_its_paths_start_at_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "device.yaml"
    path.write_text(GOOD)
    found = read_settings(path)
    assert found.state == tmp_path / "here" and found.link.mqtt is not None and found.link.mqtt.port == 8883
    assert found.limits.owner().closed == (Closed(time(22), time(6), frozenset({4})),)


def test_all_faults_of_a_configuration_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "device.yaml"
    path.write_text(GOOD.replace("point: 7", "point: -7").replace("max_kw", "most_kw").replace("owner: house\n", ""))
    with pytest.raises(Refused) as refused:
        read_settings(path)
    assert {(one.place, one.code) for one in refused.value.findings} == {
        ("point", "bad_value"),
        ("limits.max_kw", "missing"),
        ("limits.most_kw", "unknown_key"),
        ("owner", "missing"),
    }
    path.write_text(
        GOOD + "fcr: {reserve_kw: 1, full_mhz: 5}\nseries: [{quantity: warmth}]\ncontrol: {callback: a:b}\n"
    )
    with pytest.raises(Refused) as refused:
        read_settings(path)
    assert {one.place for one in refused.value.findings} == {
        "fcr", "series", "fcr.base_kw", "series.0.quantity", "control",
    }  # fmt: skip
    for text in ("[", "", "1"):
        path.write_text(text)
        with pytest.raises(Refused):
            read_settings(path)
    with pytest.raises(Refused, match="1 fault"):
        read_settings(tmp_path / "nowhere.yaml")


@pytest.mark.spec("ACT-07")
@pytest.mark.parametrize(
    ("window", "code"),
    [
        ("{begin: 22:00, end: 06:00}", "bad_value"),  # YAML reads 22:00 as a number, 1320
        ('{begin: "22:00Z", end: "06:00Z"}', "zone"),
        ('{begin: "22:00", end: "06:00+01:00"}', "zone"),
        ("{from: 2026-08-15T00:00:00Z, until: 2026-08-01T00:00:00Z}", "order"),
    ],
)
def test_a_time_of_the_owner_that_would_be_read_otherwise_is_refused(tmp_path: Path, window: str, code: str) -> None:
    path = tmp_path / "device.yaml"
    path.write_text(GOOD.replace('{begin: "22:00", end: "06:00", days: [fri]}', window))
    with pytest.raises(Refused) as refused:
        read_settings(path)
    assert {one.code for one in refused.value.findings} == {code}


def test_a_register_without_a_scale_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "device.yaml"
    meter = "{modbus: {host: here, registers: {active_power: {address: 1, scale: 0}}}}"
    path.write_text(GOOD.replace("{simulated: {base_kw: 1}}", meter))
    with pytest.raises(Refused) as refused:
        read_settings(path)
    assert {one.place for one in refused.value.findings} == {"meter.modbus.registers.active_power.scale"}


@pytest.mark.parametrize(("sample_s", "faults"), [(4, 0), (4.1, 1), (90, 1), (91, 2)])
def test_a_meter_that_is_read_too_seldom_for_its_series_is_refused(
    tmp_path: Path, sample_s: float, faults: int
) -> None:
    path = tmp_path / "device.yaml"
    series = "series: [{quantity: active_power}, {quantity: energy, step_s: 900, count: 1}]"
    path.write_text(f"{GOOD}{series}\nsample_s: {sample_s}\n")
    if not faults:
        assert read_settings(path).sample_s == sample_s
        return
    with pytest.raises(Refused) as refused:
        read_settings(path)
    assert [one.code for one in refused.value.findings] == ["seldom"] * faults


def test_the_configuration_in_the_documentation_is_good(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/device.md").read_text(encoding="utf-8")
    path = tmp_path / "device.yaml"
    path.write_text(page.partition("## Configuration")[2].partition("```yaml\n")[2].partition("```")[0])
    found = read_settings(path)
    assert found.fcr is not None and found.meter.modbus is not None and len(found.limits.owner().closed) == 2


def test_kinds_of_messages_share_one_series_of_numbers() -> None:
    bench = Bench()
    bench.run(59)
    bench.node.order(set_point(5, NOON + MINUTE, NOON + HOUR, 1))
    bench.run(61)
    assert [(one.sequence, one.kind) for one in bench.messages] == [
        (1, Kind.ACKNOWLEDGEMENT),
        (2, Kind.MEASUREMENT),
        (3, Kind.MEASUREMENT),
    ]
