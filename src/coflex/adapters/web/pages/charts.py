"""Charts of the day's page: values in, SVG text out.

Every chart is 500 units wide, so that two stand side by side on a desk screen and one fills a telephone. Colours
are class names; the style sheet gives them their meaning in light and dark. Coordinates are rounded to a tenth,
so the bytes depend on the values alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from markupsafe import Markup, escape

from coflex.reporting.drawing import Scale, plain, scale, svg, svg_text, tenth

WIDTH = 500.0
_LEFT, _RIGHT = 46.0, 490.0
_QUARTER = timedelta(minutes=15)

VIOLATIONS = (("voltage_low", "voltage too low"), ("voltage_high", "voltage too high"), ("loading", "overloaded"))

_OFFER_REASONS = ("accepted", "marginal", "no_need", "out_of_merit", "price_limit")
_GRID_REASONS = ("no_effect", "red_light", "yellow_light", "grid_limit")


@dataclass(frozen=True, slots=True)
class DayAxis:
    """The quarter-hours of a delivery day across a chart: `labels` are local times with their offset.

    Guarantee: works for 92, 96 and 100 labels; the repeated hour is drawn twice, the skipped one not at all.
    """

    labels: tuple[str, ...]
    left: float = _LEFT
    right: float = _RIGHT

    def x(self, position: float) -> float:
        """Left edge of a quarter-hour; `len(labels)` is the end of the day."""
        return self.left + (self.right - self.left) * position / max(len(self.labels), 1)

    def ticks(self, hours: int = 4) -> list[tuple[int, str]]:
        """Positions and clock times of every `hours`-th full hour, and the end of the day."""
        marks = [
            (t, label[11:16])
            for t, label in enumerate(self.labels)
            if label[14:16] == "00" and int(label[11:13]) % hours == 0
        ]
        return [*marks, (len(self.labels), "24:00")] if self.labels else []

    def clock(self, label: str) -> str:
        """Clock time of a label; with its offset on the days on which the clock changes."""
        changes = self.labels and self.labels[0][16:] != self.labels[-1][16:]
        return f"{label[11:16]} ({label[16:]})" if changes else label[11:16]

    def instant(self, position: int) -> datetime:
        """The instant of a boundary, 0 .. len(labels)."""
        if position < len(self.labels):
            return datetime.fromisoformat(self.labels[position])
        return datetime.fromisoformat(self.labels[-1]) + _QUARTER


def _box(x: float, y: float, width: float, height: float, style: str, title: str = "") -> str:
    size = f'width="{tenth(max(width, 0))}" height="{tenth(max(height, 0))}"'
    head = f'<rect x="{tenth(x)}" y="{tenth(y)}" {size} class="{style}"'
    return f"{head}><title>{escape(title)}</title></rect>" if title else f"{head}/>"


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<path d="M{tenth(x1)} {tenth(y1)}L{tenth(x2)} {tenth(y2)}" class="{style}"/>'


def _hours(axis: DayAxis, top: float, bottom: float) -> list[str]:
    parts = []
    for t, label in axis.ticks():
        parts.append(_line(axis.x(t), top, axis.x(t), bottom, "grid"))
        parts.append(svg_text(axis.x(t), bottom + 16, label, "end" if t == len(axis.labels) else "middle"))
    return parts


def _values(axis: DayAxis, values: Scale, unit: str) -> list[str]:
    parts = [svg_text(axis.left - 42, 11, unit, "start", "unit")]
    for tick in values.ticks:
        y = values.at(tick)
        parts.append(_line(axis.left, y, axis.right, y, "zero" if abs(tick) < 1e-12 else "grid"))
        parts.append(svg_text(axis.left - 5, y + 4, plain(tick), "end"))
    return parts


def stacked_bars(
    axis: DayAxis, layers: Sequence[tuple[str, Sequence[float]]], label: str, unit: str, highest: float | None = None
) -> Markup:
    """Stacked bars per quarter-hour: each layer is a colour class and its signed values, one a quarter-hour.

    Positive values stack upwards, negative ones downwards. `highest` fixes the scale, so that charts compare.
    """
    up, down = [0.0] * len(axis.labels), [0.0] * len(axis.labels)
    areas: list[tuple[str, list[tuple[int, float, float]]]] = []
    for style, series in layers:
        blocks = []
        for t, value in enumerate(series):
            stack = up if value > 0 else down
            if value:
                blocks.append((t, stack[t], stack[t] + value))
            stack[t] += value
        areas.append((style, blocks))
    limits = [*up, *down] if highest is None else [highest]
    values = scale(limits, 156.0, 28.0)
    parts = _values(axis, values, unit) + _hours(axis, 28.0, 156.0)
    width = tenth(axis.x(1) - axis.x(0)) if axis.labels else "0"
    for style, blocks in areas:
        path = "".join(
            f"M{tenth(axis.x(t))} {tenth(values.at(a))}h{width}V{tenth(values.at(b))}h-{width}z" for t, a, b in blocks
        )
        parts.append(f'<path d="{path}" class="bar {style}"/>' if path else "")
    return svg(WIDTH, 178, label, parts)


def step_lines(axis: DayAxis, series: Sequence[tuple[str, Sequence[float]]], label: str, unit: str) -> Markup:
    """Values that hold over their quarter-hour, one line a series (colour class, values)."""
    values = scale([v for _, line in series for v in line], 188.0, 28.0)
    parts = _values(axis, values, unit) + _hours(axis, 28.0, 188.0)
    for style, line in series:
        if len(line):
            steps = "".join(f"V{tenth(values.at(v))}H{tenth(axis.x(t + 1))}" for t, v in enumerate(line))
            start = f"M{tenth(axis.x(0))} {tenth(values.at(line[0]))}"
            parts.append(f'<path d="{start}{steps}" class="ln {style}"/>')
    return svg(WIDTH, 210, label, parts)


_ROW = 22.0


def timeline(axis: DayAxis, sessions: Sequence[Mapping[str, Any]], day: str) -> Markup:
    """Gates and horizons of the sessions, from the first opening to the end of the delivery day."""
    first = min((datetime.fromisoformat(s["opens"]) for s in sessions), default=datetime.fromisoformat(axis.labels[0]))
    span = (axis.instant(len(axis.labels)) - first).total_seconds()
    bottom = 26.0 + _ROW * len(sessions)

    def x(at: datetime) -> float:
        return 62.0 + (_RIGHT - 62.0) * (at - first).total_seconds() / span

    start = x(axis.instant(0))
    parts = [_line(start, 18, start, bottom, "zero"), svg_text(start + 4, 14, f"D = {day}", "start", "unit")]
    parts += [svg_text(62, 14, "D-1", "start", "unit")] if start > 90 else []
    parts += [_clock(x(axis.instant(t)), bottom, text) for t, text in axis.ticks(6)]
    for row, session in enumerate(sessions):
        y, scope = 26.0 + _ROW * row, session["scope"]
        begin, end = session["horizon"]
        fixed = session["firm"][1]
        opens, closes = (x(datetime.fromisoformat(session[k])) for k in ("opens", "closes"))
        x0, x1, x2 = (x(axis.instant(t)) for t in (begin, fixed, end))
        name = session["id"]
        parts += [
            svg_text(56, y + 12, name, "end", "strong"),
            _box(x0, y + 2, x1 - x0, 13, f"bar {scope}", f"{name}: definitive part"),
            _box(x1, y + 2, x2 - x1, 13, f"bar pale {scope}", f"{name}: preliminary part"),
            _box(opens, y + 4, closes - opens, 9, f"gate {scope}", f"{name}: {_gate(session)}"),
        ]
    return svg(WIDTH, bottom + 20, "Gates and horizons of the sessions over the day before and the delivery day", parts)


def _gate(session: Mapping[str, Any]) -> str:
    return f"gate open {session['opens'][:16].replace('T', ' ')} to {session['closes'][:16].replace('T', ' ')}"


def _clock(x: float, bottom: float, text: str) -> str:
    return _line(x, 18, x, bottom, "grid") + svg_text(x, bottom + 15, text, "end" if text == "24:00" else "middle")


def session_bars(sessions: Sequence[Mapping[str, Any]]) -> Markup:
    """Awarded energy of each session in MWh: down to the left, up to the right; definitive dark, the rest light."""
    totals = [sign * (s["definitive_mwh"][d] + s["preliminary_mwh"][d]) for s in sessions for d, sign in _SIGNS.items()]
    values, bottom = scale(totals, 62.0, _RIGHT), 26.0 + _ROW * len(sessions)
    parts = [
        svg_text(values.at(0) - 6, 14, "down, MWh", "end", "unit"),
        svg_text(values.at(0) + 6, 14, "up, MWh", "start", "unit"),
    ]
    if values.at(0) - values.start < 60:
        parts = parts[1:]
    for tick in values.ticks:
        x = values.at(tick)
        parts.append(_line(x, 18, x, bottom, "zero" if abs(tick) < 1e-12 else "grid"))
        parts.append(svg_text(x, bottom + 15, plain(abs(tick)), "end" if x > 480 else "middle"))
    for row, session in enumerate(sessions):
        y = 28.0 + _ROW * row
        parts.append(svg_text(56, y + 10, session["id"], "end", "strong"))
        for direction, sign in _SIGNS.items():
            fixed, loose = session["definitive_mwh"][direction], session["preliminary_mwh"][direction]
            title = f"{session['id']}, {direction}: {plain(fixed)} MWh definitive, {plain(loose)} MWh preliminary"
            a, b, c = values.at(0), values.at(sign * fixed), values.at(sign * (fixed + loose))
            if fixed:
                parts.append(_box(min(a, b), y, abs(b - a), 13, f"bar {session['scope']}", title))
            if loose:
                parts.append(_box(min(b, c), y, abs(c - b), 13, f"bar pale {session['scope']}", title))
    return svg(WIDTH, bottom + 20, "Awarded energy of each session", parts)


_SIGNS = {"up": 1.0, "down": -1.0}


def reason_family(reason: str) -> str:
    """Which hatch a refused block wears: the offer's own price, the grid, or the unit's and block's conditions."""
    if reason in _OFFER_REASONS:
        return "by-price"
    return "by-grid" if reason in _GRID_REASONS else "by-unit"


