"""The indicators of a run of a market design, each with its unit in its name; `definitions` says how each is made."""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Direction
from coflex.domain.unit import Level
from coflex.market.coordination.outcome import Run
from coflex.market.coordination.world import World
from coflex.market.design import Buyer
from coflex.reporting.coordination import participation as part
from coflex.reporting.coordination import volumes
from coflex.reporting.coordination.definitions import BY_ID
from coflex.reporting.coordination.money import Costs, costs, hours_of
from coflex.reporting.form import number

DIGITS = 6


@dataclass(frozen=True, slots=True)
class Kpis:
    """Indicators of one design on one case. Money in EUR with cents; None where an indicator has no value: its whole is
    zero, or the run that it is measured by was not given.

    Guarantee: `cost_dso_eur + cost_tso_eur + cost_brp_eur = cost_procurement_eur`, that plus `cost_mending_eur` is
    `cost_total_eur`, and `cost_resource_eur + surplus_eur = cost_total_eur`, all to the cent.
    """

    design: str
    case: str
    ending: str
    rounds: int

    messages_count: int
    message_kinds_count: int
    activated_peak_mw: float
    activated_mean_mw: float
    activated_offers_count: int
    tso_from_distribution_pct: float | None
    messages_dso_pct: float | None
    lines_stopped_by_dso_pct: float | None

    tests_per_qualification_ratio: float | None
    tests_per_service_ratio: float | None
    deliverable_pct: float | None
    limited_mwh: float
    efficiency_pct: float | None
    gain_realised_pct: float | None
    providers_earning_pct: float | None
    income_eur_per_mw: float | None
    surplus_eur: Decimal

    cost_dso_eur: Decimal
    cost_tso_eur: Decimal
    cost_brp_eur: Decimal
    cost_availability_eur: Decimal
    cost_procurement_eur: Decimal
    cost_mending_eur: Decimal
    cost_total_eur: Decimal
    cost_resource_eur: Decimal

    bought_up_distribution_mwh: float
    bought_down_distribution_mwh: float
    bought_up_transmission_mwh: float
    bought_down_transmission_mwh: float
    bought_mwh: float
    bought_reactive_mvarh: float
    held_uncalled_mwh: float
    reserved_mw_h: float
    counter_activated_mwh: float
    concordant_mwh: float
    discordant_mwh: float
    discordant_cost_eur: float

    violations_before_distribution_count: int
    violations_before_transmission_count: int
    violations_left_distribution_count: int
    violations_left_transmission_count: int
    violations_avoided_count: int
    unmended_count: int
    unbalanced_mwh: float
    mended_mwh: float
    curtailment_avoided_mwh: float | None
    losses_mwh: float
    losses_change_mwh: float | None

    offered_mwh: float
    unused_mwh: float
    unused_pct: float | None
    offered_over_needed_ratio: float | None
    providers_offering_count: int
    providers_selling_count: int
    herfindahl_points: float
    coordination_price_eur: Decimal | None
    coordination_price_pct: float | None
    run_s: float | None


def kpis(run: Run, world: World, optimum: Run | None, nothing: Run | None = None, seconds: float | None = None) -> Kpis:
    """Indicators of a run on its case.

    `optimum`: the fully coupled market on the same case, by which efficiency and the price of coordination are
    measured. `nothing`: a run without any market there, for what was avoided. `seconds`: wall time of the run.
    Guarantee: the same for any order of what the run holds. Raises CoflexError where a run is of another case, or where
    shares of an award do not add to one.
    """
    for name, other in (("run", run), ("fully coupled market", optimum), ("run without a market", nothing)):
        if other is not None and other.case != world.id:
            message = f"The {name} is of case {other.case}, not of {world.id}."
            raise CoflexError(message, "Measure a run by runs of its own case.")
    mine = costs(run, world)
    values: dict[str, Any] = {
        **_participation(run),
        **_table_11(run, world, mine),
        **_money(mine),
        **_volumes(run, world),
        **_interface(run, world),
        **_grid(run),
        **_avoided(run, nothing),
        **_liquidity(run, world),
        **_measured(mine, *(None if other is None else costs(other, world) for other in (optimum, nothing))),
        "run_s": seconds,
    }
    tidy: dict[str, Any] = {
        key: number(value, DIGITS) if isinstance(value, float) else value for key, value in values.items()
    }
    return Kpis(run.design, run.case, run.ending, run.rounds, **tidy)


