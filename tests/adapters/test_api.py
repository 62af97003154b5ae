"""The REST door: writes that are taken once and told when they are on the disk, reads that cut nothing silently."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from coflex.adapters.store.journal_memory import MemoryJournal
from coflex.adapters.web.api.paging import page_of
from coflex.adapters.web.api.rooms.resources import CSV
from coflex.domain.errors import CoflexError
from coflex.register.market import SessionEntry
from coflex.register.parties import PartyEntry
from coflex.register.resources import UnitEntry
from coflex.service.ports import Entry, StoreFull
from coflex.service.sequencer import Sequencer
from support.api import ROOT, Api
from support.api_world import published
from support.platform import FIRST, TENANT, offer, put

POINT = {
    "id": "pod-new", "bus": "", "level": "distribution", "voltage_kv": 20.0, "system_operator": "dso",
    "owner": "owner", "latitude": 41.9, "longitude": 12.5,
}  # fmt: skip
UNIT = {
    "id": "cu-new", "category": "load", "technology": "heat_pump", "connection_point": "pod-new", "owner": "owner",
    "balance_responsible_party": "brp", "up_kw": 400, "down_kw": 200, "preparation_period_s": 60,
    "ramping_period_s": 240, "full_activation_time_s": 300, "deactivation_period_s": 300, "min_quantity_kw": 10,
    "max_quantity_kw": 400, "min_duration_s": 900, "max_duration_s": 7200, "recovery_time_s": 900, "point": POINT,
}  # fmt: skip


@pytest.fixture
def api() -> Api:
    return Api()


def code(response: Any) -> tuple[int, str]:
    """Status and code of a problem, which it must be."""
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    assert body["type"] == f"urn:coflex:problem:{body['code'].lower().replace('_', '-')}"
    assert body["title"] and body["detail"]
    return response.status_code, body["code"]


# ---------------------------------------------------------------- writes


@pytest.mark.spec("PLAT-01")
def test_a_write_answers_with_what_it_made_where_that_is_and_its_version(api: Api) -> None:
    made = api("POST", "/units", "sp-1", UNIT)
    assert made.status_code == 201
    assert made.headers["location"] == f"{ROOT}/units/cu-new"
    read = api("GET", "/units/cu-new", "sp-1")
    assert read.headers["etag"] == made.headers["etag"] == f'"{api.sequencer.number}"'
    assert read.json()["unit"]["up_kw"] == made.json()["unit"]["up_kw"] == 400


@pytest.mark.spec("PLAT-05")
def test_a_write_that_is_asked_again_is_done_once_and_answered_with_the_same_bytes(api: Api) -> None:
    first = api("POST", "/units", "sp-1", UNIT, Idempotency_Key="k-1")
    number = api.sequencer.number
    again = api("POST", "/units", "sp-1", UNIT, Idempotency_Key="k-1")
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["etag"] == first.headers["etag"] and again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true" and "idempotency-replayed" not in first.headers
    assert api.sequencer.number == number


def test_a_key_belongs_to_one_request_of_one_party(api: Api) -> None:
    assert api("POST", "/units", "sp-1", UNIT, Idempotency_Key="k-1").status_code == 201
    other = UNIT | {"id": "cu-other"}
    assert code(api("POST", "/units", "sp-1", other, Idempotency_Key="k-1")) == (422, "KEY_REUSED")
    assert api("POST", "/units", "sp-2", other, Idempotency_Key="k-1").status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 201, "two words", "schlüssel".encode()])
def test_a_write_without_a_sound_key_is_refused(api: Api, key: Any) -> None:
    assert code(api("POST", "/units", "sp-1", UNIT, Idempotency_Key=key)) == (400, "KEY_MISSING")


@pytest.mark.spec("REG-11")
def test_a_change_needs_the_version_that_was_read_and_a_stale_one_changes_nothing(api: Api) -> None:
    change = {"up_kw": 900, "max_quantity_kw": 900}
    tag = api("GET", "/units/cu-0001", "sp-1").headers["etag"]
    assert code(api("PATCH", "/units/cu-0001", "sp-1", change)) == (428, "MATCH_MISSING")
    done = api("PATCH", "/units/cu-0001", "sp-1", change, If_Match=tag)
    assert done.status_code == 200 and done.headers["etag"] != tag
    assert code(api("PATCH", "/units/cu-0001", "sp-1", {"up_kw": 950}, If_Match=tag)) == (412, "OUTDATED")
    assert api("GET", "/units/cu-0001", "sp-1").json()["unit"]["up_kw"] == 900
    assert api("PATCH", "/units/cu-0001", "sp-1", {"up_kw": 950}, If_Match="*").status_code == 200


@pytest.mark.parametrize("tag", ["7", 'W/"7"', '"7", "8"', '"x"', '"-1"'])
def test_a_tag_that_was_never_given_is_refused(api: Api, tag: str) -> None:
    assert code(api("PATCH", "/units/cu-0001", "sp-1", {"up_kw": 900}, If_Match=tag)) == (400, "MALFORMED")


def test_all_faults_of_a_body_are_told_at_once_each_with_its_place(api: Api) -> None:
    bad = UNIT | {"up_kw": -1, "owner": "nobody", "min_duration_s": 9000, "id": "not an id"}
    answer = api("POST", "/units", "sp-1", bad)
    assert code(answer) == (422, "REFUSED")
    codes = {one["code"] for one in answer.json()["findings"]}
    assert len(codes) >= 4
    assert all(one["place"] and one["message"].endswith(".") for one in answer.json()["findings"])
    assert api("GET", "/units/cu-new", "sp-1").status_code == 404


def test_a_typo_in_the_name_of_a_field_is_refused(api: Api) -> None:
    answer = api("POST", "/units", "sp-1", UNIT | {"upkw": 3})
    assert code(answer) == (422, "REFUSED")
    assert "upkw" in answer.json()["findings"][0]["message"]


def test_a_body_that_is_none_is_refused_before_anything_is_looked_at(api: Api) -> None:
    async def send(content: bytes, media: str = "application/json") -> Any:
        async with api.http("sp-1") as http:
            headers = {"Idempotency-Key": "k", "Content-Type": media}
            return await http.post("/units", content=content, headers=headers)

    assert code(asyncio.run(send(b'{"id": '))) == (400, "MALFORMED")
    assert code(asyncio.run(send(b"id=1", "application/x-www-form-urlencoded"))) == (415, "WRONG_MEDIA_TYPE")
    assert code(asyncio.run(send(b"[" + b" " * (1 << 20) + b"]"))) == (413, "TOO_LARGE")


def test_a_step_that_needs_no_words_takes_an_empty_body(api: Api) -> None:
    assert api("POST", "/units/cu-0001/deactivate", "sp-1").json()["status"] == "inactive"
    assert api("POST", "/units/cu-0001/activate", "sp-1", {}).json()["status"] == "active"
    assert code(api("POST", "/units/cu-0001/activate", "sp-1")) == (409, "CONFLICT")


@pytest.mark.spec("PLAT-07")
def test_what_the_operator_does_for_a_party_is_marked_as_such(api: Api) -> None:
    assert api("POST", "/units", "mo", UNIT, On_Behalf_Of="sp-1").json()["unit"]["provider"] == "sp-1"
    command = api.journal.entries()[-1].command
    assert (command.party, command.by, command.actor) == ("sp-1", "mo", "client-mo")
    assert code(api("POST", "/units", "sp-2", UNIT, On_Behalf_Of="sp-1")) == (403, "FORBIDDEN")


@pytest.mark.spec("PLAT-07")
def test_what_needs_two_persons_waits_for_the_second(api: Api) -> None:
    assert code(api("PATCH", "/market", "mo", {"title": "Another"}, If_Match="*")) == (403, "FORBIDDEN")
    first, second = api.signed_in("user-anna", "mo"), api.signed_in("user-bruno", "mo")
    asked = api("PATCH", "/market", None, {"title": "Another"}, If_Match="*", **first)
    assert asked.status_code == 202
    where = asked.headers["location"].removeprefix(ROOT)
    assert api("GET", where, "mo").json()["status"] == "waiting"
    assert api("GET", "/market", "mo").json()["title"] == "Test"
    for wrong in ({"party": "mo"}, {"party": None, **first}):
        assert code(api("POST", f"{where}/confirm", **wrong)) == (403, "FORBIDDEN")
    assert api("POST", f"{where}/confirm", None, **second).status_code == 200
    assert api("GET", "/market", "mo").json()["title"] == "Another"


# ---------------------------------------------------------------- the disk


class Slow(MemoryJournal):
    """A journal whose disk answers when it is let, or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()
        self.full = False

    def append(self, entries: Sequence[Entry]) -> None:
        self.free.wait(10)
        if self.full:
            raise StoreFull("There is no room.", "Make some.")
        super().append(entries)


