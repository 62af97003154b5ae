"""Devices in the field, and who may see what they measure (ACT-02, CERT-02).

A device is enrolled for a unit with its owner's consent. Its point number is the platform's and is never used again;
its keys follow each other, and a message is held against the key of the time at which it was signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class DeviceKey:
    """An Ed25519 public key, 64 hexadecimal digits, good for messages signed in [starts, ends); None: no end yet."""

    public: str
    starts: datetime
    ends: datetime | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """A light node. `point`: its number, 1 to 2^32 - 1. `keys`: in the order of time, none overlaps another."""

    id: str
    point: int
    unit: str
    owner: str
    keys: tuple[DeviceKey, ...]
    enrolled: datetime
    enrolled_by: str
    revoked: datetime | None = None
    reason: str = ""

    def key_at(self, instant: datetime) -> str | None:
        """The key that is good at an instant, or None."""
        return next(
            (one.public for one in self.keys if one.starts <= instant and (one.ends is None or instant < one.ends)),
            None,
        )


class DataScope(StrEnum):
    """`live`: values as they come in; `certified`: readings with their proof."""

    LIVE = "live"
    CERTIFIED = "certified"


@dataclass(frozen=True, slots=True)
class DataGrant:
    """An owner lets a party see data of a unit, those of the time in [starts, ends); `withdrawn`: no reading any more
    from then on, of whatever time."""

    id: str
    owner: str
    unit: str
    party: str
    scope: tuple[DataScope, ...]
    starts: datetime
    ends: datetime
    withdrawn: datetime | None = None

    def stands(self, scope: DataScope, now: datetime) -> bool:
        """Whether data of its time may be read now."""
        return scope in self.scope and (self.withdrawn is None or now < self.withdrawn)


RECORDS: dict[str, type[object]] = {"device": Device, "data_grant": DataGrant}
