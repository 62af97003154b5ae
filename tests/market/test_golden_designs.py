"""Every design of the shelf on the small case, against arithmetic done by hand and written beside the numbers.

tests/golden/designs/README.md says what a file holds and what each hour of the case needs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from coflex.domain.time import QUARTER
from coflex.market.coordination.outcome import Run
from coflex.market.coordination.world import World
from coflex.market.design import designs, load_design
from coflex.simulation.coordination import case

FOLDER = Path(__file__).parents[1] / "golden" / "designs"
ASPECTS = ("awards", "cost", "reserved", "final", "uncovered")
# kW by which rounding to whole kW and losses below 20 W may move an award that states nothing else.
KW = 2
# Share of the cost that a kW here and there is worth.
SHARE = 1e-3
HOURS = 0.25

Cell = tuple[str, str, int]


@cache
def small() -> World:
    return case("small")


@cache
def read(name: str) -> Mapping[str, Any]:
    text: Mapping[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return text


def golden(name: str) -> Mapping[str, Any]:
    """The file that holds a design's numbers: its own, or that of the design it is the same as."""
    own = read(name)
    return read(own["same_as"]) if "same_as" in own else own


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def cases() -> Iterator[object]:
    """Every design and aspect; a defect that a file states must show, so that it is taken out once it is mended. All
    designs by one aspect first: so processes that share the tests run each design once."""
    for aspect in ASPECTS:
        for name in names():
            known = golden(name).get("defect", {}).get(aspect)
            marks = [pytest.mark.xfail(strict=True, raises=AssertionError, reason=known)] if known else []
            yield pytest.param(name, aspect, id=f"{name}-{aspect}", marks=marks)


