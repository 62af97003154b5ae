"""Key performance indicators of a delivery day, each with how it was computed.

KPI-01: participation. KPI-02: the indicators of document B, table 11. KPI-03: what the day brought, and at which cost.
Shares are in percent. Energies are unsigned, whatever their direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coflex.domain.activation import Hop, Limitation, SetPoint
from coflex.domain.clearing import Award, MeritLine, Reason
from coflex.domain.light import Colour, DynamicLight
from coflex.domain.qualification import StaticLight
from coflex.domain.quantity import Direction, Floats
from coflex.domain.statement import Statement
from coflex.domain.unit import Group, Scope, Unit
from coflex.reporting.form import number, summed
from coflex.reporting.interface import Netting

BY_LIGHT = (Reason.RED_LIGHT, Reason.YELLOW_LIGHT)


@dataclass(frozen=True, slots=True)
class Kpi:
    """An indicator. `id` is stable; `group` is the requirement row; `meaning`: one sentence, how it was computed."""

    id: str
    group: str
    name: str
    value: float
    unit: str
    meaning: str


def share(part: float, whole: float) -> float:
    """A part in percent of the whole; zero where there is no whole."""
    return 100.0 * part / whole if whole else 0.0


# ---------------------------------------------------------------- KPI-01: participation


def messages(exchanged: int, points: Sequence[SetPoint]) -> tuple[Kpi, ...]:
    """Messages between the parties, and how many set points reached the customer's own system."""
    arrived = sum(point.acknowledged is Hop.ENERGY_MANAGEMENT_SYSTEM for point in points)
    return (
        _kpi("KPI-01", "messages_exchanged", "Messages exchanged", exchanged, "messages", "Entries of the day's log."),
        _kpi("KPI-01", "set_points_sent", "Set points sent", len(points), "set points", "One a unit and quarter-hour."),
        _kpi(
            "KPI-01",
            "set_points_delivered",
            "Set points delivered",
            share(arrived, len(points)),
            "%",
            "Set points that the customer's energy management system confirmed, of all that were sent.",
        ),
    )


def activated(points: Sequence[SetPoint], awards: Sequence[Award]) -> tuple[Kpi, ...]:
    """Activated demand response: `awards` are the definitive ones."""
    power = summed((point.start, point.ordered_kw) for point in points)
    called = [kw / 1000 for kw in power.values() if kw]
    offers = {award.offer for award in awards}
    said = "of the ordered power of all units, both directions added,"
    return (
        _kpi(
            "KPI-01",
            "activated_peak",
            "Activated demand response, peak",
            max(called, default=0.0),
            "MW",
            f"Highest quarter-hour {said} after limitations.",
        ),
        _kpi(
            "KPI-01",
            "activated_mean",
            "Activated demand response, mean",
            sum(called) / len(called) if called else 0.0,
            "MW",
            f"Mean {said} over the quarter-hours in which any unit was called.",
        ),
        _kpi(
            "KPI-01",
            "activated_offers",
            "Activated offers",
            len(offers),
            "offers",
            "Offers with at least one definitive award.",
        ),
    )


def dso_participation(
    global_lines: Sequence[MeritLine], lights: Sequence[DynamicLight], limits: Sequence[Limitation]
) -> tuple[Kpi, ...]:
    """How much the distribution operator has a say in global services; lines and lights of definitive parts."""
    touched = sum(line.reason in BY_LIGHT for line in global_lines)
    return (
        _kpi(
            "KPI-01",
            "lines_limited_by_lights",
            "Global offers limited by a traffic light",
            share(touched, len(global_lines)),
            "%",
            "Lines of the definitive global merit order lists that a yellow or red light limited or refused, of all.",
        ),
        _kpi(
            "KPI-01",
            "lights_not_green",
            "Traffic lights not green",
            sum(light.colour is not Colour.GREEN for light in lights),
            "lights",
            "Definitive dynamic lights that are yellow or red, one a perimeter, direction and quarter-hour.",
        ),
        _kpi(
            "KPI-01",
            "limitations",
            "Activations limited in operation",
            len(limits),
            "limitations",
            "Unit quarter-hours whose running activation the distribution operator took back, in whole or in part.",
        ),
    )


