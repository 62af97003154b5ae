"""Everything that can be asked of the platform, one module a topic."""

from __future__ import annotations

from coflex.service.machine import Verb
from coflex.service.verbs import (
    access,
    activations,
    consents,
    contracts,
    devices,
    disputes,
    fulfilment,
    issuers,
    metered,
    offers,
    parties,
    prequalification,
    product_tests,
    products,
    proposals,
    purchases,
    regulation,
    resources,
    scheduling,
    sessions,
    settlement,
    tenants,
    units_import,
    webhooks,
)

_ROOMS = (
    tenants,
    parties,
    resources,
    units_import,
    products,
    consents,
    prequalification,
    product_tests,
    scheduling,
    sessions,
    offers,
    activations,
    fulfilment,
    regulation,
    devices,
    metered,
    contracts,
    purchases,
    settlement,
    disputes,
    access,
    webhooks,
    issuers,
)

VERBS: dict[str, Verb] = {verb.name: verb for room in _ROOMS for verb in room.VERBS}
VERBS |= {verb.name: verb for verb in proposals.verbs(VERBS)}
