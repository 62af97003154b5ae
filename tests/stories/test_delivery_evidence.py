"""A day's orders and measurements are signed messages in a log, and one award can be followed and checked offline."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coflex.adapters.measurements.log import LogBroken
from coflex.adapters.store.memory import MemoryStore
from coflex.delivery import Field
from coflex.domain.activation import SetPoint
from coflex.domain.reading import Quality, Reading
from coflex.domain.statement import SettlementLine, Statement
from coflex.evidence.certificate import parse, verify
from coflex.evidence.checkpoint import NoteKey
from coflex.evidence.message import Kind, decode, decode_set_point
from coflex.process.activate import activate
from coflex.process.lookups import EVIDENCE
from coflex.process.measure import measure
from coflex.process.report import CERTIFICATE, report
from coflex.process.settle import settle
from coflex.settlement.inputs import Inputs
from coflex.settlement.records import read
from coflex.settlement.shelf import load_rule
from coflex.settlement.summary import settled
from coflex.settlement.trail import gaps
from coflex.simulation.devices import SimulatedDevices
from support.command import coflex
from support.verbs import Kept, before, small_day


class Day:
    """The small day from its orders to its report, with a log in a folder."""

    def __init__(self, folder: Path) -> None:
        self.day, self.store, self.folder = small_day(), before("activate"), folder
        self.field = Field(self.day.case, folder)
        settings = self.day.case.settings
        self.devices = SimulatedDevices(self.day.units, settings.devices, settings.seed, self.day.case.axis)
        activate(self.day, self.store, self.field)
        measure(self.day, self.store, self.devices, self.field)

    def all(self, kind: type[Any]) -> tuple[Any, ...]:
        with self.store.transaction() as t:
            return tuple(t.all(kind))

    @property
    def evidence(self) -> dict[str, Any]:
        with self.store.transaction() as t:
            return t.document(EVIDENCE) or {}


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    return Day(tmp_path_factory.mktemp("day") / "measurements")


@pytest.fixture(scope="module")
def told_of(day: Day) -> Kept:
    """What the report puts out once the day is settled."""
    kept = Kept()
    settle(day.day, day.store)
    report(day.day, day.store, kept, day.field)
    return kept


def plain() -> MemoryStore:
    """The same day without a log."""
    store, day = before("activate"), small_day()
    settings = day.case.settings
    activate(day, store)
    measure(day, store, SimulatedDevices(day.units, settings.devices, settings.seed, day.case.axis))
    return store


@pytest.mark.spec("ACT-01", "CERT-01")
def test_every_set_point_is_a_message_that_light_node_and_energy_management_system_took(day: Day) -> None:
    points = {(point.unit, point.start.isoformat()): point for point in day.all(SetPoint)}
    orders = {(one["unit"], one["start"]): one for one in day.evidence["orders"]}
    assert orders.keys() == points.keys()
    assert all([hop for hop, _ in one["hops"]] == ["light_node", "energy_management_system"] for one in orders.values())
    (given,) = parse(day.field.certificate([one["leaf"] for one in orders.values()]))
    for (key, point), record in zip(((key, points[key]) for key in orders), given.records, strict=True):
        message = decode(record.message)
        told = decode_set_point(message.body)
        assert message.kind == Kind.SET_POINT, key
        assert told.power_w == round(1000 * point.power_kw)
        assert told.change_w == 1000 * point.direction.sign * point.ordered_kw


@pytest.mark.spec("ACT-02")
def test_what_the_log_tells_is_what_flowed_to_a_watt_hour(day: Day) -> None:
    with plain().transaction() as t:
        flowed = {(one.unit, one.start): one for one in t.all(Reading)}
    told = {(one.unit, one.start): one for one in day.all(Reading)}
    assert told.keys() == flowed.keys()
    assert {one.quality for one in told.values()} == {Quality.MEASURED}
    # Meters count whole watt-hours, of which four a quarter-hour are a watt each hour.
    assert max(abs(told[key].power_kw - flowed[key].power_kw) for key in told) <= 0.002 + 1e-9


@pytest.mark.spec("CERT-01", "SET-05")
def test_one_award_is_followed_from_offer_to_payment_and_its_certificate_holds_offline(day: Day, told_of: Kept) -> None:
    trail, certificate = told_of.given[0][2]["trail"], told_of.files[CERTIFICATE]
    assert [one["step"] for one in trail["steps"]] == [
        "offer", "award", "set point", "acknowledgement", "acknowledgement", "measurement", "settlement line",
        "payment",
    ]  # fmt: skip
    key = NoteKey.parse((day.folder / "log.pub").read_text().strip())
    (given,) = parse(certificate)
    assert verify(given) == [] and given.log_key == str(key) == trail["log"]["key"]
    lines = [line for line in day.all(SettlementLine) if line.unit == trail["unit"]]
    assert any(line.amount_eur > Decimal(0) for line in lines)
    broken = json.loads(certificate)
    broken["records"][0]["message"] = broken["records"][1]["message"]
    (forged,) = parse(json.dumps(broken).encode())
    assert verify(forged)


@pytest.mark.spec("SET-05", "SET-06")
def test_every_charge_of_the_day_rests_on_the_log_and_anyone_settles_it_again_to_the_cent(
    day: Day, told_of: Kept, tmp_path: Path
) -> None:
    (tmp_path / "inputs.json").write_text(json.dumps(told_of.given[0][1]["inputs"]), encoding="utf-8")
    inputs = read(Inputs, (tmp_path / "inputs.json").read_text(encoding="utf-8"), "inputs.json")
    _, run = settled(inputs, {name: load_rule(name) for name in ("local_congestion", "mfrr")})
    # Which certificate proves a message is known once somebody asks for it.
    assert {gaps(line) for line in run.lines} == {("certificate",)}
    assert {line.charge.evidence.log_size for line in run.lines} == {day.evidence["size"]}
    orders = {f"message {one['leaf']}" for one in day.evidence["orders"]}
    assert {line.charge.evidence.set_point for line in run.lines} == orders
    told = json.loads(coflex("settlement", "run", tmp_path, "--json").stdout)
    balances = {one.party: one.balance_cents for one in day.all(Statement)}
    assert {one.party: one.balance_cents for one in run.accounts} == balances
    assert (told["lines"], told["fee_cents"]) == (len(run.lines), balances["platform"])
    assert coflex("settlement", "verify", tmp_path).exit_code == 0


def test_the_day_again_gives_the_same_log_to_the_byte_and_asking_twice_adds_nothing(day: Day, tmp_path: Path) -> None:
    again = Day(tmp_path / "measurements")
    first, second = day.evidence, again.evidence
    assert first == second
    points = again.all(SetPoint)
    untouched = again.day.unit_kw(again.day.truth(again.day.case.axis))
    flowed = again.devices.respond(points, untouched)
    again.field.order(points)
    told = again.field.collect(points, flowed)
    assert (told.proof.size, told.proof.checkpoint) == (first["size"], first["checkpoint"])
    assert np.isfinite(told.metered.values).all()


def test_a_log_that_somebody_touched_is_not_read(tmp_path: Path) -> None:
    day = Day(tmp_path / "measurements")
    raw = next((day.folder / "raw").glob("*.log"))
    data = bytearray(raw.read_bytes())
    data[len(data) // 2] ^= 1
    raw.write_bytes(data)
    with pytest.raises(LogBroken):
        day.field.certificate([0])
