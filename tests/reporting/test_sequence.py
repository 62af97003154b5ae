"""Sequence diagrams of designs: every message drawn once and in order, nothing over anything else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from coflex.market.design import Design, designs, load_design, read_design
from coflex.market.design.exchanges import Phase, exchanges
from coflex.reporting.sequence import sequence_svg, sequence_text

SVG = "{http://www.w3.org/2000/svg}"
SHIPPED = [load_design(name) for name in designs()]
each = pytest.mark.parametrize("design", SHIPPED, ids=[design.id for design in SHIPPED])
NAMES = {"TSO": "tso", "DSO": "dso", "market operator": "mo", "providers": "sp", "BRP": "brp"}


def session(name: str, **changes: Any) -> dict[str, Any]:
    made = yaml.safe_load("""
        buyers: [tso]
        sellers: {levels: [distribution]}
        gate: {opens: D-1T08:00, closes: D-1T09:00}
        horizon: {starts: D, ends: D+1, firm: rest}
        needs: requests
        grid: {distribution: none, transmission: none}
        interface: free
        pricing: pay_as_bid
        validation: none
    """)
    return {"id": name, **made, **changes}


def design_of(*sessions: dict[str, Any], **more: Any) -> Design:
    document = {"id": "drawn", "title": "Drawn <&> told", "source": {"document": "T", "section": "I"}}
    return read_design(yaml.safe_dump(document | {"sessions": list(sessions)} | more), "drawn.yaml")


def arrows(frame: list[str], columns: dict[int, str]) -> list[tuple[str, str]]:
    """Sender and receiver of each arrow of a frame, read from the picture alone."""
    found = []
    for line in frame:
        for match in re.finditer(r"├[─┼]+►│|│◄[─┼]+┤", line):
            left, right = columns[match.start()], columns[match.end() - 1]
            found.append((left, right) if line[match.start()] == "├" else (right, left))
    return found


def frames(text: str) -> dict[str, list[str]]:
    made: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("┌─ "):
            current = made.setdefault(line.split("─")[1].strip().split(" x ")[0], [])
        elif line.startswith("│"):
            current.append(line)
    return made


def columns_of(frame: list[str]) -> dict[int, str]:
    head = next(line for line in frame if any(name in line for name in NAMES) and " buy" not in line)
    cells = re.finditer(r"\S+( \S+)?", head[1:-1])
    return {1 + cell.start() + len(cell[0]) // 2: NAMES[cell[0]] for cell in cells}


@each
def test_the_text_draws_every_message_of_a_session_in_order(design: Design) -> None:
    drawn = frames(sequence_text(design))
    told = exchanges(design)
    after = (Phase.DELIVERY, Phase.SETTLEMENT)
    for name in ("prequalification", *(one.id for one in design.sessions)):
        frame, wanted = drawn[name], "" if name == "prequalification" else name
        same = next((re.search(r"messages as in (\S+)", line) for line in frame if "messages as in" in line), None)
        frame = drawn[same[1]] if same else frame
        messages = [(one.sender, one.receiver) for one in told if one.session == wanted and one.phase not in after]
        assert arrows(frame, columns_of(frame)) == messages
        if wanted:
            assert any(re.search("│ (clear|match one by one): ", line) for line in frame)
    for phase in after:
        mine = [one for one in told if one.phase is phase]
        kinds = dict.fromkeys((one.sender, one.receiver, one.information, one.per) for one in mine)
        frame = drawn.get(phase.value, [])
        assert (arrows(frame, columns_of(frame)) if frame else []) == [(one[0], one[1]) for one in kinds]


@each
def test_the_text_is_100_to_120_columns_wide_and_its_frames_are_closed(design: Design) -> None:
    lines = sequence_text(design).splitlines()
    boxed = [line for line in lines if line and line[0] in "┌│└"]
    (width,) = {len(line) for line in boxed}
    assert width in (100, 120)
    assert all(line[-1] in "┐│┘" for line in boxed)
    assert max(map(len, lines)) == width
    assert sum(line[0] == "┌" for line in boxed) == sum(line[0] == "└" for line in boxed) >= len(design.sessions)


def test_a_session_that_repeats_is_drawn_once_and_says_how_often() -> None:
    horizon = {"starts": "D", "ends": "D+PT7H", "firm": "PT15M"}
    text = sequence_text(design_of(session("near", horizon=horizon, repeat={"every": "PT15M", "times": 96})))
    assert text.count("┌─ near x 96 every 15 min ") == 1
    assert "first gate D-1T08:00 to D-1T09:00, for D to D+PT7H, its first 15 min definitive" in text


def test_facts_of_a_session_say_who_buys_what_from_whom_and_in_which_order() -> None:
    grid = {"distribution": "ac", "transmission": "ac"}
    first = session("one", buyers=["dso", "tso", "brp"], needs="both", grid=grid, services=["congestion"])
    second = session("two", buyers=["dso"], needs="assessment", grid=grid, gate={"opens": "D-1", "closes": "D-1T10:00"})
    text = sequence_text(design_of(first, second, iterate={"sessions": ["one", "two"], "until_mw": 0.5}))
    assert "DSO then TSO then BRP buy active energy from distribution units for congestion" in text
    assert "in turn with two until nothing moves by 0.5 MW, at most 30 rounds" in text
    assert "clear: distribution ac, transmission ac, pay as bid" in text
    pooled = sequence_text(design_of(first | {"priority": "none"}))
    assert "DSO and TSO and BRP buy" in pooled


# ---------------------------------------------------------------- SVG


@dataclass(frozen=True)
class Box:
    """Where a text stands, by the width of letters of a common wide face (DejaVu Sans: 0.6 of the size on average)."""

    left: float
    right: float
    top: float
    bottom: float
    text: str

    @classmethod
    def of(cls, text: ElementTree.Element) -> Box:
        words = text.text or ""
        x, y, width = float(text.attrib["x"]), float(text.attrib["y"]), 0.6 * 13 * len(words)
        left = x if text.attrib["text-anchor"] == "start" else x - width / 2
        return cls(left, left + width, y - 11, y + 3, words)

    def meets(self, other: Box) -> bool:
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)


@each
def test_no_text_of_the_svg_lies_over_another_or_outside(design: Design) -> None:
    root = ElementTree.fromstring(sequence_svg(design))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = sorted((Box.of(text) for text in root.iter(f"{SVG}text")), key=lambda box: box.top)
    for k, box in enumerate(boxes):
        assert min(box.left, box.top) >= 0 and box.right <= width and box.bottom <= height, box
        for other in boxes[k + 1 : k + 8]:
            assert not box.meets(other), (box, other)


@each
def test_the_svg_draws_as_many_messages_as_the_text_and_stands_by_itself(design: Design) -> None:
    svg = sequence_svg(design)
    root = ElementTree.fromstring(svg)
    tips = [path for path in root.iter(f"{SVG}path") if path.attrib["class"] == "tip"]
    drawn = frames(sequence_text(design)).values()
    assert len(tips) == sum(len(re.findall("[►◄]", line)) for frame in drawn for line in frame)
    # No script, no address but that of the format, nothing to be fetched.
    assert {element.tag for element in root.iter()} <= {
        f"{SVG}{tag}" for tag in ("svg", "title", "desc", "style", "rect", "text", "line", "path", "g")
    }
    assert svg.count("http") == 1 and "url(" not in svg and "@import" not in svg


def test_the_svg_has_a_title_a_description_tooltips_and_colours_for_the_dark() -> None:
    svg = sequence_svg(design_of(session("only", validation="merit_order")))
    root = ElementTree.fromstring(svg)
    named = {element.attrib["id"]: element.text for element in root if "id" in element.attrib}
    title, described = root.attrib["aria-labelledby"].split()
    assert root.attrib["role"] == "img"
    assert named[title] == "Drawn <&> told"
    words = named[described] or ""
    assert "TSO, DSO, providers as columns" in words and "14 kinds of message" in words
    assert "@media (prefers-color-scheme: dark)" in svg
    tips = {title.text for group in root.iter(f"{SVG}g") for title in group.iter(f"{SVG}title")}
    assert "validation, per line: walk the list on the grid" in tips


def luminance(colour: str) -> float:
    """Relative luminance of a colour (WCAG 2)."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_texts_stand_out_from_their_ground_in_light_and_in_dark() -> None:
    style = re.search(r"<style>(.*?)</style>", sequence_svg(SHIPPED[0]), re.DOTALL)
    assert style is not None
    for colours in style[1].split("@media"):
        fill = dict(re.findall(r"#[\w-]+ (\.?\w+) \{[^}]*?fill: (#[0-9a-f]{6})", colours))
        for ink in ("text", ".dim"):
            for ground in (".paper", ".box"):
                light, dark = sorted((luminance(fill[ink]), luminance(fill[ground])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


def test_a_design_is_drawn_with_the_same_bytes_again() -> None:
    again = load_design("beflexible_six")
    assert sequence_svg(again) == sequence_svg(load_design("beflexible_six"))
    assert sequence_text(again) == sequence_text(load_design("beflexible_six"))
