"""Designs drawn at random: any order of sessions, buyers and horizons that tile a day of any length."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import strategies as st

from coflex.market.design import Design, read_design

SHORTEST_DAY = 92


def written(document: dict[str, Any]) -> tuple[str, dict[str, int]]:
    """A document as YAML with a line for each key and entry, and the line of each path, counted while writing."""
    text: list[str] = []
    lines: dict[str, int] = {}

    def put(value: Any, path: str, indent: str, lead: str) -> None:
        if not isinstance(value, dict | list) or not value:
            text.append(lead + json.dumps(value))
            return
        if lead.endswith(": "):
            text.append(lead.rstrip())
            lead = ""
        for number, (key, inner) in enumerate(value.items() if isinstance(value, dict) else enumerate(value)):
            step = f"[{key}]" if isinstance(value, list) else f".{key}"
            within = f"{path}{step}".removeprefix(".")
            lines[within] = len(text) + 1
            head = "- " if isinstance(value, list) else f"{key}: "
            put(inner, within, indent + "  ", (lead if lead and not number else indent) + head)

    put(document, "", "", "")
    return "\n".join(text) + "\n", lines


def placed(document: dict[str, Any], path: str) -> str:
    """The place of a finding at a path of mine.yaml: the line of the key, or of the nearest part that is there."""
    lines = written(document)[1]
    near = path
    while near not in lines:
        near = near.rpartition("[" if near.endswith("]") else ".")[0]
    return f"mine.yaml, line {lines[near]}: {path}"


def elapsed(quarters: int) -> str:
    return f"D+PT{quarters // 4}H{quarters % 4 * 15}M"


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    waiting = {scope: draw(sequences(scope)) for scope in draw(st.sampled_from([("local",), ("local", "global")]))}
    sessions: list[dict[str, Any]] = []
    while waiting:
        scope = draw(st.sampled_from(sorted(waiting)))
        session = waiting[scope].pop(0)
        place = len(sessions)
        session["gate"] = {"opens": f"D-1T0{draw(st.integers(0, 9))}:{place:02}", "closes": f"D-1T12:{place:02}"}
        sessions.append(session)
        if not waiting[scope]:
            del waiting[scope]
    return {"id": "drawn", "title": "Drawn", "source": {"document": "B", "section": "6.3"}, "sessions": sessions}


@st.composite
def sequences(draw: st.DrawFn, scope: str) -> list[dict[str, Any]]:
    cuts = sorted(draw(st.sets(st.integers(1, SHORTEST_DAY - 1), max_size=4)))
    sessions = []
    for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, None], strict=True), start=1):
        later = [elapsed(cut) for cut in cuts if end is not None and cut >= end]
        lights = ["traffic_light"]
        sees = draw(st.sampled_from(["none", "capability", *(["ac"] if scope == "local" else [])]))
        sessions.append(
            {
                "id": f"{scope}-{number}",
                "buyers": draw(st.lists(st.sampled_from(["dso", "tso"]), min_size=1, max_size=1)),
                "sellers": {"levels": ["distribution"]},
                "scope": scope,
                "horizon": {
                    "starts": elapsed(start),
                    "ends": draw(st.sampled_from(["D+1", *later])),
                    "firm": "rest" if end is None else f"PT{(end - start) * 15}M",
                },
                "needs": "requests",
                "grid": {"distribution": sees, "transmission": "none"},
                "interface": draw(st.sampled_from(["free", "netted"])),
                "pricing": draw(st.sampled_from(["pay_as_bid", "pay_as_clear"])),
                "validation": draw(st.sampled_from(["none", "static", *(lights if sees == "capability" else [])])),
            }
        )
    return sessions


def designs() -> st.SearchStrategy[Design]:
    return documents().map(lambda document: read_design(yaml.safe_dump(document), "drawn.yaml"))
