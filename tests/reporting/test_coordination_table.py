"""The tables of designs: order, alignment, width, means and spreads worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_coordination_kpis import found

from coflex.reporting.coordination import Kpis
from coflex.reporting.coordination.table import COLUMNS, RULE, WIDTH, cases_table, comparison_table, ranked


def row(design: str, total: str = "100.00", case: str = "hand", unmended: int = 0, left: int = 0) -> Kpis:
    return replace(
        found(),
        design=design,
        case=case,
        cost_total_eur=Decimal(total),
        unmended_count=unmended,
        violations_left_distribution_count=left,
        violations_left_transmission_count=0,
    )


def body(text: str) -> list[str]:
    """Lines of a table below the rule of dashes, up to the sentence that says the order."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("--")) + 1
    return lines[first : lines.index(next(line for line in lines if line.startswith("Best first")))]


def test_best_first_as_the_rule_says() -> None:
    rows = [
        row("cheap-but-broken", "1.00", unmended=1),
        row("b-second", "90.00", left=3),
        row("a-third", "90.00", left=4),
        row("z-first", "80.00", left=9),
        row("fourth-a", "95.00"),
        row("fourth-b", "95.00"),
    ]
    order = ["z-first", "b-second", "a-third", "fourth-a", "fourth-b", "cheap-but-broken"]
    assert [one.design for one in ranked(rows)] == order
    text = comparison_table(rows)
    assert [line.split()[0] for line in body(text)] == order
    assert RULE in text


def test_a_row_holds_the_numbers_of_its_indicators() -> None:
    (line,) = body(comparison_table([found()]))
    # DSO 6.85, TSO 3.50, BRP 0.50 (half to even), mending, total, up, down, counter, left D and T, unused, efficiency
    expected = "two-markets 7 4 0 10 21 0.1 0.1 0.1 2 1 78 51.7 10 1.5"
    assert line.split() == expected.split()
    assert len(line.split()) == len(COLUMNS) + 1


def test_what_has_no_value_is_a_dash_and_zero_has_no_sign() -> None:
    one = replace(found(), efficiency_pct=None, run_s=None, cost_dso_eur=Decimal("-0.20"))
    (line,) = body(comparison_table([one]))
    assert line.split()[1] == "0"
    assert line.split()[12] == "-"
    assert line.split()[14] == "-"


def test_what_was_broken_without_a_market_is_said_once_where_all_agree() -> None:
    assert "without a market 12 violations in distribution, 3 in transmission" in comparison_table([found()])
    other = replace(found(), design="other", violations_before_distribution_count=9)
    assert "without a market" not in comparison_table([found(), other])


AMOUNTS = st.decimals(-(10**7), 10**7, places=2)
NAMES = st.text("abcdefghij-_0123456789", min_size=1, max_size=60)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(NAMES, AMOUNTS, st.integers(0, 10**5)), min_size=1, max_size=6, unique_by=lambda one: one[0]))
def test_lines_are_aligned_never_too_wide_and_of_one_order(given_: list[tuple[str, Decimal, int]]) -> None:
    rows = [replace(row(name, str(total)), messages_count=count, cost_dso_eur=total) for name, total, count in given_]
    turned = rows[::-1]
    assert comparison_table(rows) == comparison_table(turned)
    for text in (comparison_table(rows), cases_table(rows)):
        lines = text.splitlines()
        assert max(map(len, lines)) <= WIDTH
        assert len({len(line) for line in body(text)}) == 1


def test_each_case_has_its_own_block() -> None:
    text = comparison_table([row("x", case="summer"), row("x", "50.00", case="spring"), row("y", case="summer")])
    assert [line.partition(":")[0] for line in text.splitlines() if line.startswith("Case")] == [
        "Case spring",
        "Case summer",
    ]
    assert comparison_table([]) == cases_table([]) == "No design was run.\n"


def test_mean_and_spread_over_cases() -> None:
    rows = [
        replace(row("x", "10.00", "c1"), efficiency_pct=90.0),
        replace(row("x", "20.00", "c2"), efficiency_pct=None),
        replace(row("x", "60.00", "c3"), efficiency_pct=80.0),
        row("y", "20.00", "c1"),
    ]
    text = cases_table(rows)
    y_mean, y_spread, x_mean, x_spread = (line.split() for line in body(text))
    assert "over 3 cases: c1, c2, c3" in text
    assert (y_mean[0], y_mean[5]) == ("y", "20")  # least mean total first: 20 before 30
    assert y_spread[:3] == ["+-", "over", "1"]
    assert set(y_spread[3:]) == {"-"}
    assert x_mean[5] == "30"
    # deviations -20, -10, 30: the root of 1400 / 2; efficiency 90 and 80: the root of 50
    assert x_spread[:3] == ["+-", "over", "3"]
    assert float(x_spread[2 + 5]) == pytest.approx(26.46, abs=0.5)
    assert x_mean[12] == "85.0"
    assert float(x_spread[2 + 12]) == pytest.approx(7.07, abs=0.05)
