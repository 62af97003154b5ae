"""Cases drawn from a grid: who is connected where, with what, and with whom they offer.

A case is a function of the grid, its profiles and the seed of its settings: the same bytes on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np

from coflex.domain.errors import CoflexError
from coflex.domain.party import Party, Role
from coflex.domain.product import Product, QuantityKind
from coflex.domain.quantity import Direction, Floats
from coflex.domain.series import Series
from coflex.domain.time import Axis
from coflex.domain.unit import ConnectionPoint, Group, Level, Scope, Technology, Unit
from coflex.grid.tables import Bus, Generator, GridTables, Load, Storage
from coflex.process.ports import Case, CaseSettings

LEAST_KW = 5
CHP_PROFILE = "chp_res"

_LOCAL, _GLOBAL = "local-energy", "global-energy"
_TSO, _DSO = "tso", "dso"
_BALANCE_RESPONSIBLE_PARTIES = 3
_TRANSMISSION_PROVIDERS = 2
_TRANSMISSION_UNITS = 3

# Shares of all units. Flexible loads take what these leave; photovoltaics also stay inside their share of the
# feeder's peak, or the evening would find a potential that is registered but never there.
_BATTERY_SHARE, _CHP_SHARE, _PV_SHARE = 0.055, 0.07, 0.38
_PV_OF_FEEDER_PEAK = 5.0
_BATTERY_OF_PEAK, _CHP_OF_PEAK = (0.30, 0.60), (0.15, 0.35)
_BATTERY_HOURS, _BATTERY_EFFICIENCY, _BATTERY_SOC = (2.0, 4.0), 0.95, 0.5
_LOADS_OF_ONE = {1: (0.10, 0.25), 2: (0.10, 0.135)}
_MOST_OF_LOAD = 0.35
_FLEXIBLE = {
    Technology.HEAT_PUMP: 0.40,
    Technology.EV_CHARGING: 0.35,
    Technology.INDUSTRIAL_LOAD: 0.15,
    Technology.WATER_PUMP: 0.10,
}
_UNITS_OF_GROUP = 6.5


@dataclass(frozen=True)
class _Timing:
    """Seconds, as usual for a technology (document B, table 6)."""

    category: str
    preparation: int
    ramping: int
    deactivation: int
    min_duration: int
    max_duration: int
    recovery: int


_TIMINGS = {
    Technology.PV: _Timing("generation", 30, 60, 60, 900, 57_600, 0),
    Technology.CHP: _Timing("generation", 180, 420, 300, 1_800, 28_800, 1_800),
    Technology.BATTERY: _Timing("storage", 5, 25, 30, 900, 14_400, 0),
    Technology.EV_CHARGING: _Timing("consumption", 30, 90, 60, 900, 14_400, 900),
    Technology.HEAT_PUMP: _Timing("consumption", 60, 240, 180, 900, 7_200, 3_600),
    Technology.WATER_PUMP: _Timing("consumption", 120, 180, 180, 900, 14_400, 900),
    Technology.INDUSTRIAL_LOAD: _Timing("consumption", 300, 600, 600, 1_800, 14_400, 3_600),
    Technology.POWER_PLANT: _Timing("generation", 120, 720, 600, 900, 86_400, 0),
}


@dataclass(frozen=True)
class _Site:
    """A bus with loads on a feeder. `peak_kw[load]`: the highest withdrawal of each load in the year."""

    bus: Bus
    loads: tuple[Load, ...]
    peak_kw: Mapping[str, float]
    generators: tuple[Generator, ...]

    @property
    def peak(self) -> float:
        return sum(self.peak_kw[load.load] for load in self.loads)


@dataclass(frozen=True)
class _Device:
    """A unit before it belongs to anyone: what it is, where, and what it can do."""

    technology: Technology
    element: str
    bus: Bus
    up_kw: int
    down_kw: int
    tan_phi: float = 0.0
    energy_up_kwh: int | None = None
    energy_down_kwh: int | None = None


@dataclass(frozen=True)
class _Portfolio:
    """The units that one provider has in one perimeter, with their balance responsible party."""

    provider: str
    balance_responsible_party: str
    perimeter: str
    devices: tuple[_Device, ...]


def scaled(grid: GridTables, load_scale: float, pv_scale: float) -> GridTables:
    """The grid with its loads' p and q times `load_scale` and its photovoltaics' times `pv_scale`.

    Powers are kept to the milliwatt, so that parts of a load add to the whole in every digit that is written.
    """

    def generator(item: Generator) -> Generator:
        factor = pv_scale if item.technology == Technology.PV else 1.0
        return replace(item, p_mw=round(item.p_mw * factor, 9), q_mvar=round(item.q_mvar * factor, 9))

    return replace(
        grid,
        loads=tuple(
            replace(load, p_mw=round(load.p_mw * load_scale, 9), q_mvar=round(load.q_mvar * load_scale, 9))
            for load in grid.loads
        ),
        generators=tuple(generator(item) for item in grid.generators),
    )


def draw_case(
    grid: GridTables, profiles: Series, settings: CaseSettings, units: int = 320, providers: int = 14
) -> Case:
    """A case on a grid: `units` controllable units of `providers` providers, and three power plants above it.

    Each unit is one element of the grid. Photovoltaics are generators that were there; flexible loads are parts
    of loads that were there, on the same profiles; batteries and CHP are new. The result depends on the seed of
    the settings and on nothing else; the order of the grid's rows does not matter.
    Raises CoflexError when the grid has no room for so many units.
    """
    rng = np.random.default_rng(settings.seed)
    base = scaled(grid, settings.load_scale, settings.pv_scale)
    extended = _with_chp(profiles, settings)
    sites = _sites(base, profiles)
    devices, equipped = _draw_devices(rng, base, sites, _feeder_peaks(sites, profiles), units)
    portfolios = _share_out(rng, devices, providers)
    plants = _draw_plants(rng, base, providers)
    points, registered, groups = _register([*portfolios, *plants], rng)
    owners = sorted({unit.owner for unit in registered})
    names = sorted({portfolio.provider for portfolio in [*portfolios, *plants]})
    return Case(settings, equipped, extended, _parties(names, owners), points, registered, groups, _products())


def _with_chp(profiles: Series, settings: CaseSettings) -> Series:
    """The profiles with that of combined heat and power, led by heat: by day, and less of it in summer."""
    if CHP_PROFILE in profiles.names:
        return profiles
    row = _chp_profile(profiles.axis, ZoneInfo(settings.zone))
    return Series((*profiles.names, CHP_PROFILE), profiles.axis, np.vstack([profiles.values, row]))


def _chp_profile(axis: Axis, zone: ZoneInfo) -> Floats:
    """1.0 in mid-January falling to 0.6 in mid-July, from 06:00 to 22:00 local; zero at night. Shape (periods,)."""
    local = [instant.astimezone(zone) for instant in axis]
    season = [0.8 + 0.2 * math.cos(2 * math.pi * (moment.timetuple().tm_yday - 15) / 365.25) for moment in local]
    return np.array(
        [round(level, 6) if 6 <= moment.hour < 22 else 0.0 for level, moment in zip(season, local, strict=True)]
    )


def _sites(grid: GridTables, profiles: Series) -> tuple[_Site, ...]:
    """Buses with loads on feeders, in the order of feeder and name."""
    highest = dict(zip(profiles.names, profiles.values.max(axis=1, initial=0.0).tolist(), strict=True))
    sites = []
    for bus in sorted(grid.buses, key=lambda bus: (bus.perimeter, bus.bus)):
        loads = tuple(sorted((load for load in grid.loads if load.bus == bus.bus), key=lambda load: load.load))
        if bus.perimeter and loads:
            peaks = {load.load: 1000 * load.p_mw * highest.get(load.profile_p, 1.0) for load in loads}
            here = (item for item in grid.generators if item.bus == bus.bus)
            sites.append(_Site(bus, loads, peaks, tuple(sorted(here, key=lambda item: item.generator))))
    return tuple(sites)


def _feeder_peaks(sites: Sequence[_Site], profiles: Series) -> dict[str, float]:
    """Highest simultaneous withdrawal of each feeder in the year, kW."""
    where = {name: row for row, name in enumerate(profiles.names)}
    weights: dict[str, Floats] = {}
    for site in sites:
        weight = weights.setdefault(site.bus.perimeter, np.zeros(len(profiles.names) + 1))
        for load in site.loads:
            weight[where.get(load.profile_p, -1)] += 1000 * load.p_mw
    always = np.vstack([profiles.values, np.ones(len(profiles.axis))])
    return {feeder: float((weight @ always).max()) for feeder, weight in weights.items()}


def _spread(rng: np.random.Generator, sites: Sequence[_Site]) -> list[_Site]:
    """The sites in an order by chance whose every beginning is spread evenly over the feeders."""
    sizes: dict[str, int] = {}
    for site in sites:
        sizes[site.bus.perimeter] = sizes.get(site.bus.perimeter, 0) + 1
    seen = dict.fromkeys(sizes, 0)
    keyed = []
    for place in rng.permutation(len(sites)).tolist():
        feeder = sites[place].bus.perimeter
        keyed.append(((seen[feeder] + rng.random()) / sizes[feeder], place))
        seen[feeder] += 1
    return [sites[place] for _, place in sorted(keyed)]


def _draw_devices(
    rng: np.random.Generator,
    grid: GridTables,
    sites: Sequence[_Site],
    feeder_peaks: Mapping[str, float],
    count: int,
) -> tuple[list[_Device], GridTables]:
    """The devices, and the grid that holds them as elements."""
    batteries, storages = _draw_batteries(rng, _spread(rng, sites)[: round(count * _BATTERY_SHARE)])
    chps, generators = _draw_chps(rng, _spread(rng, sites)[: round(count * _CHP_SHARE)])
    pvs = _draw_pvs(_spread(rng, sites), feeder_peaks, round(count * _PV_SHARE))
    rest = count - len(batteries) - len(chps) - len(pvs)
    flexible, loads = _draw_loads(rng, _spread(rng, sites), rest)
    taken = {load.load for site in sites for load in site.loads}
    others = [load for load in grid.loads if load.load not in taken]
    equipped = replace(
        grid,
        loads=tuple(sorted([*others, *loads], key=lambda load: load.load)),
        generators=tuple(sorted([*grid.generators, *generators], key=lambda item: item.generator)),
        storages=tuple(sorted([*grid.storages, *storages], key=lambda item: item.storage)),
    )
    devices = [*batteries, *chps, *pvs, *flexible]
    return sorted(devices, key=lambda device: (device.bus.perimeter, device.bus.bus, device.element)), equipped


def _draw_batteries(rng: np.random.Generator, sites: Iterable[_Site]) -> tuple[list[_Device], list[Storage]]:
    devices, storages = [], []
    for site in sites:
        kw = max(LEAST_KW, round(rng.uniform(*_BATTERY_OF_PEAK) * site.peak))
        kwh = round(kw * rng.uniform(*_BATTERY_HOURS))
        name = f"{site.bus.bus} battery"
        storages.append(Storage(name, site.bus.bus, kw / 1000, kwh / 1000, _BATTERY_EFFICIENCY, _BATTERY_SOC))
        up = int(kwh * _BATTERY_SOC * _BATTERY_EFFICIENCY)
        down = int(kwh * (1 - _BATTERY_SOC) / _BATTERY_EFFICIENCY)
        devices.append(_Device(Technology.BATTERY, name, site.bus, kw, kw, energy_up_kwh=up, energy_down_kwh=down))
    return devices, storages


def _draw_chps(rng: np.random.Generator, sites: Iterable[_Site]) -> tuple[list[_Device], list[Generator]]:
    devices, generators = [], []
    for site in sites:
        kw = max(LEAST_KW, round(rng.uniform(*_CHP_OF_PEAK) * site.peak))
        name = f"{site.bus.bus} chp"
        generators.append(Generator(name, site.bus.bus, kw / 1000, 0.0, Technology.CHP.value, CHP_PROFILE))
        devices.append(_Device(Technology.CHP, name, site.bus, kw, kw))
    return devices, generators


def _draw_pvs(sites: Iterable[_Site], feeder_peaks: Mapping[str, float], most: int) -> list[_Device]:
    """Photovoltaics in the order of the sites, as long as their feeder's share holds them."""
    room = {feeder: _PV_OF_FEEDER_PEAK * peak for feeder, peak in feeder_peaks.items()}
    devices: list[_Device] = []
    for site in sites:
        for item in site.generators:
            kw = int(item.p_mw * 1000)
            fits = item.technology == Technology.PV and LEAST_KW <= kw <= room[site.bus.perimeter]
            if fits and len(devices) < most:
                room[site.bus.perimeter] -= kw
                devices.append(_Device(Technology.PV, item.generator, site.bus, 0, kw))
    return devices


