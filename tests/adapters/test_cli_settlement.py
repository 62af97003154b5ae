"""`coflex settlement ...`: a period settled, billed, verified, disputed and corrected in a folder of files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest

from coflex.adapters.cli.settlement_evidence import certified_kwh
from coflex.domain.statement import Evidence
from coflex.evidence import certificate, message
from coflex.settlement.document import Need
from coflex.settlement.inputs import Contract, Inputs
from coflex.settlement.records import Parties, read, write
from coflex.settlement.shelf import rule_text, rules
from support import evidence
from support.command import coflex, contents
from support.settling import D, delivery
from support.settling_parties import PARTIES

START = datetime.fromtimestamp(evidence.AT / 1000, UTC)
EVIDENCE = Evidence("offer-1", "", "set-point-1", "nominated", evidence.ORIGIN, 15, ("certificates/u1.json",))


def message_of(minute: int, watts: int, step: int = 4_000, revision: int = 0) -> bytes:
    """A minute of readings, signed by the device."""
    values = [watts] * (60_000 // step)
    body = message.measurement(
        evidence.AT + 60_000 * minute, step, message.Quantity.ACTIVE_POWER_W, values, revision=revision
    )
    return message.seal(
        evidence.DEVICE.sign, message.Kind.MEASUREMENT, evidence.POINT, minute + 1 + 100 * revision,
        evidence.AT + 60_000 * (minute + 1), body,
    )  # fmt: skip


def certificate_of(messages: list[bytes]) -> bytes:
    log = evidence.Book(messages)
    records = [log.record(index) for index in range(len(messages))]
    return certificate.encode(certificate.certificate(log.note(), evidence.LOG.key, evidence.vouched(), records))


@pytest.fixture
def november(tmp_path: Path) -> Path:
    """Two deliveries of 20 kWh of 25, the first of them with the certificate of its measurements."""
    folder = tmp_path / "november"
    (folder / "certificates").mkdir(parents=True)
    first = delivery("d1", start=START, measured_kwh=D(-20), evidence=EVIDENCE)
    inputs = Inputs(
        "2026-11",
        (first, replace(first, id="d2", unit="u2", evidence=Evidence())),
        (Contract("u1", "sp", "owner", D("0.5")),),
    )
    (folder / "inputs.json").write_text(write(inputs))
    (folder / "parties.json").write_text(write(Parties(tuple(PARTIES.values()), {"sp": 7})))
    messages = [message_of(minute, -80_000) for minute in range(15)]
    (folder / "certificates" / "u1.json").write_bytes(certificate_of(messages))
    return folder


def say(*words: Any) -> Any:
    told = coflex("settlement", *words, "--json")
    assert told.exit_code == 0, told.stderr
    return json.loads(told.stdout)


def refused(*words: Any) -> Any:
    told = coflex("settlement", *words, "--json")
    assert told.exit_code == 1, told.stdout
    return json.loads(told.stdout)


def billed(folder: Path) -> None:
    say("run", folder)
    say("invoice", folder, "--issued", "2026-12-05")


@pytest.mark.spec("SET-03", "SET-06")
def test_a_run_settles_once_and_again_posts_nothing(november: Path) -> None:
    first = say("run", november)
    assert (first["run"], first["lines"], first["corrected"]) == ("0001", 7, 0)
    assert first["paid_cents"] == first["received_cents"] + first["fee_cents"] + first["rounding_cents"]
    before = contents(november)
    again = say("run", november)
    assert (again["run"], again["lines"]) == ("none: nothing to post", 0)
    assert contents(november) == before
    assert set(before) >= {f"runs/0001/{name}" for name in ("lines.json", "inputs.json", "accounts.csv")}
    assert "paid" in coflex("settlement", "run", november).stdout


@pytest.mark.spec("SET-05")
def test_invoices_are_issued_once_in_every_form_with_numbers_that_go_on(november: Path) -> None:
    say("run", november)
    made = say("invoice", november, "--issued", "2026-12-05")
    assert [one["number"] for one in made["invoices"]] == ["owner-000001", "platform-000001", "sp-000007"]
    assert {file.suffix for file in (november / "invoices").glob("sp-000007.*")} == {
        ".json", ".html", ".pdf", ".csv", ".xml",
    }  # fmt: skip
    assert say("invoice", november, "--issued", "2026-12-06")["count"] == 0
    inputs = read(Inputs, (november / "inputs.json").read_text(), "x")
    better = replace(inputs, deliveries=(replace(inputs.deliveries[0], measured_kwh=D(-18)), inputs.deliveries[1]))
    (november / "inputs.json").write_text(write(better))
    assert say("run", november)["corrected"] == say("run", november)["lines"] + 4
    early = refused("invoice", november, "--issued", "2026-12-04")
    assert {one["code"] for one in early["findings"]} == {"out_of_order"}
    later = say("invoice", november, "--issued", "2027-01-05")
    assert [one["number"] for one in later["invoices"]] == [
        "owner-000002", "platform-000002", "sp-000008",
    ]  # fmt: skip
    assert "sp-000007" in (november / "invoices" / "sp-000008.html").read_text()


@pytest.mark.spec("SET-05", "SET-06", "CERT-01")
def test_an_auditor_recomputes_everything_from_the_folder_alone(november: Path) -> None:
    billed(november)
    assert say("verify", november) == {"runs": 1, "lines": 7, "invoices": 3, "certified": 1}
    assert say("verify", november, "--key", str(evidence.LOG.key))["certified"] == 1


def change_json(file: Path, change: Callable[[Any], None]) -> None:
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def dearer(invoice: Any) -> None:
    invoice["lines"][0]["cents"] += 1
    invoice["positions"][0]["cents"] += 1
    invoice["net_cents"] += 1
    invoice["gross_cents"] += 1


def test_the_first_difference_is_told_with_what_both_sides_say(november: Path) -> None:
    billed(november)
    change_json(november / "invoices" / "sp-000007.json", dearer)
    told = refused("verify", november)
    line = "s1|d1|a1|activation|sp|dso"
    assert told["remedy"] == f"The first: invoice sp-000007: {line}."
    first = told["findings"][0]
    assert (first["code"], first["place"]) == ("line_differs", f"invoice sp-000007: {line}")
    assert "'cents' is 161, and the evidence gives 160" in first["message"]
    assert "form_differs" in {one["code"] for one in told["findings"]}  # the page beside it still says the old sum


def twice(at: Path) -> None:
    data = json.loads((at / "invoices/sp-000007.json").read_text())
    (at / "invoices/sp-000008.json").write_text(json.dumps(data | {"number": "sp-000008"}))


ALTERED: list[tuple[str, Callable[[Path], None], str]] = [
    ("a form", lambda at: (at / "invoices/sp-000007.csv").write_text("mine"), "form_differs"),
    ("an invoice twice", twice, "billed_twice"),
    ("the accounts of a run", lambda at: (at / "runs/0001/accounts.csv").write_text("mine"), "form_differs"),
    ("its adjustments", lambda at: (at / "runs/0001/adjustments.csv").write_text("mine"), "form_differs"),
    ("the owner's invoice", lambda at: (at / "invoices/owner-000001.json").unlink(), "not_billed"),
    ("no invoice", lambda at: (at / "invoices/platform-000001.json").unlink(), "not_billed"),
    ("the inputs of a run", lambda at: change_json(
        at / "runs/0001/inputs.json", lambda data: data["deliveries"][1].update(measured_kwh="-19")), "line_differs"),
    ("the rule of a run", lambda at: (at / "runs/0001/rules/local_congestion.yaml").write_text(
        rule_text("local_congestion").replace("share: 0.5", "share: 0.6")), "line_differs"),
    ("the lines of a run", lambda at: change_json(
        at / "runs/0001/lines.json", lambda data: data["lines"].pop()), "line_missing"),
    ("a metered energy", lambda at: (at / "certificates/u1.json").write_bytes(
        certificate_of([message_of(minute, -79_996) for minute in range(15)])), "other_measurement"),
    ("a minute less", lambda at: (at / "certificates/u1.json").write_bytes(
        certificate_of([message_of(minute, -80_000) for minute in range(14)])), "not_certified"),
    ("a certificate", lambda at: change_json(
        at / "certificates/u1.json", lambda data: data["records"][0].update(index=3)), "not_in_log"),
    ("no certificate", lambda at: (at / "certificates/u1.json").write_text("{}"), "bad_certificate"),
]  # fmt: skip


@pytest.mark.spec("SET-05", "SET-06", "CERT-01")
@pytest.mark.parametrize(("change", "code"), [pytest.param(how, code, id=name) for name, how, code in ALTERED])
def test_whatever_is_altered_in_the_folder_is_found(november: Path, change: Callable[[Path], None], code: str) -> None:
    billed(november)
    change(november)
    assert code in {one["code"] for one in refused("verify", november)["findings"]}


def test_a_log_of_another_key_proves_nothing(november: Path) -> None:
    billed(november)
    told = refused("verify", november, "--key", "00" * 32)
    assert {one["code"] for one in told["findings"]} == {"other_log_key"}
    assert "32 bytes" in refused("verify", november, "--key", "00")["remedy"]


@pytest.mark.spec("SET-05")
def test_a_dispute_changes_one_delivery_and_both_settlements_are_kept(november: Path) -> None:
    billed(november)
    line = "s1|d1|a1|activation|sp|dso"
    opened = ("--id", "x1", "--party", "sp", "--at", "2026-12-07T09:00:00Z", "--reason", "meter swapped")
    assert say("dispute", november, line, *opened)["state"] == "opened"
    assert "already" in refused("dispute", november, line, *opened)["message"]
    decision = ("--by", "mo", "--at", "2026-12-09T09:00:00Z", "--reason", "protocol")
    changed = say("decide", november, "x1", *decision, "--change", "measured_kwh=-15", "--source", "protocol-12")
    assert (changed["state"], changed["difference_cents"]) == ("changed", 30)  # 40 + 10, half of the 40 to the owner
    assert "changed already" in refused("decide", november, "x1", *decision)["message"]
    kept = json.loads((november / "disputes" / "x1.json").read_text())
    assert [one["amount_eur"] for one in kept["old"] if one["cause"] == "activation"] == ["1.6"]
    assert [one["amount_eur"] for one in kept["new"] if one["cause"] == "activation"] == ["2"]
    assert say("run", november)["corrected"] == 4
    say("invoice", november, "--issued", "2027-01-05")
    assert say("verify", november)["runs"] == 2
    lines = json.loads((november / "runs/0002/lines.json").read_text())["lines"]
    assert {tuple(one["charge"]["evidence"]["certificates"]) for one in lines if one["charge"]["seller"] == "sp"} == {
        ("protocol-12",), ("certificates/u1.json",),
    }  # fmt: skip


@pytest.mark.parametrize("room", [0, 1])
def test_on_a_full_disk_dispute_and_inputs_stay_as_they_were(
    november: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    billed(november)
    say("dispute", november, "d2|a1|penalty", "--id", "x1", "--party", "dso", "--at", "2026-12-07T09:00:00Z",
        "--reason", "why")  # fmt: skip
    before = contents(november)

    sync, written = os.fsync, list[int]()

    def full(descriptor: int) -> None:
        if len(written) == room:
            raise OSError(ENOSPC, "No space left on device")
        written.append(descriptor)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    refused("decide", november, "x1", "--by", "mo", "--at", "2026-12-09T09:00:00Z", "--reason", "protocol",
            "--change", "measured_kwh=-15", "--source", "p-12")  # fmt: skip
    after = contents(november)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("prefix", ["platform", "A/B"])
def test_invoices_are_issued_all_or_none(november: Path, prefix: str) -> None:
    say("run", november)
    taken = PARTIES | {"sp": replace(PARTIES["sp"], prefix=prefix)}
    (november / "parties.json").write_text(write(Parties(tuple(taken.values()), {})))
    refused("invoice", november, "--issued", "2026-12-05")
    assert not list((november / "invoices").glob("*"))


@pytest.mark.spec("SET-04")
def test_energy_that_moves_between_parties_without_any_money_is_a_run_of_its_own(tmp_path: Path) -> None:
    """24 of 25 kWh and then 23 are paid as ordered, inside the tolerance; the unit's party is out by 23."""
    one = delivery("d1", "mfrr", need=Need.TSO_BALANCING, unit_brp="brp-a", provider_brp="brp-b",
                   reference_eur_mwh=D(0), measured_kwh=D(-16))  # fmt: skip
    for number, kwh in ((1, -16), (2, -17)):
        (tmp_path / "inputs.json").write_text(write(Inputs("2026-11", (replace(one, measured_kwh=D(kwh)),))))
        assert say("run", tmp_path)["run"] == f"{number:04}"
        assert say("run", tmp_path)["run"].startswith("none")
    told = (tmp_path / "runs/0002/adjustments.csv").read_text().splitlines()
    assert [line.partition("brp-a,")[2] for line in told if "brp-a" in line] == ["-23"]
    assert say("verify", tmp_path) == {"runs": 2, "lines": 2, "invoices": 0, "certified": 0}


