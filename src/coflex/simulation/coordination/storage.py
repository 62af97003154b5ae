"""Storage to let, and who bids for it. Bids are for the day; hours are local.

The small case has one lot, 2 MW and 4 MWh at south in every hour, which belongs to `sp-6`, who sells nothing else.
Reserve: 1 EUR for each MW and 0.50 EUR for each MWh and hour; an hour of half of it, 1 MW with 2 MWh, costs 2 EUR at
least.

    bid                 lessee  hours     kW    kWh   EUR  reserve
    1 store-evening-dso dso     17 to 21  1000  2000   40        8
    2 store-evening-one brp-1   17 to 21  1000  2000   30        8
    3 store-evening-two brp-2   17 to 21  1000  2000   22        8
    4 store-night       tso     00 to 06  2000  4000   60       24
    5 store-noon        brp-3   12 to 15  1000  2000    5        6

The evening has room for two of three equal shares: the first two win, and both pay 22, which the third would have; the
night has no rival and pays its reserve of 24; the noon's bid is below its reserve. Together 68 EUR; as bid 130.

In the reference case four batteries of the distribution grids are let, each with two hours of energy at its rated power
and an efficiency of 0.95 either way, at a reserve of 1.20 and 0.60 EUR. For each lot the DSO, the TSO and four
providers bid, at prices drawn by chance: for an evening, for noon or night with the evening, for the whole day.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from decimal import Decimal

import numpy as np

from coflex.domain.time import Axis
from coflex.market.coordination.world import LeaseRequest, Seller, StorageLot
from coflex.market.design import Buyer
from coflex.market.leasing import Bundle, Device, LeaseBid, Storage

HOUR = timedelta(hours=1)
_EFFICIENCY = 0.95


def small_lots(axis: Axis) -> tuple[StorageLot, ...]:
    """The lot of the small case on its day."""
    device = Device(2000, 2000, 4000, _EFFICIENCY, _EFFICIENCY)
    return (StorageLot(_storage(axis, "store", "sp-6", device, (2000, 4000), ("1.00", "0.50")), "south"),)


def small_bids(axis: Axis) -> tuple[LeaseRequest, ...]:
    """The bids of the small case."""
    rows = (
        ("store-evening-dso", Buyer.DSO, "dso", (17, 21), (1000, 2000), "40.00"),
        ("store-evening-one", Buyer.BRP, "brp-1", (17, 21), (1000, 2000), "30.00"),
        ("store-evening-two", Buyer.BRP, "brp-2", (17, 21), (1000, 2000), "22.00"),
        ("store-night", Buyer.TSO, "tso", (0, 6), (2000, 4000), "60.00"),
        ("store-noon", Buyer.BRP, "brp-3", (12, 15), (1000, 2000), "5.00"),
    )
    return tuple(
        LeaseRequest("store", buyer, LeaseBid(name, number, lessee, (_bundle(axis, hours, size),), Decimal(price)))
        for number, (name, buyer, lessee, hours, size, price) in enumerate(rows, start=1)
    )


# ---------------------------------------------------------------- the reference case

_LET = ("coast-battery-f1-6", "town-battery-f1-4", "town-battery-f2-7", "valley-battery-f1-5")
# Lessee, parts of the day, share of the lot, EUR for each MW and hour before the spread.
_WANTED: Sequence[tuple[Buyer, str, tuple[tuple[int, int], ...], float, float]] = (
    (Buyer.DSO, "dso", ((18, 22),), 0.5, 7.0),
    (Buyer.TSO, "tso", ((0, 24),), 0.5, 3.0),
    (Buyer.BRP, "brp-1", ((11, 15), (19, 22)), 0.5, 5.0),
    (Buyer.BRP, "brp-2", ((19, 22),), 1.0, 4.5),
    (Buyer.BRP, "brp-3", ((0, 5), (18, 21)), 0.4, 4.0),
    (Buyer.BRP, "brp-4", ((0, 24),), 0.3, 2.6),
)


def reference_lots(axis: Axis, sellers: Sequence[Seller], offering: Collection[str]) -> tuple[StorageLot, ...]:
    """Lots of the batteries that are let; of one that does not offer, nothing is offered here either."""
    of = {one.id: one for one in sellers}
    found = []
    for name in _LET:
        one = of[name]
        device = Device(one.down_kw, one.up_kw, 2 * one.up_kw, _EFFICIENCY, _EFFICIENCY)
        size = (one.up_kw, 2 * one.up_kw) if name in offering else (0, 0)
        storage = _storage(axis, f"lot-{name}", one.provider, device, size, ("1.20", "0.60"))
        found.append(StorageLot(storage, one.grid, name))
    return tuple(found)


def reference_bids(axis: Axis, lots: Sequence[StorageLot], chance: np.random.Generator) -> tuple[LeaseRequest, ...]:
    """Bids for each lot, of so much of the device that two or three of them fit; prices up to 30 % around the usual."""
    spread = chance.uniform(0.7, 1.3, (len(lots), len(_WANTED))).tolist()
    return tuple(one for lot, row in zip(lots, spread, strict=True) for one in _wanted(axis, lot, row))


def _wanted(axis: Axis, lot: StorageLot, spread: Sequence[float]) -> Iterator[LeaseRequest]:
    device = lot.storage.device
    for number, (row, factor) in enumerate(zip(_WANTED, spread, strict=True), start=1):
        buyer, lessee, parts, share, eur = row
        kw, kwh = int(share * device.discharge_kw), int(share * device.energy_kwh)
        hours = sum(last - first for first, last in parts)
        price = Decimal(round(factor * eur * hours * kw / 10)) / 100
        bundles = tuple(_bundle(axis, part, (kw, kwh)) for part in parts)
        yield LeaseRequest(lot.id, buyer, LeaseBid(f"{lot.id}-{lessee}", number, lessee, bundles, price))


# ---------------------------------------------------------------- both


def _storage(
    axis: Axis, id: str, owner: str, device: Device, size: tuple[int, int], reserve: tuple[str, str]
) -> Storage:
    """A storage that offers the same kW and kWh in every hour of the day."""
    count = (axis.end - axis.start) // HOUR
    kw, kwh = (count * (one,) for one in size)
    return Storage(id, owner, device, Axis(axis.start, count, HOUR), kw, kwh, Decimal(reserve[0]), Decimal(reserve[1]))


def _bundle(axis: Axis, hours: tuple[int, int], size: tuple[int, int]) -> Bundle:
    return Bundle(axis.start + hours[0] * HOUR, axis.start + hours[1] * HOUR, *size)
