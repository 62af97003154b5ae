"""The session of `support.ordered` after its day: read, based, settled, with the door open and two persons at it.

cu-0001 was told 100 kW and cu-0003 50 kW up for the hour from BEGIN, at 40 EUR/MWh: 25 and 12.5 kWh a quarter-hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np

from coflex.domain.series import Series
from coflex.domain.statement import Line
from coflex.domain.time import delivery_day
from coflex.metering.baselines.document import load_method
from coflex.register.market import Proposal
from coflex.register.outcomes import SessionOutcome, Step, keep_series, outcome_id
from coflex.register.settlement import BillingDetails, SettlementRun, StatementEntry
from coflex.service.machine import encode
from coflex.service.ports import Command
from coflex.service.posting import posted
from coflex.service.settling import zone_of
from coflex.settlement.invoice import Details
from support.api import Api, others
from support.ordered import BEGIN, GLOBAL, PERIODS, QUARTER, Ordered
from support.platform import DAY, TENANT, put

PERIOD = DAY.isoformat()
LOG = "measurements.example/1"
UNITS = ("cu-0001", "cu-0003")
QUARTERS = tuple(BEGIN + k * QUARTER for k in range(PERIODS))
RECORD = "ab" * 32


def details(party: str, **more: Any) -> BillingDetails:
    return BillingDetails(party, Details(party, party.upper(), "Via Roma 1", "Rome", "00100", "IT", **more))


class Settled(Ordered, Api):
    """The platform after the delivery day, with its door. Nothing is metered yet; 200 kW are foreseen of every unit as
    what it draws, by nomination, unless `foreseen` is None."""

    def __init__(self, foreseen: float | None = -200.0, minutes: float = 25 * 60) -> None:
        super().__init__()
        self.sequencer.submit(put([*others(), *(details(party) for party in ("mo", "tso", "dso", "sp-1", "sp-2"))]))
        if foreseen is not None:
            self.foresee(dict.fromkeys((f"cu-{k:04d}" for k in range(1, 9)), foreseen))
        self.to(-7)
        self.to(5)
        if minutes:
            self.to(minutes)
        self.open()
        self.ann, self.bob = self.signed_in("ann", "mo"), self.signed_in("bob", "mo")

    def foresee(self, kw: Mapping[str, float]) -> None:
        """Let the plan of the session foresee a power of units, injection positive, the whole day."""
        plan = self.state.get(SessionOutcome, outcome_id(GLOBAL, Step.PLAN))
        axis = delivery_day(DAY, zone_of(self.state))
        values = np.array([np.full(len(axis), one) for one in kw.values()])
        series = keep_series("global-1/nomination", Series(tuple(kw), axis, values))
        self.sequencer.submit(put([replace(plan, series=(series,))]))

    # ------------------------------------------------------------ the field

    def bring(self, kwh: Mapping[tuple[str, datetime], str | None], log_size: int = 100, **more: Any) -> Any:
        """Bring quantities by unit and start."""
        metered = [
            {"unit": unit, "start": start, "kwh": value, "quality": "missing" if value is None else "measured",
             "leaf": None if value is None else 0}
            for (unit, start), value in kwh.items()
        ]  # fmt: skip
        return self.do("metered.bring", actor="field", log=LOG, log_size=log_size, metered=metered, **more)

    def bring_all(self, **kwh: Any) -> Any:
        """Bring the same quantity of every quarter-hour of units, by the last digits of their names."""
        return self.bring({(f"cu-{name[1:]}", start): value for name, value in kwh.items() for start in QUARTERS})

    def baseline(self, unit: str, kwh: Iterable[str], method: str = "last_4_alike") -> dict[str, Any]:
        """The form of a baseline."""
        document = load_method(method)
        return {
            "unit": unit, "day": DAY, "method": method, "method_version": document.version,
            "fingerprint": document.fingerprint, "record": RECORD, "kwh": list(kwh),
        }  # fmt: skip

    # ------------------------------------------------------------ the operator

    def settle(self, period: str = PERIOD, **form: Any) -> SettlementRun:
        reply = self.do("settlement.run", "mo", period, **form)
        return self.state.get(SettlementRun, reply["id"])

    def by_two(self, verb: str, subject: str, /, **form: Any) -> Any:
        """Propose as ann, confirm as bob; what was done is answered."""
        command = Command(TENANT, verb, subject, "mo", "mo", "ann", encode(form))
        proposal = msgspec.json.decode(self.sequencer.submit(command).reply, type=Proposal)
        confirm = Command(TENANT, "proposal.confirm", proposal.id, "mo", "mo", "bob", b"{}")
        return msgspec.json.decode(self.sequencer.submit(confirm).reply)

    # ------------------------------------------------------------ what came of it

    def lines(self, period: str = PERIOD) -> list[Line]:
        return posted(self.state, period)

    def statement(self, party: str, run: str = f"{PERIOD}.1") -> StatementEntry:
        return self.state.get(StatementEntry, f"{run}.{party}")


def cents(lines: Iterable[Line], unit: str = "") -> int:
    """What lines come to for their seller, of one unit or of all."""
    return sum(line.cents for line in lines if unit in ("", line.charge.unit))


def euros(lines: Iterable[Line], unit: str = "") -> Decimal:
    """The exact sum of lines before a booking rounds it."""
    return sum((line.charge.amount_eur for line in lines if unit in ("", line.charge.unit)), Decimal(0))
