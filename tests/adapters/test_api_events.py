"""Everyone concerned is told: the feed to poll and the stream to listen to, nothing lost and nothing twice (MKT-02)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.register.parties import PartyEntry, PartyStatus
from support.api import ROOT, Api, client
from support.platform import LONG_AGO, TENANT, key_of, put

ALL = "limit=1000"


@pytest.fixture
def api() -> Api:
    return Api()


class Listener:
    """A client of the stream, on ASGI itself: it gets what is sent when it is sent."""

    def __init__(self) -> None:
        self.status = 0
        self.events: list[dict[str, Any]] = []
        self.comments = 0
        self.ended = False
        self._text = b""
        self.news = asyncio.Event()

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        self._text += message.get("body", b"")
        self.ended = not message.get("more_body", False)
        while b"\n\n" in self._text:
            block, _, self._text = self._text.partition(b"\n\n")
            fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if not line.startswith(":"))
            self.comments += block.startswith(b":")
            if "data" in fields:
                event = json.loads(fields["data"])
                assert (fields["id"], fields["event"]) == (event["id"], event["kind"])
                self.events.append(event)
        self.news.set()

    async def until(self, count: int) -> None:
        """Wait for so many events."""
        async with asyncio.timeout(5):
            while len(self.events) < count:
                self.news.clear()
                await self.news.wait()

    async def alive(self) -> None:
        """Wait until the stream has looked for news at least once from now on: between two signs of life it has."""
        seen = self.comments
        async with asyncio.timeout(5):
            while self.comments < seen + 2:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def listening(api: Api, party: str, last: str | None = None) -> AsyncIterator[Listener]:
    """A stream that is open inside the block; leaving it breaks the connection."""
    headers = {"authorization": f"Bearer {key_of(party)}"} | ({"last-event-id": last} if last else {})
    scope = {
        "type": "http", "method": "GET", "path": f"{ROOT}/events/stream", "raw_path": b"", "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()], "http_version": "1.1",
        "scheme": "http", "server": ("test", 80), "client": ("test", 1), "root_path": "", "asgi": {"version": "3.0"},
    }  # fmt: skip
    listener, gone = Listener(), asyncio.Event()
    asked = False

    async def receive() -> Any:
        nonlocal asked
        if asked:
            await gone.wait()
            return {"type": "http.disconnect"}
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    task = asyncio.create_task(api.app(scope, receive, listener.send))
    try:
        async with asyncio.timeout(5):
            while not listener.news.is_set():
                await asyncio.sleep(0.001)
        yield listener
    finally:
        gone.set()
        async with asyncio.timeout(5):
            await task


async def switch(api: Api, times: int, unit: str = "cu-0001", party: str = "sp-1") -> None:
    """Make so many events about a unit."""
    for _ in range(times):
        there = (await api.ask("GET", f"/units/{unit}", party)).json()["status"]
        step = "deactivate" if there == "active" else "activate"
        assert (await api.ask("POST", f"/units/{unit}/{step}", party)).status_code == 200


# ---------------------------------------------------------------- polling


@pytest.mark.spec("MKT-02")
def test_the_feed_tells_those_concerned_and_nobody_else(api: Api) -> None:
    asyncio.run(switch(api, 1))
    kinds = {party: [one["kind"] for one in api("GET", f"/events?{ALL}", party).json()["items"]]
             for party in ("sp-1", "sp-2", "dso", "owner", "tso")}  # fmt: skip
    assert {party for party in kinds if "unit.deactivated" in kinds[party]} == {"sp-1", "dso", "owner"}
    assert all("sessions.announced" in told for told in kinds.values())


@given(limit=st.integers(1, 7), steps=st.integers(0, 6))
@settings(max_examples=10, deadline=None)
def test_polled_in_any_steps_the_feed_is_the_same(limit: int, steps: int) -> None:
    api = Api(units=1, providers=1)
    asyncio.run(switch(api, steps))
    whole = api("GET", f"/events?{ALL}", "sp-1").json()
    assert not whole["more"]
    found, after = [], "0.0"
    while True:
        page = api("GET", f"/events?limit={limit}&after={after}", "sp-1").json()
        found += page["items"]
        after = page["next"]
        if not page["more"]:
            break
    assert found == whole["items"] and after == whole["next"]
    assert api("GET", f"/events?after={after}", "sp-1").json() == {"items": [], "next": after, "more": False}


def noted(api: Api, party: str) -> tuple[list[str], list[str]]:
    """Places of the notes for a party by name, and of those for everybody, as the journal has them."""
    notes = [(f"{entry.number}.{k}", note.audience) for entry in api.journal.entries(limit=10**6)
             for k, note in enumerate(entry.notes)]  # fmt: skip
    return [place for place, whom in notes if party in whom], [place for place, whom in notes if "*" in whom]


@pytest.mark.spec("MKT-02")
@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_what_is_for_everybody_is_told_to_parties_that_take_part_alone(api: Api, limit: int) -> None:
    asyncio.run(switch(api, 2))
    whole = api("GET", f"/events?{ALL}", "sp-1").json()
    own, public = noted(api, "sp-1")
    assert own
    assert public
    assert {one["id"] for one in whole["items"]} == {*own, *public}
    api.without_roles("sp-1")
    found: list[str] = []
    page = {"more": True, "next": "0.0"}
    while page["more"]:
        page = api("GET", f"/events?limit={limit}&after={page['next']}", "sp-1").json()
        found += [one["id"] for one in page["items"]]
    assert found == own
    assert page["next"] == whole["next"]


@pytest.mark.spec("MKT-02")
def test_a_stream_tells_what_is_for_everybody_while_its_party_takes_part(api: Api) -> None:
    api.starlette.state.bell.heartbeat_s = 0.02
    entry = api.machine.state(TENANT).get(PartyEntry, "sp-1")

    async def act() -> None:
        async with listening(api, "sp-1", "0.0") as stream:
            own, public = noted(api, "sp-1")
            await stream.until(len(own) + len(public))
        api.sequencer.submit(put([replace(entry, status=PartyStatus.SUSPENDED)]))
        async with listening(api, "sp-1", "0.0") as stream:
            await stream.alive()
            api.sequencer.submit(put([entry]))
            await switch(api, 1)
            own, public = noted(api, "sp-1")
            await stream.until(len(own))
            assert [one["id"] for one in stream.events] == own

    asyncio.run(act())


@pytest.mark.parametrize("after", ["1", "1.0.0", "-1.0", "x", "1.", "99999999999999999999.0", "1000000.0"])
def test_a_place_that_the_feed_never_had_is_refused(api: Api, after: str) -> None:
    for path in ("/events", "/events/stream"):
        assert api("GET", f"{path}?after={after}", "sp-1").status_code == 400


# ---------------------------------------------------------------- streaming


@pytest.mark.spec("MKT-02")
def test_a_stream_tells_what_happens_from_now_on_as_it_happens(api: Api) -> None:
    async def act() -> None:
        async with listening(api, "sp-1") as mine, listening(api, "tso") as other:
            assert mine.status == 200 and mine.events == []
            await switch(api, 3)
            await mine.until(3)
            assert [one["kind"] for one in mine.events] == ["unit.deactivated", "unit.activated", "unit.deactivated"]
            assert other.events == []
            assert api.starlette.state.bell.count() == 2
        assert api.starlette.state.bell.count() == 0

    asyncio.run(act())


@pytest.mark.spec("MKT-02")
@given(bursts=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=5))
@settings(max_examples=15, deadline=None)
def test_whatever_breaks_in_between_every_event_is_told_once_and_in_order(bursts: list[tuple[int, int]]) -> None:
    """Each connection lives through some events and breaks; some more happen before the next one."""
    api = Api(units=1, providers=1)

    async def act() -> None:
        heard: list[dict[str, Any]] = (await api.ask("GET", f"/events?{ALL}", "sp-1")).json()["items"]
        for alive, away in bursts:
            async with listening(api, "sp-1", heard[-1]["id"]) as stream:
                missed = (await api.ask("GET", f"/events?after={heard[-1]['id']}", "sp-1")).json()["items"]
                await switch(api, alive)
                await stream.until(len(missed) + alive)
            heard += stream.events
            await switch(api, away)
        last = (await api.ask("GET", f"/events?after={heard[-1]['id']}", "sp-1")).json()["items"]
        whole = (await api.ask("GET", f"/events?{ALL}", "sp-1")).json()["items"]
        assert heard + last == whole

    asyncio.run(act())


def test_a_quiet_stream_shows_that_it_is_alive_and_ends_with_its_client(api: Api) -> None:
    api.starlette.state.bell.heartbeat_s = 0.02

    async def act() -> None:
        async with listening(api, "sp-1") as stream:
            await stream.alive()
            revoked = client("client-sp-1", "sp-1", revoked=LONG_AGO + timedelta(days=1))
            api.sequencer.submit(put([revoked]))
            async with asyncio.timeout(5):
                while not stream.ended:
                    await asyncio.sleep(0.01)

    asyncio.run(act())


def test_streams_end_when_the_server_stops(api: Api) -> None:
    async def act() -> None:
        async with listening(api, "sp-1") as stream:
            api.starlette.state.bell.end()
            async with asyncio.timeout(5):
                while not stream.ended:
                    await asyncio.sleep(0.01)

    asyncio.run(act())
