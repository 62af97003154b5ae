"""What each indicator of a design's run means: one table, from which the terminal, the page and the manual are written.

Words used in the formulas: an award's *energy* is its kW times the hours of a quarter-hour; *payers* are DSO, TSO and
balance responsible parties by their shares.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Better(StrEnum):
    """Which way is better. `neither`: it describes, and does not judge."""

    LOWER = "lower"
    HIGHER = "higher"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class Definition:
    """An indicator. `id`: the field of `Kpis` that holds it, its unit at the end. `group`: the requirement row.
    `source`: document tag and section, or `own` where no document gives a formula."""

    id: str
    group: str
    name: str
    unit: str
    better: Better
    formula: str
    source: str


TITLES = {
    "KPI-01": "Messages, demand response and the DSO's part",
    "KPI-02": "Prequalification, local limits, efficiency and staying on",
    "KPI-03": "Cost, volumes, limits of the grids and liquidity",
}
# Ends of ids, each with the unit that it stands for.
UNITS = {
    "eur": "EUR",
    "eur_per_mw": "EUR/MW",
    "mwh": "MWh",
    "mvarh": "Mvarh",
    "mw_h": "MW h",
    "mw": "MW",
    "pct": "%",
    "ratio": "ratio",
    "count": "number",
    "points": "points",
    "s": "s",
}
LOW, HIGH, NEITHER = Better.LOWER, Better.HIGHER, Better.NEITHER
EXACT = "exact until the end, then rounded once with all parts of the total, the largest remainders first"


def _table(group: str, *rows: tuple[str, str, Better, str, str]) -> Iterator[Definition]:
    for key, name, better, formula, source in rows:
        written = formula.replace(" * ", " \u00d7 ").replace(" - ", " \u2212 ")
        yield Definition(key, group, name, unit_of(key), better, written, source)


def unit_of(key: str) -> str:
    """The unit that the end of an id stands for, the longest that fits. Raises KeyError where none does."""
    ends = [end for end in UNITS if key.endswith(f"_{end}")]
    return UNITS[max(ends, key=len)] if ends else UNITS[key]


_COST = (
    (
        "cost_dso_eur",
        "Cost to the DSO",
        LOW,
        f"Sum over awards of share of the DSO * energy * paid price, and its availability payments; {EXACT}.",
        "F; B 3",
    ),
    ("cost_tso_eur", "Cost to the TSO", LOW, "As the cost to the DSO, with the share of the TSO.", "F; B 3"),
    (
        "cost_brp_eur",
        "Cost to balance responsible parties",
        LOW,
        "As the cost to the DSO, with the share of the balance responsible parties.",
        "F; B 3",
    ),
    (
        "cost_availability_eur",
        "Availability payments, in the costs above",
        LOW,
        "Sum over reservations of quantity * hours * availability price, each to its buyers in equal parts.",
        "F; B 3",
    ),
    (
        "cost_procurement_eur",
        "Cost of procurement",
        LOW,
        "Cost to the DSO + cost to the TSO + cost to balance responsible parties, equal to the cent.",
        "F; B 3",
    ),
    (
        "cost_mending_eur",
        "Cost of mending",
        LOW,
        "Energy of the changes ordered without a market, after all sessions, until both networks are in their limits "
        "and the system is in balance * the emergency price.",
        "own",
    ),
    (
        "cost_total_eur",
        "Total cost of the system",
        LOW,
        "Cost of procurement + cost of mending, equal to the cent.",
        "own",
    ),
    (
        "cost_resource_eur",
        "Total cost at bids",
        LOW,
        "Sum over awards of energy * bid price + availability payments + cost of mending: what the flexibility "
        "costs whoever gives it, whatever the pricing rule passes on.",
        "own",
    ),
)
_VOLUME = (
    (
        "bought_up_distribution_mwh",
        "Bought up in distribution",
        NEITHER,
        "Energy of awards of active energy at distribution grids, up.",
        "own",
    ),
    ("bought_down_distribution_mwh", "Bought down in distribution", NEITHER, "The same, down.", "own"),
    ("bought_up_transmission_mwh", "Bought up in transmission", NEITHER, "The same at transmission, up.", "own"),
    ("bought_down_transmission_mwh", "Bought down in transmission", NEITHER, "The same at transmission, down.", "own"),
    ("bought_mwh", "Bought energy", NEITHER, "Sum of the four volumes, both directions unsigned.", "own"),
    (
        "bought_reactive_mvarh",
        "Bought reactive energy",
        NEITHER,
        "Energy of awards of reactive energy, unsigned.",
        "own",
    ),
    (
        "held_uncalled_mwh",
        "Selected and held, not called",
        NEITHER,
        "Energy of lines that sessions of energy selected beyond the request and held at no price (reservations "
        "without availability price), less what awards called of them.",
        "own",
    ),
    (
        "reserved_mw_h",
        "Capacity held",
        NEITHER,
        "Sum over reservations of quantity * hours; inertia in MW s * h.",
        "own",
    ),
    (
        "counter_activated_mwh",
        "Counter-activations",
        LOW,
        "Per quarter-hour, with U_b and D_b bought up and down by buyer b: the most of one buyer's up energy that can "
        "be paired with another's down energy, min(ΣU, ΣD, min over b of ΣU + ΣD - U_b - D_b). A session in which any "
        "award is shared or bought together is one buyer.",
        "B 6.3; own formula",
    ),
    (
        "concordant_mwh",
        "Concordant volume at the interface",
        NEITHER,
        "Per quarter-hour, with a = the system's need, m = what was bought for the DSO in distribution, both up "
        "positive: min(|a|, |m|) where both have one sign, else 0.",
        "B figure 15",
    ),
    (
        "discordant_mwh",
        "Discordant volume at the interface",
        LOW,
        "|m| less the concordant volume: what raises the TSO's purchase.",
        "B figure 15",
    ),
    (
        "discordant_cost_eur",
        "Cost of the discordant volume",
        LOW,
        "Per quarter-hour: the part that the TSO bought back, in the direction against m, * its mean paid price there, "
        "and the rest * the emergency price. It says where cost comes from, and is part of the total.",
        "B figure 15; own formula",
    ),
)
_GRID = (
    (
        "violations_before_distribution_count",
        "Violations without a market, distribution",
        NEITHER,
        "Elements * quarter-hours beyond a limit by AC power flow of the day with nothing bought.",
        "F; B 3",
    ),
    (
        "violations_before_transmission_count",
        "Violations without a market, transmission",
        NEITHER,
        "The same.",
        "F; B 3",
    ),
    (
        "violations_left_distribution_count",
        "Violations left, distribution",
        LOW,
        "The same with all that the design activates, before mending.",
        "F; B 3",
    ),
    ("violations_left_transmission_count", "Violations left, transmission", LOW, "The same.", "F; B 3"),
    (
        "violations_avoided_count",
        "Violations avoided",
        HIGH,
        "Violations without a market less violations left, both networks; below zero where a design breaks more.",
        "F; B 3",
    ),
    ("unmended_count", "Violations that mending leaves", LOW, "Limits beyond reach of any ordered change.", "own"),
    ("unbalanced_mwh", "Unbalanced energy", LOW, "Energy that the system still lacks after all sessions.", "own"),
    ("mended_mwh", "Mended energy", LOW, "Energy of the changes ordered without a market after all sessions.", "own"),
    (
        "curtailment_avoided_mwh",
        "Curtailment avoided",
        HIGH,
        "Mended energy of the day without any market less mended energy of this run.",
        "F; own formula",
    ),
    ("losses_mwh", "Losses", LOW, "Losses of both networks over the horizon, by AC power flow.", "F"),
    ("losses_change_mwh", "Change of losses", LOW, "Losses less those of the day without any market.", "F"),
)
_LIQUIDITY = (
    (
        "offered_mwh",
        "Offered energy",
        HIGH,
        "Per unit, direction and quarter-hour the largest active offer of the case, as a unit is sold once whatever "
        "the number of its offers; a group's offer counts for its units in proportion to their power.",
        "own",
    ),
    (
        "unused_mwh",
        "Unused energy",
        NEITHER,
        "Per unit, direction and quarter-hour: offered less bought, not below zero.",
        "own",
    ),
    ("unused_pct", "Unused share", NEITHER, "100 * unused energy / offered energy.", "own"),
    (
        "offered_over_needed_ratio",
        "Offered over needed",
        HIGH,
        "Offered energy / (bought + mended energy): how often the offers cover what was needed in the end.",
        "F; own formula",
    ),
    ("providers_offering_count", "Providers that offer", HIGH, "Providers with an offer in the case.", "F"),
    ("providers_selling_count", "Providers that sell", HIGH, "Providers with an award or a reservation.", "F"),
    (
        "herfindahl_points",
        "Herfindahl index",
        LOW,
        "Sum over providers of (percent of the bought energy)²; 10000 is a single provider, 0 no sale.",
        "own",
    ),
    (
        "coordination_price_eur",
        "Price of coordination",
        LOW,
        "Total cost of the system less that of the fully coupled market: what is paid for deciding apart.",
        "F 3.1; B 3; own formula",
    ),
    (
        "coordination_price_pct",
        "Price of coordination, share",
        LOW,
        "100 * price of coordination / total cost of the fully coupled market, where that is above zero.",
        "own",
    ),
    ("run_s", "Time to compute", LOW, "Wall time of the run, where it was measured.", "own"),
)
_PARTICIPATION = (
    ("messages_count", "Messages exchanged", LOW, "All messages of all sessions.", "T, KPI 1"),
    (
        "message_kinds_count",
        "Kinds of message",
        LOW,
        "Different (sender, receiver, information) that are to be agreed on and built.",
        "T, KPI 1; own formula",
    ),
    (
        "activated_peak_mw",
        "Activated demand response, peak",
        NEITHER,
        "Highest quarter-hour of the power bought at distribution grids, both directions added.",
        "T, KPI 2",
    ),
    (
        "activated_mean_mw",
        "Activated demand response, mean",
        NEITHER,
        "Mean of the same over the quarter-hours in which any is bought.",
        "T, KPI 2",
    ),
    (
        "activated_offers_count",
        "Activated offers",
        NEITHER,
        "Different offers at distribution grids with an award.",
        "T, KPI 2",
    ),
    (
        "tso_from_distribution_pct",
        "The TSO's energy from distribution",
        HIGH,
        "100 * energy bought for the TSO at distribution grids / all energy bought for the TSO.",
        "T, KPI 3",
    ),
    (
        "messages_dso_pct",
        "Messages that the DSO sends or receives",
        NEITHER,
        "100 * messages with the DSO as sender or receiver / all messages.",
        "T, KPI 3",
    ),
    (
        "lines_stopped_by_dso_pct",
        "Lines that the DSO limits",
        NEITHER,
        "In quarter-hours that a session decides for good and in which something is asked for: 100 * lines that a "
        "yellow or red light limited / all lines of the list, summed over sessions.",
        "T, KPI 3",
    ),
)
_TABLE_11 = (
    (
        "tests_per_qualification_ratio",
        "Static tests for each qualification",
        LOW,
        "Static tests (one for each direction of a unit at a distribution grid) / services that these units are "
        "qualified for, summed over units.",
        "B table 11, prequalification",
    ),
    (
        "tests_per_service_ratio",
        "Static tests for each service given",
        LOW,
        "The same tests / pairs (unit, payer) of these units with an award or reservation of the run.",
        "B table 11, prequalification",
    ),
    (
        "deliverable_pct",
        "Deliverable for global services",
        HIGH,
        "In sessions in which the TSO pays, in quarter-hours that they decide for good and in which something is asked "
        "for: 100 * (1 - energy refused / energy offered) of units at distribution grids. Refused is what is worth its "
        "price and kept out by a light, a filter, a walk over the list or a grid's limit.",
        "B table 11, local constraints",
    ),
    (
        "limited_mwh",
        "Limited by lights, filters and walks",
        LOW,
        "Energy taken off offers, summed over all rounds; an hour that several rounds decide counts in each.",
        "B table 11, local constraints",
    ),
    (
        "efficiency_pct",
        "Efficiency of the coordinated market",
        HIGH,
        "100 * total cost at bids of the fully coupled market / total cost at bids of this design, where both are "
        "above zero.",
        "B table 11, efficiency; own formula",
    ),
    (
        "gain_realised_pct",
        "Gain realised",
        HIGH,
        "100 * (cost without any market less cost of this design) / (cost without any market less cost of the fully "
        "coupled market), total costs at bids: 0 is no better than no market, 100 as good as one for all.",
        "B table 11, efficiency; own formula",
    ),
    (
        "providers_earning_pct",
        "Providers with income",
        HIGH,
        "100 * providers with income above zero / providers of registered units.",
        "B table 11, continuance",
    ),
    (
        "income_eur_per_mw",
        "Income for each registered MW",
        HIGH,
        "Cost of procurement / sum over units of the larger of the two powers of the static light.",
        "B table 11, continuance",
    ),
    (
        "surplus_eur",
        "Providers' surplus",
        HIGH,
        "Cost of procurement less the same at bids: what pricing gives providers beyond what they asked.",
        "B table 11, continuance",
    ),
)
DEFINITIONS: tuple[Definition, ...] = (
    *_table("KPI-01", *_PARTICIPATION),
    *_table("KPI-02", *_TABLE_11),
    *_table("KPI-03", *_COST, *_VOLUME, *_GRID, *_LIQUIDITY),
)
BY_ID = {one.id: one for one in DEFINITIONS}


def manual() -> str:
    """The page of the manual: every indicator with its unit, its formula and its source, in Markdown."""
    lines = [
        "# Key performance indicators of a design",
        "",
        "Every market design that runs on a case is measured by the same indicators. A run of a fully coupled market "
        "on the case is the measure of efficiency, a run without any market that of what was avoided; an indicator "
        "that lacks the run it is measured by has no value. This page is written from "
        "`coflex.reporting.coordination.definitions`.",
        "",
        "An award's *energy* is its power times the hours of a quarter-hour. *Payers* are the DSO, the TSO and "
        "balance responsible parties, each by its share of an award. Ids end in the unit. Sources name a document and "
        "its section; `own` where no document gives a formula.",
    ]
    for group, title in TITLES.items():
        lines += ["", f"## {title} ({group})", "", "| id | indicator | unit | better | formula | source |"]
        lines.append("| --- | --- | --- | --- | --- | --- |")
        lines += [
            f"| `{one.id}` | {one.name} | {one.unit} | {one.better} | {one.formula.replace('|', chr(92) + '|')} "
            f"| {one.source} |"
            for one in DEFINITIONS
            if one.group == group
        ]
    return "\n".join(lines) + "\n"
