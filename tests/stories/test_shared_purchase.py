"""The story of a purchase that served two operators: the TSO bought it and asks the DSO to share, the DSO agrees, each
pays its part and is billed for it, a reading is corrected, and an auditor finds all of it to the cent (SET-03, 05, 06).
"""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from coflex.reporting.invoice_ubl import CAC, CBC
from support.command import coflex
from support.ordered import GLOBAL
from support.platform import TENANT
from support.settled import PERIOD, QUARTERS, Settled

FIRST, SECOND = f"{PERIOD}.1", f"{PERIOD}.2"
RULE = """
id: by_need
version: 1
title: What was requested, paid by those who needed it
source: {document: O, section: EU-SysFlex GBP2.2}
delivered: {by: requested, tolerance: 0.1}
pricing: pay_as_bid
penalty: {kind: share, share: 0.5}
payers: {tso_balancing: tso, shared: shared}
sharing: {by: need}
"""


@pytest.mark.spec("SET-03", "SET-05", "SET-06")
def test_a_purchase_is_shared_billed_corrected_and_audited(tmp_path: Path) -> None:
    world = Settled()
    by_two(world, "PUT", "/settlement-terms/global_energy",
           {"from_day": PERIOD, "document": RULE, "methods": ["nominated"]})  # fmt: skip
    _is_agreed(world)
    _is_paid_by_both(world)
    _is_corrected_for_both(world)
    _is_audited(world, tmp_path)


def taken(response: Any, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    return response.json()


def by_two(world: Settled, method: str, path: str, body: Any) -> Any:
    proposal = world(method, path, None, body, **world.ann)
    confirm = f"{proposal.headers['location'].removeprefix(f'/v1/{TENANT}')}/confirm"
    return taken(world("POST", confirm, None, {}, **world.bob))


def _is_agreed(world: Settled) -> None:
    """The TSO says that it needed two parts of three, and the DSO one."""
    sharers = [{"role": "tso", "party": "tso", "need": "100"}, {"role": "dso", "party": "dso", "need": "50"}]
    body = {"session": GLOBAL, "sharers": sharers}
    assert world("POST", "/shared-purchases", "dso", body).status_code == 403
    made = world("POST", "/shared-purchases", "tso", body)
    one = taken(made, 201)
    path = made.headers["location"].removeprefix(f"/v1/{TENANT}")
    assert [(each["party"], each["agreed"] is None) for each in one["sharers"]] == [("dso", True), ("tso", False)]
    assert world("GET", path, "sp-1").status_code == 404
    assert all(each["agreed"] for each in taken(world("POST", f"{path}/agree", "dso", {}))["sharers"])
    assert world("POST", f"{path}/decline", "tso", {}).status_code == 409
    assert taken(world("GET", f"/shared-purchases?session={GLOBAL}", "mo"))["total"] == 1


def _is_paid_by_both(world: Settled) -> None:
    """150 kW for an hour at 40 EUR/MWh are 6 EUR: 4 of the TSO and 2 of the DSO."""
    world.bring_all(u0001="-25", u0003="-37.5")
    taken(world("POST", f"/settlement-periods/{PERIOD}/run", "mo", {}), 201)
    told = {party: taken(world("GET", f"/statements/{FIRST}.{party}", party))["balance_cents"]
            for party in ("tso", "dso", "sp-1")}  # fmt: skip
    assert told == {"tso": -400, "dso": -200, "sp-1": 600}
    taken(world("POST", f"/settlements/{FIRST}/invoices", "mo", {"issued": "2016-07-10"}))
    mine = taken(world("GET", "/invoices", "dso"))["items"]
    assert [(one["seller"], one["customer"], one["net_cents"]) for one in mine] == [("sp-1", "dso", 200)]
    assert world("GET", f"/invoices/{mine[0]['id']}", "tso").status_code == 404


def _is_corrected_for_both(world: Settled) -> None:
    """cu-0003 gave 10 of 12.5 kWh once: 0.40 for 0.50 EUR, and half the price of the 1.25 kWh beyond the tolerance,
    0.025 EUR: two thirds of it go back to the TSO, a third to the DSO. Of energy 5.90 EUR are 3.9333 and 1.9667, which
    is 393 and 197 cents; of the penalty 0.025 EUR, 2 cents to the TSO and 1 to the DSO, though 2 are owed in all."""
    world.bring({("cu-0003", QUARTERS[0]): "-40"}, log_size=200)
    preview = taken(world("GET", f"/settlement-periods/{PERIOD}", "mo"))
    again = {"inputs": preview["inputs"], "reason": "The reading was corrected."}
    run = by_two(world, "POST", f"/settlement-periods/{PERIOD}/rerun", again)
    assert (run["id"], run["rounding_cents"]) == (SECOND, -1)
    told = {one["party"]: one["balance_cents"]
            for one in taken(world("GET", f"/statements?run={SECOND}", "mo"))["items"]}  # fmt: skip
    assert told == {"tso": 9, "dso": 4, "sp-1": -12, "rounding": -1}
    issued = taken(world("POST", f"/settlements/{SECOND}/invoices", "mo", {"issued": "2016-07-11"}))["invoices"]
    for number, party, net, first in ((issued[0], "dso", 4, "sp-1-000001"), (issued[1], "tso", 9, "sp-1-000002")):
        note = ElementTree.fromstring(world("GET", f"/invoices/{number}", party, Accept="application/xml").content)
        assert note.tag.endswith("CreditNote")
        payable = note.findtext("cac:LegalMonetaryTotal/cbc:PayableAmount", "", {"cac": CAC, "cbc": CBC})
        named = note.findtext("cac:BillingReference/cac:InvoiceDocumentReference/cbc:ID", "", {"cac": CAC, "cbc": CBC})
        rows = csv.DictReader(io.StringIO(world("GET", f"/invoices/{number}", party, Accept="text/csv").text))
        assert (Decimal(payable) * 100, named, -sum(int(row["cents"]) for row in rows)) == (net, first, net)


def _is_audited(world: Settled, folder: Path) -> None:
    for number, id in enumerate((FIRST, SECOND), start=1):
        place = folder / "runs" / f"{number:04}"
        (place / "rules").mkdir(parents=True)
        kept = taken(world("GET", f"/settlements/{id}/inputs", "mo"))
        assert kept["inputs"]["purchases"][0]["needs"] == {"dso": "50", "tso": "100"}
        (place / "inputs.json").write_text(json.dumps(kept["inputs"]))
        (place / "rules" / "by_need.yaml").write_text(kept["rules"]["by_need"])
        lines = taken(world("GET", f"/settlements/{id}/lines?limit=100", "mo"))["items"]
        (place / "lines.json").write_text(json.dumps({"period": PERIOD, "lines": lines}))
    (folder / "invoices").mkdir()
    for one in taken(world("GET", "/invoices", "mo"))["items"]:
        (folder / "invoices" / f"{one['id']}.json").write_bytes(world("GET", f"/invoices/{one['id']}", "mo").content)
    told = coflex("settlement", "verify", folder, "--json")
    assert told.exit_code == 0, told.output
    assert {name: json.loads(told.stdout)[name] for name in ("runs", "invoices")} == {"runs": 2, "invoices": 4}
