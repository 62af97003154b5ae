"""Report: all that is told of a settled day, the same whenever it is asked for."""

from __future__ import annotations

import pytest

from coflex.domain.clearing import Award, Status
from coflex.domain.errors import NotReady
from coflex.process.lookups import SETTLEMENT
from coflex.process.report import report
from support.verbs import Kept, before, everything, refusal, small_day


@pytest.mark.spec("KPI-01", "KPI-02", "KPI-03")
def test_the_tables_the_indicators_and_the_page_tell_of_the_settled_day() -> None:
    store, kept = before("report"), Kept()
    told = report(small_day(), store, kept)
    ((tables, documents, contents),) = kept.given
    with store.transaction() as t:
        definitive = t.all(Award, status=Status.DEFINITIVE)
    assert len(tables["awards"].rows) == told.awards == len(definitive)
    groups = {indicator["group"] for indicator in documents["kpis"]["kpis"]}
    assert groups == {"KPI-01", "KPI-02", "KPI-03"}
    assert contents


@pytest.mark.spec("KPI-02")
def test_the_coordinated_markets_are_measured_against_the_coupled_one() -> None:
    kept = Kept()
    report(small_day(), before("report"), kept)
    values = {one["name"]: one["value"] for one in kept.given[0][1]["kpis"]["kpis"]}
    assert values["Cost of a fully coupled market"] > 0
    assert 0 < values["Efficiency of the coordinated markets"] <= 100


def test_a_report_asked_for_twice_is_the_same_and_writes_nothing_to_the_store() -> None:
    store, first, second = before("report"), Kept(), Kept()
    held = everything(store)
    report(small_day(), store, first)
    report(small_day(), store, second)
    assert everything(store) == held
    assert first.given[0][1:] == second.given[0][1:]


@pytest.mark.parametrize("stage", ["register", "activate", "settle"])
def test_there_is_no_report_of_a_day_that_is_not_settled(stage: str) -> None:
    assert "coflex settle" in refusal("report", stage).remedy


def test_a_day_that_was_settled_before_its_deliveries_were_kept_is_to_be_run_again() -> None:
    store = before("report")
    with store.transaction() as t:
        t.put_document(SETTLEMENT, {"lines": 335, "fee_share": "0.02"})
    with pytest.raises(NotReady, match="Run the day again"):
        report(small_day(), store, Kept())
