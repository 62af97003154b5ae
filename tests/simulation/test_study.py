"""A study: which runs it takes, each of them once, what is kept between two calls, and what goes wrong alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from coflex.adapters.workers.results import ResultFolder
from coflex.domain.errors import CoflexError, Finding, GridFailure, Refused
from coflex.market.coordination.outcome import Actor, Message, Run
from coflex.market.coordination.run import nothing
from coflex.market.coordination.world import World
from coflex.market.design import Design, load_design
from coflex.simulation import comparison
from coflex.simulation.coordination import case
from coflex.simulation.study import COUPLED, LEVERS, Compared, DesignStudy, Document, Job, Place, edition, places, work

DESIGNS = {name: load_design(name) for name in (COUPLED, "smartnet_a", "smartnet_b")}
DOCUMENTS = {name: Document.of(design) for name, design in DESIGNS.items()}
HERE = places("small", 1, None, ())


@dataclass
class Engine:
    """Every design does nothing but send a message; who is in `faults` raises, and all calls are noted."""

    faults: Mapping[str, Exception] = field(default_factory=dict)
    calls: list[tuple[str, float]] = field(default_factory=list)

    def world(self, place: Place) -> World:
        return case(place.case, seed=place.seed, **dict(place.levers))

    def nothing(self, world: World) -> Run:
        return self.run(DESIGNS[COUPLED].model_copy(update={"id": "nothing"}), world)

    def run(self, design: Design, world: World) -> Run:
        self.calls.append((design.id, world.error_level))
        if design.id in self.faults:
            raise self.faults[design.id]
        message = Message("one", Actor.DSO, Actor.TSO, "awards", 1)
        return replace(nothing(world), design=design.id, messages=(message,))


@dataclass
class Here:
    """Work done one after another, last first; an interrupt comes after so many jobs."""

    interrupt: int | None = None
    lost: tuple[int, ...] = ()

    def run(self, work: Callable[[Job], Any], jobs: Sequence[Job]) -> Iterator[tuple[int, Any]]:
        for count, at in enumerate(reversed(range(len(jobs)))):
            if self.interrupt == count:
                raise KeyboardInterrupt
            yield at, (CoflexError("Its process ended.", "") if at in self.lost else work(jobs[at]))


def study(
    folder: Path, engine: Engine, names: Sequence[str] = ("smartnet_a", "smartnet_b"), **more: Any
) -> DesignStudy:
    told: list[str] = []
    made = DesignStudy(
        documents=[DOCUMENTS[name] for name in names],
        coupled=DOCUMENTS[COUPLED],
        places=more.pop("places", HERE),
        workers=more.pop("workers", Here()),
        results=ResultFolder(folder),
        progress=told.append,
        work=partial(work, engine=engine),
        **more,
    )
    made.told = told  # type: ignore[attr-defined]
    return made


def timeless(found: Compared) -> list[dict[str, Any]]:
    """Rows without what the clock says."""
    rows = copy.deepcopy(list(found.rows))
    for row in rows:
        row.pop("seconds", None)
        row.get("kpis", {}).pop("run_s", None)
    return rows


# ---------------------------------------------------------------- the plan


def test_places_are_seeds_times_values() -> None:
    found = places("small", 3, "liquidity", (0.0, 0.5))
    assert [(one.seed, dict(one.levers)["liquidity"]) for one in found] == [
        (1, 0.0), (1, 0.5), (2, 0.0), (2, 0.5), (3, 0.0), (3, 0.5),
    ]  # fmt: skip
    assert all({**dict(one.levers), "liquidity": 1.0} == LEVERS for one in found)
    assert [dict(one.levers) for one in places("small", 1, None, ())] == [LEVERS]


def test_every_fault_of_an_order_is_told_at_once() -> None:
    with pytest.raises(Refused) as refused:
        places("nowhere", 0, "weather", (1.0, 1.0))
    assert {one.code for one in refused.value.findings} == {"unknown_case", "too_few", "unknown_lever", "given_twice"}
    for given in (("small", 1, "liquidity", ()), ("small", 1, None, (1.0,))):
        with pytest.raises(Refused) as refused:
            places(*given)
        assert [one.code for one in refused.value.findings] == ["half_given"]


def test_a_lever_is_held_while_another_is_varied() -> None:
    found = places("small", 1, "congestion", (0.5, 1.0), (("forecast_error", 0.3),))
    assert [dict(one.levers) for one in found] == [
        {"congestion": value, "forecast_error": 0.3, "liquidity": 1.0} for value in (0.5, 1.0)
    ]
    with pytest.raises(Refused) as refused:
        places("small", 1, "congestion", (0.5,), (("congestion", 1.0), ("wind", 1.0)))
    assert {(one.place, one.code) for one in refused.value.findings} == {("set", "set_twice"), ("set", "unknown_lever")}


def test_a_key_depends_on_all_that_a_result_depends_on_and_on_nothing_else() -> None:
    job = Job(DOCUMENTS["smartnet_a"], HERE[0], "1", True, ({}, {}))
    others = [
        replace(job, document=DOCUMENTS["smartnet_b"]),
        replace(job, place=replace(HERE[0], case="other")),
        replace(job, place=replace(HERE[0], seed=2)),
        replace(job, place=replace(HERE[0], levers=(("liquidity", 0.5),))),
        replace(job, edition="2"),
        replace(job, measured=False),
        replace(job, measures=({}, None)),
    ]
    assert len({one.key for one in [job, *others]}) == 1 + len(others)
    assert replace(job, measures=({"a": 1}, {"b": 2})).key == job.key


def test_a_comment_in_a_document_changes_nothing() -> None:
    from coflex.market.design import design_text, read_design

    text = "# mine\n" + design_text("smartnet_a")
    assert Document.of(read_design(text, "mine.yaml")) == DOCUMENTS["smartnet_a"]


# ---------------------------------------------------------------- the runs


@pytest.mark.spec("PLAT-03")
def test_every_design_runs_once_at_every_place_and_so_do_the_two_that_measure(tmp_path: Path) -> None:
    engine = Engine()
    found = study(tmp_path, engine, places=places("small", 1, "forecast_error", (0.0, 0.5, 1.0)), vary="forecast_error")
    rows = found.compare().rows
    every = [(name, error) for error in (0.0, 0.5, 1.0) for name in ("nothing", COUPLED, "smartnet_a", "smartnet_b")]
    assert sorted(engine.calls) == sorted(every)
    assert [(row["design"], row["case"]["levers"]["forecast_error"]) for row in rows] == every
    assert {row["status"] for row in rows} == {"done"}


def test_the_coupled_design_among_those_asked_for_runs_once(tmp_path: Path) -> None:
    engine = Engine()
    found = study(tmp_path, engine, names=(COUPLED, "smartnet_a")).compare()
    assert sorted(name for name, _ in engine.calls) == sorted(["nothing", COUPLED, "smartnet_a"])
    assert [row["design"] for row in found.rows] == ["nothing", COUPLED, "smartnet_a"]


def test_a_design_is_measured_by_the_runs_of_its_place(tmp_path: Path) -> None:
    rows = study(tmp_path, Engine()).compare().rows
    # All runs do nothing, so none avoids curtailment, and each costs what the coupled one costs.
    for row in rows:
        assert row["kpis"]["curtailment_avoided_mwh"] == 0
        assert row["kpis"]["coordination_price_eur"] == "0.00"
        assert row["kpis"]["messages_count"] == 1


# ---------------------------------------------------------------- going on


def test_what_was_done_is_not_done_again(tmp_path: Path) -> None:
    first, second = Engine(), Engine()
    once = study(tmp_path, first).compare()
    again = study(tmp_path, second).compare()
    assert second.calls == []
    assert (once.reused, again.reused, again.jobs) == (0, 3, 3)
    assert again.rows == once.rows
    afresh = Engine()
    assert timeless(study(tmp_path, afresh, fresh=True).compare()) == timeless(once)
    assert len(afresh.calls) == 4


def test_after_an_interrupt_the_rest_is_done(tmp_path: Path) -> None:
    engine = Engine()
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path, engine, workers=Here(interrupt=1)).compare()
    assert [name for name, _ in engine.calls] == ["nothing", COUPLED, "smartnet_b"]
    engine.calls.clear()
    found = study(tmp_path, engine).compare()
    assert [name for name, _ in engine.calls] == ["smartnet_a"]
    assert timeless(found) == timeless(study(tmp_path / "other", Engine()).compare())


@pytest.mark.parametrize("keep", [0, 1, 100, -3])
def test_a_broken_file_is_made_anew_and_named(tmp_path: Path, keep: int) -> None:
    whole = study(tmp_path, Engine()).compare()
    (file,) = tmp_path.glob("smartnet_a-*.json")
    file.write_bytes(file.read_bytes()[:keep])
    engine = Engine()
    again = study(tmp_path, engine)
    found = again.compare()
    assert [name for name, _ in engine.calls] == ["smartnet_a"]
    assert len(found.broken) == 1
    assert str(file) in found.broken[0]
    assert any(str(file) in line for line in again.told)  # type: ignore[attr-defined]
    assert timeless(found) == timeless(whole)
    assert study(tmp_path, Engine()).compare().broken == ()


# ---------------------------------------------------------------- what goes wrong


FAULTS = (
    (GridFailure("No solution.", "Look."), "failed", "GRID"),
    (ZeroDivisionError("1/0"), "failed", "UNEXPECTED"),
    (Refused("It", [Finding("here", "no_phases", "No phases.")]), "refused", "REFUSED"),
)


@pytest.mark.parametrize(("error", "status", "code"), FAULTS)
def test_one_that_fails_is_recorded_and_stops_no_other(
    tmp_path: Path, error: Exception, status: str, code: str
) -> None:
    found = study(tmp_path, Engine({"smartnet_a": error})).compare()
    by_design = {row["design"]: row for row in found.rows}
    assert {name: row["status"] for name, row in by_design.items()} == {
        "nothing": "done", COUPLED: "done", "smartnet_a": status, "smartnet_b": "done",
    }  # fmt: skip
    assert by_design["smartnet_a"]["error"]["code"] == code
    (file,) = tmp_path.glob("smartnet_a-*.json")
    assert json.loads(file.read_text())["result"]["rows"][0]["error"]["code"] == code
    engine = Engine()
    repaired = study(tmp_path, engine).compare()
    # What cannot be run on the case never can; what failed may be mended by now.
    assert [name for name, _ in engine.calls] == ([] if status == "refused" else ["smartnet_a"])
    assert len(repaired.of("done")) == (3 if status == "refused" else 4)


def test_without_the_coupled_run_designs_lack_what_is_measured_by_it_until_it_is_there(tmp_path: Path) -> None:
    found = study(tmp_path, Engine({COUPLED: GridFailure("No solution.", "Look.")})).compare()
    by_design = {row["design"]: row for row in found.rows}
    assert by_design[COUPLED]["status"] == "failed"
    assert by_design["smartnet_a"]["kpis"]["coordination_price_eur"] is None
    assert by_design["smartnet_a"]["kpis"]["curtailment_avoided_mwh"] == 0
    again = {row["design"]: row for row in study(tmp_path, Engine()).compare().rows}
    assert again["smartnet_a"]["kpis"]["coordination_price_eur"] == "0.00"


def test_a_job_whose_worker_is_lost_is_a_failure_of_its_runs(tmp_path: Path) -> None:
    found = study(tmp_path, Engine(), workers=Here(lost=(0,))).compare()
    assert {row["design"]: row["status"] for row in found.rows} == {
        "nothing": "failed", COUPLED: "failed", "smartnet_a": "failed", "smartnet_b": "done",
    }  # fmt: skip
    assert study(tmp_path, Engine()).compare().of("failed") == ()


def test_a_result_that_no_file_can_hold_is_a_failure_of_its_run(tmp_path: Path) -> None:
    made = study(tmp_path, Engine())
    whole = made.work

    def odd(job: Job) -> Any:
        return whole(job) | ({"odd": float("nan")} if job.document.id == "smartnet_a" else {})

    made.work = odd
    assert {row["design"]: row["status"] for row in made.compare().rows} == {
        "nothing": "done", COUPLED: "done", "smartnet_a": "failed", "smartnet_b": "done",
    }  # fmt: skip


def test_a_worker_of_another_edition_says_so(tmp_path: Path) -> None:
    result = work(Job(DOCUMENTS["smartnet_a"], HERE[0], "0.0+other", True), Engine())
    (row,) = result["rows"]
    assert row["status"] == "failed"
    assert edition() in row["error"]["message"]
    assert "0.0+other" in row["error"]["message"]


# ---------------------------------------------------------------- what is shown


def test_table_page_and_numbers_hold_every_run(tmp_path: Path) -> None:
    where = places("small", 2, "liquidity", (0.5, 1.0))
    engine = Engine({"smartnet_b": ZeroDivisionError("1/0")})
    found = study(tmp_path, engine, places=where, vary="liquidity").compare()
    table = comparison.table(found)
    assert table.count("smartnet_a") == 2
    assert "liquidity 0.5" in table
    assert "liquidity 1" in table
    page = comparison.page(found, DOCUMENTS.values())
    for place in where:
        assert found.label(place) in page
    assert "Liquidity" in page
    body = json.loads(comparison.as_text(found))
    assert len(body["rows"]) == 2 * 2 * 4
    assert "Traceback" not in comparison.as_text(found)
    answer = comparison.Comparison.of(found, Path("p"), Path("r"))
    assert [(one.design, one.status) for one in answer.troubles] == [("smartnet_b", "failed")] * 4
    assert len({one.case for one in answer.troubles}) == 4
    assert answer.runs == 12


def test_the_page_is_the_same_whoever_came_first(tmp_path: Path) -> None:
    found = study(tmp_path, Engine()).compare()
    again = study(tmp_path, Engine()).compare()
    assert comparison.page(found, DOCUMENTS.values()) == comparison.page(again, DOCUMENTS.values())
    assert found.rows[0]["zone"] == case("small").zone.key
    assert ZoneInfo(found.rows[0]["zone"])


def test_a_study_in_which_nothing_ran_still_has_its_page(tmp_path: Path) -> None:
    faults = dict.fromkeys(("nothing", *DOCUMENTS), GridFailure("No solution.", "Look."))
    found = study(tmp_path, Engine(faults)).compare()
    assert len(found.of("failed")) == 4
    assert comparison.table(found)
    assert "<html" in comparison.page(found, DOCUMENTS.values())
