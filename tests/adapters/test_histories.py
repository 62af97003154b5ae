"""Histories of many clients at once, also across crashes, held against a model that does one thing after the other.

The journal's order is the witness. An operation that was written must be answered as the model answers at its place,
and places must keep the order of time: what ended before another began stands before it. An operation that was refused
or that only read must fit the model at some moment between its call and its answer.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from support.crash import GONE, Written
from support.platform import FIRST_START, offer
from support.trading import PATH, SlowJournal, Trading, Wire, authorised, free_port

PROVIDERS, CLIENTS, EACH = 4, 64, 14
# Few quarter-hours and ids, so that clients of one provider get in each other's way.
UNITS, QUARTERS, NAMES = 6, 8, 40


# ---------------------------------------------------------------- what is asked


@dataclass(frozen=True)
class Sent:
    """An offer: its id, and the quarter-hour of a unit that it takes."""

    name: str
    unit: int
    quarter: int

    @property
    def slot(self) -> tuple[int, int]:
        return self.unit, self.quarter

    def body(self) -> Any:
        return offer(self.name, self.unit, self.quarter, (10,))


@dataclass(frozen=True)
class Operation:
    """What a client asked and was told. `kind`: submit, replace, withdraw or read; times in seconds."""

    provider: int
    kind: str
    key: str
    sent: tuple[Sent, ...] = ()
    name: str = ""
    called: float = 0.0
    answered: float = 0.0
    status: int = 0
    reply: bytes = b""

    def request(self) -> tuple[str, str, bytes]:
        if self.kind == "submit":
            bodies = [one.body() for one in self.sent]
            return "POST", PATH, json.dumps(bodies if len(bodies) > 1 else bodies[0]).encode()
        if self.kind == "replace":
            return "PUT", f"{PATH}/{self.sent[0].name}", json.dumps(self.sent[0].body()).encode()
        if self.kind == "withdraw":
            return "DELETE", f"{PATH}/{self.name}", b""
        return "GET", f"{PATH}?limit=1000", b""


# ---------------------------------------------------------------- the model


@dataclass
class Model:
    """One provider's offers, by receipt: what a plain dictionary says."""

    offers: dict[str, Sent] = field(default_factory=dict)

    def does(self, one: Operation) -> int:
        """The status of an operation; a write that is taken changes the model."""
        if one.kind == "read":
            return 200
        if one.kind == "withdraw":
            return 200 if self.offers.pop(one.name, None) is not None else 404
        before = dict(self.offers)
        if one.kind == "replace" and self.offers.pop(one.sent[0].name, None) is None:
            return 404
        for sent in one.sent:
            if sent.name in self.offers or sent.slot in {other.slot for other in self.offers.values()}:
                self.offers = before
                return 422
            self.offers[sent.name] = sent
        return 200 if one.kind == "replace" else 201

    def shows(self) -> list[tuple[str, int, int]]:
        return [(one.name, one.unit, one.quarter) for one in self.offers.values()]


