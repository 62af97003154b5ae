"""The OpenAPI 3.1 document, from the operations, the verbs' forms and the table of problems."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec.inspect import StructType, type_info

from coflex.adapters.web.api.endpoints import NOT_MODIFIED, PastVersion
from coflex.adapters.web.api.operations import PREFIX, History, Operation, Parameter, Read, Room, Special, Write
from coflex.adapters.web.api.operations import names_in as names_of_path
from coflex.adapters.web.api.paging import MOST_PER_PAGE, PER_PAGE
from coflex.adapters.web.api.problems import MEDIA_TYPE, TABLE, Problem
from coflex.adapters.web.api.schemas import REF, Schema, readable, referred, schemas_of
from coflex.register.market import Proposal
from coflex.register.records import KIND_OF
from coflex.service.machine import CREATED, Verb

VERSION = "1.0.0"
JSON = "application/json"

_ABOUT = """The flexibility register and market as a service: parties, connection points, controllable units, groups,
products, qualifications, sessions, offers and results.

Every write takes an `Idempotency-Key`; asked again with the same key, it answers the same bytes and does nothing
twice. Reads carry an `ETag`; a `PUT` needs it as `If-Match`. Faults are problem documents (RFC 9457), all faults of a
request at once, each with its place. What another party may not know is answered as if it were not there."""

LIMIT = Parameter(
    "limit",
    f"How many items the page has at most; {PER_PAGE} where it is not given.",
    {"type": "integer", "minimum": 1, "maximum": MOST_PER_PAGE, "default": PER_PAGE},
)
CURSOR = Parameter("cursor", "`next` of the page before; only with the same filters.")
AS_OF = Parameter(
    "as_of", "The records as they were at this instant of the server.", {"type": "string", "format": "date-time"}
)
KEY = Parameter(
    "Idempotency-Key",
    "A new key for every new request, the same key when it is asked again: taken once, answered alike.",
    {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
    "header",
    True,
)
MATCH = Parameter("If-Match", "ETag of the record as it was read.", {"type": "string"}, "header")
NONE_MATCH = Parameter("If-None-Match", "ETag of what the caller has.", {"type": "string"}, "header")
BEHALF = Parameter(
    "On-Behalf-Of", "Party for which the market operator acts; the journal keeps both.", {"type": "string"}, "header"
)

_OF_READS = (400, 401, 403, 404, 429, 500, 503)
_OF_WRITES = (400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 500, 503, 507)


def document(rooms: Iterable[Room], verbs: Mapping[str, Verb], extra: Mapping[str, Any] | None = None) -> Schema:
    """The whole document. `extra`: paths, components and tags of routes that are written by hand, merged in."""
    rooms = tuple(rooms)
    wanted = list(dict.fromkeys(_types(rooms, verbs)))
    made, named = schemas_of(wanted)
    schemas = dict(zip(wanted, made, strict=True))
    kinds = [kind for kind in wanted if kind in KIND_OF]
    named |= readable(named, [kind.__name__ for kind in kinds])
    # A record is always answered as far as its reader may see it.
    schemas |= {kind: {"$ref": REF.format(name=f"{kind.__name__}Shown")} for kind in kinds}
    schemas |= {list[kind]: {"type": "array", "items": schemas[kind]} for kind in kinds if list[kind] in schemas}  # type: ignore[valid-type]
    reads = [one for room in rooms for one in room.operations if isinstance(one, Read) and one.is_of_one]
    writer = _Writer(verbs, schemas, {one.path: one for one in reads})
    paths: Schema = {}
    for room in rooms:
        for operation in room.operations:
            paths.setdefault(PREFIX + operation.path, {})[operation.method.lower()] = {
                "tags": [room.tag], **writer.operation(operation)
            }  # fmt: skip
    whole = {
        "openapi": "3.1.0",
        "info": {"title": "coflex", "version": VERSION, "description": _ABOUT, "license": {"name": "Apache-2.0"}},
        "tags": [{"name": room.tag, "description": room.text} for room in rooms],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(named.items())),
            "responses": {f"Problem{status}": _problem(status) for status in sorted(_statuses())},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }
    return _pruned(merged(whole, extra or {}))


def _pruned(whole: Schema) -> Schema:
    """The document without the schemas that nothing in it refers to."""
    named = whole["components"]["schemas"]
    others = {**whole, "components": {**whole["components"], "schemas": {}}}
    kept: set[str] = set()
    waiting = set(referred(others))
    while waiting:
        kept |= waiting
        waiting = {name for one in waiting if one in named for name in referred(named[one])} - kept
    whole["components"]["schemas"] = {name: schema for name, schema in named.items() if name in kept}
    return whole


def _types(rooms: Iterable[Room], verbs: Mapping[str, Verb]) -> Iterator[Any]:
    """Every type that crosses the door."""
    yield Problem
    yield Proposal
    yield PastVersion
    for room in rooms:
        for one in room.operations:
            if isinstance(one, Write):
                yield one.form or verbs[one.verb].form
                yield one.reply
            elif isinstance(one, Special):
                yield from (reply for reply in (*one.replies.values(), one.body) if _is_type(reply))
            else:
                yield one.kind


def _is_type(reply: Any) -> bool:
    """Whether a reply or body is a type of ours: not a media type, and not none."""
    return reply is not None and not isinstance(reply, str)


class _Writer:
    """Operations as the document has them."""

    def __init__(self, verbs: Mapping[str, Verb], schemas: Mapping[Any, Schema], reads: Mapping[str, Read]) -> None:
        self._verbs, self._schemas, self._reads = verbs, schemas, reads

    def operation(self, one: Operation) -> Schema:
        if isinstance(one, Write):
            return self._write(one)
        if isinstance(one, Special):
            return self._special(one)
        name = KIND_OF[one.kind]
        shown = self._schemas[one.kind]
        if isinstance(one, History):
            past = {"type": "object", "properties": {"number": {"type": "integer"},
                    "at": {"type": "string", "format": "date-time"}, "record": {"anyOf": [shown, {"type": "null"}]}},
                    "required": ["number", "at", "record"]}  # fmt: skip
            return self._read(one, f"history_of_{name}", _page(past), (LIMIT, CURSOR))
        if one.is_of_one:
            return self._read(one, f"get_{name}", shown, (AS_OF,))
        filters = tuple(Parameter(key, f"Only those whose `{path}` is this.") for key, path in one.filters.items())
        return self._read(one, f"list_{name}", _page(shown), (LIMIT, CURSOR, AS_OF, *filters))

    def _read(self, one: Read | History, id: str, schema: Schema, parameters: tuple[Parameter, ...]) -> Schema:
        answers: Schema = {
            "200": {"description": "As the caller may see it.", "headers": _headers("ETag"), "content": _json(schema)},
            "304": {"description": "What the caller has is the newest.", "headers": _headers("ETag")},
        }
        return {
            "operationId": id,
            "summary": one.summary,
            "parameters": _parameters(one.path, (*parameters, BEHALF, NONE_MATCH)),
            "responses": {**answers, **_problems(_OF_READS)},
        }

    def _write(self, one: Write) -> Schema:
        verb = self._verbs[one.verb]
        status, reply = (202, Proposal) if verb.two_persons else (one.status, one.reply)
        statuses = (200, 201) if one.method == "PUT" and not one.match else (status,)
        told = _headers("ETag", "Idempotency-Replayed", *(("Location",) if status in (201, 202) else ()))
        form = one.form or verb.form
        body = {**_json(self._schemas[form])}
        if one.example is not None:
            body[JSON]["example"] = one.example
        said = "It happens when a second person confirms the proposal." if verb.two_persons else ""
        return {
            "operationId": one.verb.replace(".", "_"),
            "summary": one.summary,
            "description": " ".join(filter(None, (_for(verb), said))),
            "parameters": _parameters(one.path, (KEY, _needed(MATCH, one.needs_match), BEHALF)),
            "requestBody": {"required": not _may_be_empty(form), "content": body},
            "responses": {
                **{str(one_of): {"description": "Taken, and on the disk.", "headers": told,
                                 "content": _json(self._schemas[reply]), **self._links(one.made_at)}
                   for one_of in statuses},
                **_problems((*_OF_WRITES, 428) if one.needs_match else _OF_WRITES),
            },
        }  # fmt: skip

    def _links(self, made_at: str) -> Schema:
        """Where what was made is read."""
        for path, read in self._reads.items():
            name = names_of_path(path)[-1:] or ("",)
            if made_at and path == made_at.replace("{id}", f"{{{name[0]}}}"):
                link = {"operationId": f"get_{KIND_OF[read.kind]}", "parameters": {name[0]: "$response.body#/id"}}
                return {"links": {"made": link}}
        return {}

    def _special(self, one: Special) -> Schema:
        told: Schema = {
            "operationId": one.id,
            "summary": one.summary,
            "parameters": _parameters(one.path, (*one.parameters, *((KEY,) if one.write else ()), BEHALF)),
            "responses": {
                **{str(status): self._reply(reply, status, one) for status, reply in one.replies.items()},
                **_problems((*(_OF_WRITES if one.write else _OF_READS), *one.problems)),
            },
        }
        if one.body is not None:
            others: Schema = {media: {"schema": {}} for media in one.also}
            told["requestBody"] = {
                "required": not _may_be_empty(one.body), "content": {**_json(self._schemas[one.body]), **others}
            }  # fmt: skip
        if one.public:
            told["security"] = [{}, {"bearer": []}]
        return told

    def _reply(self, reply: Any, status: int, one: Special) -> Schema:
        told: Schema = {"description": "Taken, and on the disk." if one.write else "As the caller may see it."}
        if status == NOT_MODIFIED:
            return {"description": "What the caller has is the newest.", "headers": _headers("ETag")}
        if one.write:
            told["headers"] = _headers("ETag", "Idempotency-Replayed", *(("Location",) if status == CREATED else ()))
        if isinstance(reply, str):
            told["content"] = {reply: {"schema": {"type": "string"}}}
        elif reply is not None:
            others: Schema = {media: {"schema": {"type": "string"}} for media in one.media}
            told["content"] = {**_json(self._schemas[reply]), **others}
        return told


def _json(schema: Schema) -> Schema:
    return {JSON: {"schema": schema}}


def _page(items: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {
            "items": {"type": "array", "items": items},
            "next": {"type": ["string", "null"], "description": "Cursor of the page that follows; null on the last."},
            "total": {"type": "integer", "description": "How many the whole list has."},
        },
        "required": ["items", "next", "total"],
    }


def _parameters(path: str, others: Iterable[Parameter]) -> list[Schema]:
    of_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in names_of_path(PREFIX + path)
    ]
    named = [
        {"name": one.name, "in": one.place, "required": one.required, "description": one.text, "schema": one.schema}
        for one in others
    ]
    return of_path + named


def _needed(parameter: Parameter, needed: bool) -> Parameter:
    return Parameter(parameter.name, parameter.text, parameter.schema, parameter.place, needed)


_HEADERS = {
    "ETag": "The version: number of the entry that wrote the record, or a digest of a list.",
    "Location": "Where the new record is.",
    "Idempotency-Replayed": "\"true\" where the key had been used before: the answer is that one's.",
    "Retry-After": "Seconds until the next try makes sense.",
}  # fmt: skip


def _headers(*names: str) -> Schema:
    return {name: {"description": _HEADERS[name], "schema": {"type": "string"}} for name in names}


def _statuses() -> set[int]:
    return {kind.status for kind in TABLE.values()}


def _problems(statuses: Iterable[int]) -> Schema:
    return {str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in sorted(set(statuses))}


def _problem(status: int) -> Schema:
    """One status, with the codes it has."""
    codes = {code: kind for code, kind in TABLE.items() if kind.status == status}
    told = "; ".join(f"`{code}`: {kind.title[0].lower()}{kind.title[1:]}" for code, kind in codes.items())
    retry = _headers("Retry-After") if any(kind.retry for kind in codes.values()) else {}
    content = {MEDIA_TYPE: {"schema": {"$ref": REF.format(name="Problem")}}}
    return {"description": told + ".", "content": content, **({"headers": retry} if retry else {})}


def _for(verb: Verb) -> str:
    """Who may, in words."""
    if verb.public:
        return "For every party."
    roles = sorted(role.value.replace("_", " ") for role in verb.roles)
    return f"For the role {' or '.join(roles)}." if roles else "For the platform itself."


def _may_be_empty(form: Any) -> bool:
    """Whether a form has no field that must be given."""
    info = type_info(form)
    return isinstance(info, StructType) and not any(field.required for field in info.fields)


def merged(into: Schema, more: Mapping[str, Any]) -> Schema:
    """Documents one in the other: objects by key, lists one after the other. Raises ValueError where they differ."""
    for key, value in more.items():
        if isinstance(value, Mapping):
            into[key] = merged(into.get(key, {}), value)
        elif isinstance(value, list):
            into[key] = into.get(key, []) + value
        elif into.get(key, value) != value:
            raise ValueError(f"'{key}' is documented twice, and differently")
        else:
            into[key] = value
    return into
