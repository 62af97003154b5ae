"""A grid as tables people can open: one frozen row a device, names instead of numbers.

Column names are field names; they are the case folder's columns too. Names are unique over all devices of a
kind; buses are referred to by name. Profiles are names of columns in the case's profile table; an empty name
means the value holds at all times.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bus:
    """`perimeter`: the part of the grid that carries one dynamic light; empty for the substation's own buses."""

    bus: str
    vn_kv: float
    v_min_pu: float
    v_max_pu: float
    longitude: float
    latitude: float
    perimeter: str


@dataclass(frozen=True, slots=True)
class Line:
    """Resistance, reactance and capacitance of the whole line; `i_max_a` per terminal."""

    line: str
    from_bus: str
    to_bus: str
    length_km: float
    r_ohm: float
    x_ohm: float
    c_nf: float
    i_max_a: float
    loading_max_percent: float


@dataclass(frozen=True, slots=True)
class Transformer:
    """Two-winding transformer. `tap_side`: hv or lv; each step changes that side's turns by `tap_step_percent`."""

    transformer: str
    hv_bus: str
    lv_bus: str
    sn_mva: float
    vn_hv_kv: float
    vn_lv_kv: float
    vk_percent: float
    vkr_percent: float
    pfe_kw: float
    i0_percent: float
    shift_degree: float
    tap_side: str
    tap_neutral: int
    tap_min: int
    tap_max: int
    tap_step_percent: float
    tap_pos: int
    loading_max_percent: float


@dataclass(frozen=True, slots=True)
class Switch:
    """`kind`: bus, line or transformer, what `element` is; the switch sits between `bus` and that element."""

    switch: str
    kind: str
    bus: str
    element: str
    closed: bool


@dataclass(frozen=True, slots=True)
class Source:
    """The grid above: a voltage held at a bus."""

    source: str
    bus: str
    vm_pu: float


@dataclass(frozen=True, slots=True)
class Load:
    """Withdrawal `p_mw * profile_p`, `q_mvar * profile_q`, both positive for consumption."""

    load: str
    bus: str
    p_mw: float
    q_mvar: float
    profile_p: str
    profile_q: str


@dataclass(frozen=True, slots=True)
class Generator:
    """Injection `p_mw * profile`, `q_mvar * profile`, both positive for production."""

    generator: str
    bus: str
    p_mw: float
    q_mvar: float
    technology: str
    profile: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage that rests at zero unless it is called. `efficiency`: one way."""

    storage: str
    bus: str
    p_rated_mw: float
    energy_mwh: float
    efficiency: float
    soc_initial: float


@dataclass(frozen=True, slots=True)
class GridTables:
    buses: tuple[Bus, ...]
    lines: tuple[Line, ...]
    transformers: tuple[Transformer, ...]
    switches: tuple[Switch, ...]
    sources: tuple[Source, ...]
    loads: tuple[Load, ...]
    generators: tuple[Generator, ...]
    storages: tuple[Storage, ...]
