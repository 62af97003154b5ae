"""A device against the ingest's own admission, over a way that loses and doubles: all that was measured arrives, once.

Pure: no wire, no wait. The device is killed, its disk goes back to an older copy, its clock is set, messages and
answers are lost; when the way is good again, everything the device ever kept is in the log, whole.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.activation.droop import Droop, FrequencyLog, prove
from coflex.adapters.field.author import Acknowledged
from coflex.adapters.field.node import Containment
from coflex.adapters.field.sampling import Sampler
from coflex.adapters.measurements.check import one as check_one
from coflex.evidence.keys import public_of
from coflex.evidence.message import Kind, Message, Quantity, decode, decode_measurement
from coflex.metering.admission import Admission, Signer, Signers
from coflex.simulation.fleet import SimulatedUnit
from support.field import NOON, POINT, SEED, Bench, HandClock, set_point
from support.field_disk import CutDisk


class Ingest:
    """The admission of the ingest, a log behind it, and its answers: as its MQTT door gives them, with all that is
    open. Its clock is right."""

    def __init__(self, clock: HandClock, since: int = 0) -> None:
        self._signers = Signers([Signer(POINT, public_of(SEED), owner="house", since=since)])
        self._clock = clock
        self._admission = Admission(self._signers, self._known)
        self.log: dict[int, Message] = {}
        self.codes: list[str] = []

    def _known(self, _row: int, sequence: int) -> int | None:
        found = self.log.get(sequence)
        if found is None:
            return None
        candidate = check_one(found.encode(), self._signers).candidate
        return None if candidate is None else candidate.digest

    def take(self, messages: list[Message]) -> Acknowledged:
        refused, now, known = [], self._clock.monotonic, False
        for one in messages:
            checked = check_one(one.encode(), self._signers)
            if checked.candidate is None:
                refused.append((one.sequence, checked.code))
                self.codes.append(checked.code)
                continue
            known = True
            code, _ = self._admission.admit(checked.candidate, frozenset({"house"}), now)
            if not code:
                assert one.sequence not in self.log
                self.log[one.sequence] = one
            elif code != "duplicate":
                refused.append((one.sequence, code))
                self.codes.append(code)
        # Of whom nothing was authentic, nothing is told but what was refused.
        through, gaps = (self._admission.last(0), tuple(self._admission.gaps.get(0, ()))) if known else (0, ())
        return Acknowledged(through, tuple(refused), now, (), gaps)


def sampler() -> tuple[Sampler, ...]:
    return (Sampler(Quantity.ACTIVE_POWER_W, 4_000, 3),)


class Story:
    """A device and an ingest; `kept`: first instant of each measurement that the device's disk holds or held."""

    def __init__(self, seed: int, since: int = 0) -> None:
        self.chance = Random(seed)
        self.clock = HandClock()
        self.clock.monotonic = NOON  # the ingest's clock is right: time that passes
        self.ingest = Ingest(self.clock, since)
        self.disk = CutDisk()
        self.bench = self._started()

    def _started(self) -> Bench:
        bench = Bench(disk=self.disk, clock=self.clock, samplers=sampler())
        bench.connect()
        return bench

    def measure(self, seconds: int) -> None:
        self.bench.run(seconds)

    def pass_on(self, loss: float, answers_lost: float) -> None:
        sent = [one for one in self.bench.send() if self.chance.random() >= loss]
        for _ in range(3):
            answer = self.ingest.take(sent) if sent else None
            if answer is not None and self.chance.random() >= answers_lost:
                self.clock.pass_(20)
                sent = [one for one in self.bench.answer(**_words(answer)) if self.chance.random() >= loss]
            else:
                break

    def kill(self) -> None:
        self.disk.cut(self.chance)
        self.bench = self._started()

    def reconnect(self) -> None:
        self.bench.courier.connected(self.clock.monotonic)

    def good_end(self) -> None:
        for _ in range(60):
            self.measure(12)
            self.pass_on(0.0, 0.0)
            if not self.bench.node.outbox.held and len(self.bench.node.outbox) <= 1:
                break