def staircase(order: Mapping[str, Any], scope: str) -> Markup:
    """A merit order list: blocks in their order, width the offered kW, height the price; accepted filled.

    What was not accepted is striped, by the family of its reason. A dashed upright marks the asked quantity.
    """
    lines = _drawn(order)
    widest = max(sum(line["offered_kw"] for line in lines), order["asked_kw"] or 0)
    across = scale([widest], _LEFT, _RIGHT, count=5)
    prices = scale([float(line["price"]) for line in lines], 178.0, 28.0)
    parts = _values(DayAxis(()), prices, "EUR/MWh")
    for tick in across.ticks:
        parts.append(svg_text(across.at(tick), 194, plain(tick), "end" if across.at(tick) > 480 else "middle"))
    beyond = len(order["lines"]) - len(lines)
    more = f"; {beyond} more blocks to the right" if beyond else ""
    parts.append(svg_text(_RIGHT, 11, f"offered kW, added up{more}", "end", "unit"))
    ground, sum_kw = prices.at(0), 0.0
    for line in lines:
        parts.append(_block(line, across, sum_kw, ground, prices.at(float(line["price"])), scope))
        sum_kw += line["offered_kw"]
    if order["asked_kw"]:
        x = across.at(order["asked_kw"])
        parts.append(_line(x, 28, x, 178, "asked"))
    words = f"Merit order list of {order['session']}, {order['direction']}, {order['start'][11:16]}"
    return svg(WIDTH, 200, words, parts)


