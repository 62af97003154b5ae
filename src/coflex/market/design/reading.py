"""From a YAML text to a `Design`, or to every fault of it at once, each with its line and its path."""

from __future__ import annotations

import json

from pydantic import ValidationError

from coflex.documents import parse
from coflex.domain.errors import Refused, refuse
from coflex.market.design.document import Design, Session
from coflex.market.design.rules import faults


def read_design(text: str, place: str) -> Design:
    """The design that a YAML document describes.

    `place` names the document in messages. Raises Refused with every fault at once, each with its place, such
    as "mine.yaml, line 12: sessions[3].gate.closes". Rules that need the whole sequence (definitive parts that tile
    the day) are checked once every session can be read.
    """
    document = parse(text, place, "A design is a mapping that begins with its id.")
    design, found = document.model(Design)
    if design is None:
        entries = document.data.get("sessions")
        given = entries if isinstance(entries, list) else []
        sessions = [_readable(entry) for entry in given]
        more = faults(sessions, [_name(entry) for entry in given])
        raise Refused(place, [*found, *(document.finding(*fault) for fault in more)])
    known = faults(design.sessions, [session.id for session in design.sessions], design)
    refuse(place, [document.finding(*fault) for fault in known])
    return design


def _readable(entry: object) -> Session | None:
    """A session of a faulty document, or None, so that those that can be read are checked with the rest."""
    try:
        return Session.model_validate_json(json.dumps(entry, default=str))
    except ValidationError:
        return None


def _name(entry: object) -> str:
    return str(entry.get("id", "")) if isinstance(entry, dict) else ""
