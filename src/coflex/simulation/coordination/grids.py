"""The grids of the reference case: a meshed transmission grid, and radial medium-voltage grids by a stated rule.

Line data per km as manufacturers give them: 380 kV four-bundle 490/64 aluminium-steel, 110 kV 265/35, 20 kV overhead
94/15, 20 kV cables NA2XS2Y of 95 and 150 mm2. Nothing is drawn: the same names give the same grid.
"""

from __future__ import annotations

from dataclasses import dataclass

from coflex.grid.tables import Bus, Generator, GridTables, Line, Load, Shunt, Source, Switch, Transformer

HIGHEST, HIGH, MIDDLE = 380.0, 110.0, 20.0
ABOVE_PU = 1.03


@dataclass(frozen=True, slots=True)
class Conductor:
    """Ohm, ohm and nF per km of each phase, and the current in A that it bears."""

    r_ohm: float
    x_ohm: float
    c_nf: float
    i_max_a: float

    def line(self, name: str, a: str, b: str, km: float, used_percent: float = 100.0) -> Line:
        r, x, c = (round(km * term, 6) for term in (self.r_ohm, self.x_ohm, self.c_nf))
        return Line(name, a, b, km, r, x, c, self.i_max_a, used_percent)


BUNDLE_380 = Conductor(0.015, 0.250, 13.5, 2580.0)
OVERHEAD_110 = Conductor(0.110, 0.390, 9.0, 680.0)
OVERHEAD_20 = Conductor(0.306, 0.344, 10.8, 350.0)
CABLE_95 = Conductor(0.313, 0.132, 216.0, 252.0)
CABLE_150 = Conductor(0.206, 0.122, 254.0, 319.0)

# ---------------------------------------------------------------- transmission

# 380 kV ring A, B, C and 110 kV mesh b1 to b9; km of each line.
_RING = (("A", "B", 70.0), ("B", "C", 60.0), ("A", "C", 90.0))
_MESH = (
    ("b1", "b2", 18.0),
    ("b2", "b3", 22.0),
    ("b3", "b4", 20.0),
    ("b4", "b5", 16.0),
    ("b5", "b6", 24.0),
    ("b6", "b7", 21.0),
    ("b7", "b8", 17.0),
    ("b8", "b9", 19.0),
    ("b9", "b1", 23.0),
    ("b3", "b8", 28.0),
)
_COUPLING = (("A", "b1"), ("B", "b4"), ("C", "b7"))
# Withdrawal of towns in MW at the peak of their profile, and its name.
_TOWNS = {
    "b1": (75.0, "household"),
    "b3": (60.0, "commercial"),
    "b4": (80.0, "household"),
    "b6": (50.0, "household"),
    "b7": (85.0, "commercial"),
    "b9": (45.0, "household"),
}
# MW, technology and profile.
_PARKS = {"b8": (230.0, "wind", "wind"), "b9": (90.0, "pv", "sun"), "B": (120.0, "power_plant", "steady")}


