"""A light node without a network: a clock that is set by hand, and a platform that signs set points."""

from __future__ import annotations

from typing import Any

from coflex.adapters.field.author import Acknowledged, Author, Courier
from coflex.adapters.field.buffer import LEAST_BYTES, Outbox
from coflex.adapters.field.clock import Watch
from coflex.adapters.field.disk import Disk
from coflex.adapters.field.node import Containment, Node, Tellings
from coflex.adapters.field.sampling import Sampler
from coflex.adapters.field.setpoints import Owner, Pinned
from coflex.evidence.keys import public_of, signer
from coflex.evidence.message import (
    Acknowledgement,
    Kind,
    Measurement,
    Message,
    Quantity,
    SetPoint,
    decode,
    decode_acknowledgement,
    decode_measurement,
    seal,
    split,
)
from support.field_disk import CutDisk

POINT, PLATFORM = 7, 1
SEED, PLATFORM_SEED = bytes(range(32)), bytes(range(32, 64))
# A whole minute: 2026-01-05 12:00 UTC, a Monday.
NOON = 1_767_614_400_000


class HandClock:
    """UTC and monotonic, moved by `pass_`, UTC alone by `set`."""

    def __init__(self, utc: int = NOON) -> None:
        self.utc, self.monotonic = utc, 5_000

    def utc_ms(self) -> int:
        return self.utc

    def monotonic_ms(self) -> int:
        return self.monotonic

    def pass_(self, ms: int) -> None:
        self.utc += ms
        self.monotonic += ms

    def set(self, utc: int) -> None:
        self.utc = utc


def set_point(sequence: int, starts: int, ends: int, power_w: int, **more: Any) -> bytes:
    """A set point as the platform signs it; `point`, `order`, `stops`, `continuous`, `change_w`, `seed` and `signer`
    may be others."""
    seed, by = more.pop("seed", PLATFORM_SEED), more.pop("signer", PLATFORM)
    fields = {"point": POINT, "order": bytes(16), "change_w": 0, "power_w": power_w} | more
    body = SetPoint(starts=starts, ends=ends, **fields).encode()
    return seal(signer(seed).sign, Kind.SET_POINT, by, sequence, starts - 60_000, body)


class Bench:
    """A node on a disk, and what it said."""

    def __init__(
        self,
        disk: Disk | None = None,
        clock: HandClock | None = None,
        owner: Owner | None = None,
        samplers: tuple[Sampler, ...] | None = None,
        containment: Containment | None = None,
        group: int | None = None,
    ) -> None:
        self.disk = disk or CutDisk()
        self.clock = clock or HandClock()
        self.said: list[tuple[str, str]] = []
        outbox = Outbox(self.disk, 4 * LEAST_BYTES)
        tellings = Tellings(self.clock.utc_ms, lambda code, text: self.said.append((code, text)))
        watch = Watch(self.clock, outbox.signed_at, 2_000)
        author = Author(POINT, signer(SEED), outbox, watch, tellings)
        self.node = Node(
            author,
            (Sampler(Quantity.ACTIVE_POWER_W, 4_000, 15),) if samplers is None else samplers,
            Pinned(PLATFORM, public_of(PLATFORM_SEED)),
            owner or Owner(-5_000, 5_000),
            tellings,
            containment,
            group,
        )
        self.courier = Courier(author)

    @property
    def codes(self) -> list[str]:
        return [code for code, _ in self.said]

    @property
    def messages(self) -> list[Message]:
        """All in the buffer, held or not."""
        return [decode(one) for one in self.node.outbox._pending.values()]

    @property
    def measured(self) -> list[Measurement]:
        return [decode_measurement(one.body) for one in self.messages if one.kind is Kind.MEASUREMENT]

    @property
    def acknowledged(self) -> list[Acknowledgement]:
        """What it acknowledged at its hops."""
        return [decode_acknowledgement(one.body) for one in self.messages if one.kind is Kind.ACKNOWLEDGEMENT]

    def run(self, seconds: int, power: float | None = 100.0, **more: float | None) -> None:
        """A reading a second."""
        values = {Quantity.ACTIVE_POWER_W: power} | {Quantity[name]: value for name, value in more.items()}
        for _ in range(seconds):
            self.clock.pass_(1_000)
            self.node.sample(values)
            self.node.tick()

    def send(self) -> list[Message]:
        """What leaves now."""
        sent: list[Message] = []
        while batch := self.courier.next(self.clock.monotonic_ms()):
            sent += map(decode, split(batch)[0])
        return sent

    def connect(self) -> list[Message]:
        self.courier.connected(self.clock.monotonic_ms())
        return self.send()

    def answer(self, through: int, **more: Any) -> list[Message]:
        """An acknowledgement, and what leaves then."""
        self.courier.answered(Acknowledged(through, **more), self.clock.monotonic_ms())
        return self.send()
