"""Transformers of pandapower: nameplates and tap changers as rows, stars of three windings as branches.

Formulas as in pandapower's documentation of the elements trafo and trafo3w, so that both compute the same two-port.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import asin, atan2, copysign, cos, degrees, hypot, isclose, radians, sin, sqrt
from typing import Any

import numpy as np

from coflex.adapters.grids.pandapower_reading import Reading, number, word
from coflex.grid.tables import Branch, Bus, Transformer

# Where nobody is connected, the voltage has no limits of its own.
STAR_LIMITS = 0.5, 1.5


def transformers(read: Reading, model: str) -> tuple[tuple[Transformer, ...], tuple[Branch, ...]]:
    """Two-winding transformers; those whose values no nameplate can have (a negative reactance) as branches.

    `model`: "pi" keeps the nameplates, which our power flow reads as a pi; "t" gives those of the pi that pandapower's
    T model is equal to.
    """
    rows, branches = [], []
    for source, name in read.rows("trafo"):
        if source.hv_bus not in read.buses or source.lv_bus not in read.buses:
            continue
        row = _transformer(read, source, name)
        if model == "t":
            row = _as_pi(read, source, row)
        plain = row.vk_percent >= 0 or row.vk_percent != row.vk_percent
        read.joins["t", source.Index] = ("transformer" if plain else "branch", name)
        if plain:
            rows.append(row)
        else:
            branches.append(_as_branch(row, read.vn_kv[source.hv_bus], read.vn_kv[source.lv_bus]))
    return tuple(rows), tuple(branches)


def _transformer(read: Reading, row: Any, name: str) -> Transformer:
    parallel = number(row, "parallel", 1)
    plain = Transformer(
        transformer=name,
        hv_bus=read.buses[row.hv_bus],
        lv_bus=read.buses[row.lv_bus],
        sn_mva=number(row, "sn_mva") * parallel,
        vn_hv_kv=number(row, "vn_hv_kv"),
        vn_lv_kv=number(row, "vn_lv_kv"),
        vk_percent=number(row, "vk_percent"),
        vkr_percent=number(row, "vkr_percent"),
        pfe_kw=number(row, "pfe_kw") * parallel,
        i0_percent=number(row, "i0_percent"),
        shift_degree=number(row, "shift_degree", 0),
        tap_side="hv",
        tap_neutral=0,
        tap_min=0,
        tap_max=0,
        tap_step_percent=0.0,
        tap_pos=0,
        loading_max_percent=number(row, "max_loading_percent", 100) * number(row, "df", 1),
        vector_group=word(row, "vector_group"),
        vk0_percent=number(row, "vk0_percent", 0),
        vkr0_percent=number(row, "vkr0_percent", 0),
    )
    return _tapped(read, row, plain)


# ---------------------------------------------------------------- tap changers


def _tapped(read: Reading, row: Any, plain: Transformer) -> Transformer:
    """With its tap changer: free to move where it changes the turns of one side alone, else fixed where it stands."""
    first, second = _changer(row, ""), _changer(row, "2")
    for which, kind in (("tap", first), ("tap2", second)):
        if not kind and number(row, f"{which}_step_percent", 0) and number(row, f"{which}_pos", 0):
            message = f"{which}_changer_type is empty, so its steps do not count; write Ratio if they shall."
            read.note("trafo", plain.transformer, "tap_left_out", message)
    if getattr(row, "tap_dependency_table", None):
        return _from_table(read, row, plain)
    if first in ("Ratio", "Symmetrical") and not second and not number(row, "tap_step_degree", 0):
        step, position, neutral = (number(row, f"tap_{it}", 0) for it in ("step_percent", "pos", "neutral"))
        if position.is_integer() and neutral.is_integer() and step and word(row, "tap_side") in ("hv", "lv"):
            return replace(
                plain,
                tap_side=word(row, "tap_side"),
                tap_neutral=int(neutral),
                tap_min=int(number(row, "tap_min", min(position, neutral))),
                tap_max=int(number(row, "tap_max", max(position, neutral))),
                tap_step_percent=step,
                tap_pos=int(position),
            )
    moves = [_move(row, which, kind) for which, kind in (("tap", first), ("tap2", second)) if kind]
    return _fixed(read, plain, moves)


def _changer(row: Any, number_: str) -> str:
    """The kind of a tap changer: Ratio, Symmetrical, Ideal, or empty where pandapower leaves its steps out."""
    if hasattr(row, f"tap{number_}_changer_type"):
        kind = word(row, f"tap{number_}_changer_type")
        return kind if kind in ("Ratio", "Symmetrical", "Ideal") else ""
    if hasattr(row, f"tap{number_}_phase_shifter"):  # nets older than pandapower 3
        return "Ideal" if getattr(row, f"tap{number_}_phase_shifter") else "Ratio"
    return ""


def _move(row: Any, which: str, kind: str) -> tuple[str, float, float]:
    steps = number(row, f"{which}_pos", 0) - number(row, f"{which}_neutral", 0)
    percent, degree = number(row, f"{which}_step_percent", 0), number(row, f"{which}_step_degree", 0)
    return moved(kind, word(row, f"{which}_side"), steps, percent, degree)


def moved(kind: str, side: str, steps: float, percent: float, degree: float) -> tuple[str, float, float]:
    """The side a tap changer acts on, the factor on that side's voltage, and the degrees added to the shift."""
    direction = 1 if side == "hv" else -1
    if kind == "Ideal":
        shift = steps * degree if degree else 2 * degrees(asin(steps * percent / 200))
        return side, 1.0, direction * shift
    added = steps * percent / 100
    along, across = 1 + added * cos(radians(degree)), added * sin(radians(degree))
    return side, hypot(along, across), direction * degrees(atan2(across, along))


