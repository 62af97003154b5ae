"""The product catalogue (REG-06)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from coflex.domain.product import Product


@dataclass(frozen=True, slots=True)
class ProductEntry:
    """A product of the catalogue and the system operators that procure it; `withdrawn`: since when nobody may."""

    id: str
    product: Product
    procured_by: tuple[str, ...]
    withdrawn: datetime | None = None


RECORDS: dict[str, type[object]] = {"product": ProductEntry}
