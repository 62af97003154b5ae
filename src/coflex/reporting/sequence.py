"""Sequence diagrams of a market design: actors as columns, sessions as frames, messages as arrows.

Drawn from the exchanges that the document implies, as text for a terminal and as SVG for a page. The same design gives
the same bytes. A session with the messages of an earlier one names it; a session that repeats is drawn once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap
from xml.sax.saxutils import escape

from coflex.domain.time import duration
from coflex.market.coordination.outcome import Actor
from coflex.market.design.document import NEVER, REST, Design, DistributionGrid, Matching, Priority, Session
from coflex.market.design.exchanges import Exchange, Per, Phase, exchanges, operator

_NAMES = {
    Actor.TSO: "TSO",
    Actor.DSO: "DSO",
    Actor.MARKET_OPERATOR: "market operator",
    Actor.SERVICE_PROVIDER: "providers",
    Actor.BALANCE_RESPONSIBLE_PARTY: "BRP",
}


# ---------------------------------------------------------------- what is drawn


@dataclass(frozen=True, slots=True)
class _Arrow:
    """A message: columns of sender and receiver, its label, and what the sender does for it."""

    sender: int
    receiver: int
    label: str
    function: str


@dataclass(frozen=True, slots=True)
class _Box:
    """What an actor does by itself."""

    actor: int
    label: str


_Row = _Arrow | _Box


@dataclass(frozen=True, slots=True)
class _Frame:
    """A part of the process: its title, facts about it, and its rows or the name of a frame with the same ones."""

    title: str
    facts: tuple[str, ...]
    rows: tuple[_Row, ...]
    same_as: str = ""


@dataclass(frozen=True, slots=True)
class _Drawing:
    """Columns from left to right, frames from top to bottom."""

    actors: tuple[Actor, ...]
    frames: tuple[_Frame, ...]


def _drawing(design: Design) -> _Drawing:
    told = exchanges(design)
    present = {actor for one in told for actor in (one.sender, one.receiver)}
    actors = tuple(actor for actor in _NAMES if actor in present)
    frames = []
    first: dict[tuple[_Row, ...], str] = {}
    for name in ("", *(session.id for session in design.sessions)):
        session = next((one for one in design.sessions if one.id == name), None)
        market = [one for one in told if one.session == name and one.phase not in (Phase.DELIVERY, Phase.SETTLEMENT)]
        rows = tuple(_rows(market, session, actors))
        title = "prequalification" if session is None else _title(session)
        facts = () if session is None else tuple(_facts(session, design))
        frames.append(_Frame(title, facts, rows, first.get(rows, "")))
        first.setdefault(rows, name)
    for phase in (Phase.DELIVERY, Phase.SETTLEMENT):
        rows = tuple(dict.fromkeys(_arrow(one, actors) for one in told if one.phase is phase))
        frames += [_Frame(phase.value, (), rows)] if rows else []
    return _Drawing(actors, tuple(frames))


def _rows(told: Sequence[Exchange], session: Session | None, actors: Sequence[Actor]) -> Iterator[_Row]:
    """Arrows in their order, with the clearing between the gate and the selection."""
    before = (Phase.PREQUALIFICATION, Phase.PLAN, Phase.BIDDING)
    yield from (_arrow(one, actors) for one in told if one.phase in before)
    if session is not None:
        yield _Box(actors.index(operator(session)), _clearing(session))
    yield from (_arrow(one, actors) for one in told if one.phase not in before)


def _arrow(one: Exchange, actors: Sequence[Actor]) -> _Arrow:
    words = one.information.value.replace("_", " ")
    label = words if one.per is Per.ONCE else f"{words}, {one.per.value.replace('_', ' ')}"
    return _Arrow(actors.index(one.sender), actors.index(one.receiver), label, one.function)


def _label(row: _Arrow, letters: int) -> list[str]:
    """The label on one line where it fits, else what there is one message for by itself."""
    if len(row.label) <= letters:
        return [row.label]
    return [line for part in row.label.split(", ") for line in wrap(part, letters)]


def _title(session: Session) -> str:
    repeat = session.repeat
    return session.id if repeat is None else f"{session.id} x {repeat.times} every {_span(repeat.every)}"


def _span(text: str) -> str:
    """PT4H as 4 h, PT15M as 15 min."""
    hours, minutes = divmod(int(duration(text).total_seconds()) // 60, 60)
    return " ".join(part for part in (f"{hours} h" * bool(hours), f"{minutes} min" * bool(minutes)) if part)


def _facts(session: Session, design: Design) -> Iterator[str]:
    """Who buys what from whom, when, and with whom the session iterates."""
    among = " then " if session.priority is Priority.LISTED and session.matching is Matching.AUCTION else " and "
    buyers = among.join(buyer.value.upper() for buyer in session.buyers)
    verb = "buys" if len(session.buyers) == 1 else "buy"
    services = f" for {', '.join(session.services)}" if session.services else ""
    sold = f"{' and '.join(session.sellers.levels)} {' and '.join(session.sellers.resources)}"
    yield f"{buyers} {verb} {session.trades.value} from {sold}{services}".replace("_", " ")
    gate, horizon = session.gate, session.horizon
    whole = {REST: "all of it definitive", NEVER: "nothing of it definitive"}
    firm = whole.get(horizon.firm) or f"its first {_span(horizon.firm)} definitive"
    first = "first " if session.repeat is not None else ""
    yield f"{first}gate {gate.opens} to {gate.closes}, for {horizon.starts} to {horizon.ends}, {firm}"
    iterate = design.iterate
    if iterate is not None and session.id in iterate.sessions:
        others = ", ".join(name for name in iterate.sessions if name != session.id)
        yield f"in turn with {others} until nothing moves by {iterate.until_mw:g} MW, at most {iterate.at_most} rounds"


def _clearing(session: Session) -> str:
    view = session.grid
    seen = [
        f"{grid} {what.value}"
        for grid, what in (("distribution", view.distribution), ("transmission", view.transmission))
        if what.value != DistributionGrid.NONE.value
    ]
    how = "clear" if session.matching is Matching.AUCTION else "match one by one"
    return f"{how}: {', '.join([*seen, session.pricing.value.replace('_', ' ')])}"


# ---------------------------------------------------------------- as text


def sequence_text(design: Design) -> str:
    """The diagram in box drawing characters, 100 columns wide for up to three actors, 120 for more, ending in a line
    break."""
    drawing = _drawing(design)
    width = 100 if len(drawing.actors) <= 3 else 120
    columns = _columns(len(drawing.actors), 12, width - 13)
    source = f"{design.id} (document {design.source.document}, {design.source.section})"
    lines = [*wrap(design.title, width), *wrap(source, width)]
    for frame in drawing.frames:
        lines.append("")
        lines += _text_frame(frame, drawing.actors, columns, width)
    return "\n".join(lines) + "\n"


def _columns(count: int, first: int, last: int) -> list[int]:
    """Where the lifelines stand, evenly from first to last."""
    return [first + (last - first) * k // max(1, count - 1) for k in range(count)]


def _text_frame(frame: _Frame, actors: Sequence[Actor], columns: Sequence[int], width: int) -> Iterator[str]:
    yield f"┌─ {frame.title} ".ljust(width - 1, "─") + "┐"
    facts = [f"messages as in {frame.same_as}"] if frame.same_as else []
    for fact in (*frame.facts, *facts):
        yield from (f"│ {line}".ljust(width - 1) + "│" for line in wrap(fact, width - 4))
    if not frame.same_as:
        heads = [" "] * width
        for actor, column in zip(actors, columns, strict=True):
            _write(heads, column - len(_NAMES[actor]) // 2, _NAMES[actor])
        yield _bordered(heads)
        for row in frame.rows:
            yield from _text_arrow(row, columns, width) if isinstance(row, _Arrow) else _text_box(row, columns, width)
    yield "└".ljust(width - 1, "─") + "┘"


def _blank(columns: Sequence[int], width: int) -> list[str]:
    """A line with nothing but lifelines."""
    return ["│" if k in columns else " " for k in range(width)]


def _write(line: list[str], at: int, text: str) -> None:
    line[at : at + len(text)] = text


def _bordered(line: list[str]) -> str:
    return "│" + "".join(line[1:-1]) + "│"


def _text_arrow(row: _Arrow, columns: Sequence[int], width: int) -> Iterator[str]:
    """The label above the arrow, between the two lifelines."""
    start, end = columns[row.sender], columns[row.receiver]
    low, high = min(start, end), max(start, end)
    for text in _label(row, high - low - 3):
        line = _blank(columns, width)
        _write(line, (low + high - len(text)) // 2, f" {text} ")
        yield _bordered(line)
    line = _blank(columns, width)
    for k in range(low + 1, high):
        line[k] = "┼" if k in columns else "─"
    line[start] = "├" if start < end else "┤"
    line[end - 1 if start < end else end + 1] = "►" if start < end else "◄"
    yield _bordered(line)


def _text_box(row: _Box, columns: Sequence[int], width: int) -> Iterator[str]:
    """A box around its actor's lifeline, moved in where it would leave the frame."""
    size = len(row.label) + 4
    at = max(2, min(columns[row.actor] - size // 2, width - 2 - size))
    edges = ("┌" + "─" * (size - 2) + "┐", f"│ {row.label} │", "└" + "─" * (size - 2) + "┘")
    for edge in edges:
        line = _blank(columns, width)
        _write(line, at, edge)
        yield _bordered(line)


# ---------------------------------------------------------------- as SVG

_WIDTH, _EDGE, _SIDE = 960, 16, 130
_LINE, _ROW, _TEXT = 18, 26, 13
# Width of a letter as a share of the text's height; the widest common faces stay below it on average.
_LETTER = 0.62

_STYLE = """
{0} text {{ font: 13px system-ui, "DejaVu Sans", sans-serif; fill: #1b2733 }}
{0} .head {{ font-weight: 600 }}
{0} .dim {{ fill: #52606d }}
{0} .paper {{ fill: #ffffff }}
{0} .frame {{ fill: none; stroke: #9aa5b1 }}
{0} .life {{ stroke: #cbd2d9 }}
{0} .box {{ fill: #e8f1fa; stroke: #2f6f9f }}
{0} .arrow {{ stroke: #2f6f9f; stroke-width: 1.5 }}
{0} .tip {{ fill: #2f6f9f }}
{0} .label {{ paint-order: stroke; stroke: #ffffff; stroke-width: 4px }}
@media (prefers-color-scheme: dark) {{
{0} text {{ fill: #e4e7eb }}
{0} .dim {{ fill: #9aa5b1 }}
{0} .paper {{ fill: #14191f }}
{0} .frame {{ stroke: #616e7c }}
{0} .life {{ stroke: #3e4c59 }}
{0} .box {{ fill: #1d3a52; stroke: #7cb8e4 }}
{0} .arrow {{ stroke: #7cb8e4 }}
{0} .tip {{ fill: #7cb8e4 }}
{0} .label {{ stroke: #14191f }}
}}
"""


def sequence_svg(design: Design) -> str:
    """The diagram as an SVG document that stands by itself: no script, no font of its own, colours for light and dark,
    a title and a description for those who do not see it. What a sender does for a message is its tooltip."""
    drawing = _drawing(design)
    columns = _columns(len(drawing.actors), _SIDE, _WIDTH - _SIDE)
    name = f"sequence-{design.id}"
    body: list[str] = []
    top = _EDGE
    for line in wrap(design.title, _letters(_WIDTH - 2 * _EDGE)):
        top += _LINE
        body.append(_svg_text(_EDGE, top - 4, line, "head", "start"))
    for frame in drawing.frames:
        top = _svg_frame(body, frame, drawing.actors, columns, top + _LINE)
    height = top + _EDGE
    told = sum(isinstance(row, _Arrow) for frame in drawing.frames for row in frame.rows)
    described = (
        f"Sequence diagram with {', '.join(_NAMES[actor] for actor in drawing.actors)} as columns and the frames "
        f"{', '.join(frame.title for frame in drawing.frames)}: {told} kinds of message."
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" id="{name}" role="img" aria-labelledby="{name}-title {name}-desc" '
        f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">\n'
        f'<title id="{name}-title">{escape(design.title)}</title>\n<desc id="{name}-desc">{escape(described)}</desc>\n'
        f"<style>{_STYLE.format('#' + name)}</style>\n"
        f'<rect class="paper" width="{_WIDTH}" height="{height}"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _letters(width: int) -> int:
    """How many letters fit."""
    return int(width / (_LETTER * _TEXT))


def _svg_text(x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'


def _svg_frame(body: list[str], frame: _Frame, actors: Sequence[Actor], columns: Sequence[int], top: int) -> int:
    """Adds the frame, from `top` on, and gives where it ends."""
    y = top + _LINE + 4
    inside = [_svg_text(2 * _EDGE, y, frame.title, "head", "start")]
    facts = [f"messages as in {frame.same_as}"] if frame.same_as else []
    for fact in (*frame.facts, *facts):
        for line in wrap(fact, _letters(_WIDTH - 4 * _EDGE)):
            y += _LINE
            inside.append(_svg_text(2 * _EDGE, y, line, "dim", "start"))
    if not frame.same_as:
        y += _ROW
        for actor, x in zip(actors, columns, strict=True):
            inside.append(_svg_text(x, y, _NAMES[actor], "head"))
        start, y = y + 6, y + 8
        rows: list[str] = []
        for row in frame.rows:
            y = _svg_arrow(rows, row, columns, y) if isinstance(row, _Arrow) else _svg_box(rows, row, columns, y)
        lines = (f'<line class="life" x1="{x}" x2="{x}" y1="{start}" y2="{y + 8}"/>' for x in columns)
        inside += [*lines, *rows]
    bottom = y + 16
    border = f'<rect class="frame" x="{_EDGE}" y="{top}" rx="6" '
    body.append(border + f'width="{_WIDTH - 2 * _EDGE}" height="{bottom - top}"/>')
    body += inside
    return bottom


def _svg_arrow(rows: list[str], row: _Arrow, columns: Sequence[int], y: int) -> int:
    """Adds a message below `y`, its label above the arrow, and gives where it ends."""
    start, end = columns[row.sender], columns[row.receiver]
    back = -8 if end > start else 8
    tooltip = f"<title>{escape(f'{row.label}: {row.function}')}</title>"
    rows.append(f"<g>{tooltip}")
    for line in _label(row, _letters(abs(end - start) - 24)):
        y += _LINE
        rows.append(_svg_text((start + end) / 2, y, line, "label"))
    y += 7
    rows.append(f'<line class="arrow" x1="{start}" x2="{end + back}" y1="{y}" y2="{y}"/>')
    rows.append(f'<path class="tip" d="M{end} {y}l{back} -4v8z"/></g>')
    return y + 3


def _svg_box(rows: list[str], row: _Box, columns: Sequence[int], y: int) -> int:
    """Adds a box below `y` around its actor's lifeline, moved in where it would leave the frame; gives its end."""
    width = _LETTER * _TEXT * len(row.label) + 16
    left = max(2.0 * _EDGE, min(columns[row.actor] - width / 2, _WIDTH - 2 * _EDGE - width))
    y += 10
    rows.append(f'<rect class="box" x="{left:g}" y="{y}" rx="4" width="{width:g}" height="{_ROW}"/>')
    rows.append(_svg_text(left + width / 2, y + 18, row.label))
    return y + _ROW
