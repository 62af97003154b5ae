"""Bodies as the forms of verbs: read or refused, and what is read says the same when it is written.

The machine then takes the command or refuses it, the same way each time, and can take it back to the byte.
"""

from __future__ import annotations

import importlib
import json
import sys
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from msgspec import inspect

from coflex.adapters.web.api.problems import answer
from coflex.domain.errors import CoflexError, Refused
from coflex.service.machine import Machine, Verb, decode, encode
from coflex.service.ports import Command
from coflex.service.verbs import VERBS

NAMES = sorted(VERBS)
TENANT, FIRST = "demo", "2016-07-05.local-1"
# What the fields of forms name, so that seeds come further than to what is not there.
THERE = {
    "unit": "cu-0001", "units": "cu-0001", "provider": "sp-1", "owner": "owner", "party": "sp-1", "group": "sp-1-local",
    "product": "local_energy", "products": "global_energy", "system_operator": "dso", "tso": "tso", "parties": "sp-1",
    "balance_responsible_party": "brp", "connection_point": "pod-0001", "design": "beflexible_six",
    "zone": "Europe/Rome",
    "source": "sp-1-local@local_energy", "url": "https://a.example/x", "months": "1", "members": "su-1@cu-0001",
}  # fmt: skip
SUBJECTS = (
    "", "market", "cu-0001", "sp-1", "sp-1-local", "local_energy", "pod-0001", "consent-cu-0001", "cu-0001@dso",
    "sp-1-local@local_energy", FIRST, "su-1", "su-2", "su-3", "su-4", "su-1@cu-0001", "test-1", "test-2",
    "tso@sp-1", "client-sp-1", "user-sp-1", "webhook-sp-1", "proposal-mo", "issuer-1", "per-1",
)  # fmt: skip
PARTIES = ("sp-1", "mo", "dso", "tso", "owner")


# ---------------------------------------------------------------- a body of a form


def skeleton(kind: Any, field: str = "") -> Any:
    """A small value of a type of forms, as JSON has it: every field, and one item in every list."""
    if isinstance(kind, inspect.StructType | inspect.DataclassType | inspect.TypedDictType):
        return {one.encode_name: skeleton(one.type, one.name) for one in kind.fields}
    if isinstance(kind, inspect.UnionType):
        return skeleton(next(one for one in kind.types if not isinstance(one, inspect.NoneType)), field)
    if isinstance(kind, inspect.VarTupleType | inspect.ListType | inspect.SetType | inspect.FrozenSetType):
        return [skeleton(kind.item_type, field)]
    if isinstance(kind, inspect.TupleType):
        return [skeleton(one, field) for one in kind.item_types]
    if isinstance(kind, inspect.DictType):
        return {"local_energy": skeleton(kind.value_type, field)}
    if isinstance(kind, inspect.EnumType):
        return next(iter(kind.cls)).value
    if isinstance(kind, inspect.LiteralType):
        return kind.values[0]
    return _scalar(kind, field)


def _scalar(kind: Any, field: str) -> Any:
    given: dict[type, Any] = {
        inspect.IntType: 1,
        inspect.FloatType: 1.5,
        inspect.BoolType: True,
        inspect.DecimalType: "1.5",
        inspect.DateTimeType: "2016-07-06T10:00:00Z",
        inspect.DateType: "2016-07-05",
        inspect.StrType: THERE.get(field, "x-1"),
    }
    return given.get(type(kind))


def seeds() -> tuple[bytes, ...]:
    """For each verb a whole form, the same without what can be left out, and what the tests of the API send."""
    sound = api_requests().BODIES
    found = [b"", b"\0\0\0{}", b"\xff\0\0[[]]"]
    for number, name in enumerate(NAMES):
        kind, sent = VERBS[name].form, sound.get(name.replace(".", "_"))
        if sent is not None:
            subjects = range(len(SUBJECTS)) if VERBS[name].kind is not None else (SUBJECTS.index(FIRST),)
            found += [bytes((number, one, 0)) + msgspec.json.encode(sent) for one in subjects]
        whole = skeleton(inspect.type_info(kind))
        found.append(bytes((number, number % len(SUBJECTS), number % len(PARTIES))) + msgspec.json.encode(whole))
        try:
            least = encode(decode(msgspec.json.encode(whole), kind))
        except Refused:
            continue
        found.append(bytes((number, 0, 0)) + least)
    return tuple(found)


