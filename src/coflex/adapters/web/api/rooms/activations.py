"""Orders, the set points that follow from them, backups and continuous regulation."""

from __future__ import annotations

from coflex.adapters.web.api.operations import History, Read, Room, Write
from coflex.register.activations import ActivationOrder, Backup, Regulation, SetPointEntry

_ORDERS = Room(
    "activations",
    "Orders on what was bought: made from definitive results or by their buyer, split over units by the provider or "
    "the platform, changed, stopped, limited by system operators, and taken over by the next of the list.",
    (
        Read(
            "/activations", ActivationOrder, "Orders that concern the caller.",
            {"session": "session", "buyer": "buyer", "provider": "provider", "state": "state", "replaces": "replaces"},
        ),
        Read("/activations/{activation}", ActivationOrder, "An order: what stands, what was lost, who said what."),
        History("/activations/{activation}/history", ActivationOrder, "Every version of an order."),
        Write(
            "POST", "/activations", "activation.order", "Call what was bought, now or at a time.", ActivationOrder, 201,
            "/activations/{id}",
            {"session": "2026-07-05.local-1", "offer": "SP1/offer-1", "direction": "up", "quantity_kw": 80,
             "starts": "2026-07-05T10:00:00Z", "ends": "2026-07-05T10:30:00Z"},
        ),
        Write(
            "POST", "/activations/{activation}/change", "activation.change",
            "Another quantity or end, never above what was bought; the buyer alone.", ActivationOrder,
            example={"quantity_kw": 50, "ends": "2026-07-05T10:15:00Z"},
        ),
        Write(
            "POST", "/activations/{activation}/stop", "activation.stop", "End an order now; the buyer alone.",
            ActivationOrder, example={"reason": "The need is over."},
        ),
        Write(
            "POST", "/activations/{activation}/limit", "activation.limit",
            "A system operator limits or ends what a unit of its grid gives; the next of the list takes over.",
            ActivationOrder,
            example={"unit": "UNIT-1", "to_kw": 0, "element": "line 12", "value": 104.2, "bound": 100.0,
                     "reason": "overloaded"},
        ),
        Write(
            "POST", "/activations/{activation}/acknowledge", "activation.acknowledge",
            "The platform of a system operator has the order.", ActivationOrder, example={"verdict": "taken"},
        ),
        Write(
            "POST", "/activations/{activation}/split", "activation.split",
            "The provider's own split over units, of all that is still to come.", ActivationOrder,
            example={"units": [{"unit": "UNIT-1", "pieces": [
                {"starts": "2026-07-05T10:00:00Z", "ends": "2026-07-05T10:30:00Z", "kw": 80}]}]},
        ),
        Write(
            "POST", "/activations/{activation}/fail", "activation.fail",
            "A unit cannot give what it was told; for 15 minutes its provider may replace it.", ActivationOrder,
            example={"unit": "UNIT-1", "remaining_kw": 20, "reason": "tripped"},
        ),
        Write(
            "POST", "/activations/{activation}/rebalance", "activation.rebalance",
            "Reserved backups replace what is missing.", ActivationOrder, example={"units": ["UNIT-2"]},
        ),
    ),
)  # fmt: skip

_SET_POINTS = Room(
    "set-points",
    "What each unit is told: its owner sees its plan, whether it left, and what the devices said.",
    (
        Read(
            "/set-points", SetPointEntry, "Set points that concern the caller.",
            {"order": "order", "unit": "unit", "session": "session", "state": "state"},
        ),
        Read("/set-points/{set_point}", SetPointEntry, "A unit's share of an order."),
        History("/set-points/{set_point}/history", SetPointEntry, "Every version of a set point."),
    ),
)  # fmt: skip

_BACKUPS = Room(
    "backups",
    "Units that their provider keeps free, to step in where another one fails; nobody buys them in that time.",
    (
        Read("/backups", Backup, "Backups that concern the caller.", {"unit": "unit", "provider": "provider"}),
        Read("/backups/{backup}", Backup, "A backup."),
        History("/backups/{backup}/history", Backup, "Every version of a backup."),
        Write(
            "POST", "/backups", "backup.reserve", "Keep a unit free in whole quarter-hours.", Backup, 201,
            "/backups/{id}",
            {"unit": "UNIT-2", "starts": "2026-07-05T10:00:00Z", "ends": "2026-07-05T12:00:00Z"},
        ),
        Write("POST", "/backups/{backup}/release", "backup.release", "It may be sold again.", Backup, example={}),
    ),
)  # fmt: skip

_REGULATIONS = Room(
    "regulations",
    "Bands that follow their buyer's signal: who regulates, when, how far, and with which shares of the units.",
    (
        Read(
            "/regulations", Regulation, "Regulations that concern the caller.",
            {"session": "session", "band": "band", "state": "state"},
        ),
        Read("/regulations/{regulation}", Regulation, "A regulation."),
        History("/regulations/{regulation}/history", Regulation, "Every version of a regulation."),
        Write(
            "POST", "/regulations", "regulation.start", "Begin to regulate a band that was bought as capacity.",
            Regulation, 201, "/regulations/{id}",
            {"session": "2026-07-05.global-1", "band": "GROUP-1", "starts": "2026-07-05T10:00:00Z",
             "ends": "2026-07-05T12:00:00Z", "up_kw": 500, "down_kw": 500},
        ),
        Write(
            "POST", "/regulations/{regulation}/stop", "regulation.stop", "End a regulation now.", Regulation,
            example={},
        ),
        Write(
            "POST", "/regulations/{regulation}/shares", "regulation.share",
            "The provider's participation factors.", Regulation, example={"shares": [{"unit": "UNIT-1", "factor": 2}]},
        ),
    ),
)  # fmt: skip

ROOMS = (_ORDERS, _SET_POINTS, _BACKUPS, _REGULATIONS)