def _draw_loads(rng: np.random.Generator, sites: Sequence[_Site], count: int) -> tuple[list[_Device], list[Load]]:
    """Flexible loads carved out of the sites' loads, one of each and then a second; and all loads after it."""
    least = {load.load: LEAST_KW / max(site.peak_kw[load.load], 1e-9) for site in sites for load in site.loads}
    able = [load.load for site in sites for load in site.loads if 2 * least[load.load] <= _MOST_OF_LOAD]
    if count > 2 * len(able):
        raise CoflexError(
            f"The grid has room for {2 * len(able)} flexible loads, not for {count}.", "Ask for fewer units."
        )
    parts = {name: int(place < count) + int(place + len(able) < count) for place, name in enumerate(able)}
    devices, loads = [], []
    for site in sites:
        for load in site.loads:
            shares: list[float] = []
            kinds: list[Technology] = []
            if number := parts.get(load.load, 0):
                low, high = _LOADS_OF_ONE[number]
                shares = [max(share, least[load.load]) for share in rng.uniform(low, high, number).tolist()]
                chosen = rng.choice(len(_FLEXIBLE), number, replace=False, p=list(_FLEXIBLE.values()))
                kinds = [list(_FLEXIBLE)[place] for place in chosen.tolist()]
            carved = _carve(load, shares, kinds)
            loads.extend(carved)
            for part, share, kind in zip(carved[1:], shares, kinds, strict=True):
                kw = max(LEAST_KW, int(share * site.peak_kw[load.load]))
                tan_phi = round(load.q_mvar / load.p_mw, 6)
                devices.append(_Device(kind, part.load, site.bus, kw, kw, tan_phi))
    return devices, loads