# ---------------------------------------------------------------- KPI-02: document B, table 11


def prequalification_effort(static: Sequence[StaticLight], groups: Sequence[Group]) -> tuple[Kpi, ...]:
    """Technical tests for each unit and service; a unit serves as many services as it has groups."""
    tested = {light.unit for light in static}
    services = sum(unit in tested for group in groups for unit in group.units)
    return (
        _kpi(
            "KPI-02",
            "prequalification_effort",
            "Prequalification effort",
            len(static) / services if services else 0.0,
            "tests",
            "Static grid tests, divided by the services of the tested units: one for each group a unit is in.",
        ),
    )


def local_constraints(lights: Sequence[DynamicLight]) -> tuple[Kpi, ...]:
    """Power that the local grid lets through for global services, of what its units could give."""
    found = []
    for direction in Direction:
        mine = [light for light in lights if light.direction is direction]
        able, potential = sum(x.capability_kw for x in mine), sum(x.potential_kw for x in mine)
        found.append(
            _kpi(
                "KPI-02",
                f"deliverable_{direction.value}",
                f"Potential deliverable for global services, {direction.value}",
                share(able, potential) if potential else 100.0,
                "%",
                "Capability that the definitive lights allow, of the potential of the units not held locally.",
            )
        )
    return tuple(found)


def continuance(statements: Sequence[Statement], units: Sequence[Unit]) -> tuple[Kpi, ...]:
    """Whether providers earn something: the reason to go on taking part. One without a statement has a balance of 0."""
    registered = summed((unit.provider, max(unit.up_kw, unit.down_kw)) for unit in units)
    balance = {s.party: s.balance_cents for s in statements if s.party in registered}
    winners = sum(cents > 0 for cents in balance.values())
    megawatts = sum(registered.values()) / 1000
    income = sum(balance.values()) / 100
    return (
        _kpi(
            "KPI-02",
            "continuance",
            "Providers with a positive balance",
            share(winners, len(registered)),
            "%",
            "Providers that received more than they paid, penalties included, of all with registered units.",
        ),
        _kpi(
            "KPI-02",
            "income_per_mw",
            "Income per registered MW",
            income / megawatts if megawatts else 0.0,
            "EUR/MW",
            "Sum of the providers' balances of the day, divided by their registered power in the larger direction.",
        ),
    )


# ---------------------------------------------------------------- KPI-03: what the day brought


def violations_avoided(violations: Mapping[str, int]) -> tuple[Kpi, ...]:
    """`violations` by state: element quarter-hours beyond a limit."""
    pairs = (
        ("actual", "untouched", "really", "in what would have come true without activations, less those in what came"),
        ("planned", "forecast", "in the plan", "in the forecast, less those with what was definitively bought"),
    )
    return tuple(
        _kpi(
            "KPI-03",
            f"violations_avoided_{after}",
            f"Violations avoided {where}",
            violations[before] - violations[after],
            "violations",
            f"Element quarter-hours beyond a limit {how}.",
        )
        for after, before, where, how in pairs
    )


def curtailment(untouched_kw: Floats, actual_kw: Floats, hours: float) -> tuple[Kpi, ...]:
    """PV energy given up: `untouched_kw`, `actual_kw` [u, t] of PV units, injection positive."""
    lost = (untouched_kw - actual_kw).clip(min=0.0).sum() * hours / 1000
    return (
        _kpi(
            "KPI-03",
            "pv_curtailment",
            "PV curtailed",
            float(lost),
            "MWh",
            "What PV units fed in less than they would have without activations.",
        ),
    )