def _words(answer: Acknowledged) -> dict[str, object]:
    return {"through": answer.through, "refused": answer.refused, "at": answer.at, "open": answer.open}


STEPS = st.lists(
    st.sampled_from(["measure", "measure", "pass", "lossy", "deaf", "kill", "reconnect"]),
    min_size=5,
    max_size=40,
)


@pytest.mark.spec("ACT-02", "CERT-01")
@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(0, 1 << 30))
def test_all_that_a_device_kept_arrives_once_whatever_happens_on_the_way(steps: list[str], seed: int) -> None:
    story = Story(seed)
    kept: set[bytes] = set()
    for step in steps:
        if step == "measure":
            story.measure(story.chance.randint(1, 60))
        elif step in ("pass", "lossy", "deaf"):
            story.pass_on(0.4 if step == "lossy" else 0.0, 1.0 if step == "deaf" else 0.2)
        elif step == "kill":
            story.kill()
        elif step == "reconnect":
            story.reconnect()
        kept |= {one.body for one in story.bench.messages}
    story.good_end()
    arrived = [one.body for one in story.ingest.log.values()]
    assert kept <= set(arrived)
    assert len(arrived) == len(set(arrived))
    assert set(story.ingest.codes) <= {"overlaps"}
    assert len(story.bench.node.outbox) <= 1 and story.bench.node.outbox.lost == ()


@pytest.mark.spec("ACT-02")
def test_a_first_word_that_is_old_is_heard_once_a_newer_one_has_come() -> None:
    """The ingest refuses a first word that is more than ten minutes old: nobody could tell a clock that is behind."""
    story = Story(1)
    story.measure(1_800)
    story.pass_on(0.0, 0.0)
    assert "clock_off" in story.ingest.codes
    for _ in range(8):
        story.measure(60)
        story.pass_on(0.0, 0.0)
    assert len(story.bench.node.outbox) <= 1
    assert sorted(story.ingest.log) == list(range(1, max(story.ingest.log) + 1))


@pytest.mark.spec("ACT-02", "CERT-01")
def test_a_clock_an_hour_ahead_is_refused_and_nothing_is_lost_when_it_is_set() -> None:
    story = Story(2)
    story.measure(60)
    story.pass_on(0.0, 0.0)
    story.clock.set(story.clock.utc + 3_600_000)
    story.measure(60)
    story.pass_on(0.0, 0.0)
    assert set(story.ingest.codes) == {"clock_off"}
    waiting = {one.sequence for one in story.bench.messages}
    assert waiting
    story.clock.set(story.clock.utc - 3_600_000)
    for _ in range(30):
        story.measure(300)
        story.pass_on(0.0, 0.0)
    assert waiting <= set(story.ingest.log) and len(story.bench.node.outbox) <= 1


