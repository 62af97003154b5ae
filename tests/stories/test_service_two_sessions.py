"""Two sessions with two buyers close in one second, and the same units are offered to both until the last moment.

The DSO buys in one session for its feeders, the TSO in the other for its requests. 64 clients of four providers offer
every unit to both, take offers out again, and go on until each of them has been told that it is late. Then the service
is killed, or was killed before. What stands in its journal is read without its code and held against what the clients
were told: nothing that was promised is lost, nothing late was taken, and no unit is sold twice.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sqlite3
import time
import zlib
from base64 import b64decode, b64encode
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from coflex.adapters.store.journal import SqlJournal
from coflex.computing import compute
from coflex.domain.party import Role
from coflex.domain.unit import Level
from coflex.market.design import design_text
from coflex.register.access import Client
from coflex.register.market import SessionEntry
from coflex.serve import STORE, Settings, replay, serve, verify
from coflex.service.engine import work_off
from coflex.service.gates import TenantGates
from coflex.service.machine import Machine, encode, now
from coflex.service.ports import Command
from coflex.service.sequencer import Sequencer
from coflex.service.state import State
from coflex.service.verbs import VERBS
from coflex.simulation import demo
from support.crash import GONE, read_sqlite
from support.forked import Forked, Tell
from support.trading import Wire, free_port

TENANT = demo.TENANT
LOCAL, GLOBAL = f"{demo.DAY}.local-1", f"{demo.DAY}.global-1"
PRODUCT = {LOCAL: "local-energy", GLOBAL: "global-energy"}
CLIENTS = 64
SECRET = "s" * 43
# A minute of the market, which lies between the two gates, is a quarter of a second.
SPEED = 240
# Quarter-hours in which both buyers need something: less at noon, more in the evening.
NOON, EVENING = datetime(2016, 7, 5, 7, 45, tzinfo=UTC), datetime(2016, 7, 5, 16, 45, tzinfo=UTC)
STARTS = [
    *(("down", NOON + timedelta(minutes=15 * quarter)) for quarter in range(20)),
    *(("up", EVENING + timedelta(minutes=15 * quarter)) for quarter in range(6)),
]
QUARTER = timedelta(minutes=15)
PATIENCE = 180.0


# ---------------------------------------------------------------- a store that is ready to trade


def design() -> str:
    """One session of the DSO and one of the TSO, open at once; one gate closes a minute of the market after the other,
    which is the least that designs know where two sessions sell the same."""
    text = design_text("beflexible_six").split("- <<: *local")[0]
    for old, new in (
        ("id: beflexible_six", "id: at_once"),
        ('opens: "D-1T10:30", closes: "D-1T12:00"', 'opens: "D-1T08:00", closes: "D-1T10:01"'),
        ("  forward: {to: global-1, offers: unused, carry: traffic_light}\n", ""),
        ("firm: PT4H", "firm: rest"),
    ):
        assert old in text
        text = text.replace(old, new)
    return text


@dataclass(frozen=True)
class Prepared:
    """A folder of the service, its clock standing at the opening of both planned sessions; keys by party; units that
    each provider may offer in the DSO's grid."""

    folder: Path
    keys: dict[str, str]
    units: dict[str, tuple[str, ...]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("prepared")
    journal, machine = SqlJournal(folder / STORE), Machine(VERBS)
    sequencer = Sequencer(machine, journal, clock, TenantGates(machine))
    _settle(sequencer)
    keys = {party: _key(sequencer, party) for party in ("sp-01", "sp-02", "sp-03", "sp-04", *_operators(machine))}
    opens = machine.state(TENANT).get(SessionEntry, LOCAL).opens
    sequencer.submit(Command(TENANT, "sandbox.clock", "market", "", "", "operator", encode({"to": opens, "speed": 0})))
    sequencer.pass_gates()
    work_off(sequencer, compute)
    assert {_state(machine, one).state for one in (LOCAL, GLOBAL)} == {"open"}
    assert all(_state(machine, one).plan for one in (LOCAL, GLOBAL))
    sequencer.close()
    journal.close()
    return Prepared(folder, keys, _units())


def clock() -> datetime:
    return datetime.now(UTC)


def _settle(sequencer: Sequencer) -> None:
    """The demo's register by its own commands, qualified, and what the TSO asks for; nobody offers."""
    case = demo.demo_case()
    first, *rest = demo.seed(case, speed=0)
    form = json.loads(first.body)
    opened = {**form, "design": "at_once", "document": design(), "last_day": form["first_day"]}
    for command in (replace(first, body=encode(opened)), *rest):
        sequencer.submit(command)
    state, players = sequencer.machine.state(TENANT), demo.Counterparts(case)
    while True:
        before = sequencer.number
        work_off(sequencer, compute)
        for command in players.commands(state, now(state, clock())):
            sequencer.submit(command)
        if sequencer.number == before:
            return


def _operators(machine: Machine) -> Iterator[str]:
    for party in demo.demo_case().parties:
        if set(party.roles) & {Role.MARKET_OPERATOR, Role.DSO, Role.TSO}:
            yield party.id


def _key(sequencer: Sequencer, party: str) -> str:
    sequencer.submit(demo.first_client(party, sha256(SECRET.encode()).hexdigest()))
    (client,) = (one for one in sequencer.machine.state(TENANT).all(Client) if one.party == party)
    return f"cf_{client.id}_{SECRET}"


def _state(machine: Machine, session: str) -> SessionEntry:
    state: State = machine.state(TENANT)
    return state.get(SessionEntry, session)


def _units() -> dict[str, tuple[str, ...]]:
    case = demo.demo_case()
    below = {point.id for point in case.points if point.level is Level.DISTRIBUTION}
    mine: dict[str, list[str]] = defaultdict(list)
    for unit in case.units:
        if unit.connection_point in below:
            mine[unit.provider].append(unit.id)
    return {provider: tuple(units) for provider, units in sorted(mine.items())}


# ---------------------------------------------------------------- the service


class Service:
    """`coflex serve` on a copy of the prepared store."""

    def __init__(self, prepared: Prepared, folder: Path) -> None:
        shutil.copytree(prepared.folder, folder)
        self.prepared = prepared
        self.settings = Settings(folder, port=free_port(), demo=False, log_format="json")
        self.operator = next(party for party in prepared.keys if not party.startswith(("sp-", "dso", "tso")))
        self._server: Forked | None = None
        self._writes = 0

    def start(self) -> None:
        self._server = Forked(serving, self.settings)
        while not self._server.hear(PATIENCE).startswith("coflex listens on "):
            pass

    def kill(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server = None

    def ask(self, method: str, path: str, party: str, body: Any = None) -> httpx.Response:
        self._writes += 1
        headers = {"Authorization": f"Bearer {self.prepared.keys[party]}", "Content-Type": "application/json"}
        headers |= {} if method == "GET" else {"Idempotency-Key": f"story-{self._writes}"}
        address = f"http://127.0.0.1:{self.settings.port}/v1/{TENANT}{path}"
        content = None if body is None else json.dumps(body)
        return httpx.request(method, address, headers=headers, content=content, timeout=30)

    def items(self, path: str, party: str) -> list[Any]:
        """A whole list, page by page."""
        found: list[Any] = []
        cursor = ""
        while True:
            page = self.ask("GET", f"{path}?limit=1000{cursor}", party).json()
            found += page["items"]
            if page["next"] is None:
                return found
            cursor = f"&cursor={page['next']}"

    def session(self, session: str) -> dict[str, Any]:
        told: dict[str, Any] = self.ask("GET", f"/sessions/{session}", self.operator).json()
        return told

    def run_until_the_gates(self, seconds: float) -> None:
        """Let the market's time run, from so many seconds before the first gate."""
        closes = datetime.fromisoformat(self.session(LOCAL)["closes"]) - SPEED * timedelta(seconds=seconds)
        told = self.ask("POST", "/sandbox/clock", self.operator, {"to": closes.isoformat(), "speed": SPEED})
        assert told.status_code == 200, told.text

    def wait_for_results(self) -> None:
        until = time.monotonic() + PATIENCE
        while {self.session(one)["state"] for one in (LOCAL, GLOBAL)} != {"published"}:
            assert time.monotonic() < until, "the results do not come"
            time.sleep(0.2)


def serving(tell: Tell, settings: Settings) -> None:
    serve(settings, tell)


# ---------------------------------------------------------------- its clients


@dataclass(frozen=True)
class Told:
    """What a client asked and was answered. `offer`: the body that was sent, or the name of what was taken out."""

    provider: str
    session: str
    key: str
    verb: str
    offer: Any
    status: int
    reply: bytes


@dataclass
class Crowd:
    """Clients that offer the same to both sessions, until both tell them that it is late."""

    service: Service
    seed: int
    pause_s: float = 0.03
    told: list[Told] = field(default_factory=list)
    waits: int = 0
    lost: int = 0

    async def trade(self) -> None:
        await asyncio.wait_for(asyncio.gather(*(self._client(number) for number in range(CLIENTS))), PATIENCE)

    async def _client(self, number: int) -> None:
        chance = random.Random(self.seed * 1000 + number)
        provider = sorted(self.service.prepared.units)[number % 4]
        line = _Line(self, provider)
        mine: dict[str, list[str]] = {LOCAL: [], GLOBAL: []}
        step = 0
        while mine:
            step += 1
            name = f"{self.seed}-{number}-{step}"
            if chance.random() < 0.15 and (session := chance.choice(sorted(mine))) and mine[session]:
                gone = mine[session].pop(chance.randrange(len(mine[session])))
                if (await line.ask(session, f"out-{name}", "offer.withdraw", gone)).status == 409:
                    del mine[session]
            else:
                terms = self._terms(provider, chance)
                for session in chance.sample(sorted(mine), len(mine)):
                    body = {"id": name, "product": PRODUCT[session], **terms}
                    told = await line.ask(session, f"in-{name}-{session}", "offer.submit", body)
                    if told.status == 201:
                        mine[session].append(name)
                    elif told.status == 409:
                        del mine[session]
            await asyncio.sleep(chance.random() * self.pause_s)
        line.close()

    def _terms(self, provider: str, chance: random.Random) -> dict[str, Any]:
        """A unit, one to three quarter-hours, some power and a price."""
        direction, start = chance.choice(STARTS)
        kw = [chance.randint(5, 60) for _ in range(chance.randint(1, 3))]
        price = f"{chance.randint(20, 120)}.{chance.randint(0, 99):02d}"
        unit = chance.choice(self.service.prepared.units[provider])
        step = {"start": start.isoformat(), "price_eur_mwh": price, "quantity_kw": kw}
        return {"unit": unit, "direction": direction, "steps": [step]}


class _Line:
    """A client's connection: asks until it is answered, always under the same key."""

    def __init__(self, crowd: Crowd, provider: str) -> None:
        self._crowd, self._provider = crowd, provider
        self._wire: Wire | None = None
        self._authorization = f"Bearer {crowd.service.prepared.keys[provider]}"

    async def ask(self, session: str, key: str, verb: str, offer: Any) -> Told:
        path, method, body = f"/v1/{TENANT}/sessions/{session}/offers", "POST", b""
        if verb == "offer.withdraw":
            path, method = f"{path}/{offer}", "DELETE"
        else:
            body = json.dumps(offer).encode()
        headers = {"Authorization": self._authorization, "Idempotency-Key": key, "Content-Type": "application/json"}
        while True:
            try:
                self._wire = self._wire or await Wire.to(self._crowd.service.settings.port)
                status, reply = await self._wire.ask(method, path, headers, body)
            except GONE:
                self._wire = None
                self._crowd.lost += 1
                await asyncio.sleep(0.02)
                continue
            if status not in (429, 503):
                told = Told(self._provider, session, key, verb, offer, status, reply)
                self._crowd.told.append(told)
                return told
            self._crowd.waits += 1
            await asyncio.sleep(0.1)

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()


# ---------------------------------------------------------------- what the journal says


@dataclass(frozen=True)
class Written:
    """An entry of the journal."""

    number: int
    at_us: int
    verb: str
    subject: str
    party: str
    actor: str
    key: str | None
    body: Any
    reply: bytes


def written(store: Path) -> list[Written]:
    """The journal, read without the platform's code; its digests are computed anew on the way."""
    for _ in read_sqlite(store, 0, bytes(32)):
        pass
    with closing(sqlite3.connect(store)) as database:
        rows = database.execute(
            "SELECT number, at_us, verb, subject, party, actor, key, body, reply FROM entry ORDER BY number"
        )
        return [Written(*(*row[:7], json.loads(row[7]), row[8])) for row in rows]


def rows_of(outcome: Any, part: str, table: str) -> list[Any]:
    """Rows of a kind that a result added or removed."""
    found = [one for one in outcome[part] if one["table"] == table]
    return [row for one in found for row in json.loads(zlib.decompress(b64decode(one["packed"])))]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@dataclass
class Story:
    """The journal of one run. `live`: offers by session and id ("sp-01/name") as they stood at the gate."""

    entries: list[Written]
    live: dict[str, dict[str, Any]] = field(default_factory=lambda: {LOCAL: {}, GLOBAL: {}})
    outcomes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry in self.entries:
            if entry.verb == "offer.submit":
                self.live[entry.subject][f"{entry.party}/{entry.body['id']}"] = entry.body
            elif entry.verb == "offer.withdraw":
                del self.live[entry.subject][f"{entry.party}/{entry.body['id']}"]
            elif entry.verb == "session.cleared":
                assert entry.subject not in self.outcomes, "a session is cleared once"
                self.outcomes[entry.subject] = entry.body

    def one(self, verb: str, session: str) -> Written:
        """The one entry of a verb about a session."""
        found = [entry for entry in self.entries if (entry.verb, entry.subject) == (verb, session)]
        assert len(found) == 1, f"{verb} of {session} stands {len(found)} times in the journal"
        return found[0]

    def offered(self, session: str) -> Iterator[tuple[tuple[str, datetime], int]]:
        """Every unit and quarter-hour that is offered, with its power."""
        for offer in self.live[session].values():
            for step in offer["steps"]:
                for quarter, kw in enumerate(step["quantity_kw"]):
                    yield (offer["unit"], at(step["start"]) + quarter * QUARTER), kw


# ---------------------------------------------------------------- what must hold


def hold(story: Story, told: Iterable[Told]) -> None:
    """Hold a journal against what clients were told. Raises AssertionError."""
    for session in (LOCAL, GLOBAL):
        for verb in ("session.open", "session.close", "session.planned", "session.cleared"):
            story.one(verb, session)
    gates = [story.one("session.close", session).at_us for session in (LOCAL, GLOBAL)]
    assert 0 <= gates[1] - gates[0] <= 1_000_000, "the gates close within a second"
    _every_answer_stands(story, told)
    _nothing_is_sold_that_was_not_offered(story)
    _nothing_is_sold_twice(story)


def _every_answer_stands(story: Story, told: Iterable[Told]) -> None:
    """What was taken is in the journal once, before the gate, as it was answered; what was refused is not there."""
    by_key: dict[tuple[str, str], list[Written]] = defaultdict(list)
    for entry in story.entries:
        if entry.verb.startswith("offer."):
            by_key[entry.party, entry.key or ""].append(entry)
            assert entry.number < story.one("session.close", entry.subject).number, "it was late, and taken"
    for one in told:
        entries = by_key.pop((one.provider, one.key), [])
        if one.status in (200, 201):
            assert len(entries) == 1, f"{one} stands {len(entries)} times in the journal"
            entry = entries[0]
            assert (entry.verb, entry.subject, entry.reply) == (one.verb, one.session, one.reply)
            sent = one.offer if one.verb == "offer.submit" else {"id": one.offer}
            assert entry.body == sent
        else:
            code = json.loads(one.reply)["code"]
            assert (one.status, code) in {(422, "REFUSED"), (409, "GATE_CLOSED")}, one
            assert entries == [], "it was refused, and taken"
    assert by_key == {}, "the journal holds what nobody was told"


def _nothing_is_sold_that_was_not_offered(story: Story) -> None:
    """Awards are of offers that stood at the gate of their session, within their power, as bid; holdings follow."""
    for session, outcome in story.outcomes.items():
        bought: Counter[tuple[str, datetime]] = Counter()
        of_step: Counter[tuple[str, int, datetime]] = Counter()
        for award in rows_of(outcome, "added", "award"):
            offer = story.live[session][award["offer"]]
            step = offer["steps"][award["step"] - 1]
            quarter = (at(award["start"]) - at(step["start"])) // QUARTER
            of_step[award["offer"], award["step"], at(award["start"])] += award["quantity_kw"]
            assert 0 < of_step[award["offer"], award["step"], at(award["start"])] <= step["quantity_kw"][quarter]
            assert (award["unit"], award["direction"]) == (offer["unit"], offer["direction"])
            assert award["provider"] == award["offer"].partition("/")[0]
            assert Decimal(award["price_eur_mwh"]) == Decimal(step["price_eur_mwh"])
            assert award["buyer"] == outcome["buyer"]
            bought[award["unit"], at(award["start"])] += award["quantity_kw"]
        holdings = rows_of(outcome, "added", "holding")
        assert {(one["unit"], at(one["start"])): one["quantity_kw"] for one in holdings} == dict(bought)
        assert len(holdings) == len(bought) > 0
        assert rows_of(outcome, "removed", "holding") == []


def _nothing_is_sold_twice(story: Story) -> None:
    """No unit is held twice in a quarter-hour, though many were offered to both: the first gate has the first word."""
    held = {
        session: {(one["unit"], at(one["start"])) for one in rows_of(outcome, "added", "holding")}
        for session, outcome in story.outcomes.items()
    }
    assert held[LOCAL] & held[GLOBAL] == set()
    both = dict(story.offered(LOCAL)).keys() & dict(story.offered(GLOBAL)).keys()
    assert len(both) > 20, "many were offered to both"
    assert held[LOCAL] & both and held[GLOBAL] & both


def hold_what_is_shown(service: Service, story: Story) -> None:
    """Buyers and operator are shown all awards, providers their own."""
    for session, outcome in story.outcomes.items():
        awards = rows_of(outcome, "added", "award")
        assert service.session(session)["offers"] == len(story.live[session])
        assert service.items(f"/sessions/{session}/awards", outcome["buyer"]) == awards
        for provider in service.prepared.units:
            mine = [one for one in awards if one["provider"] == provider]
            assert service.items(f"/sessions/{session}/awards", provider) == mine


# ---------------------------------------------------------------- the story


@dataclass(frozen=True)
class Plot:
    """How a run goes. `trading_s`: seconds of trading before the first gate. `before`: seconds after which the service
    is killed, each counted from the last start. `gap_s`: how long it stays dead. `after`: the same after the gates,
    before the results; the first at once."""

    seed: int
    trading_s: float = 2.5
    before: tuple[float, ...] = ()
    gap_s: float = 0.0
    after: tuple[float, ...] = ()


def play(prepared: Prepared, folder: Path, plot: Plot) -> tuple[list[Written], list[Told]]:
    """Play a run and hold it against what was told; its journal, and what was told."""
    service = Service(prepared, folder)
    try:
        service.start()
        service.run_until_the_gates(plot.trading_s)
        crowd = Crowd(service, plot.seed)
        asyncio.run(_trade(crowd, plot))
        for pause in plot.after:
            time.sleep(pause)
            service.kill()
            assert "session.cleared" not in {entry.verb for entry in written(folder / STORE)}, "it was too late"
            service.start()
        service.wait_for_results()
        story = Story(written(folder / STORE))
        hold(story, crowd.told)
        hold_what_is_shown(service, story)
    finally:
        service.kill()
    assert verify(service.settings, _silent).differences == ()
    assert replay(service.settings, _silent).differences == ()
    return story.entries, crowd.told


def _silent(_: str) -> None:
    """Tell nobody."""


async def _trade(crowd: Crowd, plot: Plot) -> None:
    trading = asyncio.create_task(crowd.trade())
    for pause in plot.before:
        await asyncio.sleep(pause)
        await asyncio.to_thread(crowd.service.kill)
        await asyncio.sleep(plot.gap_s)
        await asyncio.to_thread(crowd.service.start)
    await trading


@pytest.fixture(scope="module")
def undisturbed(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Written], list[Told]]:
    return play(prepared, tmp_path_factory.mktemp("undisturbed") / "data", Plot(seed=1, trading_s=2.0))


@pytest.mark.spec("MKT-09")
def test_what_64_clients_offer_to_two_sessions_at_once_is_sold_once(
    undisturbed: tuple[list[Written], list[Told]],
) -> None:
    _, told = undisturbed
    answers = Counter((one.verb, one.status) for one in told)
    assert set(answers) == {(verb, one) for verb, one in answers if one in (200, 201, 409, 422)}
    assert answers["offer.submit", 201] > 200 and answers["offer.withdraw", 200] > 20
    # Each client was told by both sessions that it is late.
    assert answers["offer.submit", 409] + answers["offer.withdraw", 409] == 2 * CLIENTS


@pytest.mark.spec("MKT-09", "PLAT-05")
def test_it_is_sold_once_too_when_the_service_dies_between_the_gates_and_the_results(
    prepared: Prepared, tmp_path: Path
) -> None:
    play(prepared, tmp_path / "data", Plot(seed=6, trading_s=2.0, after=(0.0,)))


@pytest.mark.slow
@pytest.mark.spec("MKT-09", "PLAT-05")
@pytest.mark.parametrize(
    "plot",
    [
        Plot(seed=2, trading_s=8.0),
        Plot(seed=3, trading_s=8.0, before=(1.0, 1.0, 1.0), after=(0.0, 0.4)),
        Plot(seed=4, trading_s=2.0, before=(1.5,), gap_s=1.0),
        Plot(seed=5, trading_s=4.0, before=(0.5,), gap_s=0.2, after=(0.0, 0.1, 0.2, 0.3)),
    ],
    ids=["long", "killed often", "dead at both gates", "killed while it computes"],
)
def test_no_kill_at_any_time_sells_a_unit_twice(prepared: Prepared, tmp_path: Path, plot: Plot) -> None:
    play(prepared, tmp_path / "data", plot)


# ---------------------------------------------------------------- what the judge finds


def test_a_journal_that_is_not_what_was_told_is_found_out(undisturbed: tuple[list[Written], list[Told]]) -> None:
    entries, told = undisturbed
    taken = [i for i, one in enumerate(told) if one.status == 201]
    (i, first), (j, second) = ((place, told[place]) for place in taken[:2])
    swapped = [*told]
    swapped[i], swapped[j] = replace(first, reply=second.reply), replace(second, reply=first.reply)
    with pytest.raises(AssertionError):
        hold(Story(entries), swapped)
    lost = next(i for i, one in enumerate(entries) if one.key == told[taken[-1]].key)
    with pytest.raises(AssertionError, match="stands 0 times"):
        hold(Story([*entries[:lost], *entries[lost + 1 :]]), told)
    with pytest.raises(AssertionError, match="late, and taken"):
        hold(Story([*entries, replace(entries[lost], number=entries[-1].number + 1, key="late")]), told)
    with pytest.raises(AssertionError, match="nobody was told"):
        hold(Story(entries), [one for one in told if one is not first])
    cleared = next(one for one in entries if (one.verb, one.subject) == ("session.cleared", LOCAL))
    with pytest.raises(AssertionError, match="cleared once"):
        hold(Story([*entries, cleared]), told)


def test_a_result_that_sells_more_or_sells_twice_is_found_out(undisturbed: tuple[list[Written], list[Told]]) -> None:
    entries, told = undisturbed
    story = Story(entries)
    hold(story, told)
    more = rows_of(story.outcomes[GLOBAL], "added", "award")
    more[0]["quantity_kw"] += 1000
    with pytest.raises(AssertionError):
        hold(_with(story, GLOBAL, more, rows_of(story.outcomes[GLOBAL], "added", "holding")), told)
    with pytest.raises(AssertionError):
        hold(_with(story, GLOBAL, *_sold_again(story)), told)


def _sold_again(story: Story) -> tuple[list[Any], list[Any]]:
    """Awards and holdings of the second session, and one of a unit that the first one bought, as it was offered."""
    held = {(one["unit"], at(one["start"])) for one in rows_of(story.outcomes[LOCAL], "added", "holding")}
    name, offer = next(
        (name, offer)
        for name, offer in story.live[GLOBAL].items()
        if (offer["unit"], at(offer["steps"][0]["start"])) in held
    )
    awards, holdings = (rows_of(story.outcomes[GLOBAL], "added", kind) for kind in ("award", "holding"))
    step = offer["steps"][0]
    terms = {
        "unit": offer["unit"],
        "start": step["start"],
        "direction": offer["direction"],
        "quantity_kw": step["quantity_kw"][0],
        "offer": name,
    }
    more = {"step": 1, "provider": name.partition("/")[0], "price_eur_mwh": step["price_eur_mwh"]}
    return [*awards, {**awards[0], **terms, **more}], [*holdings, {**holdings[0], **terms}]


def _with(story: Story, session: str, awards: list[Any], holdings: list[Any]) -> Story:
    """The same with another result."""
    tables = [("award", awards), ("holding", holdings)]
    packed = [(kind, b64encode(zlib.compress(json.dumps(rows).encode())).decode()) for kind, rows in tables]
    added = [{"table": kind, "count": 0, "packed": text} for kind, text in packed]
    place = story.entries.index(story.one("session.cleared", session))
    spoiled = replace(story.entries[place], body={**story.outcomes[session], "added": added})
    return Story([*story.entries[:place], spoiled, *story.entries[place + 1 :]])
