"""The story of an award after its hour: read, settled, billed, contested, decided by two, and audited from outside; all
of it through the door, as each party sees it (SET-03, SET-05, SET-06)."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from support.command import coflex
from support.platform import TENANT
from support.settled import PERIOD, QUARTERS, UNITS, Settled

FIRST, SECOND = f"{PERIOD}.1", f"{PERIOD}.2"
RULE = """
id: requested_with_fee
version: 1
title: What was requested, and a fifth of it for the platform
source: {document: T, section: imbalance settlement}
delivered: {by: requested, tolerance: 0.1}
pricing: pay_as_bid
penalty: {kind: share, share: 0.5}
payers: {tso_balancing: tso}
fee: {share: 0.2, borne_by: payer}
"""


@pytest.fixture(scope="module")
def world() -> Settled:
    """150 kW of sp-1 for an hour at 40 EUR/MWh, of which cu-0001 gave its 100 and cu-0003 40 of its 50 kW."""
    made = Settled()
    by_two(made, "PUT", "/settlement-terms/global_energy",
           {"from_day": PERIOD, "document": RULE, "methods": ["nominated"]})  # fmt: skip
    made.bring_all(u0001="-25", u0003="-40")
    return made


def taken(response: Any, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    return response.json()


def by_two(world: Settled, method: str, path: str, body: Any) -> Any:
    """Ann proposes, and cannot confirm; Bob can."""
    proposal = world(method, path, None, body, **world.ann)
    assert proposal.status_code == 202, proposal.text
    confirm = f"{proposal.headers['location'].removeprefix(f'/v1/{TENANT}')}/confirm"
    assert world("POST", confirm, None, {}, **world.ann).status_code == 403
    return taken(world("POST", confirm, None, {}, **world.bob))


def pages(world: Settled, path: str, party: str) -> list[Any]:
    """Every item of a list, three a page."""
    found: list[Any] = []
    cursor = ""
    while True:
        page = taken(world("GET", f"{path}{'&' if '?' in path else '?'}limit=3{cursor}", party))
        found += page["items"]
        if page["next"] is None:
            assert len(found) == page["total"]
            return found
        cursor = f"&cursor={page['next']}"


@pytest.mark.spec("SET-03", "SET-05", "SET-06")
def test_an_award_becomes_an_invoice_is_contested_and_two_persons_decide(world: Settled, tmp_path: Path) -> None:
    _is_read(world)
    _is_settled(world)
    _is_billed(world)
    _is_contested(world)
    _is_decided(world)
    _is_audited(world, tmp_path)


def _is_read(world: Settled) -> None:
    """Owner and provider see what was metered; the buyer and others do not."""
    for party in ("owner", "sp-1", "mo"):
        days = taken(world("GET", "/metered-days", party))["items"]
        assert [one["unit"] for one in days] == list(UNITS)
        assert [one["kwh"] for one in days[1]["quantities"]] == ["-40.000"] * 4
    for party in ("tso", "dso", "sp-2"):
        assert taken(world("GET", "/metered-days", party))["total"] == 0
        assert world("GET", f"/metered-days/cu-0001@{PERIOD}", party).status_code == 404


def _is_settled(world: Settled) -> None:
    """By hand, of one quarter-hour: cu-0001 25 kWh x 0.040 = 1.00 EUR. cu-0003 10 of 12.5 kWh: 0.40 EUR, and for
    12.5 x 0.9 - 10 = 1.25 kWh half the price, 0.025 EUR. The fee is a fifth of 1.40 EUR. Times four: 5.60, 0.10,
    1.12 EUR. So 6.82 EUR are paid: 6.72 by the TSO, 0.10 by the provider."""
    preview = taken(world("GET", f"/settlement-periods/{PERIOD}", "mo"))
    assert (preview["deliveries"], preview["unmetered"], preview["over"], preview["runs"]) == (8, 0, True, [])
    assert {one["party"]: one["cents"] for one in preview["balances"]} == {"tso": -662, "sp-1": 550, "mo": 112}
    assert world("GET", f"/settlement-periods/{PERIOD}", "tso").status_code == 404
    made = world("POST", f"/settlement-periods/{PERIOD}/run", "mo", {})
    run = taken(made, 201)
    assert made.headers["location"].endswith(f"/settlements/{FIRST}")
    assert (run["inputs"], run["paid_cents"], run["received_cents"], run["fee_cents"]) == (
        preview["inputs"], 682, 570, 112
    )  # fmt: skip
    for party, balance in (("tso", -662), ("sp-1", 550), ("mo", 112)):
        mine = taken(world("GET", f"/statements?period={PERIOD}", party))["items"]
        own = [one for one in mine if one["party"] == party]
        assert [one["balance_cents"] for one in own] == [balance]
        assert party == "mo" or own == mine
    assert taken(world("GET", "/statements", "sp-2"))["total"] == 0
    for path in (f"/statements/{FIRST}.tso", f"/statements/{FIRST}.tso/lines", f"/settlements/{FIRST}/lines"):
        assert world("GET", path, "sp-1").status_code == 404, path


def _is_billed(world: Settled) -> None:
    """The provider bills 5.50 EUR, the platform its fee of 1.12 EUR; each form of an invoice says so, to its two
    parties alone."""
    told = taken(world("POST", f"/settlements/{FIRST}/invoices", "mo", {"issued": "2016-07-10"}))
    assert told["invoices"] == ["mo-000001", "sp-1-000001"]
    path = "/invoices/sp-1-000001"
    for party in ("sp-1", "tso", "mo"):
        whole = world("GET", path, party)
        document = taken(whole)
        assert (document["net_cents"], document["seller"]["id"], len(document["lines"])) == (550, "sp-1", 12)
        assert world("GET", path, party, If_None_Match=whole.headers["etag"]).status_code == 304
    for party in ("sp-2", "dso", "owner"):
        missing = world("GET", path, party)
        assert missing.status_code == 404
        assert missing.json()["detail"] == world("GET", "/invoices/sp-9-000001", party).json()["detail"].replace(
            "sp-9-000001", "sp-1-000001"
        )
    page, pdf, table, ubl = (
        world("GET", path, "tso", Accept=media)
        for media in ("text/html", "application/pdf", "text/csv", "application/xml")
    )
    assert "5.50" in page.text and page.headers["content-type"].startswith("text/html")
    assert pdf.content.startswith(b"%PDF") and len(table.text.splitlines()) == 13
    assert b'<cbc:PayableAmount currencyID="EUR">5.50</cbc:PayableAmount>' in ubl.content


def _is_contested(world: Settled) -> None:
    """The provider finds the line of a penalty and says that its meter was changed."""
    lines = pages(world, f"/statements/{FIRST}.sp-1/lines?cause=penalty", "sp-1")
    assert [one["charge"]["amount_eur"] for one in lines] == ["-0.025000000"] * 4
    body = {"period": PERIOD, "line": lines[0]["charge"]["id"], "reason": "The meter was changed at half past ten."}
    assert world("POST", "/disputes", "sp-2", body).status_code == 404
    once, again = (world("POST", "/disputes", "sp-1", body, Idempotency_Key="once") for _ in range(2))
    assert once.content == again.content and again.headers["idempotency-replayed"] == "true"
    assert world("POST", "/disputes", "tso", body).status_code == 409
    assert [taken(world("GET", "/disputes", party))["total"] for party in ("sp-1", "tso", "mo", "sp-2")] == [1, 1, 1, 0]


def _is_decided(world: Settled) -> None:
    """The unit gave all of its 12.5 kWh: 0.10 EUR more, no penalty of 0.025, and 0.02 EUR more of fee. The booking of
    energy rises from 5.60 to 5.70, that of penalties from 0.10 to 0.075, which is 8 cents; the fee to 1.14 EUR."""
    (open_one,) = taken(world("GET", "/disputes?state=opened", "mo"))["items"]
    path = f"/disputes/{open_one['id']}/decide"
    body = {
        "reason": "The protocol proves it.",
        "changes": [{"field": "measured_kwh", "value": "-37.5", "source": "protocol-12"}],
    }
    assert world("POST", path, "sp-1", body).status_code == 403
    decided = by_two(world, "POST", path, body)
    assert (decided["state"], decided["posted"]) == ("changed", SECOND)
    assert [sorted(one["cause"] for one in decided[which]) for which in ("old", "new")] == [
        ["activation", "penalty"], ["activation"]
    ]  # fmt: skip
    run = taken(world("GET", f"/settlements/{SECOND}", "mo"))
    assert (run["dispute"], run["paid_cents"], run["fee_cents"]) == (open_one["id"], 14, 2)
    assert taken(world("GET", f"/statements/{SECOND}.sp-1", "sp-1"))["balance_cents"] == 12
    told = taken(world("POST", f"/settlements/{SECOND}/invoices", "mo", {"issued": "2016-07-13"}))
    assert told["invoices"] == ["mo-000002", "sp-1-000002"]
    second = taken(world("GET", "/invoices/sp-1-000002", "tso"))
    assert second["net_cents"] == 12 and "sp-1-000001" in json.dumps(second["positions"])


def _is_audited(world: Settled, folder: Path) -> None:
    """From what the door gives out, the command line recomputes every run and invoice, and finds no difference."""
    for number, id in enumerate((FIRST, SECOND), start=1):
        place = folder / "runs" / f"{number:04}"
        (place / "rules").mkdir(parents=True)
        raw = world("GET", f"/settlements/{id}/inputs", "mo").content
        assert sha256(raw).hexdigest() == taken(world("GET", f"/settlements/{id}", "mo"))["inputs"]
        kept = json.loads(raw)
        (place / "inputs.json").write_text(json.dumps(kept["inputs"]))
        for name, document in kept["rules"].items():
            (place / "rules" / f"{name}.yaml").write_text(document)
        lines = {"period": PERIOD, "lines": pages(world, f"/settlements/{id}/lines", "mo")}
        (place / "lines.json").write_text(json.dumps(lines))
    (folder / "invoices").mkdir()
    for one in pages(world, "/invoices", "mo"):
        for media, ending in (("application/json", "json"), ("text/csv", "csv"), ("application/xml", "xml")):
            file = folder / "invoices" / f"{one['id']}.{ending}"
            file.write_bytes(world("GET", f"/invoices/{one['id']}", "mo", Accept=media).content)
    told = coflex("settlement", "verify", folder, "--json")
    assert told.exit_code == 0, told.output
    assert {name: json.loads(told.stdout)[name] for name in ("runs", "invoices")} == {"runs": 2, "invoices": 4}
    (folder / "invoices/sp-1-000001.json").write_text(
        (folder / "invoices/sp-1-000001.json").read_text().replace('"net_cents": 550', '"net_cents": 551')
    )
    assert coflex("settlement", "verify", folder).exit_code == 1


def test_readings_that_come_late_are_settled_by_two_persons_through_the_door() -> None:
    """A second run is proposed on the inputs that the preview names; others are refused, and so is one person."""
    world = Settled()
    world.bring_all(u0001=None, u0003="-37.5")
    assert world("POST", f"/settlement-periods/{PERIOD}/run", "mo", {}).json()["code"] == "NOT_READY"
    taken(world("POST", f"/settlement-periods/{PERIOD}/run", "mo", {"incomplete": True}), 201)
    world.bring({("cu-0001", start): "-25" for start in QUARTERS}, log_size=200)
    preview = taken(world("GET", f"/settlement-periods/{PERIOD}", "mo"))
    assert (preview["lines"], preview["runs"]) == (4, [FIRST])
    again = {"inputs": preview["inputs"], "reason": "The readings of cu-0001 arrived."}
    path = f"/settlement-periods/{PERIOD}/rerun"
    assert world("POST", path, "mo", again).status_code == 403
    assert world("POST", path, None, again | {"inputs": "0" * 64}, **world.ann).status_code == 409
    assert by_two(world, "POST", path, again)["received_cents"] == 400
    history = taken(world("GET", f"/metered-days/cu-0001@{PERIOD}/history", "owner"))["items"]
    assert [one["record"]["quantities"][0]["kwh"] for one in history] == [None, "-25.000"]
