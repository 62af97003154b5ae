"""A day of the service as a company sees it from outside: over HTTP, through kills in the middle of a session."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from coflex.domain.quantity import Direction
from coflex.market.design import design_text
from coflex.register.market import SessionEntry
from coflex.serve import Settings, replay, serve, verify
from coflex.service.books import books
from coflex.service.engine import work_off
from coflex.service.gates import next_gate
from coflex.service.ledger import holdings
from coflex.simulation.demo import demo_case
from support.crash import read_sqlite
from support.forked import Forked, Tell
from support.markets import COMPUTED, World, opened, play, putting, table
from support.trading import free_port

DAY = date(2016, 7, 5)
FIRST = f"{DAY}.local-1"
# Computing takes seconds, and machines are busy; nothing waits as long as this when all is well.
PATIENCE = 90.0


# ---------------------------------------------------------------- the service, killed


class Service:
    """`coflex serve` with its demo, whose clock stands until it is moved."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(folder / "data", port=free_port(), speed=0, log_format="json")
        self.address = f"http://127.0.0.1:{self.settings.port}/v1/demo"
        self.keys: dict[str, str] = {}
        self._server: Forked | None = None
        self._count = 0

    def start(self) -> None:
        self._server = Forked(serving, self.settings)
        while not (said := self._server.hear(PATIENCE)).startswith("coflex listens on "):
            if said.startswith("Key of the demo's "):
                who, _, key = said.rpartition(": ")
                self.keys[who.rpartition(" ")[2]] = key

    def kill(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server = None

    def stop(self) -> int:
        """End it in good order; its exit code."""
        assert self._server is not None
        self._server.signal(signal.SIGTERM)
        code, self._server = self._server.ended(), None
        return code

    def ask(
        self, method: str, path: str, party: str = "mo", body: Any = None, key: str | None = None
    ) -> httpx.Response:
        """A request of a party; a write gets a key of its own where none is given."""
        self._count += 1
        headers = {"Authorization": f"Bearer {self.keys[party]}"}
        if method != "GET":
            headers["Idempotency-Key"] = key or f"story-{self._count}"
        content = None if body is None else json.dumps(body)
        headers |= {} if body is None else {"Content-Type": "application/json"}
        return httpx.request(method, f"{self.address}{path}", headers=headers, content=content, timeout=30)

    def state(self, session: str) -> dict[str, Any]:
        told: dict[str, Any] = self.ask("GET", f"/sessions/{session}").json()
        return told

    def wait(self, what: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not what():
            assert time.monotonic() < until, "it does not come"
            time.sleep(0.2)

    def next_gate(self) -> None:
        told = self.ask("POST", "/sandbox/clock", body={"next_gate": True})
        assert told.status_code == 200, told.text


def serving(tell: Tell, settings: Settings) -> None:
    serve(settings, tell)


@pytest.fixture
def service(tmp_path: Path) -> Any:
    made = Service(tmp_path)
    made.start()
    yield made
    made.kill()


def own_offers(service: Service) -> list[str]:
    page = service.ask("GET", f"/sessions/{FIRST}/offers?limit=1000", "sp-01").json()
    return [one["offer"]["id"] for one in page["items"]]


@pytest.mark.spec("PLAT-05", "MKT-02")
def test_a_session_goes_on_after_each_kill_and_every_gate_is_passed_once(service: Service) -> None:
    service.wait(lambda: _qualified(service))
    service.next_gate()
    service.wait(lambda: service.state(FIRST)["state"] == "open" and service.state(FIRST)["plan"] != "")
    service.wait(lambda: len(own_offers(service)) > 0)
    mine = own_offers(service)
    first = mine[0]
    told = service.ask("DELETE", f"/sessions/{FIRST}/offers/{first}", "sp-01", key="out")
    assert told.status_code == 200

    service.kill()
    service.start()
    assert own_offers(service) == mine[1:], "the open session is as it was"
    again = service.ask("DELETE", f"/sessions/{FIRST}/offers/{first}", "sp-01", key="out")
    assert (again.status_code, again.content) == (told.status_code, told.content)
    assert again.headers["idempotency-replayed"] == "true"

    service.next_gate()
    service.kill()  # between the gate and the result
    service.start()
    late = service.ask("DELETE", f"/sessions/{FIRST}/offers/{mine[-1]}", "sp-01")
    assert (late.status_code, late.json()["code"]) == (409, "GATE_CLOSED")
    service.wait(lambda: service.state(FIRST)["state"] == "published")
    service.kill()
    service.start()
    assert service.state(FIRST)["state"] == "published"
    began = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - began < 10
    assert sorted(file.name for file in service.settings.data.iterdir()) == ["coflex.db", "keys.json"]
    _hold_against_the_journal(service)


def _qualified(service: Service) -> bool:
    """Whether the demo's providers may offer to the local sessions."""
    items = service.ask("GET", "/product-qualifications").json()["items"]
    local = [one["grant"] for one in items if one["product"].startswith("local")]
    return bool(local) and all(grant is not None for grant in local)


def _hold_against_the_journal(service: Service) -> None:
    store = service.settings.data / "coflex.db"
    entries = [entry for entry, _ in read_sqlite(store, 0, bytes(32))]
    gates = Counter((entry.verb, entry.subject) for entry in entries if entry.actor == "clock")
    assert gates["session.open", FIRST] == gates["session.close", FIRST] == 1
    assert set(gates.values()) == {1}
    results = Counter(entry.subject for entry in entries if entry.verb == "session.cleared")
    assert results == {FIRST: 1}
    assert verify(service.settings, _silent).differences == ()
    assert replay(service.settings, _silent).differences == ()


def _silent(_: str) -> None:
    """Tell nobody."""


# ---------------------------------------------------------------- two sessions at once

LOCAL, GLOBAL = f"{DAY}.local-1", f"{DAY}.global-1"


def at_once() -> World:
    """The demo with two sessions only, open at the same time; their gates close within a second of the server's."""
    text = design_text("beflexible_six").split("- <<: *local")[0]
    for old, new in (
        ("id: beflexible_six", "id: at_once"),
        ('opens: "D-1T10:30", closes: "D-1T12:00"', 'opens: "D-1T08:00", closes: "D-1T10:01"'),
        ("  forward: {to: global-1, offers: unused, carry: traffic_light}\n", ""),
        ("firm: PT4H", "firm: rest"),
    ):
        assert old in text
        text = text.replace(old, new)
    world = opened(table(extra=(putting(demo_case()),)), design="at_once", document=text)
    world.do("test.put", "", 1)
    return world


@pytest.mark.spec("MKT-09", "PLAT-05")
@pytest.mark.parametrize("crash", [False, True])
def test_a_unit_offered_to_two_sessions_that_close_in_the_same_second_is_sold_once(crash: bool) -> None:
    world = at_once()
    opens = world.state.get(SessionEntry, LOCAL).opens
    play(world, COMPUTED, until=opens)
    offered = {
        session: {
            (unit, offer.direction, start)
            for offer in books(world.state).offers(session)
            for unit in _units(offer)
            for start in _starts(offer)
        }
        for session in (LOCAL, GLOBAL)
    }
    both = offered[LOCAL] & offered[GLOBAL]
    assert both, "some units are offered to both for the same quarter-hours"
    assert {world.state.get(SessionEntry, one).state for one in (LOCAL, GLOBAL)} == {"open"}

    gate = next_gate(world.state)
    assert gate is not None
    world.pass_time(gate.at - opens + timedelta(minutes=1))
    assert {world.state.get(SessionEntry, one).state for one in (LOCAL, GLOBAL)} == {"closed"}
    (closed_at,) = {entry.at for entry in world.entries("session.close")}
    assert closed_at == world.clock.at, "both gates were passed at one instant"
    if crash:
        world.restart()
    work_off(world.sequencer, COMPUTED)
    assert {world.state.get(SessionEntry, one).state for one in (LOCAL, GLOBAL)} == {"published"}
    _hold_the_ledger(world, both)


def _hold_the_ledger(world: World, both: set[tuple[str, Direction, datetime]]) -> None:
    sold = Counter((one.unit, one.start) for one in holdings(world.state, DAY))
    assert set(sold.values()) == {1}
    first = {(one.unit, one.start) for one in holdings(world.state, DAY) if one.session == "local-1"}
    assert first & {(unit, start) for unit, _, start in both}, "what both were offered was sold to the first"


def _units(offer: Any) -> tuple[str, ...]:
    if offer.unit is not None:
        return (offer.unit,)
    return next(group.units for group in demo_case().groups if group.id == offer.group)


def _starts(offer: Any) -> list[datetime]:
    return [
        step.start + timedelta(minutes=15 * quarter)
        for step in offer.steps
        for quarter, power in enumerate(step.quantity_kw)
        if power
    ]