def _carve(load: Load, shares: Sequence[float], kinds: Sequence[Technology]) -> list[Load]:
    """What is left of a load, then its parts; their powers add to the whole's in every digit."""
    parts = [
        replace(
            load, load=f"{load.load} {kind}", p_mw=round(share * load.p_mw, 6), q_mvar=round(share * load.q_mvar, 6)
        )
        for share, kind in zip(shares, kinds, strict=True)
    ]
    p = round(load.p_mw - sum(part.p_mw for part in parts), 9)
    q = round(load.q_mvar - sum(part.q_mvar for part in parts), 9)
    return [replace(load, p_mw=p, q_mvar=q), *parts]


def _share_out(rng: np.random.Generator, devices: Sequence[_Device], providers: int) -> list[_Portfolio]:
    """Give each perimeter to a few providers, so that each provider has a group's worth of units where it is."""
    by_perimeter: dict[str, list[_Device]] = {}
    for device in devices:
        by_perimeter.setdefault(device.bus.perimeter, []).append(device)
    order = [f"sp-{number + 1:02d}" for number in rng.permutation(providers).tolist()]
    portfolios: list[_Portfolio] = []
    for perimeter in sorted(by_perimeter):
        here = by_perimeter[perimeter]
        mixed = [here[place] for place in rng.permutation(len(here)).tolist()]
        seats = min(providers, max(1, round(len(here) / _UNITS_OF_GROUP)))
        for seat in range(seats):
            number = len(portfolios)
            held = tuple(sorted(mixed[seat::seats], key=lambda device: device.element))
            portfolios.append(_Portfolio(order[number % providers], _brp(number), perimeter, held))
    return portfolios


