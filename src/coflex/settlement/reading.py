"""From a YAML text to a settlement `Rule`, or to every fault of it at once, each with its line and its path."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from coflex.domain.errors import Finding, Refused, refuse
from coflex.settlement.document import Part, Rule

_MERGE = "tag:yaml.org,2002:merge"
_ALTERNATIVES = ("function-", "tuple", "lax-or-strict")


def read_rule(text: str, place: str) -> Rule:
    """The settlement rule that a YAML document describes.

    `place` names the document in messages. Raises Refused with every fault at once, each with its place, such as
    "mine.yaml, line 12: penalty.share". Parts that can be read are checked among each other even where others cannot.
    """
    data, root = _parse(text, place)
    try:
        content = json.dumps(data, default=str, allow_nan=False)
    except (TypeError, ValueError) as error:
        fault = Finding(place, "not_a_document", f"The document holds more than plain values: {error}.")
        raise Refused(place, [fault]) from None
    try:
        rule = Rule.model_validate_json(content)
    except ValidationError as error:
        found = [_schema_finding(place, root, detail) for detail in error.errors()]
        raise Refused(place, [*found, *_readable_faults(place, root, data)]) from None
    refuse(place, [_finding(place, root, _steps(path), code, message) for path, code, message in rule.faults()])
    return rule


def _parse(text: str, place: str) -> tuple[dict[str, Any], yaml.Node | None]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        refuse(place, _repeated_keys(root, place))
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise Refused(place, [Finding(f"{place}{line}", "not_yaml", f"This is no YAML: {error.problem}.")]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise Refused(place, [Finding(place, "not_yaml", f"This is no YAML: {error}.")]) from None
    if not isinstance(data, dict):
        raise Refused(place, [Finding(place, "not_a_document", "A rule is a mapping that begins with its id.")])
    return data, root


def _repeated_keys(root: yaml.Node | None, place: str) -> list[Finding]:
    """YAML readers keep the last of two equal keys without a word, so the tree is searched before it is read."""
    findings, waiting, met = [], [root] if root else [], set()
    while waiting:
        node = waiting.pop()
        if id(node) in met or not isinstance(node, yaml.CollectionNode):
            continue
        met.add(id(node))
        if not isinstance(node, yaml.MappingNode):
            waiting.extend(node.value)
            continue
        keys: set[str] = set()
        for key, value in node.value:
            waiting.append(value)
            if str(key.value) in keys:
                message = f"The key '{key.value}' stands twice in one place; keep one of them."
                findings.append(Finding(f"{place}, line {key.start_mark.line + 1}", "repeated_key", message))
            keys.add(str(key.value))
    return findings


def _readable_faults(place: str, root: yaml.Node | None, data: Mapping[str, Any]) -> list[Finding]:
    """Faults inside the parts of a faulty document that can be read by themselves."""
    found = []
    for name, field in Rule.model_fields.items():
        kinds = _models(field.annotation)
        if not kinds or name not in data:
            continue
        try:
            part = kinds[0].model_validate_json(json.dumps(data[name], default=str))
        except ValidationError:
            continue
        if isinstance(part, Part):
            found += [_finding(place, root, (name, *_steps(path)), *rest) for path, *rest in part.faults()]
    return found


def _schema_finding(place: str, root: yaml.Node | None, detail: Mapping[str, Any]) -> Finding:
    location: tuple[str | int, ...] = tuple(
        step for step in detail["loc"] if not (isinstance(step, str) and step.startswith(_ALTERNATIVES))
    )
    kind, given = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        known = _part_at(location[:-1]).model_fields
        code, message = "unknown_key", f"The key '{location[-1]}' is not known; known here are {', '.join(known)}."
    elif kind == "missing":
        code, message = "missing_key", f"The key '{location[-1]}' is missing; add it."
    elif kind in ("enum", "literal_error"):
        location = tuple(step for step in location if step != "[key]")
        code, message = "not_offered", f"'{given}' is not offered; choose {detail['ctx']['expected']}."
    else:
        code, message = "malformed", f"{detail['msg']}; given is {given!r}."
    return _finding(place, root, location, code, message)


def _finding(place: str, root: yaml.Node | None, steps: Sequence[str | int], code: str, message: str) -> Finding:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")
    line = _line(root, steps)
    return Finding(f"{place}, line {line}: {path}" if line else f"{place}: {path}", code, message)


def _line(root: yaml.Node | None, steps: Sequence[str | int]) -> int | None:
    """The line of the key or entry, or of the nearest part around it that the text holds."""
    node, line = root, None
    for step in steps:
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            own = [(key, value) for key, value in node.value if key.tag != _MERGE and key.value == str(step)]
            if not own:
                return line
            key, node = own[-1]
            line = key.start_mark.line + 1
        else:
            return line
    return line


def _steps(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))


def _part_at(location: Sequence[str | int]) -> type[BaseModel]:
    """The class of the part at a path of the document."""
    part: type[BaseModel] = Rule
    for step in location:
        if isinstance(step, str) and step in part.model_fields:
            inner = _models(part.model_fields[step].annotation)
            part = inner[0] if inner else part
    return part


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models(argument)]