def _from_table(read: Reading, row: Any, plain: Transformer) -> Transformer:
    """Ratio, angle and impedance of the step in pandapower's table of characteristics."""
    entry = _entry(read, row, plain.transformer, "trafo")
    if entry is None:
        return plain
    side = word(row, "tap_side")
    shift = number(entry, "angle_deg", 0) * (1 if side == "hv" else -1)
    measured = replace(plain, vk_percent=number(entry, "vk_percent"), vkr_percent=number(entry, "vkr_percent"))
    return _fixed(read, measured, [(side, number(entry, "voltage_ratio", 1), shift)])


def _entry(read: Reading, row: Any, name: str, table: str) -> Any:
    found = read.net.get("trafo_characteristic_table")
    if found is not None:
        here = (found.id_characteristic == row.id_characteristic_table) & (found.step == row.tap_pos)
        for entry in found[here].itertuples():
            return entry
    message = f"Its step {row.tap_pos} is not in net.trafo_characteristic_table; add it or clear tap_dependency_table."
    return read.fault(table, name, "no_characteristic", message)


def _fixed(read: Reading, plain: Transformer, moves: list[tuple[str, float, float]]) -> Transformer:
    """A tap changer that stays: one step of the whole change."""
    moves = [(side, factor, shift) for side, factor, shift in moves if factor != 1 or shift]
    if not moves:
        return plain
    message = "Its tap changer turns angles, follows a table or is one of two; it stays where it is."
    read.note("trafo", plain.transformer, "tap_fixed", message)
    for side, factor, _ in moves[1:]:
        voltage = "vn_hv_kv" if side == "hv" else "vn_lv_kv"
        plain = replace(plain, **{voltage: getattr(plain, voltage) * factor})
    side, factor, _ = moves[0]
    shift = plain.shift_degree + sum(shift for *_, shift in moves)
    step = 100 * (factor - 1)
    return replace(plain, shift_degree=shift, tap_side=side, tap_min=1, tap_max=1, tap_pos=1, tap_step_percent=step)


# ---------------------------------------------------------------- models


