"""Devices in the field, and whom owners let see what they measure."""

from __future__ import annotations

from coflex.adapters.web.api.operations import History, Read, Room, Write
from coflex.register.devices import DataGrant, Device

_KEY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"

_DEVICES = Room(
    "devices",
    "Light nodes: enrolled for a unit with its owner's consent; the platform gives the point number.",
    (
        Read("/devices", Device, "Devices of units that concern the caller.", {"unit": "unit", "owner": "owner"}),
        Read("/devices/{device}", Device, "A device, its point number and its keys."),
        History("/devices/{device}/history", Device, "Every version of a device."),
        Write(
            "POST", "/devices", "device.enrol", "Enrol a device of a unit.", Device, 201, "/devices/{id}",
            {"unit": "UNIT-1", "public_key": _KEY},
        ),
        Write(
            "POST", "/devices/{device}/key", "device.rotate_key",
            "Another key from now on; what was signed before is held against the old one.", Device,
            example={"public_key": _KEY},
        ),
        Write(
            "POST", "/devices/{device}/revoke", "device.revoke", "Trust a device no more.", Device,
            example={"reason": "stolen"},
        ),
    ),
)  # fmt: skip

_GRANTS = Room(
    "data-grants",
    "Whom the owner of a unit lets see its live values and its certified data, and for how long.",
    (
        Read("/data-grants", DataGrant, "Grants that the caller gave or has.", {"unit": "unit", "party": "party"}),
        Read("/data-grants/{data_grant}", DataGrant, "A grant."),
        History("/data-grants/{data_grant}/history", DataGrant, "Every version of a grant."),
        Write(
            "POST", "/data-grants", "data_grant.give", "Let a party see data of a unit.", DataGrant, 201,
            "/data-grants/{id}",
            {"unit": "UNIT-1", "party": "DSO1", "scope": ["live", "certified"], "starts": "2026-07-05T00:00:00Z",
             "ends": "2027-07-05T00:00:00Z"},
        ),
        Write(
            "POST", "/data-grants/{data_grant}/withdraw", "data_grant.withdraw",
            "Nothing more is read by a grant from now on.", DataGrant, example={},
        ),
    ),
)  # fmt: skip

ROOMS = (_DEVICES, _GRANTS)
