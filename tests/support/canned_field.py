"""A field that answers the API at once and alike: for tests of who may ask, and of what is documented."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from coflex.adapters.web.api.rooms.measurements import FieldSettings
from coflex.evidence.certificate import Certificate, encode
from coflex.register.activations import Regulation


class CannedRoom:
    """A log with one message."""

    origin = "coflex/demo/measurements"
    tenant = "demo"

    def note(self) -> str:
        return f"{self.origin}\n1\nAAAA\n"

    def cosigned(self) -> str:
        return self.note()

    def key(self) -> str:
        return f"{self.origin}+00000000+AAAA"

    def size(self) -> int:
        return 1

    def find(self, point: int, sequence: int) -> int | None:
        return 0 if (point, sequence) == (1, 1) else None

    def inclusion(self, leaf: int, size: int) -> list[bytes]:
        return [] if leaf < size else self._none()

    def consistency(self, old: int, new: int) -> list[bytes]:
        return [] if old <= new else self._none()

    def live(self, points: Sequence[int], owners: frozenset[str] | None) -> list[Any]:
        return []

    def _none(self) -> list[bytes]:
        raise ValueError("no such proof")


EMPTY = encode(Certificate("", "", "", ()))


class CannedField:
    """Implements `coflex.adapters.web.api.rooms.measurements.Field`."""

    async def room(self, tenant: str) -> Any:
        return CannedRoom()

    async def take(self, tenant: str, payload: bytes, party: str) -> dict[str, Any]:
        log = {"origin": CannedRoom.origin, "first": None, "last": None}
        numbers = {"received": 0, "accepted": 0, "duplicates": 0, "at": 0}
        nothing: dict[str, Any] = {"refused": (), "gaps": (), "through": {}, "open": {}, "set_points": {}}
        return {**numbers, **nothing, "log": log, "checkpoint": CannedRoom().note()}

    async def certificate(
        self,
        tenant: str,
        points: Sequence[int],
        orders: Sequence[int],
        start: datetime,
        end: datetime,
        older: Sequence[int],
    ) -> bytes:
        return EMPTY

    async def outcome(self, tenant: str, session: str, older: Sequence[int]) -> bytes:
        return EMPTY

    async def signal(self, tenant: str, regulation: Regulation, kw: float, seconds: float) -> tuple[int, int, float]:
        return 1, 1, kw

    def platform(self, tenant: str) -> FieldSettings:
        return FieldSettings(tenant, 1, "00" * 32, CannedRoom.origin, False)