async def threaded(api: Api, journal: Slow) -> None:
    """Give a platform a writer's thread and a journal that holds what the old one holds."""
    journal.append(api.journal.entries(0, 10_000))
    loop = asyncio.get_running_loop()
    sequencer = Sequencer(api.machine, journal, api.clock, deliver=loop.call_soon_threadsafe, soon=loop.call_soon)
    api.sequencer = api.desk.sequencer = sequencer
    api.journal = api.desk.journal = journal


@pytest.mark.spec("PLAT-05")
def test_nobody_is_told_what_is_not_on_the_disk() -> None:
    api, journal = Api(), Slow()

    async def act() -> None:
        await threaded(api, journal)
        journal.free.clear()
        write = asyncio.create_task(api.ask("POST", "/units", "sp-1", UNIT))
        await asyncio.sleep(0.05)
        assert api.machine.state(TENANT).find(UnitEntry, "cu-new") is not None
        reads = [asyncio.create_task(api.ask("GET", path, "sp-1")) for path in ("/units", "/units/cu-new")]
        await asyncio.sleep(0.1)
        assert not write.done() and not any(read.done() for read in reads)
        journal.free.set()
        assert (await write).status_code == 201
        assert [(await read).status_code for read in reads] == [200, 200]
        await asyncio.to_thread(api.sequencer.close)

    asyncio.run(act())


