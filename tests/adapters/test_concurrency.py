"""One idempotency key in several hands at once, and again after a crash: taken once, told alike to all.

What many clients are told of their offers at once is in test_histories.py; here each request is sent by three clients
at the same moment, and a fourth sends something else under the same key. By the documentation one of them is taken; who
sent the same is told the same, byte for byte, and that it is a repetition; who sent something else is refused.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from time import perf_counter
from typing import Any

import httpx
import pytest

from support.crash import Written
from support.platform import offer
from support.trading import PATH, Trading, authorised, free_port

CLIENTS, AT_ONCE, PROVIDERS = 64, 4, 4
STEPS = 9


# ---------------------------------------------------------------- what is asked


@dataclass(frozen=True)
class Asked:
    """A request under a key of a provider. `verb` as the journal names it."""

    provider: int
    key: str
    verb: str
    offer: str
    body: bytes

    async def send(self, http: httpx.AsyncClient) -> Told:
        method, path = {
            "offer.submit": ("POST", PATH),
            "offer.replace": ("PUT", f"{PATH}/{self.offer}"),
            "offer.withdraw": ("DELETE", f"{PATH}/{self.offer}"),
        }[self.verb]
        called = perf_counter()
        headers = authorised(f"sp-{self.provider + 1}", self.key)
        got = await http.request(method, path, headers=headers, content=self.body)
        again = got.headers.get("idempotency-replayed") == "true"
        return Told(self, called, perf_counter(), got.status_code, got.content, again)


@dataclass(frozen=True)
class Told:
    """What a client was answered, and when. `again`: that it had been taken before."""

    asked: Asked
    called: float
    answered: float
    status: int
    reply: bytes
    again: bool

    @property
    def reused(self) -> bool:
        return self.status == 422 and json.loads(self.reply)["code"] == "KEY_REUSED"


def ask(client: int, step: int) -> Asked:
    """Four clients each offer, replace and withdraw one offer after the other, under keys that they share; the last of
    them has another body, or another verb. The last step is the same for all, so that withdrawals are among what was
    taken, however fast each verb is."""
    group, odd = client // AT_ONCE, client % AT_ONCE == AT_ONCE - 1
    provider, unit = group % PROVIDERS, group % PROVIDERS + 1 + PROVIDERS * (group // PROVIDERS)
    round, turn = divmod(step, 3)
    name, key = f"o-{group}-{round}", f"k-{group}-{step}"

    def body(price: str) -> bytes:
        return json.dumps(offer(name, unit, round, (10,), price)).encode()

    if turn == 0:
        return Asked(provider, key, "offer.submit", name, body("46" if odd else "45"))
    if turn == 2 and (not odd or step == STEPS - 1):
        return Asked(provider, key, "offer.withdraw", name, b"")
    return Asked(provider, key, "offer.replace", name, body("48" if odd else "47"))


def _connected(port: int) -> httpx.AsyncClient:
    # There is no TLS here, and its certificates take long to read.
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, verify=False)


async def all_at_once(port: int) -> list[Told]:
    """Every client asks one thing after the other."""
    told: list[Told] = []

    async def client(number: int) -> None:
        async with _connected(port) as http:
            told.extend([await ask(number, step).send(http) for step in range(STEPS)])

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return told


async def once_more(port: int, before: Iterable[Told]) -> list[Told]:
    """Everything again, as somebody does who did not hear the answer."""
    async with _connected(port) as http:
        return [await one.asked.send(http) for one in before]


# ---------------------------------------------------------------- what must hold


def judge(told: Iterable[Told], journal: Iterable[Written]) -> None:
    """Hold answers against the journal. Raises AssertionError."""
    entries: dict[tuple[str, str], list[Written]] = defaultdict(list)
    for entry in journal:
        if entry.key is not None and entry.verb.startswith("offer."):
            entries[entry.actor, entry.key].append(entry)
    by_key: dict[tuple[str, str], list[Told]] = defaultdict(list)
    for one in told:
        by_key[f"client-sp-{one.asked.provider + 1}", one.asked.key].append(one)
    assert entries.keys() == by_key.keys(), "every key was taken, and no other"
    first = [_one_key(entries[key], answers) for key, answers in by_key.items()]
    ordered = sorted(first, key=lambda pair: pair[0].number)
    latest = 0.0
    for (_, earlier), (_, later) in pairwise(ordered):
        latest = max(latest, earlier.called)
        assert later.answered >= latest, "what ended before another began stands before it in the journal"


def _one_key(entries: list[Written], answers: list[Told]) -> tuple[Written, Told]:
    """The entry of a key, and the answer of who was first."""
    assert len(entries) == 1, "a key is taken once"
    entry, taken = entries[0], [one for one in answers if one.status in (200, 201)]
    assert {one.reply for one in taken} == {entry.reply}, "everybody is told what was decided"
    assert {one.asked.verb for one in taken} == {entry.verb}
    assert len({(one.asked.body, one.status) for one in taken}) == 1
    fresh = [one for one in taken if not one.again]
    assert len(fresh) == 1, "one is told that it was taken, the others that it had been"
    for one in answers:
        same = (one.asked.verb, one.asked.body) == (taken[0].asked.verb, taken[0].asked.body)
        assert one in taken if same else one.reused, f"{one} was sent under the key of another"
        assert same or not one.again
    return entry, fresh[0]


# ---------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What clients were told at once, what they were told after a kill, and the journal."""
    platform = Trading(tmp_path_factory.mktemp("keys"), free_port(), PROVIDERS, units=CLIENTS // AT_ONCE)
    platform.prepare()
    try:
        platform.start()
        told = asyncio.run(_when_up(platform.port, all_at_once(platform.port)))
        platform.kill()
        platform.start()
        again = asyncio.run(_when_up(platform.port, once_more(platform.port, told)))
    finally:
        platform.kill()
    return told, again, list(platform.written(0))


async def _when_up(port: int, act: Any) -> Any:
    for _ in range(1000):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.01)
            continue
        writer.close()
        break
    return await act


