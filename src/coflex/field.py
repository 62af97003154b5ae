"""The field of the running service: for each tenant a log of signed messages, what comes in by it and what goes out.

Devices' messages come by HTTP and, where there is a broker, by MQTT. Set points go out signed by a key of the platform:
they stand in the log before they leave, and are said to have left (`set_point.sent`) when the broker has them, or when
they wait for the device's next question by HTTP. What devices answer is told to the machine (`set_point.heard`), from
the log, so that a restart repeats what it had not told. A tenant's log is opened with its first device.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from coflex.adapters.field.broker import Address, Door
from coflex.adapters.measurements.check import read
from coflex.adapters.measurements.cosigning import Witness
from coflex.adapters.measurements.files import put
from coflex.adapters.measurements.intake import Committed, committed
from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.rooms.measurements import FieldSettings
from coflex.adapters.web.identity import Keys
from coflex.adapters.web.logs import Log, places
from coflex.adapters.web.measurements import told_of
from coflex.domain.activation import Hop, Verdict
from coflex.domain.errors import CoflexError, Finding, NotFound, refuse
from coflex.evidence import message
from coflex.evidence.keys import Signer
from coflex.evidence.message import HEADER, Kind, Quantity, check_measurement, decode, decode_acknowledgement, seal
from coflex.ingest import Running, open_ingest
from coflex.metered import MOST_AT_ONCE, Bringer
from coflex.metering.admission import FOREVER, Part, Signers
from coflex.metering.admission import Signer as Registered
from coflex.register.activations import Regulation, SetPointEntry
from coflex.register.devices import Device
from coflex.service.field import (
    CONTINUOUS,
    MOST_MESSAGES,
    REPLACES,
    Outgoing,
    Point,
    Result,
    ShareTold,
    Told,
    brought_by,
    group_of,
    leads,
    not_answered,
    order_bytes,
    outbox,
    points,
    results,
    set_point_of,
    shares_told,
    told_w,
    unacknowledged,
    unit_at,
)
from coflex.service.machine import encode as body_of
from coflex.service.ports import Command
from coflex.service.sequencer import Unavailable
from coflex.service.state import State
from coflex.watched import Watcher

LOG, HEARD, OUTCOMES = "measurements", "heard", "outcomes.json"
# Parties whose awards one message names.
MOST_PARTIES = 400
# The platform's own number in every log: it signs set points.
PLATFORM = 1
ACTOR = "field"
LOOK_S, AGAIN_S, LOOK_AT_DUE_S, REPEAT_S = 0.2, 5.0, 15.0, 5.0
MOST_CERTIFIED, MOST_HEARD = 10_000, 1_000
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MS = timedelta(milliseconds=1)
_HOPS = {message.Hop.LIGHT_NODE: Hop.LIGHT_NODE, message.Hop.ENERGY_MANAGEMENT_SYSTEM: Hop.ENERGY_MANAGEMENT_SYSTEM}
_VERDICTS = {
    message.Verdict.TAKEN: Verdict.TAKEN,
    message.Verdict.REFUSED: Verdict.REFUSED,
    message.Verdict.NOT_REACHABLE: Verdict.NOT_REACHABLE,
    message.Verdict.DONE: Verdict.DONE,
}


class Fields:
    """Implements `coflex.adapters.web.api.rooms.measurements.Field`. Used on the running loop.

    `folder`: of all logs. `lines`: the service's own log. `broker`: None without MQTT. `witnesses`: asked for
    cosignatures of every tenant's log.
    """

    def __init__(
        self,
        desk: Desk,
        keys: Keys,
        folder: Path,
        lines: Log,
        broker: Address | None = None,
        witnesses: Sequence[Witness] = (),
    ) -> None:
        self._witnesses = tuple(witnesses)
        self._desk, self._keys, self._folder, self._lines, self._broker = desk, keys, folder, lines, broker
        self._opening: dict[str, asyncio.Task[TenantField]] = {}
        self._closed = False

    async def run(self) -> None:
        """Lead the field of every tenant that has devices, until cancelled."""
        leading: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                for tenant, state in list(self._desk.machine.tenants.items()):
                    if tenant not in leading and state.count(Device):
                        leading[tenant] = asyncio.create_task(self._lead(tenant))
                await asyncio.sleep(LOOK_S)
        finally:
            for task in leading.values():
                task.cancel()
            await asyncio.gather(*leading.values(), return_exceptions=True)

    async def _lead(self, tenant: str) -> None:
        while True:
            pause = LOOK_S
            try:
                await (await self.of(tenant)).turn()
            except CoflexError as fault:
                pause = AGAIN_S
                self._lines.warning("field", tenant=tenant, error=type(fault).__name__, code=fault.code)
            except Exception as fault:  # a fault of the program is told, and the field goes on
                pause = AGAIN_S
                self._lines.error("fault", tenant=tenant, error=type(fault).__name__, where=places(fault))
            await asyncio.sleep(pause)

    async def of(self, tenant: str) -> TenantField:
        """The field of a tenant, opened when it is not. Raises NotFound, Unavailable."""
        self._desk.state(tenant)
        if self._closed:
            raise Unavailable("The platform is stopping.", "Ask again in a moment.")
        if tenant not in self._opening:
            self._opening[tenant] = asyncio.create_task(self._open(tenant))
        task = self._opening[tenant]
        try:
            return await asyncio.shield(task)
        except Exception as fault:
            if self._opening.get(tenant) is task:  # it is tried again
                del self._opening[tenant]
            if not isinstance(fault, CoflexError):
                raise
            raise Unavailable(f"The log of measurements cannot be opened: {fault.message}", fault.remedy) from fault

    async def _open(self, tenant: str) -> TenantField:
        signer = Signer(self._keys.derived("field", tenant))
        known, signers = _Known(), Signers()
        signers.put(Registered(PLATFORM, signer.public, "platform", party=True))
        known.bring(signers, self._desk.state(tenant), _ms(self._desk.now(tenant)))
        folder = self._folder / quote(tenant, safe="")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        origin = f"coflex/{tenant}/{LOG}"
        running = await asyncio.to_thread(
            open_ingest, folder, origin, signers, lambda: _ms(self._desk.now(tenant)), self._lines
        )
        running.witnessed(self._witnesses)
        door = None
        if self._broker is not None:
            name = f"coflex/{origin}"
            door = Door(running.intake, tenant, self._broker, running.owner_of, name, running.failed, running.now)
        missed = await asyncio.to_thread(_missed, running, folder / HEARD)
        outcomes = _Outcomes.read(folder / OUTCOMES)
        found = TenantField(tenant, self._desk, running, door, signer, known, folder, missed, outcomes)
        if door is not None:  # not before somebody listens to what it brings
            await door.open()
        return found

    async def close(self) -> None:
        """Write what waits, and let go of the logs."""
        self._closed = True
        for found in await asyncio.gather(*self._opening.values(), return_exceptions=True):
            if isinstance(found, TenantField):
                await found.close()

    def open_rooms(self) -> list[Running]:
        """The logs that are open, by tenant: what is counted of them."""
        opened = [task for _, task in sorted(self._opening.items()) if task.done() and not task.cancelled()]
        return [task.result().running for task in opened if task.exception() is None]

    # ---------------------------------------------------------------- what the API asks

    async def room(self, tenant: str) -> Running:
        return (await self.of(tenant)).running

    async def take(self, tenant: str, payload: bytes, party: str) -> dict[str, Any]:
        return await (await self.of(tenant)).take(payload, party)

    async def certificate(
        self,
        tenant: str,
        points: Sequence[int],
        orders: Sequence[int],
        start: datetime,
        end: datetime,
        older: Sequence[int],
    ) -> bytes:
        found = await self.of(tenant)
        return await asyncio.to_thread(found.certificate, points, orders, start, end, older)

    async def outcome(self, tenant: str, session: str, older: Sequence[int]) -> bytes:
        found = await self.of(tenant)
        return await asyncio.to_thread(found.outcome, session, older)

    async def signal(self, tenant: str, regulation: Regulation, kw: float, seconds: float) -> tuple[int, int, float]:
        return await (await self.of(tenant)).signal(regulation, kw, seconds)

    def platform(self, tenant: str) -> FieldSettings:
        public = Signer(self._keys.derived("field", tenant)).public
        return FieldSettings(tenant, PLATFORM, public.hex(), f"coflex/{tenant}/{LOG}", self._broker is not None)


class _Known:
    """Which keys of the register the log knows already."""

    def __init__(self) -> None:
        self._points: tuple[Point, ...] = ()
        self._of: dict[int, Point] = {}

    def bring(self, signers: Signers, state: State, now: int) -> None:
        """Register what is new: keys with their times, owners; a point that is trusted no more ends now."""
        standing = points(state)
        if standing is self._points:
            return
        for one in standing:
            before = self._of.get(one.number)
            if one != before:
                self._put(signers, one, before, now)
                self._of[one.number] = one
        self._points = standing

    def _put(self, signers: Signers, one: Point, before: Point | None, now: int) -> None:
        first = 0 if before is None else len(before.keys) - 1
        for key in one.keys[first:]:
            since = _ms(key.starts)
            until = FOREVER if key.ends is None else max(_ms(key.ends), since + 1)
            if not one.active and key is one.keys[-1]:
                until = min(until, max(now, since + 1))
            signers.put(Registered(one.number, bytes.fromhex(key.public), one.owner, one.unit, since, until))


@dataclass(frozen=True, slots=True)
class _Outcomes:
    """Which results the log holds: entry of the newest, and sequences of the messages by session."""

    through: int
    of: Mapping[str, tuple[int, ...]]

    @classmethod
    def read(cls, path: Path) -> _Outcomes:
        """What is kept; after a loss all results are written anew."""
        try:
            told = json.loads(path.read_text())
            return cls(int(told["through"]), {name: tuple(some) for name, some in told["sessions"].items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(0, {})

    def with_(self, one: Result, sequences: tuple[int, ...]) -> _Outcomes:
        return _Outcomes(one.number, {**self.of, one.session: sequences})

    def text(self) -> str:
        return json.dumps({"through": self.through, "sessions": self.of}, sort_keys=True)


@dataclass(eq=False)
class TenantField:
    """The field of one tenant."""

    tenant: str
    desk: Desk
    running: Running
    door: Door | None
    signer: Signer
    known: _Known
    folder: Path
    _heard: deque[Committed]
    """What commits brought and the machine was not told of."""
    _outcomes: _Outcomes
    _signed: dict[tuple[str, int], tuple[int, ...]] = field(default_factory=dict)
    """Sequences of set points, by id and version, that stand in the log and have not left yet."""
    _unsaid: set[tuple[str, int]] = field(default_factory=set)
    """Set points, by id and version, that fit into no message."""
    _shares: dict[tuple[str, str], ShareTold] = field(default_factory=dict)
    """What devices of regulated units were told last, by regulation and unit."""
    _signing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _flowed: dict[int, int] = field(default_factory=dict)
    """The power of points when they were not told to change it, W."""
    _taken: set[int] = field(default_factory=set)
    """Sequences that light nodes took, of set points with others that are not answered."""
    _told_at: dict[int, int] = field(default_factory=dict)
    """Sequence that a point had reached when it was last told what it has not answered."""
    _repeated: float = -REPEAT_S
    """When it was last looked at what devices have not answered, by the loop's clock."""
    _looked: float = -LOOK_AT_DUE_S
    """When it was looked at what settlement lacks, by the loop's clock."""
    _through: int = 0
    """Size of the log up to which everything was heard."""
    _noted: int = -1

    def __post_init__(self) -> None:
        intake = self.running.intake
        self._sequence, self._signed_at = intake.standing(PLATFORM, True)
        loop = asyncio.get_running_loop()

        self.bringer = Bringer(self.tenant, self.desk, self.running)
        self.watcher = Watcher(self.tenant, self.desk, self.running, PLATFORM)

        def committed(told: Committed) -> None:
            with suppress(RuntimeError):  # the loop has ended: the next start reads it from the log
                loop.call_soon_threadsafe(self._heard.append, told)

        intake.committed = committed
        cosigning = self.running.cosigning
        self._asking = asyncio.create_task(cosigning.run()) if cosigning.witnesses else None

    async def close(self) -> None:
        if self.door is not None:
            await self.door.close()
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        await asyncio.to_thread(self.running.close)

    # ---------------------------------------------------------------- in

    async def take(self, payload: bytes, party: str) -> dict[str, Any]:
        """Take a batch that a party brings; what it is told, set points of its own and of its units' among it. Raises
        Unavailable."""
        state = self.desk.state(self.tenant)
        owners = brought_by(state, party)
        self.known.bring(self.running.intake.signers, state, self.running.now())
        try:
            answer = await asyncio.wrap_future(self.running.submit([Part(payload, owners)]))
        except CoflexError as fault:
            raise Unavailable(fault.message, fault.remedy) from fault
        told = told_of(self.running, answer.outcomes[0], answer.note)
        now = self.desk.now(self.tenant)
        led = (int(point) for point in told["through"] if leads(state, party, int(point)))
        waiting = {point: self._unanswered(state, point, now) for point in led}
        texts = {str(point): self._texts(some) for point, some in waiting.items() if some}
        return told | {"set_points": texts}

    def _texts(self, sequences: Sequence[int]) -> tuple[str, ...]:
        log = self.running.intake.log
        found = [log.find(PLATFORM, sequence, True) for sequence in sequences]
        return tuple(b64encode(log.read(leaf, 1)[0]).decode() for leaf in found if leaf is not None)

    # ---------------------------------------------------------------- a look at what is due

    async def turn(self) -> None:
        """Bring new keys in, tell the machine what devices answered, send what is to be sent, look whether units do as
        they were told, and bring settlement what it lacks. Raises CoflexError, ConnectionError."""
        state, now = self.desk.state(self.tenant), self.desk.now(self.tenant)
        self.known.bring(self.running.intake.signers, state, _ms(now))
        await self._hear()
        lost: ConnectionError | None = None
        try:
            await self._tell(state, now)
        except ConnectionError as fault:  # what does not go by the broker goes on
            lost = fault
        await self._publish(state)
        await self.watcher.turn()
        await self._owe()
        if lost is not None:
            raise lost

    async def _tell(self, state: State, now: datetime) -> None:
        """Tell devices what is new, and what they have not answered. Raises CoflexError, ConnectionError."""
        waiting = outbox(state, now)
        if waiting:
            # Nothing leaves on the ground of what a crash could take back.
            await self.desk.settled()
            await self._send(waiting)
        await self._repeat(state, now)
        await self._share(state, now)

    async def _hear(self) -> None:
        """Tell the machine what devices answered, and note which readings came late."""
        while self._heard:
            told = self._heard[0]
            for first in range(0, len(told.acknowledgements), MOST_HEARD):
                words = [_word(raw) for raw in told.acknowledgements[first : first + MOST_HEARD]]
                # No message has other sequences: a device that says so says nothing.
                words = [one for one in words if 0 < one["sequence"] < 1 << 63 and not self._in_part(one)]
                if words:
                    await self._command("set_point.heard", {"acknowledgements": words})
            self.bringer.corrected(told.late)
            self._heard.popleft()
            self._through = told.size

    def _in_part(self, word: Mapping[str, Any]) -> bool:
        """Whether a light node took a message of a set point and has not answered all of them. The machine is told of
        the last one; what is forgotten by a restart is asked again."""
        state, sequence = self.desk.state(self.tenant), word["sequence"]
        told = state.find(SetPointEntry, set_point_of(state, sequence) or "")
        taken = (word["hop"], word["verdict"]) == (Hop.LIGHT_NODE, Verdict.TAKEN)
        if told is None or not taken or unit_at(state, word["point"]) != told.unit:
            return False
        self._taken.add(sequence)
        if not self._taken.issuperset(told.sequences):
            return True
        self._taken.difference_update(told.sequences)
        return False

    def _unanswered(self, state: State, point: int, now: datetime) -> list[int]:
        """What a point has not answered, ascending; also what the broker has not taken yet, for who asks by HTTP."""
        found = {one for one in unacknowledged(state, point, now) if one not in self._taken}
        for (id, version), sequences in self._signed.items():
            told = state.find(SetPointEntry, id)
            if told is not None and told.version == version and told.unit == unit_at(state, point):
                found |= set(sequences)
        return sorted(found)

    async def _owe(self) -> None:
        """Bring settlement what it lacks; then all up to here is dealt with, and the next start begins behind it."""
        clock = asyncio.get_running_loop().time()
        if clock - self._looked < LOOK_AT_DUE_S:
            return
        through = self._through
        more = await self.bringer.turn()
        self._looked = -LOOK_AT_DUE_S if more >= MOST_AT_ONCE else clock
        if more < MOST_AT_ONCE and through != self._noted:
            await asyncio.to_thread(put, self.folder / HEARD, partial(_write, f"{through}\n"))
            self._noted = through

    async def _command(self, verb: str, form: Mapping[str, Any]) -> None:
        await self.desk.submit(Command(self.tenant, verb, "", "", "", ACTOR, body_of(form)))

    # ---------------------------------------------------------------- out

    async def _send(self, waiting: Sequence[Outgoing]) -> None:
        for one in waiting:
            if (one.id, one.version) not in self._signed:
                try:
                    bodies = self._bodies(one)
                except message.Malformed as fault:  # more than messages can say: the others leave all the same
                    if (one.id, one.version) not in self._unsaid:
                        self._unsaid.add((one.id, one.version))
                        self.running.failed(fault)
                    continue
                self._signed[one.id, one.version] = await self._log(bodies)
        waiting = [one for one in waiting if (one.id, one.version) in self._signed]
        if not waiting:
            return
        if self.door is not None:
            await self.door.send(
                [
                    (f"s/{one.point}", self._raw(sequence))
                    for one in waiting
                    for sequence in self._signed[one.id, one.version]
                ]
            )
        at = self.desk.now(self.tenant)
        sent = [
            {"id": one.id, "version": one.version, "sequences": self._signed[one.id, one.version]} for one in waiting
        ]
        await self._command("set_point.sent", {"set_points": sent, "at": at})
        self._signed.clear()

    async def _repeat(self, state: State, now: datetime) -> None:
        """Tell points again by the broker what they have not answered, once they have spoken since: a broker keeps
        nothing for a device that it has never seen or has forgotten."""
        clock = asyncio.get_running_loop().time()
        if self.door is None or clock - self._repeated < REPEAT_S:
            return
        self._repeated = clock
        reached = {point: self.running.intake.standing(point)[0] for point in not_answered(state, now)}
        spoke = [point for point, last in reached.items() if last and last != self._told_at.get(point)]
        told = [(point, sequence) for point in spoke for sequence in self._unanswered(state, point, now)]
        if told:
            await self.door.send([(f"s/{point}", self._raw(sequence)) for point, sequence in told])
        self._told_at = reached

    def _bodies(self, one: Outgoing) -> list[bytes]:
        """Raises Malformed."""
        if len(one.messages) > MOST_MESSAGES:
            raise message.Malformed(f"{one.id} has {len(one.messages)} messages.", "Give it fewer pieces.")
        return [self._body(one.point, one.order, told) for told in one.messages]

    def _body(self, point: int, order: bytes, told: Told) -> bytes:
        power = told.power_w
        if power is None:  # nothing was foreseen: around what flows, around nothing where that is not known either
            power = self._around(point) + told.change_w + told.beside_w
        return message.SetPoint(
            point=point,
            order=order,
            starts=_ms(told.starts),
            ends=_ms(told.ends),
            power_w=power,
            change_w=told.change_w,
            stops=bool(told.flags & REPLACES),
            continuous=bool(told.flags & CONTINUOUS),
        ).encode()

    def _around(self, point: int) -> int:
        """The last measured power of a point before it was told to change it, W; 0 where there is none."""
        values = self.running.live([point], None)
        last = next((one for one in values if one.quantity == Quantity.ACTIVE_POWER_W), None)
        if last is not None:
            told = told_w(self.desk.state(self.tenant), point, _EPOCH + last.at * _MS)
            if told is None and not any(one.point == point for one in self._shares.values()):
                self._flowed[point] = round(last.value)
            # After a restart in the middle of it: as if it did what it was told.
            self._flowed.setdefault(point, round(last.value) - (told or 0))
        return self._flowed.get(point, 0)

    async def _log(self, bodies: Sequence[bytes], kind: Kind = Kind.SET_POINT) -> tuple[int, ...]:
        """Sign messages of the platform and write them to the log: their sequences, once they are durable. Raises
        CoflexError."""
        if not bodies:  # all of it lies in the past
            return ()
        async with self._signing:
            raws, sequences = [], []
            for body in bodies:
                # Times of one signer rise, whatever its clock does.
                self._signed_at = max(self._signed_at + 1, self.running.now())
                self._sequence += 1
                raws.append(seal(self.signer.sign, kind, PLATFORM, self._sequence, self._signed_at, body))
                sequences.append(self._sequence)
            answer = await asyncio.wrap_future(self.running.submit([Part(b"".join(raws))]))
            refused = answer.outcomes[0].refused
            if refused:
                # What it refuses was never there: numbers and times go on from what is.
                self._sequence, self._signed_at = self.running.intake.standing(PLATFORM, True)
                raise CoflexError(
                    f"The log refuses a message of the platform: {refused[0].code}.",
                    "Look at the clock of this machine.",
                )
            return tuple(sequences)

    def _raw(self, sequence: int) -> bytes:
        log = self.running.intake.log
        leaf = log.find(PLATFORM, sequence, True)
        assert leaf is not None  # it was written before its sequence was known
        return log.read(leaf, 1)[0]

    # ---------------------------------------------------------------- regulation

    async def _share(self, state: State, now: datetime) -> None:
        """Tell the devices of regulated units their shares, anew for each quarter-hour; end those that stopped."""
        if self.door is None or not self.door.connected:
            return
        due = {(one.regulation, one.unit): one for one in shares_told(state, now)}
        changed = [one for key, one in due.items() if self._shares.get(key) != one]
        ended = [one for key, one in self._shares.items() if key not in due and one.ends > now]
        if not changed and not ended:
            self._shares = due
            return
        await self.desk.settled()
        told = [(one, share) for one in changed for share in self._share_bodies(one)]
        told += [(one, self._end_of(one, now)) for one in ended]
        sequences = await self._log([body for _, body in told])
        await self.door.send(
            [(f"s/{one.point}", self._raw(sequence)) for (one, _), sequence in zip(told, sequences, strict=True)]
        )
        self._shares = due

    def _share_bodies(self, one: ShareTold) -> list[bytes]:
        """A share each way: `change_w` is the most of it, its sign the way; 0, told first, for one in which it gives
        nothing. The first replaces what was told of this quarter-hour before."""
        power = self._around(one.point) if one.power_w is None else one.power_w
        order, before = order_bytes(self.tenant, one.regulation), self._shares.get((one.regulation, one.unit))
        again = REPLACES if before is not None and before.starts == one.starts else 0
        first, second = sorted((one.up_w, -one.down_w), key=bool)
        told = ((first, CONTINUOUS | again), (second, CONTINUOUS))
        return [
            self._body(one.point, order, Told(one.starts, one.ends, change, power, flags)) for change, flags in told
        ]

    def _end_of(self, one: ShareTold, now: datetime) -> bytes:
        order, at = order_bytes(self.tenant, one.regulation), _ms(now)
        return message.SetPoint(one.point, order, at, at, 0, 0, stops=True).encode()

    async def signal(self, regulation: Regulation, kw: float, seconds: float) -> tuple[int, int, float]:
        """Say what is asked of a regulated group: number of the group, sequence, kW as cut to the band. Raises
        Unavailable, Refused."""
        now = self.desk.now(self.tenant)
        if not regulation.running(now):
            refuse("The signal", [Finding("regulation", "not_running", "It does not run now; look at its times.")])
        if self.door is None or not self.door.connected:
            raise Unavailable("No broker is connected, by which a signal could leave.", "Ask the operator.")
        cut = min(max(kw, -float(regulation.down_kw)), float(regulation.up_kw))
        group = group_of(self.tenant, regulation.band)
        band = regulation.up_kw if cut >= 0 else regulation.down_kw
        starts = _ms(now)
        body = message.SetPoint(
            point=group,
            order=order_bytes(self.tenant, regulation.id),
            starts=starts,
            ends=starts + round(1000 * seconds),
            power_w=1000 * max(band, 1),
            change_w=round(1000 * cut),
            continuous=True,
        ).encode()
        (sequence,) = await self._log([body])
        try:
            await self.door.send([(f"r/{group}", self._raw(sequence))])
        except ConnectionError as fault:
            raise Unavailable("The broker did not take the signal.", "Send it again.") from fault
        return group, sequence, cut

    # ---------------------------------------------------------------- results

    async def _publish(self, state: State) -> None:
        """Sign the results of sessions that were published and write them to the log."""
        outcomes = self._outcomes
        found = results(state, outcomes.through)
        if not found:
            return
        await self.desk.settled()
        for one in found:
            bodies = [
                message.canonical(
                    {
                        "awards": {party: {"count": count, "sha256": digest} for party, count, digest in some},
                        "entry": one.number,
                        "kind": "market outcome",
                        "session": one.session,
                        "tenant": self.tenant,
                    }
                )
                for some in batched(one.digests, MOST_PARTIES) or [()]
            ]
            outcomes = outcomes.with_(one, await self._log(bodies, Kind.DOCUMENT))
        await asyncio.to_thread(put, self.folder / OUTCOMES, partial(_write, outcomes.text()))
        self._outcomes = outcomes

    def outcome(self, session: str, older: Sequence[int]) -> bytes:
        """Certificate of the newest result of a session in the log. Raises NotFound."""
        log = self.running.intake.log
        leaves = [log.find(PLATFORM, one, True) for one in self._outcomes.of.get(session, ())]
        known = sorted(leaf for leaf in leaves if leaf is not None)
        if not known:
            raise NotFound("The log holds no result of that session.", "Ask when it is published.")
        return self.running.certificate(known, older)

    # ---------------------------------------------------------------- certificates

    def certificate(
        self, points: Sequence[int], orders: Sequence[int], start: datetime, end: datetime, older: Sequence[int]
    ) -> bytes:
        """Certificate of what points signed in [start, end) about that time, so that who may see it sees nothing of
        before or after, and of set points of these sequences. Raises NotFound, Refused where it is more than a
        certificate holds."""
        log = self.running.intake.log
        size, first, last = log.size, _ms(start), _ms(end)
        leaves = [leaf for leaf in (log.find(PLATFORM, one, True) for one in orders) if leaf is not None]
        for segment in log.since(0):
            theirs = (place for place in segment.of(list(points)) if segment.first + place < size)
            leaves += (segment.first + place for place in theirs if _within(segment.read(place, 1)[0], first, last))
        if len(leaves) > MOST_CERTIFIED:
            told = f"These are {len(leaves)} messages; ask for a shorter time, with at most {MOST_CERTIFIED}."
            refuse("The certificate", [Finding("to", "too_many", told)])
        if not leaves:
            raise NotFound("The log holds nothing of that time.", "Ask for another time.")
        return self.running.certificate(sorted(leaves), older)


