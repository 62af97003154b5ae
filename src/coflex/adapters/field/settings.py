"""The configuration of a device: one YAML document. Keys that it does not know are refused, all faults at once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from coflex.adapters.field.buffer import LEAST_BYTES, LIMIT_BYTES
from coflex.adapters.field.meter import EXPORTED, IMPORTED, QUANTITIES
from coflex.adapters.field.modbus import Place, Register, Type
from coflex.adapters.field.setpoints import Closed, Owner
from coflex.domain.errors import Finding, refuse

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]


def _not_zero(scale: float) -> float:
    if not scale:
        raise ValueError("a scale of 0 leaves nothing of a value")
    return scale


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# ---------------------------------------------------------------- the link


class Platform(Document):
    """The platform's key for set points: its number and its 32 bytes in hexadecimal."""

    signer: int = Field(ge=0, lt=1 << 32)
    key: str = Field(pattern="^[0-9a-fA-F]{64}$")


class Tls(Document):
    """`ca`: certificates to trust, PEM; those of the machine if not given. `certificate`, `key`: the client's own."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class Mqtt(Document):
    host: str
    port: int = Field(default=8883, ge=1, le=65_535)
    tls: Tls | None = Tls()
    username: str | None = None
    password_file: Path | None = None
    session_expiry_s: int = Field(default=86_400, ge=0, lt=1 << 32)
    keepalive_s: int = Field(default=30, ge=5, le=600)
    longest_wait_s: Positive = 60.0


class Http(Document):
    """`url`: of the platform, without /v1. `ca`: certificates to trust. `token_file`: a bearer token."""

    url: str = Field(pattern="^https?://")
    ca: Path | None = None
    token_file: Path | None = None
    timeout_s: Positive = 20.0
    longest_wait_s: Positive = 60.0


class Link(Document):
    mqtt: Mqtt | None = None
    http: Http | None = None


# ---------------------------------------------------------------- meter and energy management system


class RegisterMap(Document):
    """value = raw * scale * sign. `words`: which register comes first. `missing`: the raw value for none."""

    address: int = Field(ge=0, le=65_535)
    type: Type = "int16"
    table: Literal["holding", "input"] = "holding"
    words: Literal["high_first", "low_first"] = "high_first"
    scale: Annotated[Number, AfterValidator(_not_zero)] = 1.0
    sign: Literal[1, -1] = 1
    missing: int | None = None

    def register(self) -> Register:
        low = self.words == "low_first"
        return Register(self.address, self.type, self.table, low, self.scale, self.sign, self.missing)


class ModbusPlace(Document):
    host: str
    port: int = Field(default=502, ge=1, le=65_535)
    device: int = Field(default=1, ge=0, le=255)
    timeout_s: Positive = 2.0

    def place(self) -> Place:
        return Place(self.host, self.port, self.device, self.timeout_s)


class ModbusMeter(ModbusPlace):
    registers: dict[str, RegisterMap] = Field(min_length=1)


class ModbusControl(ModbusPlace):
    power: RegisterMap
    enable: RegisterMap | None = None
    on: Number = 1
    off: Number = 0
    rest_kw: Number = 0


class Simulated(Document):
    """A unit that is simulated: its plan, how fast it moves, and how much its power wavers around what it should."""

    base_kw: Number = 0.0
    ramp_kw_per_s: Positive = 1.0
    preparation_s: float = Field(default=0.0, ge=0)
    waver: float = Field(default=0.0, ge=0, le=1)
    seed: int = 0


class Meter(Document):
    """Exactly one. `stale_s`: for how long a line of a program counts."""

    modbus: ModbusMeter | None = None
    callback: str | None = None
    command: list[str] | None = Field(default=None, min_length=1)
    simulated: Simulated | None = None
    stale_s: Positive = 10.0


class Control(Document):
    """At most one; a simulated meter controls itself. `repeat_s`: the power is sent again so often, 0 for never."""

    modbus: ModbusControl | None = None
    callback: str | None = None
    command: list[str] | None = Field(default=None, min_length=1)
    timeout_s: Positive = 5.0
    repeat_s: float = Field(default=0.0, ge=0)


class Series(Document):
    """A quantity's intervals: `step_s` each, `count` of them in a message."""

    quantity: str
    step_s: float = Field(default=4, ge=0.1, le=86_400)
    count: int = Field(default=15, ge=1, le=10_000)


# ---------------------------------------------------------------- the owner, reserves


