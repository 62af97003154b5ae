"""`coflex grid ...`: studies of a grid by itself, in any format that coflex reads."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer

from coflex.adapters.cli import screen
from coflex.adapters.cli.command import Json, application, day_of

File = Annotated[
    str,
    typer.Argument(
        metavar="GRID",
        help="A MATPOWER, pandapower, power-grid-model or CGMES file, a folder of tables, or a SimBench code.",
    ),
]
OfDay = Annotated[
    date | None,
    typer.Option("--day", parser=day_of, metavar="DATE", help="All quarter-hours of a day of the grid's profiles."),
]
Rows = Annotated[int, typer.Option("--rows", min=0, help="Longest table shown; --json always holds all of it.")]

grids = typer.Typer(help="Grids by themselves: states, limits, lights, areas and prices.", no_args_is_help=True)


Reach = Annotated[
    bool, typer.Option("--reactive-limits", help="Machines let their voltage go at the limits of their reactive power.")
]


def _study(
    ctx: typer.Context,
    name: str,
    file: str,
    day: date | None,
    as_json: bool,
    rows: int,
    act: Callable[[Any], Any],
    within_reach: bool = False,
) -> None:
    """One question to a grid, and its answer shown."""
    with application(ctx, as_json) as here:
        answer = act(here.study(file, day, within_reach))
        if as_json:
            screen.put_json(answer)
        else:
            screen.put_answer(f"grid {name}", answer, rows)


@grids.command(short_help="Voltages, loadings and losses.")
def powerflow(
    ctx: typer.Context,
    grid: File,
    day: OfDay = None,
    three_phase: Annotated[bool, typer.Option("--three-phase", help="Each phase by itself, for low voltage.")] = False,
    reactive_limits: Reach = False,
    rows: Rows = 10,
    as_json: Json = False,
) -> None:
    """Solve the AC power flow of a grid: the powers as the file gives them, or a whole day of its profiles.

    Example: coflex grid powerflow case33bw.m
    """
    if three_phase and reactive_limits:
        raise typer.BadParameter("Voltages are not held by phase; ask for --three-phase or --reactive-limits.")
    if three_phase:
        _study(ctx, "powerflow", grid, day, as_json, rows, lambda study: study.three_phase_flow())
    else:
        _study(ctx, "powerflow", grid, day, as_json, rows, lambda study: study.power_flow(), reactive_limits)


@grids.command(short_help="Which limits are broken, where and when.")
def assess(
    ctx: typer.Context,
    grid: File,
    day: OfDay = None,
    reactive_limits: Reach = False,
    rows: Rows = 10,
    as_json: Json = False,
) -> None:
    """Name every voltage and loading beyond its limit, and what in the data should not be trusted.

    Example: coflex grid assess 1-MV-urban--0-sw --day 2016-07-05
    """
    _study(ctx, "assess", grid, day, as_json, rows, lambda study: study.assessment(), reactive_limits)


@grids.command(short_help="The most likely state, from sensors.")
def estimate(
    ctx: typer.Context,
    grid: File,
    sensors: Annotated[
        Path, typer.Option("--sensors", exists=True, dir_okay=False, help="CSV table of what sensors read.")
    ],
    rows: Rows = 10,
    as_json: Json = False,
) -> None:
    """Estimate the state from readings of voltage, power and current, with the file's powers as a forecast; sensors
    that cannot be right are named. Columns: sensor, kind (vm_pu, p_mw, q_mvar, i_a), element, end, value, sigma.

    Example: coflex grid estimate mygrid.json --sensors readings.csv
    """
    _study(ctx, "estimate", grid, None, as_json, rows, lambda study: study.estimation(sensors))


@grids.command(short_help="What may be called, whatever the split.")
def light(
    ctx: typer.Context,
    grid: File,
    day: OfDay = None,
    perimeters: Annotated[
        int | None, typer.Option("--perimeters", min=1, help="Draw at most so many anew, where they let most through.")
    ] = None,
    rows: Rows = 10,
    as_json: Json = False,
) -> None:
    """The traffic light of every perimeter and direction: what its elements may do together, for every split.

    Example: coflex grid light 1-MV-urban--0-sw --day 2016-07-05
    """
    _study(ctx, "light", grid, day, as_json, rows, lambda study: study.lights(perimeters))


def _price(given: str | float) -> float:
    price = float(given)
    if not isfinite(price):
        raise ValueError("a price is a finite number")
    return price


Price = Annotated[
    float | None,
    typer.Option("--price", parser=_price, metavar="EUR/MWH", help="Price of energy from the grid above."),
]


@grids.command(short_help="What the grid can exchange with the grid above.")
def area(
    ctx: typer.Context,
    grid: File,
    day: OfDay = None,
    directions: Annotated[int, typer.Option(min=4, help="In how many directions to look for corners.")] = 16,
    price: Price = None,
    rows: Rows = 10,
    as_json: Json = False,
) -> None:
    """The area of active and reactive power that the grid can take from the grid above within all its limits, and
    what each corner costs.

    Example: coflex grid area mygrid.json --directions 16
    """
    _study(ctx, "area", grid, day, as_json, rows, lambda study: study.area(directions, price))


@grids.command(short_help="Nodal prices and what they are made of.")
def dlmp(ctx: typer.Context, grid: File, price: Price = None, rows: Rows = 10, as_json: Json = False) -> None:
    """Prices of active and reactive power at every bus under the full power flow, split into energy, loss, congestion
    and voltage: what the grid's dispatch table prices is called at least cost.

    Example: coflex grid dlmp case33bw.m --price 50
    """
    _study(ctx, "dlmp", grid, None, as_json, rows, lambda study: study.prices(price))


class FlowModel(StrEnum):
    """Real power alone, or the full power flow."""

    DC = "dc"
    AC = "ac"


@grids.command(short_help="The cheapest dispatch, and prices by bus.")
def opf(
    ctx: typer.Context,
    grid: File,
    model: Annotated[FlowModel, typer.Option(help="dc: real power without losses; ac: all of it.")] = FlowModel.DC,
    rows: Rows = 10,
    as_json: Json = False,
) -> None:
    """The optimal power flow of the grid's generators and costs. Where demand cannot be met, what is left uncovered
    and the limits in the way.

    Example: coflex grid opf case5_pjm.m
    """
    _study(ctx, "opf", grid, None, as_json, rows, lambda study: study.optimal_power_flow(model.value))
