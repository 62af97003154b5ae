"""The words in which the API is written down: what an address does, in one value.

    Read      one record, or all that the caller may see, from memory
    History   every version of a record, from the journal
    Write     a verb of the machine
    Special   a handler of its own, with its own piece of the OpenAPI document

A module of `coflex.adapters.web.api.rooms` lists the operations of one topic. From these values `endpoints` makes
what answers and `document` what is documented, so that the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from coflex.adapters.web.api.desk import Desk
from coflex.register.access import ClientScope
from coflex.register.records import Record

PREFIX = "/v1/{tenant}"
Handler: TypeAlias = Callable[[Desk, Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter or header: its JSON schema, and what it means in one sentence."""

    name: str
    text: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    place: str = "query"
    required: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """Records of a kind as the caller may see them: the list of all, or the one that the last name in the path names,
    or `subject`.

    `filters`: query parameters of a list and the field that must equal each, as "unit.provider".
    """

    path: str
    kind: type[Record]
    summary: str
    filters: Mapping[str, str] = field(default_factory=dict)
    scope: ClientScope = ClientScope.READ
    subject: str = ""
    method: str = "GET"

    @property
    def is_of_one(self) -> bool:
        return bool(self.subject) or self.path.endswith("}")


@dataclass(frozen=True, slots=True)
class History:
    """All versions of the record that the last name in the path names, or `subject`."""

    path: str
    kind: type[Record]
    summary: str
    scope: ClientScope = ClientScope.READ
    subject: str = ""
    method: str = "GET"


@dataclass(frozen=True, slots=True)
class Write:
    """A verb. Its subject is what the last name in the path names, `subject` for a path without one.

    `reply`: type of what is answered. `status`: of a success, the verb says the same. `made_at`: path of what a verb
    makes, for the header Location; "{id}" is the field of the reply. `match`: whether PUT and PATCH need If-Match, as
    they do where the record must be there. `large`: whether the body may have 8 MiB instead of 1. `form`: type of
    the body where the door takes less than the verb. `example`: a body that is taken.
    """

    method: str
    path: str
    verb: str
    summary: str
    reply: Any
    status: int = 200
    made_at: str = ""
    example: Any = None
    scope: ClientScope = ClientScope.WRITE
    subject: str = ""
    match: bool = True
    large: bool = False
    form: Any = None

    @property
    def needs_match(self) -> bool:
        return self.match and self.method in ("PUT", "PATCH")


@dataclass(frozen=True, slots=True)
class Special:
    """An operation with a handler of its own. `replies`: type (or media type) of the body of every success.

    `media`: other media types in which a success of 200 is answered, by the header Accept. `body`: type of a JSON body;
    `also`: other media types in which it may come. `write`: whether it takes an
    idempotency key. `public`: also for callers without credentials.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    id: str
    replies: Mapping[int, Any]
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    also: tuple[str, ...] = ()
    media: tuple[str, ...] = ()
    write: bool = False
    public: bool = False
    problems: tuple[int, ...] = ()
    scope: ClientScope = ClientScope.READ


Operation: TypeAlias = Read | History | Write | Special


@dataclass(frozen=True, slots=True)
class Room:
    """The operations of one topic. `tag`: its name in the document."""

    tag: str
    text: str
    operations: tuple[Operation, ...]


def names_in(path: str) -> tuple[str, ...]:
    """Names of the parts of a path that vary: "/units/{unit}/history" -> ("unit",)."""
    return tuple(part[1:-1] for part in path.split("/") if part.startswith("{"))
