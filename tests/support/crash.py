"""Kill a platform at random points, again and again, and hold what is there afterwards against what it had promised.

A few clients send orders, one after the other, and repeat an order with the same idempotency key until it is answered:
after a crash, too. While the platform is dead its journal is read without its code, and every law is checked:

    every answered order is there, once, with the answer that was given
    no key is there twice; a parcel is there whole or not at all
    numbers go on without a gap, instants never go back, and every digest follows from the one before
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

# What a client sees when the platform is gone.
GONE = (OSError, EOFError)
CLIENTS = 8
# Shares of kills that do not wait for an answer after the start, and of orders that were answered and are sent again.
AT_THE_START, AGAIN = 0.15, 0.1


@dataclass(frozen=True, slots=True)
class Order:
    """A parcel of offers, by their own ids, under one idempotency key. `first`: how many the client made before."""

    client: int
    key: str
    first: int
    offers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """`entry`: number of the journal's entry that took the order."""

    status: int
    entry: int
    reply: bytes


@dataclass(frozen=True, slots=True)
class Written:
    """An entry as it stands in the journal; `offers`: the ids in its body, where it is a parcel."""

    number: int
    at_us: int
    verb: str
    subject: str
    actor: str
    key: str | None
    reply: bytes
    offers: tuple[str, ...]


class Line(Protocol):
    """A client's connection; every call raises one of GONE when the platform is gone."""

    async def submit(self, order: Order) -> Answer: ...
    async def book(self, client: int) -> list[str]:
        """Ids of the client's offers, in the order of their receipts."""
        ...

    def close(self) -> None: ...


class Platform(Protocol):
    """What is killed."""

    def prepare(self) -> None:
        """Make it ready for orders; no process is left."""
        ...

    def start(self) -> None:
        """Begin; returns at once."""
        ...

    def kill(self) -> None: ...
    async def connect(self, client: int) -> Line:
        """Raises one of GONE while the platform does not answer."""
        ...

    def written(self, after: int) -> Iterator[Written]:
        """The journal from an entry on, read while the platform is dead. Raises AssertionError where its chain of
        digests breaks."""
        ...


@dataclass(eq=False)
class Campaign:
    """Kills, and what was promised and found meanwhile."""

    platform: Platform
    seed: int
    clients: int = CLIENTS
    most_answers: int = 32
    answers: dict[str, Answer] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    kept: dict[int, list[str]] = field(default_factory=dict)
    entry_of: dict[str, Written] = field(default_factory=dict)
    kills: int = 0
    slowest_start: float = 0.0
    _made: dict[int, int] = field(default_factory=dict)
    _unchecked: list[str] = field(default_factory=list)
    _last: int = 0
    _at_us: int = 0
    _over: bool = False
    _connected: int = 0

    def run(self, kills: int) -> None:
        """Start, kill and check so many times; at last let every client have its answer, and compare the books."""
        self.platform.prepare()
        self._check()
        asyncio.run(self._run(kills))

    async def _run(self, kills: int) -> None:
        chance = random.Random(self.seed)
        working = [asyncio.create_task(self._client(client, chance.random())) for client in range(self.clients)]
        try:
            for _ in range(kills):
                await self._cycle(chance, working)
            self.platform.start()
            self._over = True
            await asyncio.wait_for(asyncio.gather(*working), 30)
            await self._compare_books()
        finally:
            for task in working:
                task.cancel()
            self.platform.kill()
        self._check()
        assert self._unchecked == []
        assert set(self.entry_of) == set(self.orders), "after the last retry every order is there"

    async def _cycle(self, chance: random.Random, working: list[asyncio.Task[None]]) -> None:
        began, before = perf_counter(), len(self.answers)
        self.platform.start()
        if chance.random() < AT_THE_START:
            await asyncio.sleep(chance.random() * 0.1)
        else:
            goal = before + chance.randint(1, self.most_answers)
            while len(self.answers) < goal:
                assert perf_counter() - began < 30, "the platform does not come back"
                for task in working:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.001)
                if len(self.answers) > before:
                    self.slowest_start = max(self.slowest_start, perf_counter() - began if goal else 0)
            await asyncio.sleep(chance.random() * 0.004)
        self.platform.kill()
        self.kills += 1
        # What was answered before the end still lies in the clients' sockets.
        while self._connected:
            await asyncio.sleep(0.001)
        self._check()

    # ---------------------------------------------------------------- the clients

    async def _client(self, client: int, seed: float) -> None:
        chance = random.Random(seed)
        mine: list[str] = []
        order: Order | None = None
        while not (self._over and order is None):
            try:
                line = await self.platform.connect(client)
            except GONE:
                await asyncio.sleep(0.003)
                continue
            self._connected += 1
            try:
                while order is not None or not self._over:
                    order = order or self._next(client, mine, chance)
                    answer = await line.submit(order)
                    if answer.status == 503:
                        await asyncio.sleep(0.003)
                        continue
                    self._answered(order, answer)
                    mine.append(order.key)
                    order = None
            except GONE:
                pass
            finally:
                self._connected -= 1
                line.close()

    def _next(self, client: int, mine: list[str], chance: random.Random) -> Order:
        if mine and chance.random() < AGAIN:
            return self.orders[chance.choice(mine)]
        first = self._made.get(client, 0)
        many = 1 if chance.random() < 0.7 else chance.randint(2, 12)
        self._made[client] = first + many
        key = f"c{client}-{first}"
        order = Order(client, key, first, tuple(f"{key}-{i}" for i in range(many)))
        self.orders[key] = order
        return order

    def _answered(self, order: Order, answer: Answer) -> None:
        known = self.answers.get(order.key)
        assert answer.status == 201, (order, answer)
        if known is None:
            self.answers[order.key] = answer
            self._unchecked.append(order.key)
        else:
            assert answer == known, "an order that is sent again gets the answer that it got"

    # ---------------------------------------------------------------- the checks

    def _check(self) -> None:
        """Read what was written since the last check; the platform is dead."""
        for entry in self.platform.written(self._last):
            assert entry.number == self._last + 1, "no number is left out"
            assert entry.at_us >= self._at_us, "time does not go back"
            self._last, self._at_us = entry.number, entry.at_us
            if entry.key is None or entry.key not in self.orders:
                continue
            assert entry.key not in self.entry_of, f"{entry.key} was taken twice"
            assert entry.offers == self.orders[entry.key].offers, f"{entry.key} is there in part"
            self.entry_of[entry.key] = entry
            self.kept.setdefault(self.orders[entry.key].client, []).extend(entry.offers)
        for key in self._unchecked:
            assert key in self.entry_of, f"{key} was answered and is lost"
            entry, answer = self.entry_of[key], self.answers[key]
            assert (entry.number, entry.reply) == (answer.entry, answer.reply), f"{key} was answered otherwise"
        self._unchecked.clear()

    async def _compare_books(self) -> None:
        """What the platform shows to each client is what its journal says."""
        shown = {}
        for client in range(self.clients):
            line = await self.platform.connect(client)
            shown[client] = await line.book(client)
            line.close()
        self.platform.kill()
        self._check()
        assert shown == {client: self.kept.get(client, []) for client in range(self.clients)}


