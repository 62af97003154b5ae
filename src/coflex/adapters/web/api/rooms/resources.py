"""Perimeters, connection points, units and groups: one at a time, or many from a table."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from coflex.adapters.web.api.body import read_body
from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.endpoints import command_of, written
from coflex.adapters.web.api.incoming import (
    JSON,
    MOST_BYTES_AT_ONCE,
    caller,
    idempotency_key,
    media_type,
    only_parameters,
    whole_body,
)
from coflex.adapters.web.api.operations import History, Read, Room, Special, Write
from coflex.adapters.web.api.problems import WrongMediaType
from coflex.register.access import ClientScope
from coflex.register.resources import GroupEntry, Perimeter, PointEntry, UnitEntry
from coflex.service.machine import decode, encode
from coflex.service.verbs.units_import import Imported, UnitRow, UnitsImport

# Rows of units from a table in a media type of its own. Raises Refused with the places of the table.
Reader: TypeAlias = Callable[[bytes], tuple[UnitRow, ...]]

CSV = "text/csv"
WORKBOOK = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


async def _import(readers: Mapping[str, Reader], desk: Desk, request: Request) -> Response:
    """Units from a table: read beside the machine's thread, then taken as one command, all rows or none."""
    who = await caller(desk, request, ClientScope.WRITE)
    only_parameters(request, ())
    key, media = idempotency_key(request), media_type(request)
    if media != JSON and media not in readers:
        raise WrongMediaType(f"The body is of the type '{media}'.", f"Send {', '.join((JSON, *sorted(readers)))}.")
    raw = await whole_body(request, MOST_BYTES_AT_ONCE)
    if media == JSON:
        body = read_body(raw, MOST_BYTES_AT_ONCE)
        form = decode(body, UnitsImport)
    else:
        form = UnitsImport(rows=await asyncio.to_thread(readers[media], raw))
        body = encode(form)
    return written(await desk.submit(command_of(who, "units.import", "", body, key, form=form)), who.tenant)


def rooms(readers: Mapping[str, Reader]) -> tuple[Room, ...]:
    """The operations; `readers` of tables by their media type."""
    return _PERIMETERS, _POINTS, _units(readers), _GROUPS


def _step(path: str, verb: str, kind: type[Any], summary: str) -> Write:
    return Write("POST", f"{path}/{verb.partition('.')[2]}", verb, summary, kind, example={})


_PERIMETERS = Room(
    "perimeters",
    "Parts of a grid inside which units form groups.",
    (
        Read("/perimeters", Perimeter, "Perimeters.", {"system_operator": "system_operator"}),
        Read("/perimeters/{perimeter}", Perimeter, "A perimeter and its buses."),
        History("/perimeters/{perimeter}/history", Perimeter, "Every version of a perimeter."),
        Write(
            "PUT", "/perimeters/{perimeter}", "perimeter.set", "Say which buses are a perimeter.", Perimeter,
            example={"name": "P-North", "buses": ["B1", "B2"]}, match=False,
        ),
        Write("DELETE", "/perimeters/{perimeter}", "perimeter.remove", "Take a perimeter away.", dict[str, Any]),
    ),
)  # fmt: skip

_POINT = {
    "id": "POINT-1", "bus": "B1", "level": "distribution", "voltage_kv": 20.0, "system_operator": "DSO1",
    "owner": "OWNER1", "latitude": 51.3, "longitude": 9.5,
}  # fmt: skip
_POINTS = Room(
    "points",
    "Connection points: where customers meet the grid.",
    (
        Read(
            "/points", PointEntry, "Connection points that concern the caller.",
            {"system_operator": "point.system_operator", "owner": "point.owner", "bus": "point.bus"},
        ),
        Read("/points/{point}", PointEntry, "A connection point."),
        History("/points/{point}/history", PointEntry, "Every version of a connection point."),
        Write(
            "POST", "/points", "connection_point.register", "Register a connection point.", PointEntry, 201,
            "/points/{id}", _POINT,
        ),
        Write(
            "PATCH", "/points/{point}", "connection_point.change", "Change where and whose a connection point is.",
            PointEntry, example={"bus": "B2"},
        ),
        _step("/points/{point}", "connection_point.end", PointEntry, "A connection point is gone."),
    ),
)  # fmt: skip

