"""`coflex device`: a light node at a unit, and fleets of simulated ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Protocol, cast

import typer

from coflex.adapters.cli import screen
from coflex.adapters.cli.command import Json, application
from coflex.adapters.cli.world import World

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the device's key and buffer.")]

devices = typer.Typer(help="Light nodes: measure, sign, follow set points.", no_args_is_help=True)


class Devices(Protocol):
    """What devices can do; `coflex.device` answers."""

    @property
    def FleetOrder(self) -> Callable[..., Any]:  # noqa: N802  a class there
        ...

    def enrol(self, folder: Path, point: int, unit: str, owner: str) -> Any: ...
    def run(self, config: Path, tell: Callable[[str, str], None]) -> None: ...
    def show(self, folder: Path) -> Any: ...
    def fleet(self, order: Any, tell: Callable[[str], None]) -> Any: ...


class DeviceWorld(World, Protocol):
    """An application that knows devices."""

    def device(self) -> Devices: ...


@contextmanager
def _device(ctx: typer.Context, as_json: bool) -> Iterator[Devices]:
    with application(ctx, as_json) as world:
        yield cast("DeviceWorld", world).device()


@devices.command("enrol", short_help="Make a device's key.")
def enrol(
    ctx: typer.Context,
    folder: Folder,
    point: Annotated[int, typer.Option(min=1, max=(1 << 32) - 1, help="Number of its point.")],
    unit: Annotated[str, typer.Option(help="Unit that it measures.")],
    owner: Annotated[str, typer.Option(help="Party that owns the unit.")],
    as_json: Json = False,
) -> None:
    """Make a device's key where it stays, show its public key and fingerprint, and write the request for the register.

    Example: coflex device enrol /var/lib/coflex-device --point 4711 --unit battery-7 --owner household-7
    """
    with _device(ctx, as_json) as here:
        _show("device enrol", here.enrol(folder, point, unit, owner), as_json)


@devices.command("run", short_help="Run a device until it is stopped.")
def run(
    ctx: typer.Context,
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="The device's configuration, YAML.")],
) -> None:
    """Measure, sign, send and follow set points until Ctrl+C or SIGTERM. What should be known goes to stderr.

    Example: coflex device run --config device.yaml
    """
    with _device(ctx, False) as here:
        here.run(config, _tell)


@devices.command("show", short_help="Show a device's state.")
def show(ctx: typer.Context, folder: Folder, as_json: Json = False) -> None:
    """Show numbers, buffer, acknowledgements, set points and clock of a device, also while it runs.

    Example: coflex device show /var/lib/coflex-device
    """
    with _device(ctx, as_json) as here:
        answer = here.show(folder)
        if as_json:
            screen.put_json(answer)
        else:
            screen.put_answer("device show", answer, 0)


@devices.command("fleet", short_help="Run thousands of simulated devices.")
def fleet(
    ctx: typer.Context,
    count: Annotated[int, typer.Option("--count", min=1, help="How many devices.")],
    folder: Annotated[Path, typer.Option("--folder", metavar="DIR", help="Where seed, numbers and points are.")] = Path(
        "fleet"
    ),
    broker: Annotated[str | None, typer.Option(metavar="URL", help="mqtt://host:1883 or mqtts://host:8883.")] = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Of the platform, to post to over HTTP.")] = None,
    tenant: Annotated[str, typer.Option(help="Tenant that the devices belong to.")] = "city",
    connections: Annotated[int, typer.Option(min=0, help="Concentrators; 0: a connection each.")] = 0,
    speed: Annotated[float, typer.Option(min=0.01, help="How many times as fast as ours its clock runs.")] = 1.0,
    begins: Annotated[
        datetime | None, typer.Option("--from", help="Where its clock starts, UTC; now if not given.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="How long; until stopped if not given.")] = None,
    first_point: Annotated[int, typer.Option(min=1, help="Number of the first point.")] = 1,
    platform: Annotated[
        str | None, typer.Option(metavar="KEY", help="Public key whose set points are followed, 64 digits.")
    ] = None,
    platform_signer: Annotated[int, typer.Option(min=0, help="Number of that key.")] = 1,
    group: Annotated[int | None, typer.Option(min=0, help="Group whose regulation signal is followed.")] = None,
    spread: Annotated[float, typer.Option(min=0, help="Seconds over which the fleet signs after a window.")] = 50.0,
    fail: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SHARE", help="offline, missing, deaf, clock or forged, a share.")
    ] = None,
    ca: Annotated[Path | None, typer.Option(metavar="FILE", help="Certificates to trust, PEM.")] = None,
    token_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Bearer token for HTTP.")] = None,
    seed: Annotated[int, typer.Option(help="Where loads and failures start.")] = 0,
    as_json: Json = False,
) -> None:
    """Run many simulated devices in one process, each with its own key; write the table of their points for the ingest.

    Example: coflex device fleet --count 1000 --broker mqtt://127.0.0.1:1883 --connections 20
    """
    failing = _shares(fail or [])
    with _device(ctx, as_json) as here:
        order = here.FleetOrder(
            folder=folder,
            count=count,
            tenant=tenant,
            broker=broker,
            url=url,
            ca=ca,
            token_file=token_file,
            connections=connections,
            speed=speed,
            begins=None if begins is None else begins.replace(tzinfo=UTC),
            seconds=seconds,
            first_point=first_point,
            platform=platform,
            platform_signer=platform_signer,
            group=group,
            spread_s=spread,
            failing=failing,
            seed=seed,
        )
        _show("device fleet", here.fleet(order, _line), as_json)


def _shares(given: list[str]) -> dict[str, float]:
    found = {}
    for one in given:
        name, _, share = one.partition("=")
        try:
            found[name] = float(share)
        except ValueError:
            raise typer.BadParameter(f"{one} is no failure; give it as offline=0.01.") from None
    return found


def _tell(code: str, sentence: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    print(f"{now} {code}: {sentence}", file=sys.stderr, flush=True)


def _line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show(title: str, answer: Any, as_json: bool) -> None:
    if as_json:
        screen.put_json(answer)
    else:
        screen.put_table(title, screen.facts(answer))
