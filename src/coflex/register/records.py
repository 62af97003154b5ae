"""Every kind of record that the platform keeps, by the name under which the store keeps it.

A room of records lists its own in `RECORDS`; here they are put together. A record is a frozen dataclass whose fields
JSON carries: texts, numbers, decimals, instants, enums, tuples and dataclasses of these.
"""

from __future__ import annotations

from typing import TypeAlias

from coflex.register import (
    access,
    activations,
    consents,
    devices,
    market,
    parties,
    prequalification,
    products,
    resources,
    settlement,
)

Record: TypeAlias = object

KINDS: dict[str, type[Record]] = {}
for _room in (
    parties, resources, products, consents, prequalification, access, market, activations, devices, settlement,
):  # fmt: skip
    KINDS |= _room.RECORDS

KIND_OF: dict[type[Record], str] = {record: kind for kind, record in KINDS.items()}