@pytest.mark.spec("PLAT-05")
def test_where_the_disk_does_not_answer_the_outcome_is_not_known_and_the_same_key_asks_again() -> None:
    api, journal = Api(), Slow()

    async def act() -> None:
        await threaded(api, journal)
        api.desk.patience = 0.05
        journal.free.clear()
        unknown = await api.ask("POST", "/units", "sp-1", UNIT, Idempotency_Key="k-1")
        assert code(unknown) == (503, "OUTCOME_UNKNOWN")
        assert int(unknown.headers["retry-after"]) >= 1 and "same" in unknown.json()["remedy"]
        journal.free.set()
        api.desk.patience = 5
        told = await api.ask("POST", "/units", "sp-1", UNIT, Idempotency_Key="k-1")
        assert told.status_code == 201 and told.headers["idempotency-replayed"] == "true"
        await asyncio.to_thread(api.sequencer.close)

    asyncio.run(act())


def test_a_full_disk_refuses_the_write_and_takes_it_back() -> None:
    api, journal = Api(), Slow()

    async def act() -> None:
        await threaded(api, journal)
        journal.full = True
        assert code(await api.ask("POST", "/units", "sp-1", UNIT)) == (507, "STORE_FULL")
        journal.full = False
        assert code(await api.ask("GET", "/units/cu-new", "sp-1")) == (404, "NOT_FOUND")
        assert (await api.ask("POST", "/units", "sp-1", UNIT)).status_code == 201
        await asyncio.to_thread(api.sequencer.close)

    asyncio.run(act())


# ---------------------------------------------------------------- lists


def request_of(query: str, path: str = "/things") -> Request:
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": []}
    return Request(scope | {"server": ("test", 80), "scheme": "http", "root_path": ""})


