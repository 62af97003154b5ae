"""Logs: one JSON object a line on stderr, or plain text on a terminal, and never anything of a person.

What may stand in a line is a closed list of fields (`FIELDS`); every other field is dropped, and a text that is no
plain identifier is withheld. So bodies, names, addresses, tokens and query strings cannot get in by accident, neither
through a field nor through the text of an exception: of exceptions their type and place are told, of addresses the
template of the route.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Container, Iterator, Mapping, MutableMapping
from contextlib import suppress
from itertools import count
from secrets import token_hex
from time import perf_counter
from typing import Any, Literal, Protocol, TextIO, cast

import msgspec
import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coflex.adapters.web.api.problems import answer
from coflex.domain.errors import CoflexError

Form = Literal["json", "text"]
Log = structlog.typing.FilteringBoundLogger

UNMATCHED = "unmatched"
# Loggers of our own modules.
OURS = "coflex."
# A client that went away before its answer, as web servers write it.
GONE = 499
# What a line may hold besides "event", "level" and "timestamp".
FIELDS = frozenset({
    "request_id", "tenant", "client", "method", "route", "status", "ms", "error", "code", "where", "logger", "number",
    "entries", "seconds", "address", "signal", "version", "store", "alarm", "webhook", "attempt", "session", "verb",
    "said", "about",
})  # fmt: skip
# Sentences of our own, the same for every request; all other texts are identifiers.
_SENTENCES = frozenset({"event", "alarm", "said"})
# Ids hold an @ ("cu-0001@dso"), but nothing that could be an address of mail: no dot comes behind it.
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:/{}*\[\]<>+-]{1,200}(@[A-Za-z0-9_-]{1,100})?")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_DEEPEST = 8


class Counts(Protocol):
    """Who counts requests, too."""

    def request(self, method: str, route: str, status: int, seconds: float) -> None: ...


# ---------------------------------------------------------------- the writer of lines


def logs(form: Form | None = None, stream: TextIO | None = None) -> Log:
    """The log of this process; other libraries' warnings go there too, without their texts.

    `form`: JSON if not given, but text where the stream is a terminal. `stream`: stderr if not given.
    """
    stream = stream or sys.stderr
    form = form or ("text" if stream.isatty() else "json")
    shared: list[Any] = [
        _only_known_fields,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if form == "json":
        shared.append(_as_json)
    else:
        shared.append(structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=10))
    writer = structlog.PrintLogger(cast("TextIO", _Unbroken(stream)))
    kind = structlog.make_filtering_bound_logger(logging.INFO)
    log: Log = structlog.wrap_logger(writer, processors=shared, wrapper_class=kind, cache_logger_on_first_use=True)
    logging.getLogger("coflex").setLevel(logging.INFO)
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _Libraries):
            root.removeHandler(handler)
    root.addHandler(_Libraries(log))
    return log


def _only_known_fields(_: Any, __: str, line: MutableMapping[str, Any]) -> Mapping[str, Any]:
    return {name: _told(name, value) for name, value in line.items() if name == "event" or name in FIELDS}


def _told(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float) or name in _SENTENCES:
        return value
    if isinstance(value, list | tuple):
        return [_told(name, one) for one in value]
    text = str(value)
    return text if _IDENTIFIER.fullmatch(text) else "withheld"


_encoder = msgspec.json.Encoder()


def _as_json(_: Any, __: str, line: MutableMapping[str, Any]) -> str:
    return _encoder.encode(line).decode()


class _Unbroken:
    """A stream whose faults (nobody reads it, its disk is full) are nobody's else: no request fails for its log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


class _Libraries(logging.Handler):
    """What is said through Python's own logging: our modules' sentences with what they are about; of libraries, whose
    texts may hold anything, only where it was said."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.name.startswith(OURS)

    def emit(self, record: logging.LogRecord) -> None:
        where: list[str] = [f"{record.module}:{record.funcName}:{record.lineno}"]
        more: dict[str, Any] = {}
        if record.name.startswith(OURS):
            more = {"said": record.msg, "about": record.args if isinstance(record.args, tuple) else ()}
        fault = record.exc_info[1] if record.exc_info else None
        if fault is not None:
            where += places(fault)
            more["error"] = type(fault).__name__
        event = "module" if record.name.startswith(OURS) else "library"
        self._log.log(record.levelno, event, logger=record.name, where=where, **more)


def places(fault: BaseException) -> list[str]:
    """Module, function and line of the innermost frames of an exception, the last one where it was raised."""
    frames = traceback.extract_tb(fault.__traceback__)[-_DEEPEST:]
    return [f"{_module(frame.filename)}:{frame.name}:{frame.lineno}" for frame in frames]


def _module(file: str) -> str:
    parts = file.removesuffix(".py").replace("\\", "/").split("/")
    return ".".join(parts[-2:])


# ---------------------------------------------------------------- every request


class Observed:
    """ASGI around the whole application: a request id, a line of log and a count for every request, and a problem
    document where the application fails.

    `tenants`: those that exist; another one in an address may be anything and is not logged. The door that knows the
    caller leaves it (a `Who`) in `request.state.who`. The routes of offers stand before it (`api.orders`) and leave no
    lines: the journal has all of them.
    """

    def __init__(self, app: ASGIApp, log: Log, counts: Counts, tenants: Container[str]) -> None:
        self._app, self._log, self._counts, self._tenants = app, log, counts, tenants
        self._ids = _request_ids()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        request_id = next(self._ids)
        header = (b"x-request-id", request_id.encode())
        scope.setdefault("state", {})["request_id"] = request_id
        status, ended = 0, False

        async def send_on(message: Message) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), header]}
            elif not message.get("more_body", False):
                ended = True
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except ClientDisconnect:
            pass  # nobody is left to answer
        except Exception as fault:
            self._fault(request_id, scope, fault)
            if status == 0:
                await answer(fault)(scope, receive, send_on)
            elif not ended:
                raise
        finally:
            self._tell(scope, request_id, status or GONE, perf_counter() - began)

    def _tell(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = template(scope)
        self._counts.request(method, route, status, seconds)
        who = scope["state"].get("who")
        tenant = scope.get("path_params", {}).get("tenant")
        self._log.info(
            "request",
            request_id=request_id,
            tenant=tenant if tenant in self._tenants else None,
            client=None if who is None else who.actor,
            method=method,
            route=route,
            status=status,
            ms=round(1000 * seconds, 2),
        )

    def _fault(self, request_id: str, scope: Scope, fault: Exception) -> None:
        code = fault.code if isinstance(fault, CoflexError) else None
        self._log.error(
            "fault",
            request_id=request_id,
            route=template(scope),
            error=type(fault).__name__,
            code=code,
            where=places(fault),
        )


def template(scope: Scope) -> str:
    """The route of a request as it was declared ("/v1/{tenant}/units/{unit}"): without what a client wrote."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) and path else UNMATCHED


def _request_ids() -> Iterator[str]:
    """Ids that no other process gives: a random part of its own, and a count."""
    mine = token_hex(4)
    return (f"{mine}-{number:x}" for number in count(1))