def _as_pi(read: Reading, source: Any, row: Transformer) -> Transformer:
    """The nameplate whose pi is the given nameplate's T: star to triangle, with half the impedance on each side."""
    ratios = [number(source, f"leakage_{part}_ratio_hv", 0.5) for part in ("resistance", "reactance")]
    if ratios != [0.5, 0.5]:
        message = "Its T is not symmetric and no pi of ours; read it with the pi model."
        read.fault("trafo", row.transformer, "unequal_leakage", message)
    shunt = _no_load(row.pfe_kw / 1000 / row.sn_mva, row.i0_percent / 100)
    series = complex(row.vkr_percent, copysign(sqrt(max(0.0, row.vk_percent**2 - row.vkr_percent**2)), row.vk_percent))
    series, shunt = _delta(series / 100, shunt)
    return replace(
        row,
        vk_percent=copysign(abs(series) * 100, row.vk_percent),
        vkr_percent=series.real * 100,
        pfe_kw=shunt.real * 1000 * row.sn_mva,
        i0_percent=abs(shunt) * 100,
    )


def _delta(series: complex, shunt: complex) -> tuple[complex, complex]:
    """Impedance and admittance of the pi that a T of equal halves is."""
    bend = 1 + series * shunt / 4
    return series * bend, shunt / bend


def _no_load(iron: float, total: float) -> complex:
    """Admittance of iron losses and no-load current."""
    return complex(iron, -sqrt(max(0.0, total**2 - iron**2)))


def _as_branch(row: Transformer, vn_from_kv: float, vn_to_kv: float) -> Branch:
    step = 1 + (row.tap_pos - row.tap_neutral) * row.tap_step_percent / 100
    hv, lv = (row.vn_hv_kv * step, row.vn_lv_kv) if row.tap_side == "hv" else (row.vn_hv_kv, row.vn_lv_kv * step)
    reactance = -sqrt(row.vk_percent**2 - row.vkr_percent**2)
    return two_port(
        Branch(row.transformer, row.hv_bus, row.lv_bus, 0, 0, 0, 0, 1, row.shift_degree, row.sn_mva, 0, 0),
        (hv / vn_from_kv, lv / vn_to_kv),
        complex(row.vkr_percent, reactance) / 100,
        _no_load(row.pfe_kw / 1000 / row.sn_mva, row.i0_percent / 100),
        row.sn_mva * vn_from_kv / row.vn_hv_kv,
        row.loading_max_percent,
    )


def two_port(
    ends: Branch,
    turns: tuple[float, float],
    series: complex,
    shunt: complex,
    rating_mva: float,
    loading_max_percent: float,
) -> Branch:
    """A branch between `ends` from nameplate values: voltages of the windings in pu of their buses (`turns`), series
    impedance and admittance to earth in pu of sn_mva."""
    scale = turns[1] ** 2
    return replace(
        ends,
        r_pu=series.real * scale,
        x_pu=series.imag * scale,
        g_pu=shunt.real / scale,
        b_pu=shunt.imag / scale,
        ratio=turns[0] / turns[1],
        rating_mva=rating_mva,
        loading_max_percent=loading_max_percent,
    )


# ---------------------------------------------------------------- three windings

SIDES = ("hv", "mv", "lv")


def stars(read: Reading, model: str) -> tuple[tuple[Bus, ...], tuple[Branch, ...]]:
    """Three-winding transformers as a bus in the middle and an arm to each winding; iron losses at `loss_side`, or at
    the hv side, where pandapower puts them too."""
    buses: list[Bus] = []
    branches: list[Branch] = []
    for row, name in read.rows("trafo3w"):
        if any(getattr(row, f"{side}_bus") not in read.buses for side in SIDES):
            message = "One of its buses is out of service; make it a transformer of two windings."
            read.fault("trafo3w", name, "bus_out_of_service", message)
            continue
        star = f"{name} star"
        buses.append(Bus(star, read.vn_kv[row.hv_bus], *STAR_LIMITS, *(0.0, 0.0), perimeter=""))
        branches += _arms(read, row, name, star, model)
    return tuple(buses), tuple(branches)