def _drawn(order: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The blocks up to twice the distance of the last accepted one; all of them when none was."""
    starts, reached, total = [], 0.0, 0.0
    for line in order["lines"]:
        starts.append(total)
        reached = total + line["accepted_kw"] if line["accepted_kw"] else reached
        total += line["offered_kw"]
    end = 2 * max(reached, order["asked_kw"] or 0) or total
    return [line for line, start in zip(order["lines"], starts, strict=True) if start < end]


def _block(line: Mapping[str, Any], across: Scale, at_kw: float, ground: float, top: float, scope: str) -> str:
    left, middle = across.at(at_kw), across.at(at_kw + line["accepted_kw"])
    right = across.at(at_kw + line["offered_kw"])
    upper, height = min(top, ground), max(abs(ground - top), 1.0)
    title = (
        f"{line['rank']}. {line['provider']} {line['location']}: {line['accepted_kw']} of {line['offered_kw']} kW "
        f"at {line['price']} EUR/MWh, {line['reason'].replace('_', ' ')}"
    )
    parts = []
    if line["accepted_kw"]:
        parts.append(_box(left, upper, middle - left, height, f"bar {scope}"))
    if right - middle > 0.05:
        x, style = (middle + right) / 2, reason_family(line["reason"])
        path = f"M{tenth(x)} {tenth(upper + height)}V{tenth(upper)}"
        parts.append(f'<path d="{path}" stroke-width="{right - middle:.2f}" class="stripe {style}"/>')
    return "".join([*parts, _box(left, upper, right - left, height, "edge", title)])


def light_matrix(axis: DayAxis, lights: Mapping[str, Any], direction: str) -> Markup:
    """Traffic lights of one direction: a row a perimeter, a cell a quarter-hour, a letter on every longer run."""
    day = DayAxis(axis.labels, 34.0, _RIGHT)
    names = lights["perimeters"]
    bottom = 8.0 + 17.0 * len(names)
    because = _reasons(lights, direction)
    parts: list[str] = []
    for row, name in enumerate(names):
        y, colours = 8.0 + 17.0 * row, lights["colour"][name][direction]
        parts.append(svg_text(28, y + 12, name, "end", "strong"))
        reason = ""
        for t, colour in enumerate(colours):
            reason = because.get((name, t, colour), reason if t and colours[t - 1] == colour else "")
            can = lights["capability_kw"][name][direction][t]
            all_kw = lights["potential_kw"][name][direction][t]
            amount = f"{plain(can)} of {plain(all_kw)} kW"
            title = f"{name} {direction} {axis.clock(axis.labels[t])}: {_COLOURS[colour]}, {amount}"
            title += f". {reason}" if reason else ""
            parts.append(_box(day.x(t), y, day.x(t + 1) - day.x(t) - 0.3, 15, f"cell {_COLOURS[colour]}", title))
        parts += _letters(day, colours, y)
    parts += [
        svg_text(day.x(t), bottom + 14, label, "end" if label == "24:00" else "middle") for t, label in day.ticks()
    ]
    return svg(WIDTH, bottom + 20, f"Traffic lights, direction {direction}, per perimeter and quarter-hour", parts)


_COLOURS = {"g": "green", "y": "yellow", "r": "red"}


def _reasons(lights: Mapping[str, Any], direction: str) -> dict[tuple[str, int, str], str]:
    given = (item for item in lights["reasons"] if item["direction"] == direction)
    return {(item["perimeter"], item["t"], item["colour"][:1]): item["reason"] for item in given}


def _letters(day: DayAxis, colours: str, y: float) -> list[str]:
    parts, start = [], 0
    for t in range(1, len(colours) + 1):
        if t == len(colours) or colours[t] != colours[start]:
            if t - start >= 3:
                style = f"letter on-{_COLOURS[colours[start]]}"
                parts.append(svg_text((day.x(start) + day.x(t)) / 2, y + 12, colours[start].upper(), "middle", style))
            start = t
    return parts


Points = list[tuple[float, float]]
_MAP_HEIGHT = 440.0


def positions(nodes: Sequence[Mapping[str, Any]]) -> Points:
    """Places of the nodes on the drawing: longitudes shortened by the cosine of the latitude, so areas are true.

    Nodes at one and the same position, the substation's own buses, are spread on a small circle.
    """
    if not nodes:
        return []
    middle = math.radians(sum(n["lat"] for n in nodes) / len(nodes))
    flat = [(n["lon"] * math.cos(middle), -n["lat"]) for n in nodes]
    left, top = min(x for x, _ in flat), min(y for _, y in flat)
    wide, high = max(x for x, _ in flat) - left, max(y for _, y in flat) - top
    factor = min((WIDTH - 48) / max(wide, 1e-9), (_MAP_HEIGHT - 44) / max(high, 1e-9))
    dx, dy = (WIDTH - wide * factor) / 2, (_MAP_HEIGHT - high * factor) / 2
    places = [(dx + (x - left) * factor, dy + (y - top) * factor) for x, y in flat]
    return _spread(places)


def _spread(places: Points) -> Points:
    together: dict[tuple[float, float], list[int]] = {}
    for i, (x, y) in enumerate(places):
        together.setdefault((round(x, 1), round(y, 1)), []).append(i)
    spread = list(places)
    for members in together.values():
        for k, i in enumerate(members if len(members) > 1 else ()):
            turn = 2 * math.pi * k / len(members) + math.pi / 8
            x, y = places[i]
            spread[i] = (x + 11 * math.cos(turn), y + 11 * math.sin(turn))
    return spread


def grid_map(grid: Mapping[str, Any], state: str, places: Points) -> Markup:
    """The grid in one state: branches by their highest loading, violated elements marked with their count.

    The count of a violated element is written where there is room for it; every element tells it on hovering.
    """
    outcome = grid["states"][state]
    parts = [_branch(grid, outcome, i, places) for i in _violated_last(outcome["branch_violations"])]
    parts += [_node(grid, outcome, i, places) for i in _violated_last(outcome["node_violations"])]
    parts += _perimeter_names(grid["nodes"], places)
    parts += _counts(grid, outcome, places)
    return svg(WIDTH, _MAP_HEIGHT, f"Drawing of the grid, state {state}", parts)


def _violated_last(counts: Sequence[int]) -> list[int]:
    return sorted(range(len(counts)), key=lambda i: (counts[i] > 0, i))


def _branch(grid: Mapping[str, Any], outcome: Mapping[str, Any], i: int, places: Points) -> str:
    branch = grid["branches"][i]
    share, count = outcome["branch_loading"][i], outcome["branch_violations"][i]
    used = share / branch["loading_max"] if branch["loading_max"] else 0.0
    (x1, y1), (x2, y2) = places[branch["from"]], places[branch["to"]]
    tint = f"load{min(int(used * 5), 4)}" if branch["closed"] else "open"
    title = f"{branch['kind']} {branch['name']}: highest loading {share:.1%}, bound {branch['loading_max']:.0%}"
    title += "" if branch["closed"] else "; open"
    title += f"; above its bound in {count} quarter-hours" if count else ""
    path = f"M{tenth(x1)} {tenth(y1)}L{tenth(x2)} {tenth(y2)}"
    halo = f'<path d="{path}" class="halo"/>' if count else ""
    return f'{halo}<path d="{path}" class="branch {tint}"><title>{escape(title)}</title></path>'


def _node(grid: Mapping[str, Any], outcome: Mapping[str, Any], i: int, places: Points) -> str:
    node, count = grid["nodes"][i], outcome["node_violations"][i]
    x, y = places[i]
    where = f" ({node['perimeter']})" if node["perimeter"] else ""
    title = (
        f"{node['name']}{where}, {plain(node['vn_kv'])} kV: {outcome['node_low'][i]:.4f} to "
        f"{outcome['node_high'][i]:.4f} pu, bounds {node['v_min']:g} to {node['v_max']:g} pu"
    )
    title += f"; outside them in {count} quarter-hours" if count else ""
    style, radius = ("node violated", 4.6) if count else ("node", 2.6)
    return (
        f'<circle cx="{tenth(x)}" cy="{tenth(y)}" r="{radius}" class="{style}"><title>{escape(title)}</title></circle>'
    )


def _perimeter_names(nodes: Sequence[Mapping[str, Any]], places: Points) -> list[str]:
    own = [p for node, p in zip(nodes, places, strict=True) if not node["perimeter"]] or places
    cx, cy = (sum(p[k] for p in own) / max(len(own), 1) for k in (0, 1))
    farthest: dict[str, tuple[float, float, float]] = {}
    for node, (x, y) in zip(nodes, places, strict=True):
        if node["perimeter"]:
            here = (math.hypot(x - cx, y - cy), x, y)
            farthest[node["perimeter"]] = max(farthest.get(node["perimeter"], here), here)
    parts = []
    for name, (away, x, y) in sorted(farthest.items()):
        reach = 13.0 / max(away, 1e-9)
        tx, ty = x + (x - cx) * reach, y + (y - cy) * reach + 4
        parts.append(svg_text(min(max(tx, 14), WIDTH - 14), min(max(ty, 12), _MAP_HEIGHT - 4), name, "middle", "place"))
    return parts


def _counts(grid: Mapping[str, Any], outcome: Mapping[str, Any], places: Points) -> list[str]:
    marks = [(count, *places[i]) for i, count in enumerate(outcome["node_violations"]) if count]
    for branch, count in zip(grid["branches"], outcome["branch_violations"], strict=True):
        if count:
            (x1, y1), (x2, y2) = places[branch["from"]], places[branch["to"]]
            marks.append((count, (x1 + x2) / 2, (y1 + y2) / 2))
    written: Points = []
    parts = []
    for count, x, y in sorted(marks, key=lambda m: (-m[0], m[1], m[2])):
        if all(abs(x - a) > 24 or abs(y - b) > 15 for a, b in written):
            written.append((x, y))
            parts.append(svg_text(x + 6, y - 5, str(count), "start", "count"))
    return parts


def money_bars(statements: Sequence[Mapping[str, Any]]) -> Markup:
    """Each party's balance in EUR: who paid to the left, who received to the right."""
    values = scale([float(s["balance"]) for s in statements], 132.0, _RIGHT)
    bottom = 10.0 + 20.0 * len(statements)
    parts = []
    for tick in values.ticks:
        x = values.at(tick)
        parts.append(_line(x, 6, x, bottom, "zero" if abs(tick) < 1e-12 else "grid"))
        parts.append(svg_text(x, bottom + 15, plain(tick), "end" if x > 480 else "middle"))
    for row, item in enumerate(statements):
        y, x = 10.0 + 20.0 * row, values.at(float(item["balance"]))
        style = {"tso": "global", "dso": "local"}.get(item["party"], "party")
        title = f"{item['name']}: balance {item['balance']} EUR"
        parts.append(svg_text(126, y + 11, _short(item["party"]), "end"))
        parts.append(_box(min(values.at(0), x), y, max(abs(x - values.at(0)), 0.5), 13, f"bar {style}", title))
    return svg(WIDTH, bottom + 20, "Balance of each party in EUR", parts)


def _short(text: str) -> str:
    return text if len(text) <= 18 else f"{text[:17]}…"
