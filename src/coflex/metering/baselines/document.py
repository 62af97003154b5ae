"""A baseline method is a document with an id and a version, and which methods a product allows is data.

`read_method` takes a YAML (or JSON) text and gives a `MethodDocument`, or refuses it with every fault at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from enum import StrEnum
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Union, get_args, get_origin, get_type_hints

from coflex.documents import parse
from coflex.domain.errors import CoflexError, Finding, Refused, refuse
from coflex.domain.unit import Technology
from coflex.metering.baselines.adjustment import SameDay
from coflex.metering.baselines.agreed import ContractedMaximum, Nominated, Zero
from coflex.metering.baselines.control import ControlGroup
from coflex.metering.baselines.days import AllDays, Rolling, XofY
from coflex.metering.baselines.meter import MeterBefore
from coflex.metering.baselines.method import Method
from coflex.metering.baselines.regression import Regression
from coflex.metering.eligibility import DayRule

KINDS: dict[str, type[Method]] = {
    "nominated": Nominated,
    "zero": Zero,
    "contracted": ContractedMaximum,
    "meter": MeterBefore,
    "x_of_y": XofY,
    "all_days": AllDays,
    "rolling": Rolling,
    "control_group": ControlGroup,
    "regression": Regression,
}
_KEYS = {"id": str, "version": int, "title": str, "source": str}


@dataclass(frozen=True, slots=True)
class MethodDocument:
    """A method, the days it may use, and the id and version under which its results are kept.

    fingerprint: SHA-256 of id, version, days and parameters in canonical form: what must be equal for a result to be
    computed again. Title and source may be mended without it.
    """

    id: str
    version: int
    title: str
    source: str
    days: DayRule
    kind: str
    method: Method

    @property
    def agreed(self) -> bool:
        """Agreed beforehand: nothing that is metered has a say."""
        return isinstance(self.method, Nominated | Zero | ContractedMaximum)

    @property
    def fingerprint(self) -> str:
        parts = {"id": self.id, "version": self.version, "days": asdict(self.days), "kind": self.kind}
        text = json.dumps(parts | {"parameters": asdict(self.method)}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def methods() -> tuple[str, ...]:
    """The ids of the methods that come with the platform, sorted."""
    names = (entry.name for entry in _shelf().iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def load_method(name: str) -> MethodDocument:
    """A method that comes with the platform. Raises CoflexError on an unknown id."""
    if name not in methods():
        raise CoflexError(f"There is no baseline method '{name}'.", f"Choose one of: {', '.join(methods())}.")
    return read_method(_shelf().joinpath(f"{name}.yaml").read_text(encoding="utf-8"), f"{name}.yaml")


def _shelf() -> Traversable:
    return resources.files("coflex.metering.baselines").joinpath("methods")


def read_method(text: str, place: str) -> MethodDocument:
    """The method that a document describes. `place` names it in messages. Raises Refused with every fault at once."""
    data = _mapping(text, place)
    findings = [*_head(data, place)]
    rule = _built(DayRule, data.get("days", {}), f"{place}: days", findings)
    kind = data.get("kind")
    made = None
    if isinstance(kind, str) and kind in KINDS:
        made = _built(KINDS[kind], data.get("parameters", {}), f"{place}: parameters", findings)
    else:
        message = f"'{kind}' is no kind of method; choose {', '.join(KINDS)}."
        findings.append(Finding(f"{place}: kind", "not_offered", message))
    refuse(place, findings)
    assert isinstance(rule, DayRule) and made is not None  # or there were findings
    return MethodDocument(data["id"], data["version"], data["title"], data["source"], rule, data["kind"], made)


def _mapping(text: str, place: str) -> dict[str, Any]:
    data = parse(text, place, "A method is a mapping that begins with its id.").data
    return {str(key): value for key, value in data.items()}


def _head(data: Mapping[str, Any], place: str) -> Iterator[Finding]:
    for name, kind in _KEYS.items():
        value = data.get(name)
        if name not in data:
            yield Finding(f"{place}: {name}", "missing_key", f"The key '{name}' is missing; add it.")
        elif not isinstance(value, kind) or isinstance(value, bool) or value in ("", 0):
            what = "a whole number from 1 on" if kind is int else "a text"
            yield Finding(f"{place}: {name}", "malformed", f"{value!r} is not {what}; correct it.")
    known = [*_KEYS, "days", "kind", "parameters"]
    for name in data.keys() - set(known):
        yield Finding(f"{place}: {name}", "unknown_key", f"The key is not known; known here are {', '.join(known)}.")


def _built(kind: type[Any], given: object, place: str, findings: list[Finding]) -> Any:
    """An object of a class from a mapping of its fields, or None and what is wrong."""
    if not isinstance(given, dict):
        findings.append(Finding(place, "malformed", "Here belongs a mapping of keys to values; write one."))
        return None
    hints, faults, values = get_type_hints(kind), len(findings), {}
    for name in given.keys() - hints.keys():
        message = f"The key is not known; known here are {', '.join(hints) or 'none'}."
        findings.append(Finding(f"{place}.{name}", "unknown_key", message))
    for field in fields(kind):
        if field.name in given:
            values[field.name] = _value(hints[field.name], given[field.name], f"{place}.{field.name}", findings)
        elif field.default is MISSING:
            findings.append(Finding(f"{place}.{field.name}", "missing_key", "The key is missing; add it."))
    if len(findings) > faults:
        return None
    try:
        return kind(**values)
    except Refused as refused:
        findings += [Finding(f"{place}, {one.place}", one.code, one.message) for one in refused.findings]
        return None


def _value(hint: Any, given: Any, place: str, findings: list[Finding]) -> Any:
    """A value of a field's kind, or None and what is wrong."""
    if get_origin(hint) in (Union, type(int | None)):
        if given is None:
            return None
        hint = next(one for one in get_args(hint) if one is not type(None))
    if hint is SameDay:
        return _built(SameDay, given, place, findings)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        if given in list(hint):
            return hint(given)
        wanted = f"one of {', '.join(hint)}"
    elif hint is float:
        if isinstance(given, int | float) and not isinstance(given, bool) and abs(given) < 10**6:
            return float(given)
        wanted = "a number below a million"
    elif hint is bool:
        if isinstance(given, bool):
            return given
        wanted = "true or false"
    else:
        if isinstance(given, int) and not isinstance(given, bool) and abs(given) < 10**6:
            return given
        wanted = "a whole number below a million"
    findings.append(Finding(place, "malformed", f"{given!r} is not {wanted}; correct it."))
    return None