# ---------------------------------------------------------------- a journal, read without its code


def read_sqlite(file: Path, after: int, before: bytes) -> Iterator[tuple[Written, bytes]]:
    """Entries of a journal in a SQLite file, as `read_journal`."""
    with closing(sqlite3.connect(file)) as database:
        yield from read_journal(database, after, before)


def read_journal(database: Any, after: int, before: bytes) -> Iterator[tuple[Written, bytes]]:
    """Entries of a journal over a connection of DB-API, each with its digest, computed here anew and compared.

    `before`: digest of the entry `after`.
    """
    rows = _rows(
        database,
        "SELECT number, at_us, tenant, verb, subject, party, by_party, actor, key, body, status, reply, digest"
        f" FROM entry WHERE number > {after} ORDER BY number",
    )
    changes = _grouped(database, f"SELECT number, kind, id, body FROM version WHERE number > {after}")
    notes = _grouped(database, f"SELECT number, kind, subject, audience, body FROM note WHERE number > {after}")
    for row in rows:
        number, at_us, *texts, status, reply, digest = row
        changed, told = changes.get(number, ()), notes.get(number, ())
        fields = [str(number), str(at_us), *texts, str(status), reply, str(len(changed)), str(len(told))]
        for one in (*changed, *told):
            fields += one
        before = link(before, fields)
        assert before == digest, f"entry {number} does not follow from the one before"
        verb, subject, actor, key, body = texts[1], texts[2], texts[5], texts[6], texts[7]
        yield Written(number, at_us, verb, subject, actor, key, reply, offers_in(verb, body)), digest


def _rows(database: Any, query: str) -> list[list[Any]]:
    cursor = database.cursor()
    cursor.execute(query)
    return [list(row) for row in cursor.fetchall()]


def _grouped(database: Any, query: str) -> dict[int, list[list[Any]]]:
    found: dict[int, list[list[Any]]] = {}
    for number, *values in _rows(database, f"{query} ORDER BY number, position"):
        found.setdefault(number, []).append(values)
    return found


def link(before: bytes, fields: list[Any]) -> bytes:
    """The digest of an entry, by the words of the journal's documentation."""
    hashed = sha256(before)
    for one in fields:
        data = one.encode() if isinstance(one, str) else one
        hashed.update(b"\xff" * 8 if data is None else len(data).to_bytes(8, "big") + data)
    return hashed.digest()


def offers_in(verb: str, body: bytes) -> tuple[str, ...]:
    """Ids of the offers in a parcel's body."""
    if verb != "offer.submit":
        return ()
    sent = json.loads(body)
    return tuple(one["id"] for one in (sent if isinstance(sent, list) else [sent]))
