"""One sound request to every operation of the API, on the records of `support.api_world`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.identity.limits import Limits
from coflex.domain.party import Role
from coflex.register.market import SessionEntry
from coflex.service.ports import Command
from coflex.service.sequencer import Receipt
from support.api import Api
from support.api_world import LINE, RUN, SETTLED, others, persons, published, records
from support.platform import FIRST, SECRET, TENANT, offer, put

TABLE = Path(__file__).parents[2] / "docs" / "rights.csv"
OUTCOME = FIRST.replace("local-1", "local-2")
# What the names in paths stand for, for a role's own party; {} is the party.
NAMED = {
    "tenant": TENANT, "party": "{}", "client": "client-{}", "user": "user-{}", "holder": "client-{}",
    "webhook": "webhook-{}", "proposal": "proposal-{}", "issuer": "issuer-1", "design": "beflexible_six",
    "perimeter": "per-1", "point": "pod-0001", "unit": "cu-0001", "group": "sp-1-local", "product": "local_energy",
    "consent": "consent-cu-0001", "prequalification": "cu-0001@dso", "qualification": "sp-1-local@local_energy",
    "activation": "activation-{}", "set_point": "activation-{}.cu-act", "backup": "backup-1",
    "regulation": "regulation-{}", "device": "device-1", "data_grant": "data-grant-{}",
    "test": "test-1", "scheduling_unit": "su-1", "member": "su-1@cu-0001", "agreement": "tso@sp-1", "session": FIRST,
    "offer": "o-1",
    "metered_day": "cu-act@2016-07-05", "baseline_day": "cu-act@2016-07-05", "period": SETTLED, "settlement": RUN,
    "statement": f"{RUN}.{{}}", "invoice": "invoice-{}", "dispute": "dispute-{}",
    "owner_contract": "owner-contract-1", "shared_purchase": "shared-purchase-{}",
    "ready_day": "sp-1-local@2016-07-05",
}  # fmt: skip
# Operations that another record suits better: a session with a result, a scheduling unit that has come so far.
ELSEWHERE = {
    "list_award": {FIRST: OUTCOME},
    "list_merit_line": {FIRST: OUTCOME},
    "list_uncovered": {FIRST: OUTCOME},
    "scheduling_unit_confirm": {"su-1": "su-2"},
    "scheduling_unit_take_part": {"su-1": "su-3"},
    "scheduling_test_set": {"su-1": "su-3"},
    "scheduling_test_answer": {"test-1": "test-2"},
    "scheduling_unit_agree": {"su-1": "su-4"},
}
# Parameters without which there is no answer.
QUERIES = {
    "get_proof": "?leaf=0",
    "get_certificate": "?from=2016-07-04T00:00:00Z&to=2016-07-05T00:00:00Z",
}
# Bodies that the document gives no example of, or one that names what is not here.
BODIES: dict[str, Any] = {
    "client_create": {
        "name": "Bids", "scopes": ["read"], "expires": "2030-01-01T00:00:00Z", "redirects": ["https://a.example"],
    },
    "client_limit": {"requests_per_s": 10, "requests_burst": 20, "items_per_s": 10, "items_burst": 20},
    "token_revoke": {"token": "a" * 64, "expires": "2030-01-01T00:00:00Z"},
    "user_create": {"name": "a sign-in name", "scopes": ["read"], "password": "correct horse battery"},
    "user_change": {"scopes": ["read"]},
    "user_change_password": {"password": "correct horse battery", "current": "x"},
    "webhook_create": {"url": "https://hook.example/x", "kinds": ["unit.*"]},
    "webhook_change": {"url": "https://hook.example/x"},
    "webhook_disable": {"reason": "Too many."},
    "issuer_accept": {"url": "https://id.example", "audience": "coflex"},
    "issuer_set": {"url": "https://id2.example", "audience": "coflex", "claim": "p", "names": "party",
                   "parties": ["sp-1"], "scopes": ["read"]},
    "party_register": {
        "id": "new", "name": "New", "roles": ["service_provider"], "code": "x",
        "duties": [{"duty": "technical", "proxy": "Net"}, {"duty": "communication", "proxy": ""}],
    },
    "market_change": {
        "title": "Another", "last_day": "2016-07-09", "design": "beflexible_six", "document": "id: x",
        "price_limit_eur_mwh": "3", "price_caps": {"local_energy": "3"},
    },
    "sandbox_clock": {"to": "2016-07-04T07:00:00Z", "speed": 2, "next_gate": False},
    "grid_check_request": {"mode": "one_by_one", "units": ["cu-0001"], "valid_until": "2030-01-01T00:00:00Z"},
    "grid_prequalification_answer": {
        "status": "conditionally_approved", "reason": "r", "proof": "p", "up_kw": 5, "down_kw": 5,
        "valid_until": "2030-01-01T00:00:00Z",
    },
    "product_procedure_set": {
        "service": "congestion_management", "signals": ["step"], "ramp_s": 5, "valid_days": 100, "full_mhz": 200.0,
        "dead_band_mhz": 10.0, "delay_s": 2.0,
    },
    "request_submit": {
        "asked": [{"start": "2016-07-04T22:00:00Z", "direction": "up", "quantity_kw": 5, "price_limit_eur_mwh": "9"}],
    },
    "availability_set": {
        "windows": [{"starts": "2016-07-05T10:00:00Z", "ends": "2016-07-05T12:00:00Z", "up_kw": 1, "down_kw": 0}],
    },
    "activation_order": {
        "session": OUTCOME, "offer": "sp-1/o", "direction": "up", "quantity_kw": 5, "starts": "2016-07-04T22:00:00Z",
        "ends": "2016-07-04T22:15:00Z",
    },
    "activation_change": {"quantity_kw": 5, "ends": "2016-07-04T23:00:00Z", "starts": "2016-07-04T22:00:00Z"},
    "activation_limit": {
        "unit": "cu-act", "to_kw": 5, "element": "line 3", "value": 1.2, "bound": 1.0, "reason": "overloaded",
        "ends": "2016-07-04T23:00:00Z",
    },
    "activation_split": {"units": [{"unit": "cu-act", "pieces": [
        {"starts": "2016-07-04T22:00:00Z", "ends": "2016-07-04T23:00:00Z", "kw": 5},
    ]}]},
    "activation_fail": {
        "unit": "cu-act", "remaining_kw": 5, "reason": "tripped", "ends": "2016-07-04T23:00:00Z",
    },
    "activation_rebalance": {"units": ["cu-act"]},
    "backup_reserve": {"unit": "cu-0001", "starts": "2016-07-06T22:00:00Z", "ends": "2016-07-06T23:00:00Z"},
    "regulation_start": {
        "session": OUTCOME, "band": "sp-1-local", "ends": "2016-07-04T23:00:00Z", "starts": "2016-07-04T22:00:00Z",
        "up_kw": 5, "down_kw": 5,
    },
    "measurements_bring": {"messages": []},
    "regulation_signal": {"kw": 5.0, "seconds": 12.0},
    "device_enrol": {"unit": "cu-act", "public_key": "ab" * 32},
    "device_rotate_key": {"public_key": "cd" * 32},
    "data_grant_give": {
        "unit": "cu-act", "party": "dso", "scope": ["live"], "ends": "2017-01-01T00:00:00Z",
        "starts": "2016-07-05T00:00:00Z",
    },
    "settlement_terms_set": {"from_day": "2016-08-01", "document": "mfrr", "methods": ["nominated"]},
    "billing_details_set": {
        "name": "Ada", "city": "Rome", "country": "IT", "street": "Via Roma 1", "postcode": "00100", "vat_id": "IT1",
        "vat_percent": "22", "iban": "IT60", "endpoint": "0211:IT1", "prefix": "A",
    },
    "owner_contract_offer": {
        "unit": "cu-act", "from_day": "2016-08-01", "share": "0.6", "eur_mwh": "3", "penalty_share": "0.2",
        "until_day": "2016-12-31",
    },
    "shared_purchase_offer": {
        "session": OUTCOME, "costs": [{"group": "dso", "eur": "1"}],
        "sharers": [{"role": "dso", "party": "dso", "need": "1"}, {"role": "tso", "party": "tso", "need": "2"}],
    },
    "settlement_run": {"incomplete": True},
    "settlement_rerun": {"inputs": "0" * 64, "reason": "Readings were corrected."},
    "invoice_issue": {"issued": "2016-07-10", "due_days": 30},
    "dispute_open": {"period": SETTLED, "line": LINE, "reason": "The meter was changed."},
    "dispute_decide": {"reason": "It was.", "changes": [{"field": "measured_kwh", "value": "-20", "source": "p-1"}]},
    "person_change": {"name": "Ada", "email": "ada@example.org"},
    "offer_submit": offer(
        "o-2", 1, min_quantity_kw=1, block=True, max_periods=2, energy_limit_kwh=10, exclusive="x",
        valid_until="2016-07-04T21:00:00Z", local_only=True, group=None,
    ),
    "offer_replace": offer("o-1", 1),
    "units_import": {"rows": []},
    "product_test_set": {"starts": "2016-07-06T10:00:00Z", "signal": "step", "seed": 5},
    "connection_point_register": {
        "id": "pod-new", "bus": "", "level": "distribution", "voltage_kv": 20.0, "system_operator": "dso",
        "owner": "owner", "latitude": 41.9, "longitude": 12.5,
    },
    "unit_register": {
        "id": "cu-new", "category": "load", "technology": "heat_pump", "connection_point": "pod-new", "owner": "owner",
        "balance_responsible_party": "brp", "up_kw": 400, "down_kw": 200, "preparation_period_s": 60,
        "ramping_period_s": 240, "full_activation_time_s": 300, "deactivation_period_s": 300, "min_quantity_kw": 10,
        "max_quantity_kw": 400, "min_duration_s": 900, "max_duration_s": 7200, "recovery_time_s": 900, "element": "",
        "tan_phi": 0.3, "energy_up_kwh": 500, "energy_down_kwh": None,
        "point": {
            "id": "pod-new", "bus": "", "level": "distribution", "voltage_kv": 20.0, "system_operator": "dso",
            "owner": "owner", "latitude": 41.9, "longitude": 12.5, "impacted": ["tso"],
        },
    },
    "product_register": {
        "id": "new", "scope": "local", "kind": "active_energy", "directions": ["up"], "resolution_s": 900,
        "tick_kw": 1, "min_quantity_kw": 10, "full_activation_time_s": 900, "price_cap_eur_mwh": "3000",
        "divisible": True, "symmetric": False, "tolerance": "0.1", "penalty_share": "0.5", "perimeters": ["P-1"],
        "months": [1], "weekdays": [1, 2], "hours": [8], "max_up_kw": 1000, "max_duration_s": 7200,
        "accuracy_percent": "1", "test_share": "0.9", "test_within_s": 1000,
    },
    "consent_give": {"unit": "cu-0001", "provider": "sp-1", "scope": ["offer"], "ends": "2027-01-01T00:00:00Z",
                     "starts": "2017-01-01T00:00:00Z"},
    "product_qualification_request": {"group": "sp-1-local", "product": "local_energy", "up_kw": 1, "down_kw": 0},
    "product_qualification_apply_equivalence": {
        "source": "sp-1-local@local_energy", "group": "sp-1-local", "product": "local_energy",
    },
    "scheduling_unit_declare": {"id": "su-9", "type": "demand", "products": ["global_energy"], "tso": "tso"},
    "scheduling_test_set": {"product": "global_energy", "starts": "2016-07-06T10:00:00Z", "signal": "step",
                            "seed": 5},
}  # fmt: skip
# Where tokens are made, OAuth says who may: that is tested with the issuer.
ISSUER = "sign-in"
# A stream does not end: asked for a place that cannot be, it is refused as malformed, but only to who may listen.
STREAM = "stream_event"


@dataclass(frozen=True)
class Operation:
    """An operation of the document."""

    id: str
    method: str
    path: str
    body: Any
    public: bool

    def request(self, party: str) -> tuple[str, str]:
        """Method and path, on the records of a party."""
        path = self.path
        for name, value in NAMED.items():
            path = path.replace(f"{{{name}}}", value.format(party))
        assert "{" not in path, f"what is {path}?"
        path += QUERIES.get(self.id, "")
        for before, after in ELSEWHERE.get(self.id, {}).items():
            path = path.replace(before, after)
        return self.method, path


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            if ISSUER in told["tags"]:
                continue
            content = told.get("requestBody", {}).get("content", {}).get("application/json", {})
            body = BODIES.get(told["operationId"], content.get("example"))
            yield Operation(told["operationId"], method.upper(), path, body, {} in told.get("security", []))


class Dry(Desk):
    """A desk whose commands are decided and taken back, so that every cell of the table meets the same state."""

    async def submit(self, command: Command) -> Receipt:
        at = self.clock()
        taken = self.machine.apply(command, self.sequencer.number + 1, at)
        self.machine.take_back(command.tenant, taken)
        return Receipt(self.sequencer.number, at, taken.status, taken.reply)


def dry() -> Api:
    """A platform with a record of every kind that no request changes."""
    api = Api(registrations=Limits(count(step=3600).__next__))
    for made in (others(), records()):
        api.sequencer.submit(put(made))
    api.sequencer.submit(persons())
    entry = api.machine.state(TENANT).get(SessionEntry, OUTCOME)
    api.sequencer.submit(put(published(entry)))
    assert api("POST", f"/sessions/{FIRST}/offers", "sp-1", offer("o-1", 1)).status_code == 201
    api.desk.__class__ = Dry
    return api


async def status(http: httpx.AsyncClient, one: Operation, owner: str, client: str | dict[str, str] | None) -> int:
    """The status of an operation on the records of a party, asked with a client's key, or with the header of a user;
    None: without credentials."""
    method, path = one.request(owner)
    shown = {"Authorization": f"Bearer cf_{client}_{SECRET}"} if isinstance(client, str) else dict(client or {})
    headers = shown
    if method != "GET":
        headers |= {"Idempotency-Key": "k" * 40, "If-Match": "*", "Content-Type": "application/json"}
    content = b"" if one.body is None else json.dumps(one.body).encode()
    if one.id == STREAM:
        path += "?after=never"
    got = (await http.request(method, f"http://test{path}", content=content, headers=headers)).status_code
    return 200 if one.id == STREAM and got == 400 else got


@cache
def table() -> dict[str, dict[Role, str]]:
    """The expectations: operation -> role -> "any", "own" or ""."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {row.pop("operation"): {Role(role): cell for role, cell in row.items()} for row in csv.DictReader(file)}