# ---------------------------------------------------------------- what a product allows


def allowed_methods(service: str, product: str = "", text: str | None = None) -> tuple[str, ...]:
    """The ids of the methods that a product allows, the one to take first at the front.

    By the product's id where the document names it, else by its service, else the document's default. text: a
    document of one's own in the place of the platform's. Raises Refused on one that cannot be read.
    """
    lists, _ = _allowed(text)
    return lists.get(f"products.{product}") or lists.get(f"services.{service}") or lists["default"]


def methods_of(
    technology: Technology, service: str = "", product: str = "", text: str | None = None
) -> tuple[MethodDocument, ...]:
    """The methods for a unit of a technology that sells a product, in the order in which they are tried.

    They are those that the product allows; of a technology that the document does not name under `by_history`, those
    alone that were agreed beforehand. Raises Refused on a document that cannot be read, CoflexError on an unknown id.
    """
    _, by_history = _allowed(text)
    read = tuple(load_method(name) for name in allowed_methods(service, product, text))
    if technology in by_history:
        return read
    return tuple(one for one in read if one.agreed)


def _allowed(text: str | None) -> tuple[dict[str, tuple[str, ...]], frozenset[Technology]]:
    """The lists of a document of allowed methods by where they stand, and what is settled by its own past days."""
    place = "products.yaml" if text is None else "the document of allowed methods"
    if text is None:
        text = resources.files("coflex.metering.baselines").joinpath("products.yaml").read_text(encoding="utf-8")
    data = _mapping(text, place)
    parts = {"products": data.get("products") or {}, "services": data.get("services") or {}}
    findings = [
        Finding(f"{place}: {name}", "malformed", "Here belongs a mapping of names to lists of methods; write one.")
        for name, part in parts.items()
        if not isinstance(part, dict)
    ]
    refuse(place, findings)
    lists = {"default": data.get("default")} | {f"{a}.{b}": ids for a, part in parts.items() for b, ids in part.items()}
    for name, ids in lists.items():
        if not (isinstance(ids, list) and ids and all(isinstance(one, str) for one in ids)):
            findings.append(
                Finding(f"{place}: {name}", "malformed", "Here belongs a list of ids of methods; give one.")
            )
    kinds = data.get("by_history") or []
    if not isinstance(kinds, list) or not set(map(str, kinds)) <= set(Technology):
        known = ", ".join(Technology)
        findings.append(Finding(f"{place}: by_history", "malformed", f"Here belongs a list of some of {known}."))
    refuse(place, findings)
    return {name: tuple(ids or ()) for name, ids in lists.items()}, frozenset(map(Technology, kinds))


def check_allowed(method: str, service: str, product: str = "", text: str | None = None) -> tuple[Finding, ...]:
    """A finding when the product does not allow the method."""
    ids = allowed_methods(service, product, text)
    if method in ids:
        return ()
    message = f"The method is not allowed for {product or service}; choose {', '.join(ids)}."
    return (Finding(f"baseline method {method}", "not_allowed", message),)