@pytest.mark.spec("PLAT-05")
def test_a_key_in_several_hands_at_once_is_taken_once_and_told_alike(history: Any) -> None:
    told, _, journal = history
    judge(told, journal)
    assert len(told) == CLIENTS * STEPS
    assert sum(one.reused for one in told) >= CLIENTS // AT_ONCE * (STEPS - 1)
    verbs = {one.asked.verb for one in told if one.status in (200, 201)}
    assert verbs == {"offer.submit", "offer.replace", "offer.withdraw"}


@pytest.mark.spec("PLAT-05")
def test_who_asks_again_after_a_crash_is_told_the_same(history: Any) -> None:
    told, again, _ = history
    for before, after in zip(told, again, strict=True):
        assert (after.status, after.reply) == (before.status, before.reply)
        assert after.again == (after.status in (200, 201))


def test_the_judge_finds_answers_that_are_not_of_one_key(history: Any) -> None:
    told, _, journal = history
    first = next(i for i, one in enumerate(told) if one.status == 201 and not one.again)
    other = next(i for i, one in enumerate(told) if one.status == 201 and one.asked.key != told[first].asked.key)
    swapped = [*told]
    swapped[first] = replace(told[first], reply=told[other].reply)
    swapped[other] = replace(told[other], reply=told[first].reply)
    with pytest.raises(AssertionError, match="told what was decided"):
        judge(swapped, journal)
    with pytest.raises(AssertionError, match="one is told that it was taken"):
        judge([*told[:first], replace(told[first], again=True), *told[first + 1 :]], journal)
    entry = next(one for one in journal if one.key == told[first].asked.key)
    with pytest.raises(AssertionError, match="taken once"):
        judge(told, [*journal, entry])
    with pytest.raises(AssertionError, match="every key was taken"):
        judge(told, [one for one in journal if one is not entry])
    late = [replace(one, number=10**6) if one is entry else one for one in journal]
    with pytest.raises(AssertionError, match="stands before it"):
        judge(told, late)
    reused = next(i for i, one in enumerate(told) if one.reused)
    with pytest.raises(AssertionError):
        judge([*told[:reused], replace(told[reused], status=201), *told[reused + 1 :]], journal)