def quarters(span: str) -> range:
    """Quarter-hours of a local span such as 12:00-12:30; the day of the case has 96 of them."""
    first, last = (4 * int(text[:2]) + int(text[3:]) // 15 for text in span.split("-"))
    return range(first, last)


def at(one: Any) -> int:
    """The quarter-hour of an award, a reservation or something uncovered."""
    return int((one.start - small().axis.start) // QUARTER)


def close(found: float, wanted: float, within: float) -> bool:
    return abs(found - wanted) <= within + 1e-9


# ---------------------------------------------------------------- the files themselves


@pytest.mark.spec("MKT-01")
def test_every_design_has_a_golden_file() -> None:
    assert names() == list(designs())
    for name in names():
        assert read(name)["design"] == name


def test_a_file_that_stands_for_another_is_of_a_design_that_says_so() -> None:
    for name in names():
        other = read(name).get("same_as")
        assert load_design(name).same_as == other, name
        if other is not None:
            mine, theirs = (
                [session.model_dump(exclude={"id"}) for session in load_design(one).sessions] for one in (name, other)
            )
            assert len(mine) == len(theirs)
            assert [_nameless(one) for one in mine] == [_nameless(one) for one in theirs]


def _nameless(session: dict[str, Any]) -> dict[str, Any]:
    forward = session["forward"]
    return session | {"forward": forward and {key: value for key, value in forward.items() if key != "to"}}


@pytest.mark.parametrize("name", [name for name in names() if "same_as" not in read(name)])
def test_the_arithmetic_of_a_file_adds_up(name: str) -> None:
    """MW times EUR/MWh times hours, line by line, is what the file says for each part of the day and in all."""
    stated = read(name)
    total = Decimal(0)
    for span, hour in stated["hours"].items():
        hours = Decimal(len(quarters(span))) / 4
        lines = [Decimal(line["kw"]) / 1000 * Decimal(str(line["price"])) * hours for line in hour["awards"]]
        assert sum(lines, Decimal(0)) == pytest.approx(Decimal(str(hour["eur"])), abs=Decimal("0.0006")), span
        total += sum(lines, Decimal(0))
    held = stated.get("reserved", {"lines": [], "eur": 0})
    ready = sum((_ready(line) for line in held["lines"]), Decimal(0))
    assert ready == pytest.approx(Decimal(str(held["eur"])), abs=Decimal("0.006"))
    assert total + ready == pytest.approx(Decimal(str(stated["cost_eur"])), abs=Decimal("0.006"))


def _ready(line: Mapping[str, Any]) -> Decimal:
    kw, price = line["is"][4:]
    return Decimal(kw) / 1000 * Decimal(str(price)) * len(quarters(line["when"])) / 4


# ---------------------------------------------------------------- the engine against them


@pytest.mark.spec("MKT-01", "MKT-07", "MKT-09")
@pytest.mark.parametrize(("name", "aspect"), list(cases()))
def test_design_on_the_small_case(name: str, aspect: str, on_the_small_case: Callable[[str], Run]) -> None:
    {"awards": _awards, "cost": _cost, "reserved": _reserved, "final": _final, "uncovered": _uncovered}[aspect](
        golden(name), on_the_small_case(name)
    )


def _awards(stated: Mapping[str, Any], found: Run) -> None:
    """kW by unit, direction and quarter-hour, nothing beside those stated."""
    wanted: dict[Cell, int] = defaultdict(int)
    within: dict[Cell, int] = {}
    for span, hour in stated["hours"].items():
        for line in hour["awards"]:
            for t in quarters(span):
                cell = (line["unit"], line["way"], t)
                wanted[cell] += line["kw"]
                within[cell] = max(within.get(cell, KW), line.get("within", KW))
    got: dict[Cell, int] = defaultdict(int)
    for one in found.bought:
        award = one.award
        way = f"{award.direction.value} kvar" if one.reactive else award.direction.value
        got[(award.unit or award.offer, way, at(award))] += award.quantity_kw
    wrong = {
        cell: (got[cell], wanted[cell])
        for cell in sorted({*wanted, *got})
        if not close(got[cell], wanted[cell], within.get(cell, KW)) and cell[0] not in _apart(stated)
    }
    assert not wrong, "found and wanted kW"
    if "apart" in stated:
        inside = {t for span in stated["apart"]["within"] for t in quarters(span)}
        called = {at(one.award) for one in found.bought if one.award.unit in _apart(stated)}
        assert called and called <= inside


def _apart(stated: Mapping[str, Any]) -> list[str]:
    """Units that a file leaves out of its arithmetic."""
    units: list[str] = stated.get("apart", {"units": []})["units"]
    return units


def _cost(stated: Mapping[str, Any], found: Run) -> None:
    """What buyers pay, in each part of the day and in all."""
    paid: dict[int, float] = defaultdict(float)
    for one in found.bought:
        if one.award.unit not in _apart(stated):
            paid[at(one.award)] += float(one.award.price_eur_mwh) * one.award.quantity_kw / 1000 * HOURS
    total = sum(paid.values())
    spare = 0.0
    for span, hour in stated["hours"].items():
        loose = sum(line.get("within", 0) / 1000 * line["price"] for line in hour["awards"]) * len(quarters(span)) / 4
        spent = sum(paid.pop(t, 0.0) for t in quarters(span))
        assert close(spent, hour["eur"], SHARE * hour["eur"] + loose + 0.05), (span, spent, hour["eur"])
        spare += loose
    assert not any(value > 1e-9 for value in paid.values()), "paid where nothing is to be bought"
    ready = sum(float(one.availability_eur_mw_h) * one.quantity_kw / 1000 * HOURS for one in found.reserved)
    assert close(total + ready, stated["cost_eur"], SHARE * stated["cost_eur"] + spare), (
        total + ready,
        stated["cost_eur"],
    )


def _reserved(stated: Mapping[str, Any], found: Run) -> None:
    """kW kept ready by session, service, unit, direction and quarter-hour, and what each is paid."""
    wanted = {
        (*line["is"][:4], t): (line["is"][4], float(line["is"][5]))
        for line in stated.get("reserved", {"lines": ()})["lines"]
        for t in quarters(line["when"])
    }
    got: dict[tuple[Any, ...], tuple[int, float]] = {}
    for one in found.reserved:
        key = (one.session, one.product, one.unit, one.direction.value, at(one))
        assert key not in got
        got[key] = one.quantity_kw, float(one.availability_eur_mw_h)
    for key in sorted({*wanted, *got}):
        (kw, price), (held, paid) = wanted.get(key, (0, None)), got.get(key, (0, None))
        assert close(held, kw, KW), (key, held, kw)
        assert price is None or paid is None or price == paid, (key, paid, price)


def _final(stated: Mapping[str, Any], found: Run) -> None:
    """Limits left broken (elements times quarter-hours) and energy out of balance."""
    left = {
        "distribution": found.final.violations_distribution,
        "transmission": found.final.violations_transmission,
    }
    assert left == stated["violations"]
    assert close(found.final.unbalanced_kwh, stated["unbalanced_kwh"], KW + SHARE * stated["unbalanced_kwh"])


def _uncovered(stated: Mapping[str, Any], found: Run) -> None:
    """What sessions leave uncovered, round by round: the session, the need, the quarter-hour, how much."""
    wanted = {
        (line["session"], line["what"], t): (line["amount"], line["within"])
        for line in stated["uncovered"]
        for t in quarters(line["when"])
    }
    got: dict[tuple[str, str, int], float] = {}
    repeated = {session.id for session in load_design(found.design).sessions if session.repeat is not None}
    for held in found.held:
        for one in held.uncovered:
            session = next((name for name in repeated if one.session.startswith(f"{name}-")), one.session)
            # Rounds before the last one for a quarter-hour find the same.
            got[(session, one.what, at(one))] = one.amount
    assert sorted(got) == sorted(wanted)
    for key, (amount, within) in wanted.items():
        assert close(got[key], float(amount), float(within)), (key, got[key])
