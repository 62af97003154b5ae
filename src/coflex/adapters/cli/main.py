"""`coflex`: every verb of the day as a command. Answers go to stdout, progress and faults to stderr.

Exit codes: 0 done, 1 refused or not ready, 2 a command that cannot be read, 70 a fault of the program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from coflex import __version__
from coflex.adapters.cli import (
    anchor,
    baseline,
    city,
    compare,
    design,
    device,
    doctor,
    grid,
    ingest,
    screen,
    serve,
    settlement,
    store,
    verify,
    witness,
)
from coflex.adapters.cli.command import Json, application, day_of
from coflex.adapters.cli.world import Load, Platform

OUT = Path("out")

Case = Annotated[Path, typer.Argument(metavar="CASE", help="Folder of the case.")]
Offers = Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="TABLE", help="CSV table of offers.")]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where days are kept, each under its case's name.")]
All = Annotated[bool, typer.Option("--all", help="Go on to the last session of the day.")]
Replace = Annotated[bool, typer.Option("--replace", help="Put this in the place of what is there already.")]

coflex = typer.Typer(
    name="coflex",
    help="Flexibility registered, proved, sold once, delivered, measured and paid: a delivery day, step by step.",
    epilog="A day: case make, register, qualify, then plan, offer and clear each session, activate, measure, settle, "
    "report. Or all at once: coflex run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cases = typer.Typer(help="Cases: a grid, its year, and who is connected to it.", no_args_is_help=True)
coflex.add_typer(cases, name="case", short_help="Make a case.")
coflex.add_typer(grid.grids, name="grid", short_help="Study a grid by itself.")
coflex.add_typer(baseline.baselines, name="baseline", short_help="Compute and check baselines.")
coflex.add_typer(design.designs, name="design", short_help="Check and draw market designs.")
coflex.command(short_help="Compare market designs on one case.")(compare.compare)
coflex.command(short_help="Serve the platform to several companies.")(serve.serve)
coflex.add_typer(city.cities, name="city", short_help="Settle a whole city at once.")
coflex.command(short_help="Take signed measurements and certify them.")(ingest.ingest)
coflex.add_typer(device.devices, name="device", short_help="Run light nodes and fleets of them.")
coflex.command(short_help="Look whether machine and store are in order.")(doctor.doctor)
coflex.add_typer(store.stores, name="store", short_help="Copy, upgrade and prove the service's store.")
coflex.command(short_help="Check a certificate offline.")(verify.verify)
coflex.add_typer(settlement.settlements, name="settlement", short_help="Settle, invoice, verify and dispute.")
coflex.add_typer(witness.witnesses, name="witness", short_help="Cosign the checkpoints of logs.")
coflex.add_typer(anchor.anchors, name="anchor", short_help="Anchor checkpoints and terms on a chain.")


def main(load: Load) -> None:
    """Read the command and run it; `load` gives the application when a command first needs it."""
    coflex(obj=load, prog_name="coflex")


@coflex.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="Show where a fault comes from.")] = False) -> None:
    """The options of all commands; `_world` reads them."""


def _show(title: str, answer: Any, as_json: bool) -> None:
    if as_json:
        screen.put_json(answer)
    else:
        screen.put_table(title, screen.facts(answer))


# ---------------------------------------------------------------- the case


@cases.command("make", short_help="Draw a case and write its folder.")
def make(
    ctx: typer.Context,
    grid: Annotated[str, typer.Option(help="SimBench code of the grid.")] = "1-MV-urban--0-sw",
    day: Annotated[date, typer.Option(parser=day_of, metavar="DATE", help="Delivery day, in 2016.")] = date(2016, 7, 5),
    seed: Annotated[int, typer.Option(help="Where all drawing starts; the same seed gives the same case.")] = 2,
    units: Annotated[int, typer.Option(min=1, help="How many controllable units.")] = 320,
    providers: Annotated[int, typer.Option(min=1, help="How many providers share them.")] = 14,
    load_scale: Annotated[float, typer.Option(min=0, help="Factor on the grid's loads.")] = 8.0,
    pv_scale: Annotated[float, typer.Option(min=0, help="Factor on the grid's photovoltaics.")] = 36.0,
    design: Annotated[str, typer.Option(help="Market design that the day follows.")] = "beflexible_six",
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder to write; cases/GRID-DAY if not given.")
    ] = None,
    replace: Replace = False,
    as_json: Json = False,
) -> None:
    """Draw a case on a SimBench grid and write it as a folder of tables: what comes before the day.

    Example: coflex case make --grid 1-MV-urban--0-sw --day 2016-07-05 --units 320
    """
    folder = out or Path("cases") / f"{grid}-{day.isoformat()}"
    with application(ctx, as_json) as world:
        order = world.CaseOrder(grid, day, seed, units, providers, load_scale, pv_scale, design)
        with screen.progress() as progress:
            progress("draw the case; a grid that was never read before takes a while")
            made = world.make_case(order, folder, replace)
        _show("case make", made, as_json)


# ---------------------------------------------------------------- the verbs


@coflex.command(short_help="Fill the register; the day begins.")
def register(ctx: typer.Context, case: Case, out: Out = OUT, replace: Replace = False, as_json: Json = False) -> None:
    """Fill the register with the case's parties, connection points, units, groups and products: the day begins.

    Example: coflex register cases/mine
    """
    with application(ctx, as_json) as world:
        with world.begin_day(case, out, replace) as platform:
            answer = platform.register()
        _show("register", answer, as_json)


@coflex.command(short_help="Give every unit its static traffic light.")
def qualify(ctx: typer.Context, case: Case, out: Out = OUT, as_json: Json = False) -> None:
    """Give every unit its static traffic light, with the limit that proves it: after register.

    Example: coflex qualify cases/mine
    """
    _act(ctx, "qualify", lambda platform: platform.qualify(), case, out, as_json)


@coflex.command(short_help="Plan the next session and open it.")
def plan(ctx: typer.Context, case: Case, out: Out = OUT, every: All = False, as_json: Json = False) -> None:
    """Look ahead, say what the next session needs, and open it: after qualify, and after each clear.

    With --all, the sessions in between are cleared, until the last one is open.

    Example: coflex plan cases/mine
    """
    if every:
        _sessions(ctx, case, out, as_json, clear_last=False)
    else:
        _act(ctx, "plan", lambda platform: platform.plan(), case, out, as_json)


@coflex.command(short_help="Send offers to the open session.")
def offer(ctx: typer.Context, case: Case, table: Offers, out: Out = OUT, as_json: Json = False) -> None:
    """Send a table of offers to the open session, which takes all of it or nothing: after plan, before clear.

    Example: coflex offer cases/mine offers.csv
    """
    _act(ctx, "offer", lambda platform: platform.offer(table), case, out, as_json)


@coflex.command(short_help="Close the gate and clear the session.")
def clear(ctx: typer.Context, case: Case, out: Out = OUT, every: All = False, as_json: Json = False) -> None:
    """Let the simulated providers offer, close the gate and choose the cheapest offers: after each plan.

    With --all, the sessions that follow are planned and cleared too.

    Example: coflex clear cases/mine
    """
    if every:
        _sessions(ctx, case, out, as_json, clear_last=True)
    else:
        _act(ctx, "clear", lambda platform: platform.clear(), case, out, as_json)


@coflex.command(short_help="Send the set points.")
def activate(ctx: typer.Context, case: Case, out: Out = OUT, as_json: Json = False) -> None:
    """Send every definitively bought unit its set points, within what the grid bears: after the last clear.

    Example: coflex activate cases/mine
    """
    _act(ctx, "activate", lambda platform: platform.activate(), case, out, as_json)


@coflex.command(short_help="Read what flowed, check orders and grid.")
def measure(ctx: typer.Context, case: Case, out: Out = OUT, as_json: Json = False) -> None:
    """Read what really flowed and check the grid and every order against it: after activate.

    Example: coflex measure cases/mine
    """
    _act(ctx, "measure", lambda platform: platform.measure(), case, out, as_json)


@coflex.command(short_help="Turn deliveries into money.")
def settle(ctx: typer.Context, case: Case, out: Out = OUT, as_json: Json = False) -> None:
    """Turn deliveries into money, to the cent and in balance: after measure.

    Example: coflex settle cases/mine
    """
    _act(ctx, "settle", lambda platform: platform.settle(), case, out, as_json)


@coflex.command(short_help="Write the day's page and tables.")
def report(ctx: typer.Context, case: Case, out: Out = OUT, as_json: Json = False) -> None:
    """Write the day's page, tables and indicators next to its store: after settle, as often as you like.

    Example: coflex report cases/mine
    """
    _act(ctx, "report", lambda platform: platform.report(), case, out, as_json)


def _act(ctx: typer.Context, name: str, act: Callable[[Platform], Any], case: Path, out: Path, as_json: bool) -> None:
    """One thing done with an open day, and its answer shown."""
    with application(ctx, as_json) as world:
        with world.open_day(case, out) as platform:
            answer = act(platform)
        _show(name, answer, as_json)


def _sessions(ctx: typer.Context, case: Path, out: Path, as_json: bool, clear_last: bool) -> None:
    """All that is left of the sessions, and an answer a step."""
    with application(ctx, as_json) as world:
        with world.open_day(case, out) as platform, screen.progress() as progress:
            answers = platform.sessions(progress, clear_last)
        if as_json:
            screen.put_json({"sessions": [asdict(answer) for answer in answers]})
        else:
            for answer in answers:
                screen.put_line(", ".join(f"{name} {value}" for name, value in screen.facts(answer)))


# ---------------------------------------------------------------- the whole day


@coflex.command(short_help="Run the whole day anew.")
def run(ctx: typer.Context, case: Case, out: Out = OUT, as_json: Json = False) -> None:
    """Run the whole day anew, from register to report, in the place of an earlier run.

    Example: coflex run cases/mine
    """
    with application(ctx, as_json) as world:
        with world.begin_day(case, out, True) as platform, screen.progress() as progress:
            day = platform.run(progress)
        if as_json:
            screen.put_json(day)
        else:
            screen.put_summary(day)


@coflex.command(short_help="Say which coflex this is.")
def version(as_json: Json = False) -> None:
    """Say which coflex this is: any time.

    Example: coflex version
    """
    if as_json:
        screen.put_json({"version": __version__})
    else:
        screen.put_line(f"coflex {__version__}")
