"""Parties and what they do here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Roles of the Harmonised Electricity Market Role Model that act on the platform."""

    TSO = "transmission_system_operator"
    DSO = "distribution_system_operator"
    MARKET_OPERATOR = "market_operator"
    SERVICE_PROVIDER = "service_provider"
    BALANCE_RESPONSIBLE_PARTY = "balance_responsible_party"
    METERED_DATA_ADMINISTRATOR = "metered_data_administrator"
    REGISTER_OPERATOR = "flexibility_register_operator"
    ASSET_OWNER = "asset_owner"
    OBSERVER = "observer"


@dataclass(frozen=True, slots=True)
class Party:
    """A legal entity with one or more roles."""

    id: str
    name: str
    roles: tuple[Role, ...]