# ---------------------------------------------------------------- other bodies of it

ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 900, 10**9, 10**15, -(10**15), 2**63, 1e-300, 1e300, 1.5, "", "x" * 300, "NaN",
    "Infinity", "-1e999999", "1e-999999", "0.1234567890123456789012345678", "2016-07-05T10:00:00",
    "2016-07-05T10:00:00Z", "2016-07-04T22:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:00+23:59", "2016-07-05", "9999-12-31", "0001-01-01", "\U0001f642", "a\nb", "\u202e", "..", "*",
    [], {}, [[]], ["a", "a"], "up", "down", *SUBJECTS, *PARTIES, *THERE.values(),
)  # fmt: skip


def mutated(data: bytes, chance: Random) -> bytes | None:
    """Another subject or party, or a body with one place changed; None for what is no JSON, and now and then."""
    head, rest = bytearray(data[:3]), data[3:]
    if len(head) < 3 or chance.random() < 0.1:
        return None
    try:
        body = json.loads(rest)
    except (ValueError, RecursionError):
        return None
    while (what := chance.randrange(4)) == 0:
        head[chance.randrange(1, 3)] = chance.randrange(len(SUBJECTS))
    if what > 1:
        body = _changed(body, chance)
    return bytes(head) + json.dumps(body).encode()


def _changed(value: Any, chance: Random) -> Any:
    """The same with something else in one place of it."""
    if not value or not isinstance(value, dict | list) or chance.random() < 0.1:
        return (
            value + chance.choice((-1, 1, 1000)) if type(value) is int and chance.random() < 0.5 else chance.choice(ODD)
        )
    if isinstance(value, list):
        place, copy = chance.randrange(len(value)), [*value]
        if chance.random() < 0.2:
            return [*copy, value[place]] if chance.random() < 0.5 else copy[:place] + copy[place + 1 :]
        copy[place] = _changed(value[place], chance)
        return copy
    name = chance.choice(list(value))
    if chance.random() < 0.1:
        return {other: one for other, one in value.items() if other != name}
    return {**value, name: _changed(value[name], chance)}


# ---------------------------------------------------------------- what must hold


def check(data: bytes) -> None:
    """Three bytes choose the verb, its subject and the party; the rest is the body."""
    if len(data) < 3:
        return
    verb = VERBS[NAMES[data[0] % len(NAMES)]]
    subject, party, body = SUBJECTS[data[1] % len(SUBJECTS)], PARTIES[data[2] % len(PARTIES)], data[3:]
    try:
        form = decode(body, verb.form)
    except Refused as fault:
        assert fault.findings and all(one.place and one.message.endswith(".") for one in fault.findings)
        assert answer(fault).status_code == 422
        return
    again = encode(form)
    assert encode(decode(again, verb.form)) == again, f"{verb.name}: {body!r} is another form when it is written"
    # What only the platform itself may ask, nobody else can word.
    if verb.roles or verb.public:
        _taken(verb, subject, party, body)


def _taken(verb: Verb, subject: str, party: str, body: bytes) -> None:
    machine, number, at = world()
    command = Command(TENANT, verb.name, subject, party, party, "operator", body)
    before = _kept(machine)
    try:
        taken = machine.apply(command, number, at)
    except CoflexError as fault:
        assert answer(fault).status_code < 500, f"{verb.name}, {subject}: {body!r} makes the machine fail: {fault!r}"
        assert _kept(machine) == before, f"{verb.name}, {subject}: {body!r} was refused, and something of it stays"
        return
    machine.take_back(TENANT, taken)
    assert _kept(machine) == before, f"{verb.name}, {subject}: {body!r} was taken back, and something of it stays"
    again = machine.apply(command, number, at)
    machine.take_back(TENANT, again)
    mine, theirs = (taken.status, taken.reply, taken.changes, taken.notes), (
        again.status, again.reply, again.changes, again.notes,
    )  # fmt: skip
    assert mine == theirs, f"{verb.name}, {subject}: {body!r} is decided in two ways"


def _kept(machine: Machine) -> Any:
    """Numbers of all records, and the open book: what a command may not leave changed."""
    from coflex.service.books import books

    state = machine.tenants[TENANT]
    return list(state.kinds()), books(state).offers(FIRST)


@lru_cache(maxsize=1)
def world() -> tuple[Machine, int, Any]:
    """A platform with a record of every kind and an open session; number and instant of the next entry."""
    api = api_requests().dry()
    return Machine(VERBS, api.machine.tenants), api.sequencer.number + 1, api.desk.clock()


def api_requests() -> Any:
    """The tests' own platform with a record of every kind. Found from here where this is run as a program."""
    tests = str(Path(__file__).parents[1])
    if tests not in sys.path:
        sys.path.append(tests)
    return importlib.import_module("support.api_requests")


SEEDS = seeds()

if __name__ == "__main__":
    from harness import run

    run(__file__)
