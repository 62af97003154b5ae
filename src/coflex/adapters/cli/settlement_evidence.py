"""Metered energies against the certificates that deliveries name: what the devices signed, and the log proves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from coflex.domain.errors import CoflexError, Finding, Refused
from coflex.evidence.certificate import Trust, parse, verify
from coflex.evidence.message import Kind, Measurement, Quantity, decode, decode_measurement
from coflex.settlement.inputs import Delivery

WATT_HOUR = Decimal("0.001")
Readings = dict[int, list[Measurement]]
"""Measurements of each point."""


def check_certificates(folder: Path, deliveries: Iterable[Delivery], log: bytes | None) -> Iterator[Finding]:
    """Every fault of the certificates that the deliveries name, and every metered energy that they do not give.

    `log`: the log's public key as the reader knows it from elsewhere; None takes the one in each certificate.
    A certificate that is not in the folder is not looked at: the evidence may name what is kept elsewhere.
    """
    read: dict[str, Readings | None] = {}
    for delivery in sorted(deliveries, key=lambda one: (one.start, one.id)):
        here = [name for name in delivery.evidence.certificates if (folder / name).is_file()]
        for name in here:
            if name not in read:
                faults, read[name] = _certificate(folder / name, name, log)
                yield from faults
        readings = [found for name in here if (found := read[name]) is not None]
        if readings and len(readings) == len(delivery.evidence.certificates) and delivery.measured_kwh is not None:
            yield from _energy_fault(delivery, _together(readings))


def certified_kwh(readings: Mapping[int, Iterable[Measurement]], start: datetime, minutes: int) -> Decimal | None:
    """The energy of all points together over an interval, kWh, injection positive, to 0.001; None where a reading is
    missing. Of several readings of one interval the highest revision counts."""
    begin = round(start.timestamp() * 1000)
    end = begin + minutes * 60_000
    total = Decimal(0)
    for measurements in readings.values():
        energy = _point_wh(measurements, begin, end)
        if energy is None:
            return None
        total += energy
    return (total / 1000).quantize(WATT_HOUR) if readings else None


def _certificate(file: Path, name: str, log: bytes | None) -> tuple[list[Finding], Readings | None]:
    """The faults of a certificate, and its readings if it has none."""
    try:
        certificates = parse(file.read_bytes())
        faults = [
            Finding(f"{name}: {fault.place}", fault.code, fault.message)
            for one in certificates
            for fault in verify(one, Trust(log=log))
        ]
        messages = [decode(record.message) for one in certificates for record in one.records] if not faults else []
    except Refused as refused:
        return [Finding(f"{name}: {fault.place}", fault.code, fault.message) for fault in refused.findings], None
    except CoflexError as error:
        return [Finding(name, error.code.lower(), str(error))], None
    if faults:
        return faults, None
    readings: Readings = {}
    for message in messages:
        if message.kind is Kind.MEASUREMENT:
            readings.setdefault(message.signer, []).append(decode_measurement(message.body))
    return [], readings


def _together(many: Iterable[Readings]) -> Readings:
    found: Readings = {}
    for readings in many:
        for point, measurements in readings.items():
            found.setdefault(point, []).extend(measurements)
    return found


def _energy_fault(delivery: Delivery, readings: Readings) -> Iterator[Finding]:
    place = f"delivery {delivery.id}"
    certified = certified_kwh(readings, delivery.start, delivery.minutes)
    if certified is None:
        message = "Its certificates do not hold a reading for all of its interval; ask for the others."
        yield Finding(place, "not_certified", message)
    elif certified != delivery.measured_kwh:
        message = (
            f"It was settled with {delivery.measured_kwh} kWh, and its certificates give {certified} kWh; dispute it."
        )
        yield Finding(place, "other_measurement", message)


def _point_wh(measurements: Iterable[Measurement], begin: int, end: int) -> Decimal | None:
    """The energy of one point over [begin, end), ms since the epoch, in Wh."""
    best: dict[int, tuple[int, int, Decimal | None]] = {}
    for one in measurements:
        if one.quantity not in (Quantity.ACTIVE_POWER_W, Quantity.ACTIVE_ENERGY_WH):
            continue
        hours = Decimal(one.step) / 3_600_000 if one.quantity is Quantity.ACTIVE_POWER_W else Decimal(1)
        for i, integer in enumerate(one.integers):
            at = one.first + i * one.step
            if begin <= at < end and (at not in best or one.revision >= best[at][0]):
                value = None if integer is None else Decimal(integer).scaleb(one.scale) * hours
                best[at] = one.revision, at + one.step, value
    total, reached = Decimal(0), begin
    for at in sorted(best):
        _, until, value = best[at]
        if at != reached or value is None:
            return None
        total, reached = total + value, until
    return total if reached == end else None