def _within(raw: bytes, first: int, end: int) -> bool:
    """Whether a message was signed in [first, end), ms, and what it measures lies in that time."""
    if not first <= HEADER.unpack_from(raw)[5] < end:
        return False
    told = decode(raw)
    if told.kind is not Kind.MEASUREMENT:
        return True
    begins, step, count, *_ = check_measurement(told.body)
    return first <= begins and begins + step * count <= end


def batched(rows: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Rows in parts of at most a size."""
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def _missed(running: Running, heard: Path) -> deque[Committed]:
    """What the log holds that was not dealt with before the last stop."""
    log, now = running.intake.log, running.now()
    try:
        first = min(int(heard.read_text()), log.size)
    except (OSError, ValueError):
        first = 0
    found: deque[Committed] = deque()
    for start in range(first, log.size, MOST_CERTIFIED):
        raws = log.read(start, min(MOST_CERTIFIED, log.size - start))
        found.append(committed([read(raw, 0).candidate for raw in raws], raws, start + len(raws), now))
    return found


def _write(text: str, file: BinaryIO) -> None:
    file.write(text.encode())


def _word(raw: bytes) -> dict[str, Any]:
    """An acknowledgement as the machine is told of it."""
    told = decode(raw)
    said = decode_acknowledgement(told.body)
    return {
        "point": told.signer,
        "sequence": said.of_sequence,
        "hop": _HOPS[said.hop],
        "verdict": _VERDICTS[said.verdict],
        "at": _EPOCH + told.signed_at * _MS,
    }


def _ms(at: datetime) -> int:
    """Milliseconds since the epoch."""
    return (at - _EPOCH) // _MS
