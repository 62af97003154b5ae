"""The trail of a line: from the offer to the payment, each step with the name under which it can be looked up."""

from __future__ import annotations

from dataclasses import dataclass

from coflex.domain.statement import Line


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a trail. `name`: empty where nothing was recorded for it."""

    step: str
    name: str


def trail(line: Line, invoice: str = "") -> tuple[Step, ...]:
    """What a line rests on and what became of it, in the order in which it happened."""
    charge, evidence = line.charge, line.charge.evidence
    log = f"{evidence.measurements} at {evidence.log_size} entries" if evidence.measurements else ""
    steps = [
        Step("offer", evidence.offer),
        Step("award", evidence.award),
        Step("set point", evidence.set_point),
        Step("baseline", evidence.baseline),
        Step("measurement", log),
        *(Step("certificate", one) for one in evidence.certificates or ("",)),
        Step("rule", charge.rule),
        Step("charge", f"{charge.id}: {charge.amount_eur.normalize():f} EUR, {charge.remark}"),
        Step("booking", f"{line.booking}: {line.cents} cents"),
        Step("invoice", invoice),
    ]
    return tuple(steps)


def gaps(line: Line) -> tuple[str, ...]:
    """The steps of a trail for which nothing was recorded; the invoice, which comes later, is none of them."""
    return tuple(one.step for one in trail(line) if not one.name and one.step != "invoice")
