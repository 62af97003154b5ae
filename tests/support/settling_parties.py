"""Parties for invoices of tests: one of each way to be taxed."""

from __future__ import annotations

from decimal import Decimal

from coflex.settlement.invoice import Details

NAMES = ("sp", "sp-1", "sp-2", "dso", "tso", "brp", "brp-a", "brp-b", "supplier", "platform")
PARTIES = {
    name: Details(
        id=name,
        name=f"{name.upper()} & Söhne S.p.A.",
        street="Via Appia 1",
        city="Roma",
        postcode="00178",
        country="IT",
        vat_id=f"IT{i:011d}",
        vat_percent=Decimal(22),
        reverse_charge=name == "tso",
        iban="IT60X0542811101000000123456",
    )
    for i, name in enumerate(NAMES, start=1)
} | {"owner": Details("owner", "Anna Żółw", "", "Roma", "00178", "IT")}
