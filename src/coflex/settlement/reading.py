"""From a YAML text to a settlement `Rule`, or to every fault of it at once, each with its line and its path."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import ValidationError

from coflex.documents import Document, models_in, parse
from coflex.domain.errors import Refused, refuse
from coflex.settlement.document import Fault, Part, Rule


def read_rule(text: str, place: str) -> Rule:
    """The settlement rule that a YAML document describes.

    `place` names the document in messages. Raises Refused with every fault at once, each with its place, such as
    "mine.yaml, line 12: penalty.share". Parts that can be read are checked among each other even where others cannot.
    """
    document = parse(text, place, "A rule is a mapping that begins with its id.")
    rule, found = document.model(Rule)
    if rule is None:
        more = [document.finding(*fault) for fault in _readable_faults(document)]
        raise Refused(place, [*found, *more])
    refuse(place, [document.finding(*fault) for fault in rule.faults()])
    return rule


def _readable_faults(document: Document) -> Iterator[Fault]:
    """Faults inside the parts of a faulty document that can be read by themselves."""
    for name, field in Rule.model_fields.items():
        kinds = models_in(field.annotation)
        if not kinds or name not in document.data:
            continue
        try:
            part = kinds[0].model_validate_json(json.dumps(document.data[name], default=str))
        except ValidationError:
            continue
        if isinstance(part, Part):
            yield from ((f"{name}.{path}", code, message) for path, code, message in part.faults())
