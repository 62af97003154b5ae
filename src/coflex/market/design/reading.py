"""From a YAML text to a `Design`, or to every fault of it at once, each with its line and its path."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from coflex.domain.errors import Finding, Refused, refuse
from coflex.market.design.document import Design, Session
from coflex.market.design.rules import faults

_MERGE = "tag:yaml.org,2002:merge"


def read_design(text: str, place: str) -> Design:
    """The design that a YAML document describes.

    `place` names the document in messages. Raises Refused with every fault at once, each with its place, such
    as "mine.yaml, line 12: sessions[3].gate.closes". Rules that need the whole sequence (definitive parts that tile
    the day) are checked once every session can be read.
    """
    data, lines = _parse(text, place)
    try:
        content = json.dumps(data, default=str)
    except (TypeError, ValueError) as error:
        fault = Finding(place, "not_a_document", f"The document holds more than plain values: {error}.")
        raise Refused(place, [fault]) from None
    try:
        design = Design.model_validate_json(content)
    except ValidationError as error:
        found = [_schema_finding(lines, detail) for detail in error.errors() if not _echoes(detail)]
        entries = data.get("sessions")
        given = entries if isinstance(entries, list) else []
        sessions = [_readable(entry) for entry in given]
        more = faults(sessions, [_name(entry) for entry in given])
        raise Refused(place, [*found, *(lines.finding(*fault) for fault in more)]) from None
    known = faults(design.sessions, [session.id for session in design.sessions], design)
    refuse(place, [lines.finding(*fault) for fault in known])
    return design


class _Composer(yaml.SafeLoader):
    """Keeps where an alias stands, which the node it names does not tell."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.aliases: dict[tuple[int, object], int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node; of an alias, the line is kept by the part around it and its place there."""
        if self.check_event(yaml.AliasEvent):
            at = id(index) if isinstance(index, yaml.Node) else index
            self.aliases[id(parent), at] = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
        return super().compose_node(parent, index)


class _Lines:
    """Where each path of a document stands in its text."""

    def __init__(self, place: str, root: yaml.Node | None, aliases: Mapping[tuple[int, object], int]) -> None:
        self.place, self.root, self.aliases = place, root, aliases

    def finding(self, path: str, code: str, message: str) -> Finding:
        """A finding at a written path such as sessions[3].gate.closes."""
        steps: list[str | int] = []
        for part in path.split("."):
            name, *indices = part.split("[")
            steps += [name, *(int(index.rstrip("]")) for index in indices)]
        return self.at(steps, path, code, message)

    def at(self, steps: Sequence[str | int], path: str, code: str, message: str) -> Finding:
        line = self._line(steps)
        where = f"{self.place}, line {line}: {path}" if line else f"{self.place}: {path}"
        return Finding(where, code, message)

    def _line(self, steps: Sequence[str | int]) -> int | None:
        """The line of the key or entry, or of the nearest part around it that the text itself holds: what a part takes
        over from elsewhere (an alias, a merge key) has the line of the part that takes it over."""
        node, line = self.root, None
        for step in steps:
            around, at = node, step
            if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = self.aliases.get((id(around), at)) or node.start_mark.line + 1
            elif isinstance(node, yaml.MappingNode):
                own = [(key, value) for key, value in node.value if key.tag != _MERGE and key.value == step]
                if not own:
                    return line
                key, node = own[-1]
                line, at = key.start_mark.line + 1, id(key)
            else:
                return line
            if (id(around), at) in self.aliases:
                return line
        return line


def _parse(text: str, place: str) -> tuple[dict[str, Any], _Lines]:
    try:
        composer = _Composer(text)
        root = composer.get_single_node()
        refuse(place, _repeated_keys(root, place))
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise Refused(place, [Finding(f"{place}{line}", "not_yaml", f"This is no YAML: {error.problem}.")]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise Refused(place, [Finding(place, "not_yaml", f"This is no YAML: {error}.")]) from None
    if not isinstance(data, dict):
        raise Refused(place, [Finding(place, "not_a_document", "A design is a mapping that begins with its id.")])
    return data, _Lines(place, root, composer.aliases)


def _repeated_keys(root: yaml.Node | None, place: str) -> list[Finding]:
    """YAML readers keep the last of two equal keys without a word, so the tree is searched before it is read."""
    findings, waiting, met = [], [root] if root else [], set()
    while waiting:
        node = waiting.pop()
        if id(node) in met or not isinstance(node, yaml.CollectionNode):
            continue
        met.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                waiting.append(value)
                name = str(key.value)
                if name in keys:
                    line = key.start_mark.line + 1
                    message = f"The key '{name}' stands twice in one place; keep one of them."
                    findings.append(Finding(f"{place}, line {line}", "repeated_key", message))
                keys.add(name)
        else:
            waiting.extend(node.value)
    return findings


def _echoes(detail: Mapping[str, Any]) -> bool:
    """Whether a list is only called too short because its entries are at fault, which are named by themselves."""
    return detail["type"] == "too_short" and bool(detail["input"])


def _schema_finding(lines: _Lines, detail: Mapping[str, Any]) -> Finding:
    location: tuple[str | int, ...] = detail["loc"]
    kind, given = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        known = _part_at(location[:-1]).model_fields
        message = f"The key '{location[-1]}' is not known; known here are {', '.join(known)}."
        code = "unknown_key"
    elif kind == "missing":
        code, message = "missing_key", f"The key '{location[-1]}' is missing; add it."
    elif kind in ("enum", "literal_error"):
        code, message = "not_offered", f"'{given}' is not offered; choose {detail['ctx']['expected']}."
    elif kind == "value_error":
        code, message = "malformed", str(detail["ctx"]["error"])
    else:
        code, message = "malformed", f"{detail['msg']}; given is {given!r}."
    return lines.at(location, _path(location), code, message)


def _part_at(location: Sequence[str | int]) -> type[BaseModel]:
    """The class of the part at a path of the document."""
    part: type[BaseModel] = Design
    for step in location:
        if isinstance(step, str):
            inner = _models(part.model_fields[step].annotation)
            part = inner[0] if inner else part
    return part


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models(argument)]


def _path(location: Sequence[str | int]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return text.removeprefix(".")


def _readable(entry: object) -> Session | None:
    """A session of a faulty document, or None, so that those that can be read are checked with the rest."""
    try:
        return Session.model_validate_json(json.dumps(entry, default=str))
    except ValidationError:
        return None


def _name(entry: object) -> str:
    return str(entry.get("id", "")) if isinstance(entry, dict) else ""
