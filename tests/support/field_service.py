"""The ordered hour of `support.ordered` with its API and its field: logs in a folder, and devices that sign."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from argon2 import PasswordHasher

from coflex.adapters.field.broker import Address
from coflex.adapters.web.api.app import create_app
from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.identity import Accounts, Identity, Keys, Passwords
from coflex.adapters.web.identity.limits import Limits
from coflex.evidence.message import Acknowledgement, Hop, Kind, Message, Verdict, decode
from coflex.field import Fields
from support.measuring import Device
from support.ordered import Ordered, at
from support.platform import TENANT, key_of

EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def ms(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


class Meter(Device):
    """A device of a unit whose clock is the tenant's."""

    def measured(self, first: datetime, values: Sequence[int | None], step: int = 4_000) -> bytes:
        self.last += 1
        return self.message(self.last, first=ms(first), step=step, values=values)

    def answer(self, order: Message, now: datetime, hop: Hop, verdict: Verdict = Verdict.TAKEN) -> bytes:
        self.last += 1
        body = Acknowledgement(order.sequence, hop, verdict).encode()
        return self.seal(body, self.last, ms(now) + self.last, kind=Kind.ACKNOWLEDGEMENT)


class Said:
    """A log of its own: that of `coflex.adapters.web.logs` is the whole process's."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **words: Any) -> None:
        self.lines.append((event, words))

    warning = error = info


class FieldService(Ordered):
    """Opened and closed as the service does; what is asked goes through its API."""

    def __init__(self, folder: Path, broker: str | None = None) -> None:
        super().__init__()
        self.folder, self.said = folder, Said()
        self._broker = None if broker is None else Address.parse(broker)
        self.keys = Keys(folder / "keys.json", self.now)
        self.identity = Identity(self.machine, self._clock, self.keys, "http://test", Limits(count().__next__))
        self.desk = Desk(self.machine, self.sequencer, self.journal, self._clock, self.identity.authenticate)
        self.fields: Fields
        self.http: httpx.AsyncClient

    def _clock(self) -> datetime:
        return self.now

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FieldService]:
        """The service from a start to a stop."""
        self.fields = Fields(self.desk, self.keys, self.folder / "measurements", self.said, self._broker)
        accounts = Accounts(self.keys, Passwords(PasswordHasher(1, 8, 1)))
        transport = httpx.ASGITransport(create_app(self.desk, accounts, field=self.fields), raise_app_exceptions=False)
        base = f"http://test/v1/{TENANT}"
        async with httpx.AsyncClient(transport=transport, base_url=base) as self.http:
            try:
                yield self
            finally:
                await self.fields.close()

    async def turn(self) -> None:
        """What the field does of itself, once."""
        await (await self.fields.of(TENANT)).turn()

    async def ask(self, method: str, path: str, party: str | None = "owner", /, **form: Any) -> httpx.Response:
        headers = {} if party is None else {"Authorization": f"Bearer {key_of(party)}"}
        if method != "GET":
            headers["Idempotency-Key"] = uuid4().hex
        return await self.http.request(method, path, json=form or None, headers=headers)

    async def enrol(self, unit: str, point: int) -> Meter:
        """A device of a unit; the register gives points in their order."""
        meter = Meter(point)
        made = await self.ask("POST", "/devices", unit=unit, public_key=meter.public.hex())
        assert made.status_code == 201 and made.json()["point"] == point, made.text
        return meter

    async def bring(self, *raws: bytes, party: str = "owner") -> dict[str, Any]:
        """Post messages; what is told."""
        told = await self.ask("POST", "/measurements", party, messages=[b64encode(raw).decode() for raw in raws])
        assert told.status_code == 200, told.text
        body: dict[str, Any] = json.loads(told.content)
        return body


def orders(told: dict[str, Any], point: int) -> list[Message]:
    """The set points that an answer brought a point."""
    return [decode(b64decode(text)) for text in told["set_points"].get(str(point), ())]


__all__ = ["FieldService", "Meter", "at", "ms", "orders"]