def as_json(found: Kpis) -> dict[str, Any]:
    """The indicators as values of JSON: money as text with two decimals, as in the report of a day; None as null."""
    values = ((one.name, getattr(found, one.name)) for one in fields(found))
    return {name: f"{value:.2f}" if isinstance(value, Decimal) else value for name, value in values}


def indicators(found: Kpis) -> dict[str, Decimal | float | int | None]:
    """Values by id, in the order of the definitions."""
    return {key: getattr(found, key) for key in BY_ID}


# ---------------------------------------------------------------- KPI-01


def _participation(run: Run) -> dict[str, Any]:
    awards = volumes.active(run)
    local = [one for one in awards if volumes.level_of(one) is Level.DISTRIBUTION]
    power = [kw for kw in volumes.power_kw(local).values() if kw]
    return {
        "messages_count": sum(one.count for one in run.messages),
        "message_kinds_count": len({(x.sender, x.receiver, x.information) for x in run.messages if x.count}),
        "activated_peak_mw": max(power, default=0) / 1000.0,
        "activated_mean_mw": sum(power) / len(power) / 1000.0 if power else 0.0,
        "activated_offers_count": len({one.award.offer for one in local if one.award.quantity_kw}),
        "tso_from_distribution_pct": part.percent(
            float(volumes.paid_by(local, Buyer.TSO)), float(volumes.paid_by(awards, Buyer.TSO))
        ),
        "messages_dso_pct": part.dso_messages_pct(run.messages),
        "lines_stopped_by_dso_pct": part.stopped_by_dso_pct(run),
    }


# ---------------------------------------------------------------- KPI-02


def _table_11(run: Run, world: World, mine: Costs) -> dict[str, Any]:
    tests, qualified = part.static_tests(world)
    registered = {one.provider for one in world.sellers}
    earned = part.income(run, world)
    power = sum(max(one.up_kw, one.down_kw) for one in world.sellers) / 1000.0
    return {
        "tests_per_qualification_ratio": part.ratio(tests, qualified),
        "tests_per_service_ratio": part.ratio(tests, part.services_given(run, world)),
        "deliverable_pct": part.deliverable_pct(run),
        "limited_mwh": sum(sorted(held.limited_kwh for held in run.held)) / 1000.0,
        "providers_earning_pct": part.percent(sum(earned.get(name, 0) > 0 for name in registered), len(registered)),
        "income_eur_per_mw": part.ratio(float(mine.procurement), power),
        "surplus_eur": mine.total - mine.resource,
    }


def _measured(mine: Costs, optimum: Costs | None, nothing: Costs | None) -> dict[str, Any]:
    """Against the fully coupled market, and between it and no market."""
    price = share = efficiency = gain = None
    if optimum is not None:
        price = mine.total - optimum.total
        share = part.percent(float(price), float(optimum.total)) if optimum.total > 0 else None
        if mine.resource > 0 and optimum.resource > 0:
            efficiency = part.percent(float(optimum.resource), float(mine.resource))
        if nothing is not None and nothing.resource > optimum.resource:
            best = nothing.resource - optimum.resource
            gain = part.percent(float(nothing.resource - mine.resource), float(best))
    return {
        "coordination_price_eur": price,
        "coordination_price_pct": share,
        "efficiency_pct": efficiency,
        "gain_realised_pct": gain,
    }