def _brp(number: int) -> str:
    return f"brp-{number % _BALANCE_RESPONSIBLE_PARTIES + 1}"


def _draw_plants(rng: np.random.Generator, grid: GridTables, providers: int) -> list[_Portfolio]:
    """Power plants of two more providers, outside the modelled grid."""
    middle = Bus(
        bus="",
        vn_kv=380.0,
        v_min_pu=0.9,
        v_max_pu=1.1,
        longitude=round(math.fsum(bus.longitude for bus in grid.buses) / len(grid.buses), 6),
        latitude=round(math.fsum(bus.latitude for bus in grid.buses) / len(grid.buses), 6),
        perimeter="",
    )
    plants: dict[int, list[_Device]] = {}
    for number in range(_TRANSMISSION_UNITS):
        kw = 1000 * int(rng.integers(10, 26))
        plant = _Device(Technology.POWER_PLANT, "", middle, kw, kw)
        plants.setdefault(number % _TRANSMISSION_PROVIDERS, []).append(plant)
    return [
        _Portfolio(f"sp-{providers + number + 1:02d}", _brp(number), "", tuple(held))
        for number, held in sorted(plants.items())
    ]


def _register(
    portfolios: Sequence[_Portfolio], rng: np.random.Generator
) -> tuple[tuple[ConnectionPoint, ...], tuple[Unit, ...], tuple[Group, ...]]:
    """Points, units and groups, numbered in the order of the portfolios."""
    total = sum(len(portfolio.devices) for portfolio in portfolios)
    owners = rng.integers(1, math.ceil(0.7 * total) + 1, total).tolist()
    points: list[ConnectionPoint] = []
    units: list[Unit] = []
    groups: list[Group] = []
    for seat, portfolio in enumerate(portfolios):
        first = len(units)
        for device in portfolio.devices:
            number = len(units) + 1
            point = _point(device, number, f"own-{owners[number - 1]:03d}")
            points.append(point)
            units.append(_unit(device, number, point, portfolio))
        groups.extend(_groups(portfolio, seat, [unit.id for unit in units[first:]]))
    return tuple(points), tuple(units), tuple(groups)