class Unavailable(Document):
    """Every day from `begin` to `end` in the zone, on `days`; or once from `from` until `until`, with their zones."""

    begin: time | None = None
    end: time | None = None
    days: list[Weekday] = list(WEEKDAYS)
    from_: datetime | None = Field(default=None, alias="from")
    until: datetime | None = None

    @field_validator("begin", "end", mode="before")
    @classmethod
    def _quoted(cls, given: object) -> object:
        if not isinstance(given, str | None):  # what YAML makes of 22:00 without quotes is 1320
            raise ValueError('it is no time of day; write it in quotes, as "22:00"')
        return given

    def closed(self) -> Closed:
        if self.from_ is not None and self.until is not None:
            return Closed(once=(_ms(self.from_), _ms(self.until)))
        assert self.begin is not None and self.end is not None
        return Closed(self.begin, self.end, frozenset(WEEKDAYS.index(day) for day in self.days))


class Limits(Document):
    """What the owner allows, kW, injection positive."""

    min_kw: Number
    max_kw: Number
    zone: str = "UTC"
    unavailable: list[Unavailable] = []

    @field_validator("zone")
    @classmethod
    def _known(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"there is no zone {zone}") from None
        return zone

    def owner(self) -> Owner:
        closed = tuple(one.closed() for one in self.unavailable)
        return Owner(1000 * self.min_kw, 1000 * self.max_kw, closed, ZoneInfo(self.zone))


class Fcr(Document):
    """The droop of `coflex.activation.droop`; `base_kw`: power around which it works without set point and plan."""

    reserve_kw: Positive
    dead_band_mhz: float = Field(default=10.0, ge=0)
    full_mhz: Positive = 200.0
    nominal_hz: Positive = 50.0
    full_activation_s: Positive = 30.0
    base_kw: Number | None = None


class Afrr(Document):
    """`group`: the number under which the group's signal is sent, and of its topic."""

    group: int = Field(ge=0, lt=1 << 32)


class Settings(Document):
    """`state`: the folder of key and buffer. `sample_s`: how often the meter is read. `buffer_mb`: most on disk.
    `sandbox`: a platform whose tenant's time is followed in the place of the machine's, to try things."""

    tenant: str = Field(pattern="^[a-z0-9][a-z0-9_-]*$")
    point: int = Field(ge=1, lt=1 << 32)
    unit: str = Field(min_length=1)
    owner: str = Field(min_length=1)
    state: Path
    platform: Platform
    link: Link
    meter: Meter
    control: Control = Control()
    limits: Limits
    series: list[Series] = Field(default=[Series(quantity="active_power")], min_length=1)
    sample_s: Positive = 1.0
    buffer_mb: float = Field(default=LIMIT_BYTES / (1 << 20), ge=LEAST_BYTES / (1 << 20), le=4096)
    clock_bound_s: Positive = 2.0
    fcr: Fcr | None = None
    afrr: Afrr | None = None
    sandbox: Http | None = None


# ---------------------------------------------------------------- reading


def read_settings(path: Path) -> Settings:
    """The configuration in a file; relative paths in it start at its folder. Raises Refused with every fault."""
    name = path.name
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        refuse(name, [Finding(str(path), "no_file", "There is no such file; give the path of a device's YAML.")])
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        refuse(name, [Finding(name, "not_yaml", f"It is no YAML ({' '.join(str(fault).split())}); correct it.")])
    try:
        settings = Settings.model_validate(given)
    except ValidationError as fault:
        refuse(name, [_finding(one) for one in fault.errors()])
        raise
    refuse(name, list(_clashes(settings)))
    return _from(settings, path.absolute().parent)


def _finding(fault: object) -> Finding:
    assert isinstance(fault, dict)
    place = ".".join(str(part) for part in fault["loc"]) or "document"
    if fault["type"] == "extra_forbidden":
        return Finding(place, "unknown_key", "There is no such key; correct or remove it.")
    if fault["type"] == "missing":
        return Finding(place, "missing", "It is needed; give it.")
    return Finding(place, "bad_value", f"{fault['msg']}; correct the value.")


