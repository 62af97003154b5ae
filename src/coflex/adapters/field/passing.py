"""From a broker's messages to the ingest, and what each device is to be told: the same whatever the broker is."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from coflex.domain.errors import CoflexError
from coflex.metering.admission import Answer, Outcome, Part

AGAIN_S = 0.2
A_JOB = 256
Words = dict[int, dict[str, Any]]


def point_of(name: str) -> int | None:
    """The point that the end of a topic or subject names; None where it is none."""
    number = int(name) if name.isascii() and name.isdigit() and len(name) <= 10 else 0
    return number if 0 < number < 1 << 32 else None


class Taking(Protocol):
    """The ingest, as far as a door needs it."""

    def submit(self, parts: Sequence[Part]) -> Future[Answer]: ...


def utc_ms() -> int:
    """The machine's clock, ms since the epoch."""
    return time.time_ns() // 1_000_000


class Passing:
    """Hands messages over. `owner_of`: the owner of a point, None where it is not registered: the sender is the point
    by whose channel a message came, and brings messages of points of its own owner alone. `now`: the ingest's clock."""

    def __init__(
        self,
        intake: Taking,
        owner_of: Callable[[int], str | None],
        failed: Callable[[BaseException], None],
        now: Callable[[], int] = utc_ms,
    ) -> None:
        self._intake, self._owner_of, self._failed, self._now = intake, owner_of, failed, now

    async def taken(self, held: Sequence[tuple[int, bytes]]) -> Words:
        """What each device is to be told of (point, payload), once all is durable or refused: in jobs that the ingest
        checks side by side and admits in this order. Raises CoflexError when the ingest broke."""
        jobs = [held[at : at + A_JOB] for at in range(0, len(held), A_JOB)]
        answers = [await self._submit([self._part(*one) for one in job]) for job in jobs]
        told: Words = {}
        for job, answer in zip(jobs, answers, strict=True):
            for (point, _), outcome in zip(job, (await asyncio.wrap_future(answer)).outcomes, strict=True):
                _tell(told, point, outcome)
        return told

    def answers(self, told: Mapping[int, dict[str, Any]]) -> Iterator[tuple[int, bytes]]:
        """The acknowledgement of each point as it goes out."""
        at = self._now()
        for point, words in told.items():
            yield point, json.dumps({**words, "at": at}, separators=(",", ":")).encode()

    def _part(self, point: int, payload: bytes) -> Part:
        owner = self._owner_of(point)
        return Part(payload, frozenset() if owner is None else frozenset({owner}))

    async def _submit(self, parts: list[Part]) -> Future[Answer]:
        """Wait where the ingest takes no more: the broker waits then too."""
        while True:
            try:
                return self._intake.submit(parts)
            except CoflexError as fault:
                if fault.code != "UNAVAILABLE":
                    self._failed(fault)
                await asyncio.sleep(AGAIN_S)


def _tell(told: Words, sender: int, outcome: Outcome) -> None:
    """Add what became of a batch to what its signers are told; what names no known signer, its sender is told."""
    for signer, through in outcome.through.items():
        words = told.setdefault(signer, {"through": 0, "refused": []})
        words["through"] = max(words["through"], through)
    for refusal in outcome.refused:
        to = refusal.signer if refusal.signer in outcome.through else sender
        words = told.setdefault(to, {"through": 0, "refused": [], "open": []})
        one: dict[str, Any] = {"sequence": refusal.sequence, "code": refusal.code, "message": refusal.message}
        if refusal.signer != to:
            one["signer"] = refusal.signer
        words["refused"].append(one)
    for signer in outcome.through:
        told[signer]["open"] = [list(gap) for gap in outcome.open.get(signer, ())]