def _point(device: _Device, number: int, owner: str) -> ConnectionPoint:
    outside = not device.bus.bus
    return ConnectionPoint(
        id=f"DE{0:011d}{number:05d}",
        bus=device.bus.bus,
        level=Level.TRANSMISSION if outside else Level.DISTRIBUTION,
        voltage_kv=device.bus.vn_kv,
        system_operator=_TSO if outside else _DSO,
        owner=owner,
        latitude=device.bus.latitude,
        longitude=device.bus.longitude,
    )


def _unit(device: _Device, number: int, point: ConnectionPoint, portfolio: _Portfolio) -> Unit:
    timing = _TIMINGS[device.technology]
    return Unit(
        id=f"cu-{number:04d}",
        category=timing.category,
        technology=device.technology,
        connection_point=point.id,
        element=device.element,
        provider=portfolio.provider,
        owner=point.owner,
        balance_responsible_party=portfolio.balance_responsible_party,
        up_kw=device.up_kw,
        down_kw=device.down_kw,
        tan_phi=device.tan_phi,
        preparation_period_s=timing.preparation,
        ramping_period_s=timing.ramping,
        full_activation_time_s=timing.preparation + timing.ramping,
        deactivation_period_s=timing.deactivation,
        min_quantity_kw=1,
        max_quantity_kw=max(device.up_kw, device.down_kw),
        min_duration_s=timing.min_duration,
        max_duration_s=timing.max_duration,
        recovery_time_s=timing.recovery,
        energy_up_kwh=device.energy_up_kwh,
        energy_down_kwh=device.energy_down_kwh,
    )


def _groups(portfolio: _Portfolio, seat: int, units: Sequence[str]) -> Iterator[Group]:
    """A local and a global group of mostly the same units; of a plant's portfolio the global one alone."""
    place = portfolio.perimeter or "transmission"
    common = portfolio.provider, portfolio.balance_responsible_party
    # Every third portfolio keeps its first unit out of the global group, every third its last out of the local one.
    spare = len(units) > 4
    if portfolio.perimeter:
        local = tuple(units[:-1] if spare and seat % 3 == 1 else units)
        name = f"lg-{place}-{common[0]}"
        yield Group(name, common[0], Scope.LOCAL, _LOCAL, portfolio.perimeter, local, common[1])
    whole = tuple(units[1:] if spare and seat % 3 == 0 else units)
    name = f"gg-{place}-{common[0]}"
    yield Group(name, common[0], Scope.GLOBAL, _GLOBAL, portfolio.perimeter, whole, common[1])


def _parties(providers: Sequence[str], owners: Sequence[str]) -> tuple[Party, ...]:
    balance = [_brp(number) for number in range(_BALANCE_RESPONSIBLE_PARTIES)]
    return (
        Party(_TSO, "Transmission system operator", (Role.TSO,)),
        Party(_DSO, "Distribution system operator", (Role.DSO,)),
        Party("mo", "Market operator", (Role.MARKET_OPERATOR,)),
        Party("mda", "Metered data administrator", (Role.METERED_DATA_ADMINISTRATOR,)),
        Party("fro", "Flexibility register operator", (Role.REGISTER_OPERATOR,)),
        *(Party(id, f"Balance group {id[4:]}", (Role.BALANCE_RESPONSIBLE_PARTY,)) for id in balance),
        *(Party(id, f"Service provider {id[3:]}", (Role.SERVICE_PROVIDER,)) for id in providers),
        *(Party(id, f"Asset owner {id[4:]}", (Role.ASSET_OWNER,)) for id in owners),
    )


def _products() -> tuple[Product, ...]:
    """Sold on the terms of the rules that settle them, `local_congestion` and `mfrr`."""
    local = Product(
        id=_LOCAL,
        scope=Scope.LOCAL,
        kind=QuantityKind.ACTIVE_ENERGY,
        directions=(Direction.UP, Direction.DOWN),
        resolution_s=900,
        tick_kw=1,
        min_quantity_kw=1,
        full_activation_time_s=1500,
        price_cap_eur_mwh=Decimal(1000),
        divisible=True,
        symmetric=False,
        tolerance=Decimal("0.10"),
        penalty_share=Decimal("0.5"),
    )
    system = replace(local, id=_GLOBAL, scope=Scope.GLOBAL, full_activation_time_s=900, penalty_share=Decimal(1))
    return (local, system)