def shown(reply: bytes) -> list[tuple[str, int, int]]:
    """What a reader was shown, as the model says it."""
    found = []
    for item in json.loads(reply)["items"]:
        given = item["offer"]
        begins = datetime.fromisoformat(given["steps"][0]["start"]) - FIRST_START
        found.append((given["id"], int(given["unit"].removeprefix("cu-")), begins // timedelta(minutes=15)))
    return found


# ---------------------------------------------------------------- the clients


class History:
    """Clients that do things at once, and write down what they asked and were told."""

    def __init__(self, port: int, seed: int) -> None:
        self._port, self._seed = port, seed
        self.told: list[Operation] = []

    async def client(self, number: int) -> None:
        chance = random.Random(self._seed * 1000 + number)
        line: Wire | None = None
        for step in range(EACH):
            one = self._choose(number, step, chance)
            called = perf_counter()
            while True:
                try:
                    line = line or await Wire.to(self._port)
                    headers = authorised(f"sp-{one.provider + 1}", one.key)
                    method, path, body = one.request()
                    status, reply = await line.ask(method, path, headers, body)
                except GONE:
                    line = None
                    await asyncio.sleep(0.003)
                    continue
                if status != 503:
                    break
                await asyncio.sleep(0.003)
            done = replace(one, called=called, answered=perf_counter(), status=status, reply=reply)
            self.told.append(done)
        if line is not None:
            line.close()

    def _choose(self, number: int, step: int, chance: random.Random) -> Operation:
        provider, key = number % PROVIDERS, f"h{self._seed}-{number}-{step}"
        kind = chance.choices(("submit", "replace", "withdraw", "read"), (5, 2, 2, 2))[0]
        many = chance.choice((1, 1, 2, 3)) if kind == "submit" else 1
        names = chance.sample(range(NAMES), many)
        slots = chance.sample([(u, q) for u in range(UNITS) for q in range(QUARTERS)], many)
        sent = tuple(
            Sent(f"o{name}", unit * PROVIDERS + provider + 1, quarter)
            for name, (unit, quarter) in zip(names, slots, strict=True)
        )
        if kind in ("submit", "replace"):
            return Operation(provider, kind, key, sent)
        return Operation(provider, kind, key, name=sent[0].name if kind == "withdraw" else "")


# ---------------------------------------------------------------- the judge


def judge(told: Iterable[Operation], journal: Iterable[Written]) -> dict[str, int]:
    """Hold a history against the model; how many of each kind and status there were. Raises AssertionError."""
    told, number_of = list(told), {entry.key: entry.number for entry in journal if entry.key is not None}
    counts: dict[str, int] = {}
    for provider in sorted({one.provider for one in told}):
        mine = [one for one in told if one.provider == provider]
        taken = sorted((one for one in mine if one.key in number_of), key=lambda one: number_of[one.key])
        _in_order_of_time(taken)
        states = _replayed(taken, number_of)
        for one in mine:
            name = f"{one.kind} {one.status}"
            counts[name] = counts.get(name, 0) + 1
            if one.key not in number_of:
                _fits_somewhere(one, taken, states)
    return counts


def _in_order_of_time(taken: list[Operation]) -> None:
    latest = 0.0
    for one in taken:
        latest = max(latest, one.called)
        assert one.answered >= latest, f"{one.key} ended before one began that stands before it in the journal"


def _replayed(taken: list[Operation], number_of: dict[str, int]) -> list[Model]:
    """The model before the first write, and after each."""
    model, states = Model(), [Model()]
    for one in taken:
        status = model.does(one)
        assert one.status == status, f"{one} should have been answered with {status}"
        if one.kind in ("submit", "replace"):
            reply = json.loads(one.reply)
            assert (reply["entry"], reply["accepted"]) == (number_of[one.key], len(one.sent))
        states.append(Model(dict(model.offers)))
    return states


def _fits_somewhere(one: Operation, taken: list[Operation], states: list[Model]) -> None:
    """Some state between the writes that had ended when it was called and those that had begun when it was answered."""
    first = max((i + 1 for i, other in enumerate(taken) if other.answered < one.called), default=0)
    last = max((i + 1 for i, other in enumerate(taken) if other.called < one.answered), default=0)
    for state in states[first : last + 1]:
        status = Model(dict(state.offers)).does(one)
        if status == one.status and (one.kind != "read" or shown(one.reply) == state.shows()):
            return
    raise AssertionError(f"{one} fits no state between its call and its answer")


# ---------------------------------------------------------------- the tests


@pytest.mark.spec("PLAT-05")
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_what_64_clients_are_told_at_once_is_what_one_after_the_other_would_be_told(tmp_path: Path, seed: int) -> None:
    counts = played(Trading(tmp_path, free_port(), PROVIDERS, units=UNITS), seed, kills=4)
    assert {"submit 201", "submit 422", "replace 200", "withdraw 200", "withdraw 404", "read 200"} <= counts.keys()


@pytest.mark.slow
@pytest.mark.spec("PLAT-05")
@pytest.mark.parametrize("seed", [4, 5, 6])
def test_on_a_slow_disk_nobody_is_refused_for_what_a_crash_takes_back(tmp_path: Path, seed: int) -> None:
    played(Trading(tmp_path, free_port(), PROVIDERS, units=UNITS, journals=SlowJournal), seed, kills=19)


def played(platform: Trading, seed: int, kills: int) -> dict[str, int]:
    """Let the clients do their work while the platform is killed so often, and hold it against the model."""
    platform.prepare()
    history = History(platform.port, seed)

    async def go() -> None:
        platform.start()
        working = asyncio.gather(*(history.client(number) for number in range(CLIENTS)))
        for k in range(1, kills + 1):
            while len(history.told) < k / (kills + 1) * CLIENTS * EACH and not working.done():
                await asyncio.sleep(0.001)
            platform.kill()
            platform.start()
        await asyncio.wait_for(working, 60)
        platform.kill()

    asyncio.run(go())
    assert len(history.told) == CLIENTS * EACH
    return judge(history.told, platform.written(0))


def told(kind: str, key: str, called: float, answered: float, status: int, **more: Any) -> Operation:
    return Operation(0, kind, key, called=called, answered=answered, status=status, **more)


def entries(*keys: str) -> list[Written]:
    return [Written(10 + i, 0, "", "", "", key, b"", ()) for i, key in enumerate(keys)]


def taken(number: int) -> bytes:
    return json.dumps({"entry": number, "accepted": 1}).encode()


def test_the_judge_finds_what_no_order_explains() -> None:
    one, two = Sent("a", 1, 0), Sent("b", 1, 0)
    first = told("submit", "k1", 0, 1, 201, sent=(one,), reply=taken(10))
    second = told("submit", "k2", 2, 3, 201, sent=(Sent("b", 1, 1),), reply=taken(11))
    judge([first, second], entries("k1", "k2"))
    with pytest.raises(AssertionError, match="ended before"):
        judge([first, second], entries("k2", "k1"))
    with pytest.raises(AssertionError, match="should have been answered with 422"):
        judge([first, replace(second, sent=(two,))], entries("k1", "k2"))
    lost = told("withdraw", "k3", 4, 5, 404, name="a")
    with pytest.raises(AssertionError, match="fits no state"):
        judge([first, second, lost], entries("k1", "k2"))
    judge([first, second, replace(lost, name="c")], entries("k1", "k2"))
    judge([first, second, replace(lost, called=0.5, answered=0.9)], entries("k1", "k2"))
    stale = told("read", "k4", 4, 5, 200, reply=b'{"items": []}')
    with pytest.raises(AssertionError, match="fits no state"):
        judge([first, second, stale], entries("k1", "k2"))
    judge([first, second, replace(stale, called=0.5)], entries("k1", "k2"))
