"""JSON schemas of our types for the OpenAPI document, from the types that read and write the JSON."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import inspect as types

REF = "#/components/schemas/{name}"
Schema = dict[str, Any]


def schemas_of(wanted: Iterable[Any]) -> tuple[list[Schema], dict[str, Schema]]:
    """A schema for each type, and the named ones they refer to.

    Two types of one name are called by their module too: `PartiesReason`, `ResourcesReason`.
    """
    wanted = list(wanted)
    made, named = msgspec.json.schema_components(wanted, ref_template=REF)
    infos = [types.type_info(one) for one in wanted]
    for info in infos:
        for one in _named(info, set()):
            _describe(named.get(one.cls.__name__) or named[f"{one.cls.__module__}.{one.cls.__qualname__}"], one)
    for schema, info in zip(made, infos, strict=True):
        _complete(schema, info)
    short = {name: _short(name) for name in named}
    return [_with_names(one, short) for one in made], {
        short[name]: _with_names(one, short) for name, one in named.items()
    }


def _describe(schema: Schema, info: Any) -> None:
    if info.cls.__doc__:
        schema["description"] = inspect.cleandoc(info.cls.__doc__)
    for field in getattr(info, "fields", ()):
        _complete(schema["properties"][field.encode_name], field.type)


def _short(name: str) -> str:
    *_, module, last = ("." + name).split(".")
    return f"{module.replace('_', ' ').title().replace(' ', '')}{last}"


def _with_names(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_with_names(one, names) for one in value]
    if not isinstance(value, dict):
        return value
    renamed = {key: _with_names(one, names) for key, one in value.items()}
    if isinstance(value.get("$ref"), str):
        renamed["$ref"] = REF.format(name=names[value["$ref"].rpartition("/")[2]])
    return renamed


def readable(named: dict[str, Schema], names: Iterable[str]) -> dict[str, Schema]:
    """The same objects with no field required, as `<name>Shown`: a reader gets those of their fields that it may."""
    found: dict[str, Schema] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found or named[name].get("type") != "object":
            continue
        shown = _renamed(named[name], named)
        shown.pop("required", None)
        found[name] = {**shown, "title": f"{name}Shown"}
        waiting.extend(referred(named[name]))
    return {f"{name}Shown": schema for name, schema in found.items()}


def _renamed(value: Any, named: dict[str, Schema]) -> Any:
    if isinstance(value, list):
        return [_renamed(one, named) for one in value]
    if not isinstance(value, dict):
        return value
    renamed = {key: _renamed(one, named) for key, one in value.items()}
    name = str(value.get("$ref", "")).rpartition("/")[2]
    if name and named[name].get("type") == "object":
        renamed["$ref"] = REF.format(name=f"{name}Shown")
    return renamed


def referred(value: Any) -> Iterator[str]:
    """Names of the schemas that a schema refers to."""
    if isinstance(value, list):
        for one in value:
            yield from referred(one)
    elif isinstance(value, dict):
        if "$ref" in value:
            yield str(value["$ref"]).rpartition("/")[2]
        for one in value.values():
            yield from referred(one)


def _named(info: types.Type, seen: set[Any]) -> Iterator[Any]:
    """Every dataclass, struct and enum inside a type."""
    cls = getattr(info, "cls", None)
    if cls is not None and cls not in seen:
        seen.add(cls)
        yield info
        for field in getattr(info, "fields", ()):
            yield from _named(field.type, seen)
    for inner in _inner(info):
        yield from _named(inner, seen)


def _inner(info: types.Type) -> tuple[types.Type, ...]:
    if isinstance(info, types.CollectionType):
        return (info.item_type,)
    if isinstance(info, types.TupleType):
        return tuple(info.item_types)
    if isinstance(info, types.DictType):
        return (info.key_type, info.value_type)
    if isinstance(info, types.UnionType):
        return tuple(info.types)
    return (info.type,) if isinstance(info, types.Metadata) else ()


def _complete(schema: Schema, info: types.Type) -> None:
    """Say of instants what they look like; of decimals that a number is taken, too."""
    if isinstance(info, types.Metadata):
        _complete(schema, info.type)
    elif isinstance(info, types.DateTimeType):
        schema["format"] = "date-time"
    elif isinstance(info, types.DecimalType):
        schema["type"] = ["string", "number"]
    elif isinstance(info, types.CollectionType) and "items" in schema:
        _complete(schema["items"], info.item_type)
    elif isinstance(info, types.DictType) and "additionalProperties" in schema:
        _complete(schema["additionalProperties"], info.value_type)
    elif isinstance(info, types.TupleType) and info.item_types:
        for one, inner in zip(schema["prefixItems"], info.item_types, strict=True):
            _complete(one, inner)
    elif isinstance(info, types.UnionType):
        for one in schema.get("anyOf", ()):
            for inner in info.types:
                if _is(one, inner):
                    _complete(one, inner)


def _is(schema: Schema, info: types.Type) -> bool:
    """Whether an alternative of a schema stands for this part of a union."""
    if isinstance(info, types.DateTimeType):
        return schema == {"type": "string"}
    if isinstance(info, types.DecimalType):
        return schema.get("format") == "decimal"
    return isinstance(info, types.CollectionType | types.TupleType) and schema.get("type") == "array"
