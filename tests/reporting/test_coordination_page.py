"""The page of designs: well-formed, whole, escaped, alone; and its drawings true to the numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser
from zoneinfo import ZoneInfo

import pytest
from test_coordination_kpis import at, coupled_run, held, no_run, small_run, small_world

from coflex.domain.clearing import Uncovered
from coflex.market.coordination.outcome import Run
from coflex.market.design import load_design
from coflex.reporting.coordination import DEFINITIONS, Kpis, kpis
from coflex.reporting.coordination.charts import Layer, grouped_rows, lines, stacked_rows
from coflex.reporting.coordination.page import Point, Varied, comparison_page
from coflex.reporting.drawing import scale

ROME = ZoneInfo("Europe/Rome")
VOID = {"meta", "br", "path", "link", "input", "img"}


class Reader(HTMLParser):
    """Checks that tags nest, and keeps ids, links, attributes, headings of tables and text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: list[list[str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.links.append(value or "")
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in ("td", "th", "a") and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def runs() -> tuple[Run, ...]:
    return small_run(), coupled_run(), no_run()


def rows(case: str = "hand") -> tuple[Kpis, ...]:
    world = small_world(id=case)
    mine = [replace(run, case=case) for run in runs()]
    return tuple(kpis(run, world, mine[1], mine[2]) for run in mine)


def varied() -> Varied:
    points = []
    for share in (0.0, 0.5, 1.0):
        moved = tuple(replace(one, cost_total_eur=one.cost_total_eur * Decimal(1 + share)) for one in rows())
        points.append(Point(share, moved))
    return Varied("forecast error level", tuple(points))


def page(given: Sequence[Kpis] | None = None, made: Sequence[Run] | None = None, lever: Varied | None = None) -> str:
    return comparison_page(
        "Two cities", rows() if given is None else given, runs() if made is None else made, ROME, varied=lever
    )


def test_the_page_is_well_formed_and_every_link_of_it_lands_inside() -> None:
    reader = read(page(lever=varied()))
    assert len(set(reader.ids)) == len(reader.ids)
    assert reader.links
    assert all(link.startswith("#") and link[1:] in reader.ids for link in reader.links)


def test_it_loads_nothing_from_outside() -> None:
    text = page(lever=varied())
    reader = read(text)
    assert not re.search(r"(https?:)?//|url\(|@import|<script|<link|<img|<iframe", text)
    assert not [x for x in reader.attributes if x[1] in ("src", "srcset", "action") or x[1].startswith("on")]
    assert "default-src 'none'" in text


def test_each_design_has_its_row_its_section_and_its_sessions() -> None:
    reader = read(page())
    for place, name in enumerate(("coupled", "two-markets", "none"), 1):  # by total cost: 15.00, 20.85, 40.00
        assert f"case1-design{place}" in reader.ids
        assert any(row and row[0] == name for row in reader.rows)
    (row,) = (row for row in reader.rows if row[:2] == ["two-markets", "7"])
    expected = "two-markets 7 4 0 10 21 0.1 0.1 0.1 2 1 78 51.7 10"
    assert row == [*expected.split(), "\u2013"]  # no clock was given
    assert "Without a market 12 violations in distribution and 3 in transmission" in reader.text
    assert [r[1] for r in reader.rows if r[0] in ("local", "global")] == [
        "2016-07-05 00:00+02:00",
        "2016-07-05 00:15+02:00",
    ]


def test_messages_stand_by_who_sends_and_who_receives() -> None:
    reader = read(page())
    place = next(i for i, row in enumerate(reader.rows) if row and row[0] == "Sender" and len(row) > 3)
    assert reader.rows[place : place + 5] == [
        ["Sender", "to TSO", "to DSO", "to market operator", "to service provider"],
        ["TSO", "·", "·", "·", "·"],
        ["DSO", "1", "·", "·", "·"],
        ["market operator", "·", "1", "·", "·"],
        ["service provider", "·", "·", "8", "·"],
    ]
    assert "10 messages of 3 kinds" in reader.text
    assert "No message was exchanged." in reader.text  # the run without a market


def test_each_indicator_is_shown_and_defined_with_its_formula() -> None:
    reader = read(page())
    for one in DEFINITIONS:
        assert one.id in reader.ids
        assert one.formula in reader.text
        assert f"#{one.id}" in reader.links
    total = next(row for row in reader.rows if row[0] == "Total cost of the system" and len(row) == 5)
    assert [cell.replace("\u00a0", " ").strip() for cell in total[2:]] == ["15.00 ★", "20.85", "40.00"]


def test_names_and_remarks_are_escaped() -> None:
    bad = "<b>&\"x'"
    gap = Uncovered("local", at(0), bad, 1.0, "kW", (bad,))
    run = replace(small_run(), design=bad, held=(replace(held("local"), remark=bad, uncovered=(gap,)),))
    text = page((replace(rows()[0], design=bad),), (run,))
    assert "<b>&" not in text
    assert read(text).text.count(bad) >= 6


def test_the_same_bytes_in_any_order_and_over_several_cases() -> None:
    given = (*rows(), *rows("winter"))
    made = (*runs(), *(replace(run, case="winter") for run in runs()))
    text = page(given, made)
    assert text == page(given[::-1], made[::-1])
    reader = read(text)
    assert {"case1", "case2"} <= set(reader.ids)
    assert len(set(reader.ids)) == len(reader.ids)


def test_a_design_on_the_shelf_brings_its_title_and_source() -> None:
    design = load_design("beflexible_six")
    one = replace(rows()[0], design=design.id)
    text = comparison_page("t", (one,), (), ROME, {design.id: design})
    reader = read(text)
    assert design.title in reader.text
    assert f"section {design.source.section}" in reader.text
    assert "are not part of the page" in reader.text


def test_a_page_without_designs_says_so() -> None:
    assert "No design was run." in read(page((), ())).text


def test_a_lever_is_drawn_and_told_in_numbers() -> None:
    reader = read(page(lever=varied()))
    assert ["Design", "0", "0.5", "1"] in reader.rows
    assert ["two-markets", "20.85", "31.27", "41.7"] in reader.rows or [
        "two-markets",
        "20.85",
        "31.28",
        "41.7",
    ] in reader.rows
    assert "forecast error level" in reader.text


# ---------------------------------------------------------------- drawings


def bars(svg: str) -> list[tuple[float, float, float, str]]:
    """x, width, y and title of each bar."""
    pattern = r'<rect x="([\d.-]+)" y="([\d.-]+)" width="([\d.]+)" [^>]*><title>([^<]*)</title>'
    return [(float(x), float(w), float(y), title) for x, y, w, title in re.findall(pattern, svg)]


def test_stacked_bars_are_as_long_as_their_values_and_negative_ones_lie_to_the_left() -> None:
    layers = [Layer("dso", "DSO", (30.0, -10.0)), Layer("tso", "TSO", (60.0, 20.0)), Layer("brp", "BRP", (None, -20.0))]
    found = bars(str(stacked_rows(("x", "y"), layers, "label", "EUR")))
    (dso_x, tso_x, _), (dso_y, tso_y, brp_y) = found[:3], found[3:]
    one = dso_x[1] / 30
    assert tso_x[1] / 60 == pytest.approx(one, abs=0.02)
    assert dso_x[0] + dso_x[1] == pytest.approx(tso_x[0], abs=0.15)  # one after the other
    assert dso_y[0] + dso_y[1] == pytest.approx(dso_x[0], abs=0.15)  # left of zero
    assert brp_y[0] + brp_y[1] == pytest.approx(dso_y[0], abs=0.15)
    assert tso_y[0] == pytest.approx(dso_x[0], abs=0.15)
    assert brp_y[1] / 20 == pytest.approx(one, abs=0.02)
    assert found[1][3] == "x, TSO: 60 EUR"


def test_a_missing_value_has_no_bar_and_breaks_a_line() -> None:
    layers = [Layer("good", "efficiency", (None, 80.0))]
    svg = str(grouped_rows(("x", "y"), layers, "label", "%"))
    assert [title for *_, title in bars(svg)] == ["y, efficiency: 80 %"]
    drawn = str(lines((0, 1, 2, 4), "abcd", [Layer("s", "d", (1.0, None, 3.0, 5.0))], "l", "EUR", "lever"))
    (path,) = re.findall(r'<path d="([^"]*)" class="ln', drawn)
    assert path.count("M") == 2
    assert path.count("L") == 1
    points = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    assert len(points) == 3
    across = (points[1][0] - points[0][0]) / (points[2][0] - points[1][0])
    upward = (points[1][1] - points[0][1]) / (points[2][1] - points[1][1])
    assert across == pytest.approx(1.0, abs=0.01)  # 0 to 2 is as far as 2 to 4
    assert upward == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("values", [[], [0.0], [5.0], [-3.0, -1.0], [1e6, 1e6], [0.001, 0.002], [-7.5, 1234.0]])
@pytest.mark.parametrize("zero", [True, False])
def test_a_scale_holds_all_its_values_between_round_ends(values: list[float], zero: bool) -> None:
    one = scale(values, 10.0, 20.0, zero=zero)
    assert all(9.999 <= one.at(value) <= 20.001 for value in values)
    assert one.at(one.low) == pytest.approx(10.0)
    assert one.at(one.high) == pytest.approx(20.0)
    assert 2 <= len(one.ticks) <= 12