@given(st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=30), st.integers(1, 12))
def test_the_pages_of_a_list_are_the_list_whatever_their_length(ids: set[str], limit: int) -> None:
    rows = [(id, id) for id in sorted(ids)]
    found: list[str] = []
    query = f"limit={limit}&kind=a"
    pages = 0
    while True:
        page = page_of(request_of(query), rows)
        assert page.total == len(rows) and len(page.items) <= limit
        found += page.items
        pages += 1
        if page.next is None:
            break
        query = f"limit={limit}&kind=a&cursor={page.next}"
    assert found == sorted(ids)
    assert pages == max(1, -(-len(rows) // limit))


@given(st.lists(st.integers(0, 50), unique=True, min_size=3, max_size=20), st.data())
def test_going_on_from_a_cursor_skips_and_repeats_nothing_that_stayed(ids: list[int], data: st.DataObject) -> None:
    """Rows come and go between two pages: what was there both times is told once."""
    rows = [(f"{id:03d}", id) for id in sorted(ids)]
    first = page_of(request_of("limit=2"), rows)
    gone = set(data.draw(st.lists(st.sampled_from(ids), max_size=3)))
    come = set(data.draw(st.lists(st.integers(0, 50), max_size=3)))
    later = sorted((set(ids) - gone) | come)
    rest = page_of(request_of(f"limit=1000&cursor={first.next}"), [(f"{id:03d}", id) for id in later]).items
    last = first.items[-1]
    assert rest == [id for id in later if id > last]


def test_a_cursor_of_another_list_filter_or_hand_is_refused(api: Api) -> None:
    cursor = api("GET", "/units?limit=1", "sp-1").json()["next"]
    assert api("GET", f"/units?limit=1&cursor={cursor}", "sp-1").json()["items"][0]["id"] == "cu-0003"
    for path in ("/points?limit=1", "/units?limit=1&status=active"):
        assert code(api("GET", f"{path}&cursor={cursor}", "sp-1")) == (400, "MALFORMED")
    for forged in ("", "x", "AAAA", "é", "A" + cursor[1:]):
        assert code(api("GET", f"/units?cursor={forged}", "sp-1")) == (400, "MALFORMED")


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=1e2", "limit=-1", "limit=٣", "limit=1&limit=2", "size=3", "as_of=now",
              "as_of=2026-01-01T00:00:00", "as_of=2999-01-01T00:00:00Z"],
)  # fmt: skip
def test_a_parameter_that_is_wrong_or_not_known_is_refused(api: Api, query: str) -> None:
    assert code(api("GET", f"/units?{query}", "sp-1")) == (400, "MALFORMED")


def test_filters_leave_what_has_the_value_and_nothing_that_the_caller_may_not_read(api: Api) -> None:
    everything = api("GET", "/units", "sp-1").json()
    assert everything["total"] == 2
    assert api("GET", "/units?connection_point=pod-0003", "sp-1").json()["total"] == 1
    assert api("GET", "/units?status=terminated", "sp-1").json()["items"] == []
    assert api("GET", "/units?owner=owner", "dso").json()["total"] == 4
    # The market operator sees the units but not their owners, so it does not learn them by asking either.
    assert api("GET", "/units", "mo").json()["total"] == 4
    assert "owner" not in api("GET", "/units/cu-0001", "mo").json()["unit"]
    assert api("GET", "/units?owner=owner", "mo").json()["total"] == 0


def test_who_has_the_newest_is_told_so_without_the_body(api: Api) -> None:
    for path in ("/units", "/units/cu-0001", "/units/cu-0001/history", "/market"):
        first = api("GET", path, "sp-1")
        known = api("GET", path, "sp-1", If_None_Match=first.headers["etag"])
        assert (known.status_code, known.content) == (304, b"")
        assert known.headers["etag"] == first.headers["etag"] and "Authorization" in known.headers["vary"]
    assert api("PATCH", "/units/cu-0001", "sp-1", {"category": "x"}, If_Match="*").status_code == 200
    assert api("GET", "/units", "sp-1", If_None_Match=api("GET", "/units", "sp-2").headers["etag"]).status_code == 200