def _clashes(settings: Settings) -> Iterator[Finding]:
    """Faults between values that are good each by itself."""
    yield from _choices(settings)
    names = [one.quantity for one in settings.series]
    for place, name in enumerate(names):
        if name not in QUANTITIES:
            known = ", ".join(QUANTITIES)
            yield Finding(f"series.{place}.quantity", "unknown_quantity", f"There is no {name}; use one of {known}.")
        if name in names[:place]:
            yield Finding(f"series.{place}.quantity", "twice", f"{name} stands twice; keep one series of it.")
    for place, one in enumerate(settings.series):
        # The reading of a counter is the one at an interval's start, or comes within a tenth of it.
        if settings.sample_s > (one.step_s / 10 if one.quantity == "energy" else one.step_s):
            told = f"The meter is read every {settings.sample_s:g} s, too seldom for this; lower sample_s."
            yield Finding(f"series.{place}.step_s", "seldom", told)
    modbus = settings.meter.modbus
    measured = set() if modbus is None else set(modbus.registers)
    for name in sorted(measured - set(QUANTITIES) - {IMPORTED, EXPORTED}):
        yield Finding(f"meter.modbus.registers.{name}", "unknown_quantity", "There is no such quantity; rename it.")
    if modbus is not None:
        measured |= {"energy"} if measured & {IMPORTED, EXPORTED} else set()
        for place, name in enumerate(names):
            if name in QUANTITIES and name not in measured:
                yield Finding(f"series.{place}.quantity", "not_measured", f"No register gives {name}; add one.")
        if settings.fcr is not None and "frequency" not in measured:
            yield Finding("fcr", "not_measured", "No register gives the frequency; add one.")
    yield from _reserves(settings, names)


def _choices(settings: Settings) -> Iterator[Finding]:
    link, meter, control = settings.link, settings.meter, settings.control
    if (link.mqtt is None) == (link.http is None):
        yield Finding("link", "one_of", "Give mqtt or http, one of the two.")
    if sum(one is not None for one in (meter.modbus, meter.callback, meter.command, meter.simulated)) != 1:
        yield Finding("meter", "one_of", "Give modbus, callback, command or simulated, one of the four.")
    ways = sum(one is not None for one in (control.modbus, control.callback, control.command))
    if ways > 1 or (ways and meter.simulated is not None):
        yield Finding("control", "one_of", "Give at most one way to control; a simulated unit needs none.")
    tls = None if link.mqtt is None else link.mqtt.tls
    if tls is not None and (tls.certificate is None) != (tls.key is None):
        yield Finding("link.mqtt.tls", "one_of", "Give the certificate with its key, or neither.")
    if settings.limits.min_kw > settings.limits.max_kw:
        yield Finding("limits", "order", "min_kw is above max_kw; exchange them.")
    for place, one in enumerate(settings.limits.unavailable):
        daily, once = (one.begin, one.end), (one.from_, one.until)
        if (None in daily) == (None in once) or (None not in daily and any(once)) or (None not in once and any(daily)):
            yield Finding(f"limits.unavailable.{place}", "one_of", "Give begin and end, or from and until.")
        if any(edge is not None and edge.tzinfo is None for edge in once):
            yield Finding(f"limits.unavailable.{place}", "zone", "from and until need a zone; add it, as in +01:00.")
        elif one.from_ is not None and one.until is not None and one.until <= one.from_:
            yield Finding(f"limits.unavailable.{place}", "order", "It ends before it starts; exchange from and until.")
        if any(edge is not None and edge.tzinfo is not None for edge in daily):
            told = "begin and end are of the zone of the limits; leave theirs out."
            yield Finding(f"limits.unavailable.{place}", "zone", told)


def _reserves(settings: Settings, names: list[str]) -> Iterator[Finding]:
    fcr = settings.fcr
    if fcr is None:
        return
    if fcr.dead_band_mhz >= fcr.full_mhz:
        yield Finding("fcr", "order", "The dead band is not below full_mhz; correct the two.")
    steps = {one.quantity: one.step_s for one in settings.series}
    if "frequency" not in steps:
        yield Finding("series", "missing", "FCR is proved by its frequency log; add a series of frequency.")
    elif steps.get("active_power") != steps["frequency"]:
        yield Finding("series", "steps", "FCR needs frequency and active_power in the same steps; make them equal.")
    if fcr.base_kw is None and "baseline" not in names:
        yield Finding("fcr.base_kw", "missing", "Give base_kw, or a series of baseline.")


def _from(settings: Settings, folder: Path) -> Settings:
    """The same with its paths made absolute."""

    def at(path: Path | None) -> Path | None:
        return None if path is None else folder / path

    def door(http: Http | None) -> Http | None:
        return http and http.model_copy(update={"ca": at(http.ca), "token_file": at(http.token_file)})

    mqtt, http = settings.link.mqtt, settings.link.http
    if mqtt is not None:
        tls = mqtt.tls and Tls(ca=at(mqtt.tls.ca), certificate=at(mqtt.tls.certificate), key=at(mqtt.tls.key))
        mqtt = mqtt.model_copy(update={"tls": tls, "password_file": at(mqtt.password_file)})
    link = Link(mqtt=mqtt, http=door(http))
    return settings.model_copy(
        update={"state": folder / settings.state, "link": link, "sandbox": door(settings.sandbox)}
    )


def _ms(instant: datetime) -> int:
    return round(instant.astimezone(UTC).timestamp() * 1000)