def _arms(read: Reading, row: Any, name: str, star: str, model: str) -> Iterator[Branch]:
    sn = np.array([number(row, f"sn_{side}_mva") for side in SIDES])
    impedance = _star_impedances(read, row, name, sn)
    moves = _star_tap(read, row, name)
    lossy = word(row, "loss_side") or "hv"
    at_star = number(row, "vn_hv_kv") / read.vn_kv[row.hv_bus]
    for k, side in enumerate(SIDES):
        outer = getattr(row, f"{side}_bus")
        winding = number(row, f"vn_{side}_kv") / read.vn_kv[outer]
        acts, factor, turned = moves.get(side, ("hv", 1.0, 0.0))
        from_turns, to_turns = (winding, at_star) if side == "hv" else (at_star, winding)
        from_turns, to_turns = (from_turns * factor, to_turns) if acts == "hv" else (from_turns, to_turns * factor)
        ends = (read.buses[outer], star) if side == "hv" else (star, read.buses[outer])
        shift = turned + (0.0 if side == "hv" else number(row, f"shift_{side}_degree", 0))
        iron, total = number(row, "pfe_kw", 0) / 1000 / float(sn[k]), number(row, "i0_percent", 0) / 100
        series, shunt = complex(impedance[k]), _no_load(iron, total) if side == lossy else 0j
        read.joins["t3", row.Index, outer] = ("branch", f"{name} {side}")
        yield two_port(
            Branch(f"{name} {side}", *ends, 0, 0, 0, 0, 1, shift, float(sn[k]), 0, 0),
            (from_turns, to_turns),
            *(_delta(series, shunt) if model == "t" else (series, shunt)),
            float(sn[k]) / winding,
            number(row, "max_loading_percent", 100),
        )


def _star_impedances(read: Reading, row: Any, name: str, sn: Any) -> Any:
    """Impedances of the three arms, each in pu of its own winding: pairs are measured on the smaller of two."""
    values = row
    if getattr(row, "tap_dependency_table", None):
        values = _entry(read, row, name, "trafo3w") or row
    vk = np.array([number(values, f"vk_{side}_percent") for side in SIDES])
    vkr = np.array([number(values, f"vkr_{side}_percent") for side in SIDES])
    smaller = np.array([min(sn[0], sn[1]), min(sn[1], sn[2]), min(sn[0], sn[2])])
    pairs = (vkr + 1j * np.sqrt(vk**2 - vkr**2)) / 100 / smaller  # hv-mv, mv-lv, hv-lv, pu of 1 MVA
    ab, bc, ca = pairs
    return np.array([ab + ca - bc, bc + ab - ca, ca + bc - ab]) / 2 * sn


def _star_tap(read: Reading, row: Any, name: str) -> dict[str, tuple[str, float, float]]:
    """What the tap changer does to the arm it sits in: at its terminal, or at the star and then the other way round."""
    side, kind = word(row, "tap_side"), _changer(row, "")
    if side not in SIDES:
        return {}
    steps = number(row, "tap_pos", 0) - number(row, "tap_neutral", 0)
    percent, degree = number(row, "tap_step_percent", 0), number(row, "tap_step_degree", 0)
    here, there = ("hv", "lv") if side == "hv" else ("lv", "hv")
    at_star = bool(getattr(row, "tap_at_star_point", False))
    if getattr(row, "tap_dependency_table", None):
        entry = _entry(read, row, name, "trafo3w")
        factor, shift = (number(entry, "voltage_ratio", 1), number(entry, "angle_deg", 0)) if entry else (1.0, 0.0)
        factor, shift = (1 / factor, -shift) if at_star else (factor, shift)
        acts = there if at_star else here
        return {side: (acts, factor, shift if acts == "hv" else -shift)}
    if not kind:
        if steps and percent:
            message = "tap_changer_type is empty, so its steps do not count; write Ratio if they shall."
            read.note("trafo3w", name, "tap_left_out", message)
        return {}
    if not at_star:
        return {side: moved(kind, here, steps, percent, degree)}
    step = percent * np.exp(1j * np.deg2rad(degree))
    turned = 100 * step / (100 + step * steps)
    angle = float(np.rad2deg(np.angle(turned))) - 180
    return {side: moved(kind, there, steps, abs(turned), 0.0 if isclose(angle % 360, 0) else angle)}