_UNIT = {
    "id": "UNIT-1", "category": "load", "technology": "heat_pump", "connection_point": "POINT-1", "owner": "OWNER1",
    "balance_responsible_party": "BRP1", "up_kw": 400, "down_kw": 200, "preparation_period_s": 60,
    "ramping_period_s": 240, "full_activation_time_s": 300, "deactivation_period_s": 300, "min_quantity_kw": 10,
    "max_quantity_kw": 400, "min_duration_s": 900, "max_duration_s": 7200, "recovery_time_s": 900, "point": _POINT,
}  # fmt: skip


def _units(readers: Mapping[str, Reader]) -> Room:
    return Room(
        "units",
        "Controllable units: registered once, here, and made known to every system operator whose grid they concern.",
        (
            Read(
                "/units", UnitEntry, "Units that concern the caller.",
                {"provider": "unit.provider", "owner": "unit.owner", "connection_point": "unit.connection_point",
                 "technology": "unit.technology", "status": "status"},
            ),
            Read("/units/{unit}", UnitEntry, "A unit."),
            History("/units/{unit}/history", UnitEntry, "Every version of a unit."),
            Write(
                "POST", "/units", "unit.register", "Register a unit, with its connection point where that is new.",
                UnitEntry, 201, "/units/{id}", _UNIT,
            ),
            Special(
                "POST", "/unit-imports", partial(_import, readers),
                "Register up to 10,000 units from a table, all of them or none.", "units_import", {201: Imported},
                body=UnitsImport, also=tuple(sorted(readers)), write=True, scope=ClientScope.WRITE,
            ),
            Write(
                "PATCH", "/units/{unit}", "unit.change",
                "Change a unit; a material change makes its qualifications lapse.", UnitEntry, example={"up_kw": 350},
            ),
            _step("/units/{unit}", "unit.activate", UnitEntry, "A unit may be offered."),
            _step("/units/{unit}", "unit.deactivate", UnitEntry, "A unit is not offered for the time being."),
            _step("/units/{unit}", "unit.terminate", UnitEntry, "A unit is gone, out of its groups too."),
            Write(
                "POST", "/units/{unit}/switch", "unit.switch", "Take a unit over from another provider.", UnitEntry,
                example={"balance_responsible_party": "BRP1"},
            ),
        ),
    )  # fmt: skip


_GROUPS = Room(
    "groups",
    "Service providing groups: units that qualify and offer one product together.",
    (
        Read(
            "/groups", GroupEntry, "Groups that concern the caller.",
            {"provider": "group.provider", "product": "group.product", "perimeter": "group.perimeter",
             "status": "status"},
        ),
        Read("/groups/{group}", GroupEntry, "A group."),
        History("/groups/{group}/history", GroupEntry, "Every version of a group."),
        Write(
            "POST", "/groups", "group.register", "Register a group.", GroupEntry, 201, "/groups/{id}",
            {"id": "GROUP-1", "scope": "local", "product": "local-energy", "perimeter": "P-North",
             "units": ["UNIT-1"], "balance_responsible_party": "BRP1"},
        ),
        Write(
            "PATCH", "/groups/{group}", "group.change", "Change a group, its units too.", GroupEntry,
            example={"units": ["UNIT-1", "UNIT-2"]},
        ),
        _step("/groups/{group}", "group.activate", GroupEntry, "A group may offer."),
        _step("/groups/{group}", "group.deactivate", GroupEntry, "A group does not offer for the time being."),
        _step("/groups/{group}", "group.terminate", GroupEntry, "A group is gone."),
    ),
)  # fmt: skip
