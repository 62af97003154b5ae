"""The catalogue of products, and what owners allow and set for their units."""

from __future__ import annotations

from coflex.adapters.web.api.operations import History, Read, Room, Write
from coflex.register.consents import Availability, Consent
from coflex.register.products import ProductEntry

_PRODUCT = {
    "id": "local-energy", "scope": "local", "kind": "active_energy", "directions": ["up", "down"],
    "resolution_s": 900, "tick_kw": 1, "min_quantity_kw": 10, "full_activation_time_s": 900,
    "price_cap_eur_mwh": "3000", "divisible": True, "symmetric": False, "tolerance": "0.1", "penalty_share": "0.5",
}  # fmt: skip

PRODUCTS = Room(
    "products",
    "The product catalogue: what is traded, and what a test of it asks.",
    (
        Read("/products", ProductEntry, "Products.", {"scope": "product.scope", "kind": "product.kind"}),
        Read("/products/{product}", ProductEntry, "A product."),
        History("/products/{product}/history", ProductEntry, "Every version of a product."),
        Write("POST", "/products", "product.register", "Put a product up.", ProductEntry, 201, "/products/{id}",
              _PRODUCT),
        Write(
            "PATCH", "/products/{product}", "product.change", "Change a product, but for its price cap.", ProductEntry,
            example={"min_quantity_kw": 20},
        ),
        Write(
            "PUT", "/products/{product}/price-cap", "product.set_price_cap",
            "Set the price cap; a second person confirms it.", ProductEntry, example={"price_cap_eur_mwh": "2500"},
        ),
        Write(
            "POST", "/products/{product}/withdraw", "product.withdraw", "Nothing new is made for a product.",
            ProductEntry, example={},
        ),
    ),
)  # fmt: skip

CONSENTS = Room(
    "owners",
    "What owners allow a provider, and when their units are to be had.",
    (
        Read("/consents", Consent, "Consents that concern the caller.",
             {"unit": "unit", "provider": "provider", "owner": "owner"}),
        Read("/consents/{consent}", Consent, "A consent."),
        History("/consents/{consent}/history", Consent, "Every version of a consent."),
        Write(
            "POST", "/consents", "consent.give", "Allow a provider to offer or measure a unit.", Consent, 201,
            "/consents/{id}", {"unit": "UNIT-1", "provider": "SP1", "scope": ["offer"], "ends": "2027-01-01T00:00:00Z"},
        ),
        Write(
            "POST", "/consents/{consent}/withdraw", "consent.withdraw", "Take a consent back, from now on.", Consent,
            example={},
        ),
        Read("/availabilities", Availability, "Availabilities of units that concern the caller."),
        Read("/availabilities/{unit}", Availability, "When and how far a unit is to be had."),
        History("/availabilities/{unit}/history", Availability, "Every version of an availability."),
        Write(
            "PUT", "/availabilities/{unit}", "availability.set",
            "Set when and how far a unit is to be had; what was set before is replaced.", Availability,
            example={"windows": [{"starts": "2026-07-05T10:00:00Z", "ends": "2026-07-05T12:00:00Z", "up_kw": 100,
                                  "down_kw": 0}]},
            match=False,
        ),
    ),
)  # fmt: skip