def losses_change(losses_mwh: Mapping[str, float]) -> tuple[Kpi, ...]:
    """`losses_mwh` by state."""
    return (
        _kpi(
            "KPI-03",
            "losses_change",
            "Change of grid losses",
            losses_mwh["actual"] - losses_mwh["untouched"],
            "MWh",
            "Losses that came true, less those without any activation, by AC power flow.",
        ),
    )


def procurement_cost(statements: Sequence[Statement], operators: Sequence[str]) -> tuple[Kpi, ...]:
    """What each buyer bears for the day; one without a statement bears nothing."""
    balance = {s.party: s.balance_cents for s in statements}
    return tuple(
        _kpi(
            "KPI-03",
            f"procurement_cost_{operator}",
            f"Procurement cost of {operator}",
            -balance.get(operator, 0) / 100,
            "EUR",
            "Payments to providers plus fees, less penalties received.",
        )
        for operator in operators
    )


def liquidity(scope: Scope, lines: Sequence[MeritLine], awards: Sequence[Award]) -> tuple[Kpi, ...]:
    """Choice and concentration in the definitive parts of the sessions of one scope."""
    cells = {(line.session, line.direction, line.start) for line in lines if line.accepted_kw}
    asked = [line for line in lines if (line.session, line.direction, line.start) in cells]
    offered, bought = sum(line.offered_kw for line in asked), sum(line.accepted_kw for line in asked)
    volume = summed((award.provider, award.quantity_kw) for award in awards)
    total = sum(volume.values())
    herfindahl = sum((100.0 * volume[name] / total) ** 2 for name in sorted(volume)) if total else 0.0
    return (
        _kpi(
            "KPI-03",
            f"offered_over_bought_{scope.value}",
            f"Offered over bought, {scope.value} sessions",
            offered / bought if bought else 0.0,
            "ratio",
            "Power offered, divided by power bought, over quarter-hours and directions in which something was bought.",
        ),
        _kpi(
            "KPI-03",
            f"herfindahl_{scope.value}",
            f"Herfindahl index, {scope.value} sessions",
            herfindahl,
            "points",
            "Sum of the squared percentages of the providers in the energy bought; 10000 is a single provider.",
        ),
    )


def price_of_coordination(netted: Netting, global_awards: Sequence[Award]) -> tuple[Kpi, ...]:
    """What local activations against the system's need cost the system operator."""
    bought = sum(award.quantity_kw for award in global_awards)
    paid = float(sum(award.quantity_kw * award.price_eur_mwh for award in global_awards))
    mean = paid / bought if bought else 0.0
    return (
        _kpi(
            "KPI-03",
            "discordant_energy",
            "Discordant local energy",
            netted.discordant_mwh,
            "MWh",
            "Energy by which local activations moved the interface against what the system operator asks for.",
        ),
        _kpi(
            "KPI-03",
            "price_of_coordination",
            "Price of coordination",
            netted.discordant_mwh * mean,
            "EUR",
            f"Discordant local energy at the system operator's mean price of {mean:.2f} EUR/MWh.",
        ),
    )


def market_efficiency(local_eur: float, global_eur: float, coupled_eur: float) -> tuple[Kpi, ...]:
    """Cost of the two markets in sequence against that of one coupled market (document B, table 11)."""
    sequential = local_eur + global_eur
    share = 100 * coupled_eur / sequential if sequential > 0 else 100.0
    return (
        _kpi(
            "KPI-02",
            "coupled_cost",
            "Cost of a fully coupled market",
            coupled_eur,
            "EUR",
            "Least cost of meeting the grid's and the system's needs in one clearing, at the units' own bids.",
        ),
        _kpi(
            "KPI-02",
            "market_efficiency",
            "Efficiency of the coordinated markets",
            share,
            "%",
            f"Cost of the coupled market over the {sequential:.2f} EUR that the markets cost one after the other.",
        ),
    )


def _kpi(group: str, name: str, title: str, value: float, unit: str, meaning: str) -> Kpi:
    return Kpi(name, group, title, number(value, 6), unit, meaning)
