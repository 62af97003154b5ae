"""From a YAML text to a frozen model, or to every fault of it at once, each with its line and its path.

What designs, settlement rules and baseline methods have in common when people write them. A document is read in two
steps: `parse` finds what is wrong with the text, `Document.model` what is wrong with what it says; rules between the
parts of a document belong to those who know them, and find their place by `Document.finding`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from coflex.domain.errors import Finding, Refused, refuse

M = TypeVar("M", bound=BaseModel)
_MERGE = "tag:yaml.org,2002:merge"
# Steps that pydantic puts into a path for itself: which kind of a value it tried.
_ALTERNATIVES = ("function-", "tuple", "lax-or-strict")


def parse(text: str, place: str, what: str) -> Document:
    """The mapping that a YAML text holds, and where in the text each part of it stands.

    `place` names the document in messages; `what` says what it should be, when it is no mapping, as in "A rule is a
    mapping that begins with its id.". Raises Refused on what is no YAML, no mapping, or has a key twice in one place.
    """
    try:
        composer = _Composer(text)
        root = composer.get_single_node()
        refuse(place, _repeated_keys(root, place))
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        message = f"This is no YAML: {error.problem}; correct it."
        raise Refused(place, [Finding(f"{place}{line}", "not_yaml", message)]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise Refused(place, [Finding(place, "not_yaml", f"This is no YAML: {error}; correct it.")]) from None
    if not isinstance(data, dict):
        raise Refused(place, [Finding(place, "not_a_document", what)])
    return Document(place, data, root, composer.aliases)


class Document:
    """A document as it is written: `data` as plain values, and the line of each of its parts."""

    def __init__(
        self, place: str, data: dict[str, Any], root: yaml.Node | None, aliases: Mapping[tuple[int, object], int]
    ) -> None:
        self.place, self.data, self._root, self._aliases = place, data, root, aliases

    def model(self, kind: type[M]) -> tuple[M | None, list[Finding]]:
        """The model that the document describes; or None and every way in which it is none.

        Raises Refused when it holds more than plain values.
        """
        try:
            content = json.dumps(self.data, default=str, allow_nan=False)
        except (TypeError, ValueError) as error:
            message = f"The document holds more than plain values: {error}; write texts, numbers, lists and mappings."
            raise Refused(self.place, [Finding(self.place, "not_a_document", message)]) from None
        try:
            return kind.model_validate_json(content), []
        except ValidationError as error:
            return None, [self._of_schema(kind, detail) for detail in error.errors() if not _echoes(detail)]

    def finding(self, path: str, code: str, message: str) -> Finding:
        """A finding at a written path such as sessions[3].gate.closes."""
        steps: list[str | int] = []
        for part in path.split("."):
            name, *indices = part.split("[")
            steps += [name, *(int(index.rstrip("]")) for index in indices)]
        return self._at(steps, path, code, message)

    def _of_schema(self, kind: type[BaseModel], detail: Mapping[str, Any]) -> Finding:
        """A fault that pydantic found, in words, at its place."""
        location: tuple[str | int, ...] = tuple(
            step for step in detail["loc"] if not (isinstance(step, str) and step.startswith(_ALTERNATIVES))
        )
        fault, given = detail["type"], detail["input"]
        if fault == "extra_forbidden":
            known = ", ".join(_part_at(kind, location[:-1]).model_fields)
            code, message = "unknown_key", f"The key '{location[-1]}' is not known; known here are {known}."
        elif fault == "missing":
            code, message = "missing_key", f"The key '{location[-1]}' is missing; add it."
        elif fault in ("enum", "literal_error"):
            location = tuple(step for step in location if step != "[key]")
            code, message = "not_offered", f"'{given}' is not offered; choose {detail['ctx']['expected']}."
        elif fault == "value_error":
            code, message = "malformed", str(detail["ctx"]["error"])
        else:
            code, message = "malformed", f"{detail['msg']}; given is {given!r}."
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).removeprefix(".")
        return self._at(location, path, code, message)

    def _at(self, steps: Sequence[str | int], path: str, code: str, message: str) -> Finding:
        line = self._line(steps)
        return Finding(f"{self.place}, line {line}: {path}" if line else f"{self.place}: {path}", code, message)

    def _line(self, steps: Sequence[str | int]) -> int | None:
        """The line of the key or entry, or of the nearest part around it that the text itself holds: what a part takes
        over from elsewhere (an alias, a merge key) has the line of the part that takes it over."""
        node, line = self._root, None
        for step in steps:
            around, at = node, step
            if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = self._aliases.get((id(around), at)) or node.start_mark.line + 1
            elif isinstance(node, yaml.MappingNode):
                own = [(key, value) for key, value in node.value if key.tag != _MERGE and key.value == str(step)]
                if not own:
                    return line
                key, node = own[-1]
                line, at = key.start_mark.line + 1, id(key)
            else:
                return line
            if (id(around), at) in self._aliases:
                return line
        return line


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
            name = str(key.value)
            if name in keys:
                message = f"The key '{name}' stands twice in one place; keep one of them."
                findings.append(Finding(f"{place}, line {key.start_mark.line + 1}", "repeated_key", message))
            keys.add(name)
    return findings


def _echoes(detail: Mapping[str, Any]) -> bool:
    """Whether a list is only called too short because its entries are at fault, which are named by themselves."""
    return detail["type"] == "too_short" and bool(detail["input"])


def _part_at(kind: type[BaseModel], location: Sequence[str | int]) -> type[BaseModel]:
    """The class of the part at a path of the document."""
    part = kind
    for step in location:
        if isinstance(step, str) and step in part.model_fields:
            inner = models_in(part.model_fields[step].annotation)
            part = inner[0] if inner else part
    return part


def models_in(annotation: object) -> list[type[BaseModel]]:
    """The models that a field's type names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in models_in(argument)]