def test_a_dispute_without_a_change_is_upheld_or_taken_back(november: Path) -> None:
    billed(november)
    for name in ("x1", "x2"):
        say("dispute", november, "d2|a1|penalty", "--id", name, "--party", "dso", "--at", "2026-12-07T09:00:00Z",
            "--reason", "why")  # fmt: skip
    decision = ("--by", "mo", "--at", "2026-12-09T09:00:00Z", "--reason", "as metered")
    assert say("decide", november, "x1", *decision)["state"] == "upheld"
    assert say("decide", november, "x2", *decision, "--withdraw")["state"] == "withdrawn"
    assert say("run", november)["lines"] == 0


def test_the_trail_of_a_line_leads_from_the_offer_to_the_invoice(november: Path) -> None:
    billed(november)
    steps = {name: told for one in say("trail", november, "d1|a1|activation")["steps"] for name, told in one.items()}
    assert steps["offer"] == "offer-1" and steps["set point"] == "set-point-1" and steps["award"] == "a1"
    assert steps["certificate"] == "certificates/u1.json" and steps["invoice"] == "sp-000007"
    assert steps["measurement"] == f"{evidence.ORIGIN} at 15 entries"
    assert "invoice" in coflex("settlement", "trail", november, "d1|a1|activation").stdout
    assert "lines have" in refused("trail", november, "a1")["message"]
    assert "no line" in refused("trail", november, "nothing")["message"]


