"""The field of an operating day: a simulated fleet, and the log that its signed messages go into.

Orders leave as set points that the platform signs, one message each. Every unit has a device with a key of its own,
which acknowledges what it was told hop by hop and tells what flowed, an energy each quarter-hour. All of it takes the
way of real messages: checked, admitted, written to the log with a signed checkpoint, and read back from there. Keys and
clock come from the case, so a day replays to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import numpy as np

from coflex.adapters.measurements.files import put
from coflex.adapters.measurements.tables import columns_of
from coflex.domain.activation import Hop, SetPoint
from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Ints
from coflex.domain.series import Series
from coflex.domain.time import QUARTER
from coflex.evidence.checkpoint import NoteSigner
from coflex.evidence.keys import Signer, public_of
from coflex.evidence.message import HEADER, Kind, Quantity, Verdict, decode, decode_acknowledgement, seal
from coflex.evidence.message import SetPoint as SetPointBody
from coflex.ingest import Running, open_ingest
from coflex.metering.admission import Part, Signers
from coflex.metering.admission import Signer as Registered
from coflex.metering.quarters import quarter_hours
from coflex.process.ports import Case, Metering, Proof
from coflex.simulation import fleet

LOG = "measurements"
# The platform's own key in the log: it signs set points.
PLATFORM = 1
# The sender hands over what was signed within this time at once; the clock of the log stands at its end.
_TURN_MS = 300_000
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MS = timedelta(milliseconds=1)
_HOPS = {3: Hop.LIGHT_NODE, 4: Hop.ENERGY_MANAGEMENT_SYSTEM}


@dataclass(eq=False)
class Field:
    """Implements `coflex.process.ports.Evidence`. `folder`: of the log, made by the first order."""

    case: Case
    folder: Path
    _now: int = field(default=0, init=False)

    # ---------------------------------------------------------------- what the business asks

    def order(self, points: Sequence[SetPoint]) -> None:
        """Sign the set points and log them, each a quarter-hour before it starts. Raises CoflexError when the log
        refuses one."""
        with self._open() as running:
            self._hand_over(running, self._orders(points))

    def collect(self, points: Sequence[SetPoint], flowed: Series) -> Metering:
        """Let the fleet tell of its day, and read from the log what it told. Raises CoflexError when it refuses one."""
        orders, reports = self._orders(points), fleet.Plan(seed=self.case.settings.seed)
        platform = fleet.Platform(PLATFORM, public_of(self._seed("platform")))
        with self._open() as running:
            self._hand_over(running, fleet.day(self._fleet(), flowed, reports, orders, platform))
            return self._metering(running, points, flowed)

    def certificate(self, leaves: Sequence[int]) -> bytes:
        """The certificate of messages in the log, for `coflex verify`. Raises NotFound."""
        with self._open() as running:
            return running.certificate(leaves, ())

    # ---------------------------------------------------------------- who takes part

    def _seed(self, whose: str) -> bytes:
        """A secret of the simulated day; a real party draws its own and tells nobody."""
        settings = self.case.settings
        return sha256(f"coflex simulated day\n{settings.id}\n{settings.seed}\n{whose}".encode()).digest()

    def _fleet(self) -> tuple[fleet.Device, ...]:
        return fleet.devices(tuple(unit.id for unit in self.case.units), self._seed("fleet"))

    def _registered(self) -> Signers:
        owners = {unit.id: unit.owner for unit in self.case.units}
        known = [Registered(d.point, public_of(d.seed), owners[d.unit], d.unit) for d in self._fleet()]
        return Signers([*known, Registered(PLATFORM, public_of(self._seed("platform")), "platform", party=True)])

    @contextmanager
    def _open(self) -> Iterator[Running]:
        origin = f"coflex/{self.case.settings.id}/{LOG}"
        key = self.folder / "log.key"
        if not key.exists():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            signer = NoteSigner(origin, self._seed("log"))
            for path, text, mode in ((key, signer.secret, 0o600), (key.with_suffix(".pub"), str(signer.key), 0o644)):
                put(path, partial(_write, text), mode)
        running = open_ingest(self.folder, origin, self._registered(), lambda: self._now)
        try:
            yield running
        finally:
            running.close()

    # ---------------------------------------------------------------- messages

    def _orders(self, points: Sequence[SetPoint]) -> tuple[bytes, ...]:
        """The signed messages of set points, by their start and unit."""
        signer = Signer(self._seed("platform"))
        number = {device.unit: device.point for device in self._fleet()}
        told, at = [], 0
        for sequence, point in enumerate(_in_order(points), start=1):
            starts = (point.start - _EPOCH) // _MS
            at = max(at + 1, starts - QUARTER // _MS)
            body = SetPointBody(
                point=number[point.unit],
                order=_name(point),
                starts=starts,
                ends=starts + QUARTER // _MS,
                power_w=round(1000 * point.power_kw),
                change_w=1000 * point.direction.sign * point.ordered_kw,
            )
            told.append(seal(signer.sign, Kind.SET_POINT, PLATFORM, sequence, at, body.encode()))
        return tuple(told)

    def _hand_over(self, running: Running, messages: Sequence[bytes] | Iterator[bytes]) -> None:
        """Send messages as they were signed, in turns, each when the one before is durable."""
        for turn, some in groupby(messages, key=lambda raw: _signed_at(raw) // _TURN_MS):
            self._now = (turn + 1) * _TURN_MS
            (outcome,) = running.submit([Part(b"".join(some))]).result().outcomes
            if outcome.refused:
                first = outcome.refused[0]
                raise CoflexError(
                    f"The log refuses {len(outcome.refused)} messages of the fleet, the first as {first.code}.",
                    f"{first.message} Then begin the day anew.",
                )

    def _metering(self, running: Running, points: Sequence[SetPoint], flowed: Series) -> Metering:
        """What the log holds of the day: energies as mean power, and who acknowledged what."""
        size, fleet_ = running.size(), self._fleet()
        numbers = np.array([device.point for device in fleet_], dtype=np.int64)
        axis = flowed.axis
        found = running.intake.tables.read(Quantity.ACTIVE_ENERGY_WH, axis.start, axis.end, size=size)
        energies = quarter_hours(columns_of(found), size, energy=True)
        kwh, _ = energies.grid(numbers, (axis.start - _EPOCH) // _MS, len(axis))
        metered = Series(tuple(device.unit for device in fleet_), axis, kwh / (QUARTER / timedelta(hours=1)))
        leaves: Ints = np.full(metered.values.shape, -1, dtype=np.int64)
        row = np.searchsorted(numbers, energies.point)
        leaves[row, (energies.start - (axis.start - _EPOCH) // _MS) // (QUARTER // _MS)] = energies.leaf
        proof = Proof(running.origin, size, running.note(), running.key(), *_answers(running, points))
        return Metering(metered, leaves, proof)


def _answers(
    running: Running, points: Sequence[SetPoint]
) -> tuple[dict[tuple[str, datetime], int], dict[tuple[str, datetime], tuple[tuple[Hop, datetime], ...]]]:
    """Where the message of each set point stands in the log, and which hop took it when."""
    of = {sequence: (point.unit, point.start) for sequence, point in enumerate(_in_order(points), start=1)}
    orders: dict[tuple[str, datetime], int] = {}
    hops: dict[tuple[str, datetime], list[tuple[Hop, datetime]]] = {}
    for leaf, raw in enumerate(running.intake.log.read(0, running.size())):
        message = decode(raw)
        if message.kind == Kind.SET_POINT:
            orders[of[message.sequence]] = leaf
        elif message.kind == Kind.ACKNOWLEDGEMENT:
            said = decode_acknowledgement(message.body)
            if said.verdict == Verdict.TAKEN:
                when = _EPOCH + message.signed_at * _MS
                hops.setdefault(of[said.of_sequence], []).append((_HOPS[said.hop], when))
    return orders, {key: tuple(many) for key, many in hops.items()}


def _write(text: str, file: BinaryIO) -> None:
    file.write(text.encode() + b"\n")


def _in_order(points: Sequence[SetPoint]) -> list[SetPoint]:
    return sorted(points, key=lambda point: (point.start, point.unit))


def _name(point: SetPoint) -> bytes:
    """16 bytes that name an order: of the session, the unit and the quarter-hour."""
    return sha256(f"{point.session}\n{point.unit}\n{point.start.isoformat()}".encode()).digest()[:16]


def _signed_at(raw: bytes) -> int:
    at: int = HEADER.unpack_from(raw)[5]
    return at
