"""Stories of how the field finds out whether capacity was held ready (SET-01, SET-02)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coflex import metered
from coflex.domain.clearing import Holding, Status
from coflex.domain.product import QuantityKind
from coflex.domain.quantity import Direction
from coflex.register.outcomes import SessionOutcome, Step, outcome_id, pack
from coflex.register.products import ProductEntry
from coflex.register.resources import GroupEntry, PointEntry
from coflex.register.settlement import MeteredDay, ReadyDay
from support.field_service import FieldService, Meter, at, ms
from support.ordered import GLOBAL, award, offer
from support.platform import TENANT, put
from support.settled import QUARTERS


def run(folder: Path, story: Callable[[FieldService], Awaitable[None]]) -> None:
    service = FieldService(folder)

    async def whole() -> None:
        async with service.running():
            await story(service)

    asyncio.run(whole())


def sell_capacity(service: FieldService, *held: str, **seller: Any) -> None:
    """100 kW of capacity for the hour, of a group or a unit; `held`: the units that the ledger holds for it."""
    entry = service.state.get(ProductEntry, "global_energy")
    product = replace(entry.product, id="global_capacity", kind=QuantityKind.ACTIVE_CAPACITY)
    sold = replace(offer("sp-1/c", 9, "8", 100, **seller), product="global_capacity")
    result = service.state.get(SessionOutcome, outcome_id(GLOBAL, Step.RESULT))
    rows: list[Any] = [award(sold, start, 100) for start in QUARTERS]
    rows += [
        Holding(unit, start, "global-1", "tso", Direction.UP, 50, "sp-1/c", Status.DEFINITIVE)
        for unit in held
        for start in QUARTERS
    ]
    added = (*result.added, *pack(rows))
    service.sequencer.submit(put([ProductEntry("global_capacity", product, ("tso",)), replace(result, added=added)]))


def shares(service: FieldService) -> list[Decimal]:
    return [one.share for day in service.state.all(ReadyDay) for one in day.shares]


async def look(service: FieldService, minutes: float) -> None:
    """The field's turn at an instant, as if nothing had been looked for."""
    service.to(minutes)
    field = await service.fields.of(TENANT)
    field.bringer.look_again()
    await service.turn()
    await field.bringer.turn()


def hour(meter: Meter, minutes: float, values: list[int]) -> bytes:
    """Readings of the hour that was sold, as they come at a minute."""
    meter.last += 1
    return meter.message(meter.last, first=ms(at(0)), at=ms(at(minutes)), step=900_000, values=values, quantity=5)


@pytest.mark.spec("SET-01", "SET-02")
def test_a_group_that_lost_its_units_is_not_ready_and_everything_else_is_metered(tmp_path: Path) -> None:
    async def story(service: FieldService) -> None:
        await service.enrol("cu-0001", 1)
        service.to(-6)
        group = service.state.get(GroupEntry, "sp-1-global")
        alone = replace(group, id="g-one", group=replace(group.group, id="g-one", units=("cu-0005",)))
        service.sequencer.submit(put([alone]))
        sell_capacity(service, group="g-one")
        service.to(1400)
        service.do("unit.terminate", "sp-1", "cu-0005")
        assert service.state.get(GroupEntry, "g-one").group.units == ()
        await look(service, 1441)
        assert shares(service) == [0] * 4
        assert {one.unit for one in service.state.all(MeteredDay)} == {"cu-0001", "cu-0003"}

    run(tmp_path, story)


@pytest.mark.spec("SET-01", "SET-02")
def test_what_of_one_unit_cannot_be_brought_is_told_and_stops_no_other_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantities = metered._Days.quantities

    async def story(service: FieldService) -> None:
        for unit, point in (("cu-0001", 1), ("cu-0003", 2)):
            await service.enrol(unit, point)
        service.to(-6)
        await look(service, 1441)
        assert {one.unit for one in service.state.all(MeteredDay)} == {"cu-0003"}
        assert [event for event, _ in service.said.lines] == ["fault"]
        monkeypatch.setattr(metered._Days, "quantities", quantities)
        await look(service, 1502)
        assert {one.unit for one in service.state.all(MeteredDay)} == {"cu-0001", "cu-0003"}

    def broken(self: Any, one: Any) -> Any:
        if one.unit == "cu-0001":
            raise IndexError("what nobody thought of")
        return quantities(self, one)

    monkeypatch.setattr(metered._Days, "quantities", broken)
    run(tmp_path, story)


@pytest.mark.spec("SET-01", "SET-02")
def test_what_the_machine_refuses_of_one_unit_stops_no_other_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantities = metered._Days.quantities

    def endless(self: Any, one: Any) -> Any:
        found = quantities(self, one)
        if one.unit == "cu-0001":
            found = [msgspec.structs.replace(row, quality="measured", kwh=Decimal(10**12)) for row in found]
        return found

    async def story(service: FieldService) -> None:
        await service.enrol("cu-0001", 1)
        service.to(-6)
        await look(service, 1441)
        assert {one.unit for one in service.state.all(MeteredDay)} == {"cu-0003"}
        assert [event for event, _ in service.said.lines] == ["fault"]

    monkeypatch.setattr(metered._Days, "quantities", endless)
    run(tmp_path, story)


@pytest.mark.spec("SET-02")
def test_units_that_leave_a_group_after_the_hour_were_still_to_be_ready_in_it(tmp_path: Path) -> None:
    async def story(service: FieldService) -> None:
        meter = await service.enrol("cu-0005", 1)  # cu-0007 never says anything
        service.to(-6)
        sell_capacity(service, "cu-0005", "cu-0007", group="sp-1-global")
        points = service.state.all(PointEntry)
        service.sequencer.submit(put([replace(one, point=replace(one.point, bus="B0")) for one in points]))
        service.to(65)
        await service.bring(hour(meter, 65, [-500] * 4))
        service.to(1439)
        service.do("group.change", "sp-1", "sp-1-global", units=["cu-0005"])
        await look(service, 1441)
        assert shares(service) == [Decimal("0.5")] * 4

    run(tmp_path, story)


@pytest.mark.spec("SET-01", "SET-02")
@pytest.mark.parametrize("minutes", [1450, 3 * 1440])
def test_readings_that_a_device_kept_back_correct_its_readiness(tmp_path: Path, minutes: int) -> None:
    async def story(service: FieldService) -> None:
        meter = await service.enrol("cu-0005", 1)
        service.to(-6)
        sell_capacity(service, unit="cu-0005")
        await look(service, 1441)
        assert shares(service) == [0] * 4
        service.to(minutes)
        assert (await service.bring(hour(meter, minutes, [-500] * 4)))["accepted"] == 1
        await look(service, minutes)
        assert shares(service) == [1] * 4
        entries = service.sequencer.number
        await look(service, minutes + 61)
        assert "metered.bring" not in [one.command.verb for one in service.journal.entries(entries, 100)][1:]

    run(tmp_path, story)
