"""Settlement at the door: forms of an invoice, lists of lines, and what is told of a period (SET-05)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coflex.adapters.web.api.problems import Malformed
from coflex.adapters.web.api.rooms.settlement import CSV, HTML, JSON, PDF, UBL, wanted
from support.ordered import BEGIN
from support.settled import PERIOD, QUARTERS, Settled

RUN = f"{PERIOD}.1"


@pytest.fixture(scope="module")
def world() -> Settled:
    """One run of 8 lines, billed."""
    made = Settled()
    made.bring_all(u0001="-25", u0003="-37.5")
    made.bring({}, baselines=[made.baseline("cu-0001", ["-50"] * 96)])
    made.settle()
    made.do("invoice.issue", "mo", RUN, issued="2016-07-10")
    return made


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("", JSON), ("*/*", JSON), ("application/json", JSON), ("text/html,application/xhtml+xml,*/*;q=0.8", HTML),
        ("text/csv;q=0.5, application/pdf", PDF), ("text/*", HTML), ("image/png, text/csv; q=0.1", CSV),
        ("application/xml", UBL), ("text/html;q=0, application/xml;q=0.2", UBL), ("text/csv;q=x, */*", JSON),
        ("Application/PDF", PDF), (",", JSON),
    ],
)  # fmt: skip
def test_the_form_that_is_asked_for_first_is_answered(accept: str, media: str) -> None:
    assert wanted(accept) == media


@pytest.mark.parametrize("accept", ["image/png", "text/html;q=0", "application/msword, image/*"])
def test_a_form_that_is_none_of_ours_is_refused(accept: str) -> None:
    with pytest.raises(Malformed):
        wanted(accept)


@pytest.mark.spec("SET-05")
def test_every_form_has_its_tag_and_is_the_same_twice(world: Settled) -> None:
    path, tags = "/invoices/sp-1-000001", set()
    for media in (JSON, HTML, PDF, CSV, UBL):
        first, second = (world("GET", path, "tso", Accept=media) for _ in range(2))
        assert first.status_code == 200 and first.content == second.content
        assert first.headers["content-type"].partition(";")[0] == media and "Accept" in first.headers["vary"]
        assert world("GET", path, "tso", Accept=media, If_None_Match=first.headers["etag"]).status_code == 304
        tags.add(first.headers["etag"])
    assert len(tags) == 5
    assert world("GET", path, "tso", Accept="image/png").json()["code"] == "MALFORMED"
    assert world("GET", path, None).status_code == 401
    history = world("GET", f"{path}/history", "tso").json()
    assert history["total"] == 1 and history["items"][0]["record"]["net_cents"] == 600


@pytest.mark.spec("SET-05")
def test_lines_are_listed_in_pages_and_by_what_they_are(world: Settled) -> None:
    path = f"/statements/{RUN}.sp-1/lines"

    def ask(**asked: Any) -> dict[str, Any]:
        words = "&".join(f"{name}={value}" for name, value in asked.items())
        found: dict[str, Any] = world("GET", f"{path}?{words}", "sp-1").json()
        return found

    first = ask(limit=5)
    rest = ask(limit=5, cursor=first["next"])
    both = first["items"] + rest["items"]
    assert (first["total"], len(first["items"]), rest["next"]) == (8, 5, None)
    assert [one["charge"]["start"] for one in both] == sorted(one["charge"]["start"] for one in both)
    assert [ask(unit="cu-0003")["total"], ask(cause="penalty")["total"], ask(customer="tso")["total"]] == [4, 0, 8]
    assert ask(unit="cu-0003", cursor=first["next"])["code"] == ask(colour="red")["code"] == "MALFORMED"
    assert world("GET", f"/settlements/{RUN}/lines", "mo").json()["items"] == both
    assert world("GET", path, "tso").status_code == 404


@pytest.mark.spec("SET-05")
def test_a_period_is_looked_at_by_the_operator_alone(world: Settled) -> None:
    told = world("GET", f"/settlement-periods/{PERIOD}", "mo").json()
    assert (told["runs"], told["lines"], told["balances"], told["first_day"]) == ([RUN], 0, [], PERIOD)
    run = world("GET", f"/settlements/{RUN}", "mo").json()
    assert told["inputs"] == run["inputs"] and run["billed"] == "2016-07-10"
    missing, unknown = (world("GET", f"/settlements/{name}", "sp-1").json() for name in (RUN, "2016-07-05.9"))
    assert missing["detail"] == unknown["detail"].replace("2016-07-05.9", RUN)
    assert world("GET", "/settlement-periods/July", "mo").status_code == 422
    # a month of which a day is settled by itself
    assert world("GET", "/settlement-periods/2016-07", "mo").json()["code"] == "CONFLICT"
    inputs = world("GET", f"/settlements/{RUN}/inputs", "mo").json()
    assert len(inputs["inputs"]["deliveries"]) == 8 and list(inputs["rules"]) == ["catalogue-global_energy"]
    assert json.loads(inputs["rules"]["catalogue-global_energy"])["delivered"] == {
        "by": "requested",
        "tolerance": "0.1",
    }


def test_what_was_metered_and_its_baseline_are_read_with_their_versions(world: Settled) -> None:
    day = world("GET", f"/metered-days/cu-0001@{PERIOD}", "owner")
    assert [one["start"] for one in day.json()["quantities"]] == [
        start.isoformat().replace("+00:00", "Z") for start in QUARTERS
    ]
    assert world("GET", "/metered-days?unit=cu-0003", "sp-1").json()["total"] == 1
    assert world("GET", f"/baseline-days/cu-0001@{PERIOD}", "sp-1").json()["method"] == "last_4_alike"
    assert world("GET", "/baseline-days", "tso").json()["total"] == 0
    world.bring({("cu-0001", BEGIN): "-26"}, log_size=300)
    newer = world("GET", f"/metered-days/cu-0001@{PERIOD}", "owner")
    assert newer.headers["etag"] != day.headers["etag"]
    assert world("GET", f"/metered-days/cu-0001@{PERIOD}/history", "owner").json()["total"] == 2