def transmission() -> GridTables:
    """The transmission grid. Its 110 kV lines are used to 75 %, so that they bear what an outage shifts to them."""
    names = ["A", "B", "C", *(f"b{i}" for i in range(1, 10))]
    buses = tuple(
        Bus(name, HIGHEST if name.isupper() else HIGH, 0.9, 1.1, 12.0 + 0.2 * (i % 4), 42.0 + 0.2 * (i // 4), "")
        for i, name in enumerate(names)
    )
    lines = [BUNDLE_380.line(f"{a}-{b}", a, b, km) for a, b, km in _RING]
    lines += [OVERHEAD_110.line(f"{a}-{b}", a, b, km, 75.0) for a, b, km in _MESH]
    transformers = tuple(
        Transformer(f"{a}-{b}", a, b, 250.0, HIGHEST, HIGH, 12.0, 0.3, 60.0, 0.06, 0.0, "hv", 0, -9, 9, 1.5, 0, 100.0)
        for a, b in _COUPLING
    )
    loads = tuple(Load(f"town {bus}", bus, mw, 0.25 * mw, shape, shape) for bus, (mw, shape) in _TOWNS.items())
    parks = tuple(Generator(f"{kind} {bus}", bus, mw, 0.0, kind, shape) for bus, (mw, kind, shape) in _PARKS.items())
    return GridTables(buses, tuple(lines), transformers, (), (Source("above", "A", ABOVE_PU),), loads, parks, ())


# ---------------------------------------------------------------- distribution


@dataclass(frozen=True, slots=True)
class Plan:
    """A medium-voltage grid: feeders of equal length from one substation, the last two nodes of each on a lateral.

    `trunk`: conductor of the first half of a feeder, `rest` of the other. `km`: mean length of a section. `tap`:
    position of the substation's transformer, one step 1.25 % of its hv side. `tie`: a line between the ends of two
    feeders that is open, with switches on their laterals and at their beginnings. `bank`: a bus with two steps of
    capacitors, none of them in.
    """

    feeders: int
    nodes: int
    trunk: Conductor
    rest: Conductor
    km: float
    tap: int
    sn_mva: float
    tie: tuple[int, int] | None = None
    bank: str = ""

    def buses(self) -> list[str]:
        """Buses of the feeders, one feeder after another: f1-1, f1-2, ..."""
        return [f"f{f}-{i}" for f in range(1, self.feeders + 1) for i in range(1, self.nodes + 1)]


def medium_voltage(plan: Plan, loads: tuple[Load, ...], generators: tuple[Generator, ...]) -> GridTables:
    """The grid of a plan, fed at `hv`, with these elements at its buses."""
    buses = [Bus("hv", HIGH, 0.9, 1.1, 12.0, 42.0, ""), Bus("mv", MIDDLE, 0.95, 1.05, 12.0, 42.0, "")]
    lines = []
    for f in range(1, plan.feeders + 1):
        for i in range(1, plan.nodes + 1):
            name = f"f{f}-{i}"
            buses.append(Bus(name, MIDDLE, 0.95, 1.05, round(12 + 0.01 * f, 4), round(42 + 0.01 * i, 4), f"f{f}"))
            # The lateral leaves in the middle of the feeder.
            before = plan.nodes // 2 if i == plan.nodes - 1 else i - 1
            above = f"f{f}-{before}" if before else "mv"
            km = round(plan.km * (0.7 + 0.15 * ((3 * f + 2 * i) % 5)), 3)
            conductor = plan.trunk if i <= plan.nodes // 2 else plan.rest
            lines.append(conductor.line(f"l{f}-{i}", above, name, km))
    switches = _tie(plan, lines) if plan.tie else []
    banks = (Shunt("bank", plan.bank, 0.0, 1.2, 0, 2),) if plan.bank else ()
    transformer = Transformer(
        "t1", "hv", "mv", plan.sn_mva, HIGH, MIDDLE, 12.0, 0.45, 18.0, 0.05, 0.0, "hv", 0, -9, 9, 1.25, plan.tap, 100.0
    )
    source = (Source("source", "hv", 1.0),)
    parts = (tuple(buses), tuple(lines), (transformer,), tuple(switches), source, loads, generators, ())
    return GridTables(*parts, shunts=banks)


def _tie(plan: Plan, lines: list[Line]) -> list[Switch]:
    """Adds the tie to the lines; its switch, open, and those that can open in its place."""
    assert plan.tie is not None
    near, far = (f"f{f}-{plan.nodes}" for f in plan.tie)
    lines.append(plan.rest.line("tie", near, far, plan.km))
    found = [Switch("tie", "line", far, "tie", False)]
    for f in plan.tie:
        for i in (2, plan.nodes - 1, plan.nodes):
            row = next(line for line in lines if line.line == f"l{f}-{i}")
            found.append(Switch(f"s{f}-{i}", "line", row.from_bus, row.line, True))
    return found