@pytest.mark.spec("REG-11")
def test_the_history_has_every_version_and_as_of_any_of_them(api: Api) -> None:
    start = api.clock.at
    for hour, power in enumerate((900, 800, 700), start=1):
        api.clock.at = start + timedelta(hours=hour)
        change = {"up_kw": power, "max_quantity_kw": power}
        assert api("PATCH", "/units/cu-0001", "sp-1", change, If_Match="*").status_code == 200
    past = api("GET", "/units/cu-0001/history?limit=2", "sp-1").json()
    rest = api("GET", f"/units/cu-0001/history?limit=2&cursor={past['next']}", "sp-1").json()
    versions = past["items"] + rest["items"]
    assert [one["record"]["unit"]["up_kw"] for one in versions] == [1000, 900, 800, 700]
    assert [one["at"] for one in versions] == [(start + timedelta(hours=h)).strftime("%Y-%m-%dT%H:%M:%SZ")
                                               for h in range(4)]  # fmt: skip
    for hour, power in enumerate((1000, 900, 800, 700)):
        at = (start + timedelta(hours=hour, minutes=59)).isoformat().replace("+00:00", "Z")
        if hour == 3:
            api.clock.at += timedelta(hours=1)
        assert api("GET", f"/units/cu-0001?as_of={at}", "sp-1").json()["unit"]["up_kw"] == power
        listed = api("GET", f"/units?as_of={at}", "sp-1").json()["items"]
        assert next(one for one in listed if one["id"] == "cu-0001")["unit"]["up_kw"] == power
    before = (start - timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    assert code(api("GET", f"/units/cu-0001?as_of={before}", "sp-1")) == (404, "NOT_FOUND")


@pytest.mark.spec("REG-11")
def test_what_belongs_to_others_is_answered_like_what_is_not_there(api: Api) -> None:
    for path in ("/units/{}", "/units/{}/history", "/units/{}?as_of=2026-01-01T00:00:00Z"):
        there = api("GET", path.format("cu-0001"), "sp-2")
        absent = api("GET", path.format("cu-9999"), "sp-2")
        assert code(there) == (404, "NOT_FOUND")
        assert there.text.replace("cu-0001", "cu-9999") == absent.text
    for tag in ({}, {"If_Match": '"3"'}, {"If_Match": '"2"'}):
        for step in ("deactivate", "terminate"):
            there = api("POST", f"/units/cu-0001/{step}", "sp-2", **tag)
            assert code(there) == (404, "NOT_FOUND")
            absent = api("POST", f"/units/cu-9999/{step}", "sp-2", **tag)
            assert there.text.replace("cu-0001", "cu-9999") == absent.text


def test_the_same_fault_is_told_with_the_same_bytes(api: Api) -> None:
    ask: list[Callable[[], Any]] = [
        lambda: api("GET", "/units/none", "sp-1"),
        lambda: api("POST", "/units", "sp-1", UNIT | {"up_kw": -5, "owner": "x"}),
        lambda: api("PATCH", "/units/cu-0001", "sp-1", {"up_kw": 1}, If_Match='"1"'),
    ]
    for one in ask:
        first = one()
        api.clock.at += timedelta(minutes=1)
        assert one().content == first.content


def test_an_address_or_method_that_is_not_known_is_told(api: Api) -> None:
    assert code(api("GET", "/nothing")) == (404, "NOT_FOUND")
    assert code(api("GET", "/units/", "sp-1")) == (404, "NOT_FOUND")
    answer = api("DELETE", "/units")
    assert code(answer) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "GET, HEAD, POST"


def test_a_failure_of_the_platform_tells_nothing_of_its_inside(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> datetime:
        raise ZeroDivisionError("the secret recipe")

    monkeypatch.setattr(api.desk, "clock", broken)
    answer = api("GET", "/time", "sp-1")
    assert code(answer) == (500, "INTERNAL") and "recipe" not in answer.text


def test_an_error_that_no_table_knows_is_a_failure_of_the_platform() -> None:
    from coflex.adapters.web.api.problems import problem

    class Odd(CoflexError):
        code = "ODD"

    assert problem(Odd("inside")).status == problem(ValueError("inside")).status == 500


# ---------------------------------------------------------------- parties and persons


KEY = "a-long-random-key-of-an-applicant-0001"


@pytest.mark.spec("REG-01")
def test_a_party_registers_without_credentials_and_comes_in_with_the_key_it_gets(api: Api) -> None:
    form = {"id": "sun", "name": "Sun and Sons", "roles": ["service_provider"]}
    assert code(api("POST", "/parties", None, form, Idempotency_Key="short")) == (400, "KEY_MISSING")
    applied = api("POST", "/parties", None, form, Idempotency_Key=KEY)
    assert applied.status_code == 201 and applied.json()["status"] == "requested"
    assert api("POST", "/parties", None, form, Idempotency_Key=KEY).content == applied.content
    own = {"Authorization": f"Bearer {applied.json()['api_key']}"}
    assert api("GET", "/parties/sun", None, **own).json()["status"] == "requested"
    assert code(api("POST", "/units", None, UNIT, **own)) == (403, "FORBIDDEN")
    assert api("POST", "/parties/sun/approve", "ro").json()["status"] == "approved"
    assert api("POST", "/units", None, UNIT, **own).status_code == 201
    assert code(api("POST", "/parties", None, form, Idempotency_Key=KEY[::-1])) == (409, "CONFLICT")
    assert code(api("POST", "/parties", None, form, Authorization="Bearer cf_x")) == (401, "NOT_SIGNED_IN")


@pytest.mark.spec("REG-10")
def test_personal_data_is_read_by_few_never_in_the_journal_and_can_be_erased(api: Api) -> None:
    person = {"name": "Ada Example", "email": "ada@example.org", "address": "Street 1"}
    form = {"id": "ada", "roles": ["asset_owner"], "person": person}
    applied = api("POST", "/parties", None, form, Idempotency_Key=KEY)
    assert applied.status_code == 201
    own = {"Authorization": f"Bearer {applied.json()['api_key']}"}
    assert api("GET", "/parties/ada/person", None, **own).json() == person
    assert api("GET", "/parties/ada/person", "ro").json() == person
    for party in ("mo", "sp-1", "dso"):
        assert code(api("GET", "/parties/ada/person", party)) == (404, "NOT_FOUND")
    moved = person | {"address": "Street 2"}
    assert api("PUT", "/parties/ada/person", None, moved, **own).status_code == 200
    assert api("GET", "/parties/ada/person", None, **own).json() == moved
    assert api("DELETE", "/parties/ada/person", None, **own).json()["personal_erased"]
    assert code(api("GET", "/parties/ada/person", "ro")) == (404, "NOT_FOUND")
    assert api("GET", "/parties/ada/history", "ro").json()["total"] == 3
    for entry in api.journal.entries():
        kept = (entry.command.body, entry.reply, *(change.body or b"" for change in entry.changes))
        assert not any(word in text for text in kept for word in (b"Ada", b"ada@", b"Street"))


def test_personal_data_with_faults_is_refused_before_it_is_kept(api: Api) -> None:
    form = {"id": "ada", "roles": ["asset_owner"], "person": {"name": "", "email": "nobody", "address": "x" * 300}}
    answer = api("POST", "/parties", None, form, Idempotency_Key=KEY)
    assert code(answer) == (422, "REFUSED")
    places = [one["place"] for one in answer.json()["findings"]]
    assert places == ["person.address", "person.email", "person.name"]
    assert api.machine.state(TENANT).find(PartyEntry, "ada") is None


# ---------------------------------------------------------------- many units at once


def csv_of(rows: list[dict[str, Any]]) -> str:
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "".join(",".join(line) + "\n" for line in lines)


@pytest.mark.spec("REG-02", "XCH-04")
@pytest.mark.parametrize("media", [CSV, "application/json"])
def test_a_table_of_units_is_taken_whole_or_not_at_all(api: Api, media: str) -> None:
    row = {name: value for name, value in UNIT.items() if name != "point"} | {
        name: POINT[name] for name in ("bus", "level", "voltage_kv", "system_operator", "latitude", "longitude")
    }
    rows = [row | {"id": f"cu-{k}", "connection_point": f"pod-{k}"} for k in range(100, 200)]

    async def send(rows: list[Any], key: str) -> Any:
        async with api.http("sp-1") as http:
            headers = {"Idempotency-Key": key, "Content-Type": media}
            content = json.dumps({"rows": rows}) if media != CSV else csv_of(rows)
            return await http.post("/unit-imports", content=content.encode(), headers=headers)

    bad = asyncio.run(send([*rows, row | {"up_kw": -1}], "k-1"))
    assert code(bad) == (422, "REFUSED")
    assert all("102" in one["place"] or "101" in one["place"] for one in bad.json()["findings"])
    assert api("GET", "/units", "sp-1").json()["total"] == 2
    taken = asyncio.run(send(rows, "k-2"))
    assert taken.status_code == 201 and taken.json()["units"] == 100
    assert asyncio.run(send(rows, "k-2")).content == taken.content
    assert api("GET", "/units?limit=1", "sp-1").json()["total"] == 102


def test_a_table_of_an_unknown_kind_is_refused(api: Api) -> None:
    answer = api("POST", "/unit-imports", "sp-1", Content_Type="application/pdf")
    assert code(answer) == (415, "WRONG_MEDIA_TYPE")


# ---------------------------------------------------------------- results


@pytest.mark.spec("MKT-02", "MKT-05")
def test_results_are_for_those_they_concern_and_only_once_they_are_published(api: Api) -> None:
    assert code(api("GET", f"/sessions/{FIRST}/awards", "sp-1")) == (409, "NOT_READY")
    entry = api.machine.state(TENANT).get(SessionEntry, FIRST)
    api.sequencer.submit(put(published(entry)))
    kw = {party: [one["quantity_kw"] for one in api("GET", f"/sessions/{FIRST}/awards", party).json()["items"]]
          for party in ("sp-1", "sp-2", "dso", "mo", "tso", "owner")}  # fmt: skip
    assert kw == {"sp-1": [10], "sp-2": [20, 30], "dso": [10, 20, 30], "mo": [10, 20, 30], "tso": [], "owner": []}
    skipped = api("GET", f"/sessions/{FIRST}/merit-order-list?reason=out_of_merit", "mo").json()
    assert [one["provider"] for one in skipped["items"]] == ["sp-2"]
    assert api("GET", f"/sessions/{FIRST}/merit-order-list", "sp-1").json()["total"] == 1
    assert api("GET", f"/sessions/{FIRST}/uncovered", "dso").json()["total"] == 1
    assert api("GET", f"/sessions/{FIRST}/uncovered", "sp-1").json()["total"] == 0


@pytest.mark.spec("MKT-02")
def test_offers_are_read_by_their_provider_alone_before_the_gate(api: Api) -> None:
    made = api("POST", f"/sessions/{FIRST}/offers", "sp-1", offer("o-1", 1))
    assert made.status_code == 201
    path = f"/sessions/{FIRST}/offers"
    assert api("GET", path, "sp-1").json()["total"] == 1
    assert api("GET", path, "sp-2").json()["total"] == 0
    for party in ("mo", "dso", "tso", "owner", "ro", "observer"):
        assert code(api("GET", path, party)) == (403, "FORBIDDEN")
        assert code(api("GET", f"{path}/o-1", party)) == (403, "FORBIDDEN")
    assert code(api("GET", path, "mo", On_Behalf_Of="sp-1")) == (403, "FORBIDDEN")
    assert code(api("GET", f"{path}/o-1", "sp-2")) == (404, "NOT_FOUND")


def test_the_tenants_time_is_told(api: Api) -> None:
    assert api("GET", "/time", "observer").json() == {"now": "2016-07-04T06:30:00Z", "speed": 0}
    assert api("POST", "/sandbox/clock", "mo", {"next_gate": True}).status_code == 200
    assert api("GET", "/time", "observer").json()["now"] == "2016-07-04T08:00:00Z"