def test_rules_are_listed_shown_and_checked(tmp_path: Path) -> None:
    assert [one["id"] for one in say("rules")["rules"]] == list(rules())
    assert coflex("settlement", "rules", "mfrr").stdout == rule_text("mfrr")
    mine = tmp_path / "mine.yaml"
    mine.write_text(rule_text("mfrr"))
    assert say("check", mine)["id"] == "mfrr"
    mine.write_text(rule_text("mfrr").replace("pay_as_bid", "pay_as_asked").replace("title", "titel"))
    assert {one["code"] for one in refused("check", mine)["findings"]} == {
        "not_offered", "unknown_key", "missing_key",
    }  # fmt: skip


def test_a_rule_of_ones_own_comes_before_that_of_coflex(november: Path) -> None:
    (november / "rules").mkdir()
    own = november / "rules" / "local_congestion.yaml"
    own.write_text(rule_text("local_congestion").replace("share: 0.5", "share: 0.25"))
    say("run", november)
    lines = json.loads((november / "runs/0001/lines.json").read_text())["lines"]
    assert [one["charge"]["amount_eur"] for one in lines if one["charge"]["cause"] == "penalty"] == ["-0.05"] * 2
    assert (november / "runs/0001/rules/local_congestion.yaml").read_text() == own.read_text()
    own.write_text(rule_text("mfrr"))
    assert {one["code"] for one in refused("run", november)["findings"]} == {"wrong_id"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda at: (at / "inputs.json").unlink(), "no file"),
        (lambda at: (at / "inputs.json").write_bytes(b"\xff"), "fault"),
        (lambda at: change_json(at / "inputs.json", lambda data: data["deliveries"][0].update(rule="x")), "no sett"),
        (lambda at: change_json(at / "inputs.json", lambda data: data["deliveries"][0].update(rule="../x")), "no name"),
        (lambda at: (at / "runs/0001").mkdir(parents=True), "no file"),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_settled_says_what_is_missing(
    november: Path, change: Callable[[Path], None], said: str
) -> None:
    change(november)
    told = refused("run", november)
    assert said in told["message"] and told["remedy"]


