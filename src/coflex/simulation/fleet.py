"""A fleet of devices as pure functions: their keys, how a unit moves, and the signed messages of a day.

No clock and no randomness of its own: the same seed, response and set points give the same bytes. What flows is told
by quarter-hours (`coflex.simulation.devices`); readings every few seconds waver around them, and their mean over each
quarter-hour is what flowed, to a watt.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Floats
from coflex.domain.series import Series
from coflex.evidence.keys import Signer, verify
from coflex.evidence.message import (
    Acknowledgement,
    Hop,
    Kind,
    Message,
    Quantity,
    SetPoint,
    Verdict,
    decode,
    decode_set_point,
    in_integers,
    measurement,
    seal,
)

SEED_BYTES = 32
# How much 4-second power wavers around its quarter-hour, as a share of it.
WAVER = 0.03
# A device signs within this time after a window ended, each at its own moment.
_SPREAD_MS = 2_000
_HOP_MS = 150
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MS = timedelta(milliseconds=1)


# ---------------------------------------------------------------- keys


@dataclass(frozen=True, slots=True)
class Device:
    """A simulated device: the unit it is at, the number of its point, and the seed of its key."""

    unit: str
    point: int
    seed: bytes = field(repr=False)


def seed_of(fleet_seed: bytes, point: int) -> bytes:
    """The 32-byte seed of a device's key: HMAC-SHA-256 of its number under the seed of the fleet.

    Raises CoflexError when the fleet's seed has not 32 bytes.
    """
    if len(fleet_seed) != SEED_BYTES:
        raise CoflexError(f"A fleet's seed has {SEED_BYTES} bytes, not {len(fleet_seed)}.", "Give the whole file.")
    return hmac.new(fleet_seed, f"coflex device {point}".encode(), hashlib.sha256).digest()


def devices(units: Sequence[str], fleet_seed: bytes, first_point: int = 1) -> tuple[Device, ...]:
    """One device for each unit, points numbered in the order given."""
    points = range(first_point, first_point + len(units))
    return tuple(Device(unit, point, seed_of(fleet_seed, point)) for unit, point in zip(units, points, strict=True))


# ---------------------------------------------------------------- a unit that moves


@dataclass
class SimulatedUnit:
    """A unit that follows what it is told: it waits its preparation time, then moves in a straight line.

    Powers in W, injection positive, times in s on any one clock. `remaining`: the share of what is asked that it gives
    (1: all of it); a failed unit gives less.
    """

    plan_w: float
    ramp_w_per_s: float
    preparation_s: float = 0.0
    remaining: float = 1.0
    power_w: float = math.nan
    _told: float | None = None
    _told_at: float = -math.inf
    _at: float = math.nan

    def hold(self, power_w: float | None, at_s: float) -> None:
        """Told to hold a power, or to follow its own plan (None)."""
        self.advance(at_s)
        if power_w is not None and self._told is None:
            self._told_at = at_s
        self._told = power_w

    def advance(self, at_s: float) -> float:
        """The power at an instant, which must not go back."""
        if math.isnan(self.power_w):
            self.power_w, self._at = self.plan_w, at_s
        begins = self._at if self._told is None else max(self._at, self._told_at + self.preparation_s)
        moving = max(0.0, at_s - begins)
        reach = self.ramp_w_per_s * moving
        wanted = self.plan_w if self._told is None else self.plan_w + self.remaining * (self._told - self.plan_w)
        self.power_w += min(max(wanted - self.power_w, -reach), reach)
        self._at = max(self._at, at_s)
        return self.power_w


def daily_kw(kind: int, second_of_day: Floats) -> Floats:
    """A plain day of a connection point in kW, injection positive, by the second of the day: 0 a household with its
    morning and evening, 1 a shop by day, 2 photovoltaics, 3 a charging point by night; shape as given.

    The shapes are ours, for load on the system alone; studies take SimBench's profiles.
    """
    hour = np.asarray(second_of_day, dtype=np.float64) / 3600 % 24

    def hump(at: float, width: float) -> Floats:
        apart = np.abs(hour - at)
        bell: Floats = np.exp(-0.5 * (np.minimum(apart, 24 - apart) / width) ** 2)
        return bell

    shapes = (
        -(0.25 + 0.45 * hump(7.5, 1.2) + 0.9 * hump(19.5, 2.0)),
        -(1.0 + 6.0 * hump(13.0, 3.5)),
        5.0 * np.clip(hump(12.5, 2.3) - 0.05, 0.0, None),
        -(0.05 + 7.0 * hump(1.0, 2.0)),
    )
    chosen: Floats = shapes[kind % len(shapes)]
    return chosen


# ---------------------------------------------------------------- the messages of a day


@dataclass(frozen=True, slots=True)
class Plan:
    """How a fleet reports. `step_s`: of a reading; 900 gives energies (Wh) and any other power (W). `count`: readings
    in a message. `first_sequence`: of every device. `waver`: share by which readings waver inside a quarter-hour."""

    step_s: int = 900
    count: int = 4
    first_sequence: int = 1
    waver: float = WAVER
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Platform:
    """Who signs set points: number and public key."""

    signer: int
    key: bytes


def day(
    fleet: Sequence[Device],
    response: Series,
    plan: Plan,
    set_points: Sequence[bytes] = (),
    platform: Platform | None = None,
) -> Iterator[bytes]:
    """The signed messages of a fleet, by the time they were signed and then by point.

    `response`: mean kW of each unit in each quarter-hour, injection positive, as `SimulatedDevices.respond` gives it.
    `set_points`: the platform's signed messages; a device answers those for its point at both hops: taken by the light
    node when it came, by the energy management system when it starts, done when it ends. A device refuses what
    `platform` has not signed, and what comes after its end.
    Raises CoflexError on a unit without a response, or a step that does not divide a quarter-hour.
    """
    quarter_s = round(response.axis.step.total_seconds())
    if quarter_s % plan.step_s:
        raise CoflexError(f"Steps of {plan.step_s} s do not divide {quarter_s} s.", "Give a step that does.")
    for_point: dict[int, list[Message]] = {}
    for raw in set_points:
        message, one = _read(raw)
        for_point.setdefault(one.point, []).append(message)
    known = {name: row for row, name in enumerate(response.names)}
    said: list[tuple[int, int, bytes]] = []
    for device in fleet:
        if device.unit not in known:
            raise CoflexError(f"Unit {device.unit} has a device but no response.", "Give its response.")
        words = list(_measured(device, response, known[device.unit], plan))
        words += _answered(for_point.get(device.point, ()), platform)
        said += _signed(device, words, plan.first_sequence)
    yield from (raw for _, _, raw in sorted(said, key=lambda one: one[:2]))


_Word = tuple[int, Kind, bytes]


def _signed(device: Device, words: Iterable[_Word], first: int) -> Iterator[tuple[int, int, bytes]]:
    """A device's words in the order of time, each with a time above the one before."""
    signer, at = Signer(device.seed), 0
    for sequence, (when, kind, body) in enumerate(sorted(words, key=lambda word: word[0]), start=first):
        at = max(at + 1, when)
        yield at, device.point, seal(signer.sign, kind, device.point, sequence, at, body)


