"""HTTP as the second way up: batches posted to /v1/{tenant}/measurements, answered after the sync.

The answer belongs to its question, so what was posted is judged when it is there. It brings the set points that a
device has not acknowledged: such a device is led at the pace of its own messages, and regulation needs MQTT.
"""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64decode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from random import Random
from typing import TYPE_CHECKING, Any

from coflex.adapters.field.author import Acknowledged, Tell, is_number
from coflex.adapters.field.buffer import NoRoom, sequence_of
from coflex.adapters.field.clock import Clock
from coflex.adapters.field.link import Station, read_time
from coflex.evidence.message import HEADER, split
from coflex.json_text import loads

if TYPE_CHECKING:
    import httpx

MEDIA_TYPE = "application/vnd.coflex.messages"
MOST_BYTES = 256 * 1024
_FIRST_WAIT_S = 1.0
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Door:
    """Where to post. `url`: of the platform, without /v1."""

    url: str
    token: str | None = None
    tls: ssl.SSLContext | None = None
    timeout_s: float = 20.0
    longest_wait_s: float = 60.0


class HttpLink:
    """Posts what stations have until it is cancelled, several stations' messages in one batch."""

    def __init__(
        self, door: Door, tenant: str, stations: Sequence[Station], clock: Clock, chance: Random, tell: Tell
    ) -> None:
        self._door, self._clock, self._chance, self._tell = door, clock, chance, tell
        self._place = f"{door.url.rstrip('/')}/v1/{tenant}/measurements"
        self._stations = {one.point: one for one in stations}
        self._wake = asyncio.Event()
        self.connected = False
        self.connections = 0

    def poke(self, point: int) -> None:
        """A device has something new to send."""
        self._wake.set()

    async def run(self) -> None:
        """Post, again and again. Raises CoflexError when a device's disk fails."""
        import httpx

        headers = {"content-type": MEDIA_TYPE}
        if self._door.token is not None:
            headers["authorization"] = f"Bearer {self._door.token}"
        verify: Any = self._door.tls if self._door.tls is not None else True
        async with httpx.AsyncClient(headers=headers, verify=verify, timeout=self._door.timeout_s) as client:
            tries = 0
            while True:
                self._wake.clear()
                tries = 0 if await self._round(client) else min(tries + 1, 16)
                if tries:
                    longest = min(self._door.longest_wait_s, _FIRST_WAIT_S * 2**tries)
                    await asyncio.sleep(longest * self._chance.uniform(0.5, 1.0))

    async def _round(self, client: httpx.AsyncClient) -> bool:
        """Post all there is; whether the platform answered."""
        import httpx

        now = self._clock.monotonic_ms()
        if not self.connected:
            for one in self._stations.values():
                one.courier.connected(now)
        batch = self._batch(now)
        if not batch:
            # Not wait_for: before Python 3.12 it forgets to be cancelled where the event comes in the same moment.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._wake.wait()
            return True
        try:
            answer = await client.post(self._place, content=b"".join(batch))
        except httpx.HTTPError as fault:
            return self._failed(f"{fault}" or type(fault).__name__)
        if answer.status_code != 200:
            return self._failed(f"it answers {answer.status_code} {answer.text[:200]}")
        try:
            told = answers(batch, loads(answer.content), answer.headers.get("date"))
        except ValueError as fault:
            return self._failed(f"its answer cannot be read: {fault}")
        if not self.connected:
            self._tell("connected", f"Connected to {self._place}.")
        self.connected = True
        self.connections += 1
        for point, heard in told.items():
            self._stations[point].courier.answered(heard, self._clock.monotonic_ms())
        self._order(answer.json().get("set_points") or {})
        return True

    def _order(self, told: Any) -> None:
        """Hand set points to their devices. Raises CoflexError when a device's disk fails."""
        try:
            orders = [(int(point), b64decode(text)) for point, texts in told.items() for text in texts]
        except (AttributeError, TypeError, ValueError):
            self._tell("unreadable", f"The set points of {self._place} cannot be read; they are left out.")
            return
        for point, raw in orders:
            if point in self._stations:
                try:
                    self._stations[point].order(raw)
                except NoRoom as fault:
                    self._tell("no_room", str(fault))

    def _batch(self, now: int) -> list[bytes]:
        messages: list[bytes] = []
        size = 0
        for one in self._stations.values():
            more = one.courier.next(now)
            messages += split(more)[0]
            size += len(more)
            if size >= MOST_BYTES:
                break
        return messages

    def _failed(self, why: str) -> bool:
        """All of it is sent again later."""
        self._tell("not_connected", f"{self._place} does not take messages: {why}.")
        self.connected = False
        return False


def answers(batch: Sequence[bytes], told: Any, date: str | None) -> dict[int, Acknowledged]:
    """What an answer to a batch says to each of its points. Raises ValueError when it is none.

    Without `through` the highest number of a point in the batch is taken: all of the batch was judged. A point that is
    not in it is one of which the platform took none as the device's.
    """
    try:
        return _answers(batch, told, date)
    except (AttributeError, KeyError, TypeError) as fault:
        raise ValueError(f"no answer to messages: {fault!r}") from fault


def _answers(batch: Sequence[bytes], told: Any, date: str | None) -> dict[int, Acknowledged]:
    if not isinstance(told, dict) or not isinstance(told.get("refused", []), list):
        raise ValueError("no object with refused")
    through: dict[int, int] = {}
    for raw in batch:
        point = int(HEADER.unpack_from(raw)[3])
        through[point] = max(through.get(point, 0), sequence_of(raw))
    known = told.get("through")
    if known is not None:
        if not isinstance(known, dict) or not all(map(is_number, known.values())):
            raise ValueError("no numbers of messages")
        through = {point: known.get(str(point), 0) for point in through}
    refused: dict[int, list[tuple[int, str]]] = {}
    for one in told.get("refused", []):
        place, code = one.get("place"), str(one.get("code"))
        index = _index(place)
        if index is not None and index < len(batch) and code != "duplicate":
            raw = batch[index]
            refused.setdefault(int(HEADER.unpack_from(raw)[3]), []).append((sequence_of(raw), code))
    gaps: dict[int, list[tuple[int, int]]] = {}
    for one in told.get("gaps") or ():
        gaps.setdefault(int(one["point"]), []).append((int(one["from"]), int(one["to"])))
    at = read_time(told.get("at"))
    everything = told.get("open")
    return {
        point: Acknowledged(
            number,
            tuple(refused.get(point, ())),
            _dated(date) if at is None else at,
            tuple(gaps.get(point, ())),
            None
            if everything is None or not number
            else tuple((int(a), int(b)) for a, b in everything.get(str(point), ())),
        )
        for point, number in through.items()
    }


def _dated(date: str | None) -> int | None:
    """The time in the head of an answer, to the half of its second."""
    with suppress(ValueError):
        return None if date is None else round(parsedate_to_datetime(date).timestamp() * 1000) + 500
    return None


def _index(place: object) -> int | None:
    """Which message of a batch, from 0, a refusal's place names: a number, or words that end with one."""
    if isinstance(place, int):
        return place
    digits = str(place).rpartition(" ")[2]
    return int(digits) if digits.isdigit() else None
