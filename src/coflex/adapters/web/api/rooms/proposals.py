"""Approvals: what waits for a second person of the party."""

from __future__ import annotations

from typing import Any

from coflex.adapters.web.api.operations import History, Read, Room, Write
from coflex.register.market import Proposal

Answered = dict[str, Any]
ROOM = Room(
    "approvals",
    "Steps that need two persons wait here until a second user of the party confirms them.",
    (
        Read("/proposals", Proposal, "Proposals of the party.",
             {"status": "status", "verb": "verb", "subject": "subject"}),
        Read("/proposals/{proposal}", Proposal, "A proposal."),
        History("/proposals/{proposal}/history", Proposal, "Every version of a proposal."),
        Write(
            "POST", "/proposals/{proposal}/confirm", "proposal.confirm",
            "Confirm a proposal as a second person: it happens now, and its own reply is answered.", Answered,
            example={},
        ),
        Write(
            "POST", "/proposals/{proposal}/refuse", "proposal.refuse",
            "Refuse a proposal; whoever proposed it takes it back so.", Proposal,
            example={"reason": "The day is over."},
        ),
    ),
)  # fmt: skip