def _measured(device: Device, response: Series, row: int, plan: Plan) -> Iterator[_Word]:
    """Measurements of a unit: windows from the axis's start, each signed a moment after its end."""
    quarter_s = round(response.axis.step.total_seconds())
    mean_w = 1000 * response.values[row]
    if plan.step_s == quarter_s:
        values, quantity = mean_w * quarter_s / 3600, Quantity.ACTIVE_ENERGY_WH
        integers = in_integers(values, 0)
    else:
        chance = np.random.default_rng(_lot(f"{plan.seed}:waver:{device.unit}"))
        integers = in_integers(spread(mean_w, quarter_s // plan.step_s, plan.waver, chance), 0)
        quantity = Quantity.ACTIVE_POWER_W
    start, step = (response.axis.start - _EPOCH) // _MS, 1000 * plan.step_s
    late = _lot(f"late {device.point}") % _SPREAD_MS
    for at in range(0, len(integers), plan.count):
        some = integers[at : at + plan.count]
        end = start + step * (at + len(some))
        yield end + late, Kind.MEASUREMENT, measurement(start + step * at, step, quantity, some)


def _lot(name: str) -> int:
    """A number for what the name names, the same on every machine and run."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big")


def spread(mean_w: Floats, parts: int, waver: float, chance: np.random.Generator) -> Floats:
    """Readings in whole W, `parts` for each mean, shape (periods * parts,): they waver by that share, and those of a
    period add up to `parts` times its mean, rounded. A mean that is missing (NaN) gives missing readings (NaN)."""
    noise = chance.normal(0.0, waver, (len(mean_w), parts))
    noise -= noise.mean(axis=1, keepdims=True)
    exact = mean_w[:, None] * (1 + noise)
    whole: Floats = np.diff(np.rint(np.cumsum(exact, axis=1)), axis=1, prepend=0.0).ravel()
    return whole


def _read(raw: bytes) -> tuple[Message, SetPoint]:
    message = decode(raw)
    if message.kind != Kind.SET_POINT:
        raise CoflexError(f"Message {message.sequence} is no set point.", "Give set points alone.")
    return message, decode_set_point(message.body)


def _answered(messages: Sequence[Message], platform: Platform | None) -> Iterator[_Word]:
    """A device's acknowledgements of the set points it was sent, hop by hop."""
    last = 0
    for message in sorted(messages, key=lambda one: one.sequence):
        one = decode_set_point(message.body)
        came = message.signed_at + _HOP_MS
        mine = platform is not None and message.signer == platform.signer
        good = mine and platform is not None and verify(platform.key, message.signed, message.signature)
        in_time = message.sequence > last and (one.stops or came < one.ends)
        taken = good and in_time
        last = message.sequence if good else last
        yield came, Kind.ACKNOWLEDGEMENT, _word(message, Hop.LIGHT_NODE, Verdict.TAKEN if taken else Verdict.REFUSED)
        if taken and one.ends > one.starts:
            begins = max(came, one.starts) + _HOP_MS
            yield begins, Kind.ACKNOWLEDGEMENT, _word(message, Hop.ENERGY_MANAGEMENT_SYSTEM, Verdict.TAKEN)
            ends = max(begins, one.ends + _HOP_MS)
            yield ends, Kind.ACKNOWLEDGEMENT, _word(message, Hop.ENERGY_MANAGEMENT_SYSTEM, Verdict.DONE)


def _word(message: Message, hop: Hop, verdict: Verdict) -> bytes:
    return Acknowledgement(message.sequence, hop, verdict).encode()
