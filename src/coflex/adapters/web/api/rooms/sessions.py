"""Sessions: their life, what is asked for in them, and, once published, what came of them."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.document import CURSOR, LIMIT
from coflex.adapters.web.api.endpoints import tagged
from coflex.adapters.web.api.incoming import caller, only_parameters
from coflex.adapters.web.api.operations import Handler, History, Parameter, Read, Room, Special, Write
from coflex.adapters.web.api.paging import CONTROLS, Page, page_of
from coflex.domain.clearing import Award, MeritLine, Uncovered
from coflex.domain.errors import NotReady
from coflex.register.access import ClientScope
from coflex.register.fields import readable
from coflex.register.market import SessionEntry, SessionRequests
from coflex.register.outcomes import SessionOutcome, unpack
from coflex.service import reading
from coflex.service.machine import encode
from coflex.service.relations import relations

R = TypeVar("R")


class SessionState(msgspec.Struct, frozen=True):
    """A session and the state it has come to."""

    session: str
    state: str


class RequestsTaken(msgspec.Struct, frozen=True):
    """How many requests of the buyer the session now holds."""

    session: str
    asked: int


def _page(row: type[Any], name: str) -> Any:
    """The type of a page of rows, for the document."""
    fields = [("items", list[row]), ("next", str | None), ("total", int)]  # type: ignore[valid-type]
    return msgspec.defstruct(f"{name}Page", fields, namespace={"__doc__": Page.__doc__})


def _rows(kind: type[R], filters: tuple[str, ...]) -> Handler:
    """Rows of the result that the caller may see: a provider its own, the buyer and the market operator all."""

    async def handler(desk: Desk, request: Request) -> Response:
        who = await caller(desk, request, ClientScope.READ)
        only_parameters(request, (*CONTROLS, *filters))
        state = desk.state(who.tenant)
        entry = reading.record(state, who, SessionEntry, request.path_params["session"])
        if not entry.outcome:
            raise NotReady(
                f"The session {entry.id} has no result yet: it is {entry.state}.", "Wait for its publication."
            )
        outcome = state.get(SessionOutcome, entry.outcome)
        sees_all = "added" in readable(SessionOutcome, relations(state, who, outcome))
        asked = {name: request.query_params[name] for name in filters if name in request.query_params}
        found = await asyncio.to_thread(unpack, outcome.added, kind)
        mine = [one for one in found if sees_all or getattr(one, "provider", None) == who.party]
        rows = [(f"{i:08d}", one) for i, one in enumerate(mine) if _is(one, asked)]
        body = encode(page_of(request, rows))
        await desk.settled()
        return tagged(request, body)

    return handler


def _is(row: Any, asked: dict[str, str]) -> bool:
    return all(str(msgspec.to_builtins(getattr(row, name))) == text for name, text in asked.items())


def _result(path: str, id: str, kind: type[Any], summary: str, filters: tuple[str, ...]) -> Special:
    parameters = (LIMIT, CURSOR, *(Parameter(name, f"Only rows whose `{name}` is this.") for name in filters))
    return Special(
        "GET", f"/sessions/{{session}}/{path}", _rows(kind, filters), summary, id,
        {200: _page(kind, kind.__name__), 304: None}, parameters, problems=(409,),
    )  # fmt: skip


ROOM = Room(
    "sessions",
    "Market sessions: when they open and close, what is asked for, and their results.",
    (
        Read("/sessions", SessionEntry, "Sessions, by delivery day.", {"day": "day", "session": "session",
             "state": "state"}),
        Read("/sessions/{session}", SessionEntry, "A session: its gate and the state it has come to."),
        History("/sessions/{session}/history", SessionEntry, "Every version of a session."),
        Write(
            "PUT", "/sessions/{session}/requests", "request.submit",
            "What the buyer asks for in a session, until it opens; what it asked before is replaced.", RequestsTaken,
            201, example={"asked": [{"start": "2026-07-05T10:00:00Z", "direction": "up", "quantity_kw": 500,
                                     "price_limit_eur_mwh": "120.00"}]},
            match=False,
        ),
        Read("/requests", SessionRequests, "Requests of the caller; all of them for the market operator."),
        Read("/requests/{session}", SessionRequests, "What is asked for in a session."),
        _result(
            "awards", "list_award", Award, "What was bought: a provider's own; all for the buyer and the operator.",
            ("product", "direction", "unit", "group"),
        ),
        _result(
            "merit-order-list", "list_merit_line", MeritLine,
            "The merit order list with the reason for every skipped line: a provider's own lines; all for the buyer "
            "and the operator.", ("product", "direction", "reason"),
        ),
        _result(
            "uncovered", "list_uncovered", Uncovered, "Needs that no offer covers, for the buyer and the operator.", ()
        ),
        Write(
            "POST", "/sessions/{session}/retry", "session.retry",
            "Have a step computed again that failed, without some offers where they are the cause.", SessionState,
            example={"reason": "The solver was given more time."},
        ),
        Write(
            "POST", "/sessions/{session}/rerun", "session.rerun",
            "Take a result back and compute it anew; a second person confirms it.", SessionState,
            example={"reason": "A unit was registered with the wrong power."},
        ),
    ),
)  # fmt: skip