# ---------------------------------------------------------------- KPI-03


def _money(mine: Costs) -> dict[str, Any]:
    return {
        "cost_dso_eur": mine.of(Buyer.DSO),
        "cost_tso_eur": mine.of(Buyer.TSO),
        "cost_brp_eur": mine.of(Buyer.BRP),
        "cost_availability_eur": sum(mine.availability, Decimal(0)),
        "cost_procurement_eur": mine.procurement,
        "cost_mending_eur": mine.mending,
        "cost_total_eur": mine.total,
        "cost_resource_eur": mine.resource,
    }


def _volumes(run: Run, world: World) -> dict[str, Any]:
    awards = volumes.active(run)
    by_kind = volumes.bought_kw(awards)
    named = {
        f"bought_{direction.value}_{level.value}_mwh": volumes.mwh(by_kind[level, direction], world)
        for level in Level
        for direction in Direction
    }
    moved = sum(one.award.quantity_kw for one in run.bought if one.reactive)
    ready = sum(one.quantity_kw for one in run.reserved)
    return named | {
        "bought_mwh": volumes.mwh(sum(by_kind.values()), world),
        "bought_reactive_mvarh": volumes.mwh(moved, world),
        "held_uncalled_mwh": volumes.mwh(volumes.spare_kw(run), world),
        "reserved_mw_h": float(ready * hours_of(world.axis)) / 1000.0,
    }


def _interface(run: Run, world: World) -> dict[str, Any]:
    awards = volumes.active(run)
    netted = volumes.netting(awards, world)
    return {
        "counter_activated_mwh": volumes.mwh(volumes.counter_kw(awards), world),
        "concordant_mwh": netted.concordant_mwh,
        "discordant_mwh": netted.discordant_mwh,
        "discordant_cost_eur": volumes.discordant_eur(netted, awards, world),
    }


def _grid(run: Run) -> dict[str, Any]:
    final = run.final
    before = final.before_distribution + final.before_transmission
    left = final.violations_distribution + final.violations_transmission
    return {
        "violations_before_distribution_count": final.before_distribution,
        "violations_before_transmission_count": final.before_transmission,
        "violations_left_distribution_count": final.violations_distribution,
        "violations_left_transmission_count": final.violations_transmission,
        "violations_avoided_count": before - left,
        "unmended_count": final.unmended,
        "unbalanced_mwh": final.unbalanced_kwh / 1000.0,
        "mended_mwh": final.mended_kwh / 1000.0,
        "losses_mwh": final.losses_kwh / 1000.0,
    }


def _avoided(run: Run, nothing: Run | None) -> dict[str, Any]:
    if nothing is None:
        return {"curtailment_avoided_mwh": None, "losses_change_mwh": None}
    return {
        "curtailment_avoided_mwh": (nothing.final.mended_kwh - run.final.mended_kwh) / 1000.0,
        "losses_change_mwh": (run.final.losses_kwh - nothing.final.losses_kwh) / 1000.0,
    }


def _liquidity(run: Run, world: World) -> dict[str, Any]:
    awards = volumes.active(run)
    found = volumes.offered(awards, world)
    offered = volumes.mwh(found.offered_kw, world)
    needed = volumes.mwh(sum(one.award.quantity_kw for one in awards), world) + run.final.mended_kwh / 1000.0
    sold = {one.award.provider for one in run.bought} | {one.provider for one in run.reserved}
    capacity = (one.offer.provider for offers in world.capacity.values() for one in offers)
    return {
        "offered_mwh": offered,
        "unused_mwh": volumes.mwh(found.unused_kw, world),
        "unused_pct": part.percent(found.unused_kw, found.offered_kw),
        "offered_over_needed_ratio": part.ratio(offered, needed),
        "providers_offering_count": len({one.provider for one in world.offers} | set(capacity)),
        "providers_selling_count": len(sold),
        "herfindahl_points": part.herfindahl(awards),
    }