@pytest.mark.spec("ACT-02", "CERT-01")
@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from([15 * 60_000, 3_600_000, 86_400_000, 365 * 86_400_000]),
    st.integers(30, 300),
    st.integers(0, 1 << 30),
    st.booleans(),
)
def test_a_clock_that_was_ahead_and_was_set_right_silences_nobody(
    ahead: int, seconds: int, seed: int, restarted: bool
) -> None:
    """Whatever was signed in a time that has not come: from a quarter of an hour after the clock is right all that is
    measured arrives, whole and in its time, and so do the answers to set points that were signed meanwhile."""
    story = Story(seed)
    story.measure(60)
    story.pass_on(0.0, 0.0)
    story.clock.set(story.clock.utc + ahead)
    story.measure(seconds)
    story.bench.node.order(set_point(3, story.clock.utc, story.clock.utc + 3_600_000, 500))
    story.pass_on(0.0, 0.3)
    story.clock.set(story.clock.utc - ahead)
    if restarted:
        story.kill()
    for _ in range(15):
        story.measure(60)
        story.pass_on(0.0, 0.0)
    good = story.clock.utc - story.clock.utc % 12_000 + 12_000
    for _ in range(20):
        story.measure(60)
        story.pass_on(0.0, 0.0)
    measured = [decode_measurement(one.body) for one in story.ingest.log.values() if one.kind is Kind.MEASUREMENT]
    covered = sorted((one.first, one.end) for one in measured if one.end > good)
    assert covered[0][0] <= good and covered[-1][1] >= story.clock.utc - 24_000
    assert all(end == begin for (_, end), (begin, _) in pairwise(covered))
    assert max(one.end for one in measured) <= story.clock.utc
    assert [one.kind for one in story.ingest.log.values()].count(Kind.ACKNOWLEDGEMENT) >= 1
    assert len(story.bench.node.outbox) <= 1 and "clock_was_ahead" in story.bench.codes


@pytest.mark.spec("ACT-02", "CERT-01")
@pytest.mark.parametrize("windows", [15, 700])
@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_signed_before_the_device_was_registered_is_named_lost_and_the_rest_arrives(
    windows: int, restarted: bool
) -> None:
    story = Story(4, since=NOON + 12_000 * windows + 6_000)
    story.measure(12 * windows)
    for _ in range(20):
        story.measure(60)
        story.pass_on(0.0, 0.0)
        if restarted and story.clock.utc - NOON < 12_000 * windows + 200_000:
            story.kill()
    story.good_end()
    outbox = story.bench.node.outbox
    lost = {number for first, last in outbox.lost for number in range(first, last + 1)}
    assert lost == {number for number in range(1, max(story.ingest.log) + 1) if number not in story.ingest.log}
    assert lost == set(range(1, len(lost) + 1)) and windows - 1 <= len(lost) <= windows + 1
    assert set(story.ingest.codes) <= {"not_active", "overlaps"}
    assert restarted or "given_up" in story.bench.codes


# ---------------------------------------------------------------- containment, proved by what was sent


@pytest.mark.spec("ACT-05")
def test_the_frequency_log_that_a_device_sends_proves_its_droop() -> None:
    droop, clock, base = Droop(2_000.0), HandClock(), 500.0
    quantities = (Quantity.ACTIVE_POWER_W, Quantity.FREQUENCY_HZ, Quantity.BASELINE_W)
    samplers = tuple(Sampler(one, 1_000, 60) for one in quantities)
    bench = Bench(clock=clock, samplers=samplers, containment=Containment(droop))
    unit, walk, chance = SimulatedUnit(base, 200.0), 50.0, np.random.default_rng(5)
    for _ in range(900):
        walk += chance.normal(0, 0.01) - 0.02 * (walk - 50)
        power = unit.advance(clock.utc / 1000)
        bench.run(1, power, FREQUENCY_HZ=walk, BASELINE_W=base)
        unit.hold(bench.node.target().power_w, clock.utc / 1000)
    values: dict[Quantity, list[float]] = {one: [] for one in quantities}
    for message in bench.messages:
        measured = decode_measurement(decode(message.encode()).body)
        values[measured.quantity] += measured.values.tolist()
    power, hz, plan = (np.array(values[one]) for one in quantities)
    at = np.arange(len(hz), dtype=np.float64)
    found = prove(FrequencyLog(datetime(2026, 1, 5, tzinfo=UTC), at, hz, power, plan), droop)
    assert len(hz) >= 840 and np.ptp(hz) > 0.05
    assert found.holds() and found.compliant_share == 1.0 and found.gain == pytest.approx(1.0, abs=0.1)
    wrong = prove(FrequencyLog(datetime(2026, 1, 5, tzinfo=UTC), at, hz, 2 * base - power, plan), droop)
    assert not wrong.holds()
