"""Witnesses of a log: asked for their cosignatures of its checkpoints, the newest one that they gave kept beside it.

A checkpoint is asked about now and then (`EVERY_S`), not each one: who verifies takes the newest cosigned one that
covers what it looks at. A witness that does not answer or refuses holds up nothing; it is told, and asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from coflex.adapters.measurements.files import put
from coflex.adapters.measurements.log import COSIGNED, Log
from coflex.domain.errors import CoflexError, Finding, Refused, refuse
from coflex.evidence.checkpoint import WITNESS, NoteKey, cosigned_at, parse_note, with_lines
from coflex.evidence.witness import talk

if TYPE_CHECKING:
    import httpx

EVERY_S, PATIENCE_S = 10.0, 10.0


@dataclass(frozen=True, slots=True)
class Witness:
    """Where a witness answers (`url`, without /add-checkpoint) and what it signs with."""

    url: str
    key: NoteKey


def read_witnesses(path: Path) -> tuple[Witness, ...]:
    """A table of witnesses, URL and public key on each line, `#` before a remark. Raises Refused with every fault,
    CoflexError where it is no text."""
    found, faults = [], []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise CoflexError(f"{path} is no text in UTF-8.", "Write URL and key of each witness on a line.") from None
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        place = f"{path.name}, line {number}"
        if len(words) != 2 or not words[0].startswith(("https://", "http://")):
            faults.append(Finding(place, "bad_witness", "Write a witness's URL and its public key, with a space."))
            continue
        try:
            key = NoteKey.parse(words[1])
        except Refused as fault:
            faults += [Finding(place, one.code, one.message) for one in fault.findings]
            continue
        if key.kind != WITNESS:
            faults.append(Finding(place, "bad_witness", "That is the key of a log; write the witness's own."))
        found.append(Witness(words[0].rstrip("/"), key))
    refuse(path.name, faults)
    return tuple(found)


class Cosigning:
    """Asks the witnesses of a log; `note`: its newest checkpoint that all of them cosigned, empty before the first.

    `failed`: told of what a witness refused. On the running loop.
    """

    def __init__(self, log: Log, witnesses: Sequence[Witness], failed: Callable[[BaseException], None]) -> None:
        self._log, self._failed = log, failed
        self.witnesses = tuple(witnesses)
        self._path = log.folder / COSIGNED
        self.note = _kept(self._path, self.witnesses)
        self._known = dict.fromkeys(self.witnesses, self.size)
        self.trouble: dict[str, str] = {}
        """What is wrong with a witness, by its key's name."""

    @property
    def size(self) -> int:
        """Size of the log that is cosigned, 0 before the first."""
        return parse_note(self.note).checkpoint.size if self.note else 0

    async def run(self, every_s: float = EVERY_S) -> None:
        """Ask again and again, until cancelled."""
        import httpx

        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            while True:
                try:
                    await self.once(client)
                except Exception as fault:  # a disk that is full for a moment, say, ends no asking
                    self._failed(fault)
                await asyncio.sleep(every_s)

    async def once(self, client: httpx.AsyncClient) -> None:
        """Ask all witnesses about the log's checkpoint of now, where it has grown. Raises OSError where what they gave
        cannot be kept; it is not told then either."""
        note = self._log.note
        size = parse_note(note).checkpoint.size
        if size == self.size:
            return
        answers = await asyncio.gather(*(self._ask(client, one, note, size) for one in self.witnesses))
        if all(answers):
            lines = {line for answer in answers for line in answer.splitlines()} - set(note.splitlines())
            cosigned = with_lines(note, sorted(lines))
            await asyncio.to_thread(put, self._path, partial(_write, cosigned))
            self.note = cosigned

    async def _ask(self, client: httpx.AsyncClient, one: Witness, note: str, size: int) -> str:
        """The note with a witness's cosignature, empty where it gave none."""
        import httpx

        said = talk(note, min(self._known[one], size), lambda old: self._log.consistency(old, size), [one.key])
        try:
            body = next(said)
            while True:
                answer = await client.post(f"{one.url}/add-checkpoint", content=body)
                body = said.send((answer.status_code, answer.text))
        except StopIteration as end:
            self._known[one] = size
            self.trouble.pop(one.key.name, None)
            return str(end.value)
        except (httpx.HTTPError, CoflexError) as fault:
            if self.trouble.get(one.key.name) != str(fault):  # the same again is told once
                self._failed(fault)
            self.trouble[one.key.name] = str(fault)
            return ""


def _kept(path: Path, witnesses: Sequence[Witness]) -> str:
    """What was kept, empty where it is damaged, or without one of these witnesses: there were others then."""
    try:
        note = path.read_text(encoding="utf-8")
        parsed = parse_note(note)
    except (FileNotFoundError, UnicodeDecodeError, Refused):
        return ""
    return note if all(cosigned_at(parsed, one.key) is not None for one in witnesses) else ""


def _write(text: str, file: BinaryIO) -> None:
    file.write(text.encode())