def test_energies_are_those_of_the_readings_and_a_later_revision_counts() -> None:
    def readings(*messages: bytes) -> list[message.Measurement]:
        return [message.decode_measurement(message.decode(one).body) for one in messages]

    quarter = [message_of(minute, -80_000) for minute in range(15)]
    assert certified_kwh({1: readings(*quarter)}, START, 15) == -20
    assert certified_kwh({1: readings(*quarter), 2: readings(*quarter)}, START, 15) == -40
    later = message_of(3, -40_000, revision=1)
    expected = D(-20) + D(40) / 60
    assert certified_kwh({1: readings(*quarter, later)}, START, 15) == expected.quantize(D("0.001"))
    assert certified_kwh({1: readings(later, *quarter)}, START, 15) == expected.quantize(D("0.001"))
    assert certified_kwh({1: readings(*quarter), 2: readings(*quarter[1:])}, START, 15) is None
    assert certified_kwh({}, START, 15) is None


@pytest.mark.parametrize("at", ["yesterday", "2026-12-07T09:00:00"])
def test_an_instant_is_typed_with_its_offset(november: Path, at: str) -> None:
    answer = coflex(
        "settlement", "dispute", november, "aw-1", "--id", "d9", "--party", "sp", "--at", at, "--reason", "x"
    )
    assert answer.exit_code == 2
    assert "Invalid value for '--at'" in answer.stderr
