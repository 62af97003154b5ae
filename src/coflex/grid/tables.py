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
    """Resistance, reactance and capacitance of the whole line; `i_max_a` per terminal, 0 where no rating is known.

    `r0_ohm`, `x0_ohm`, `c0_nf`: zero sequence, for unbalanced states; 0 where not known.
    """

    line: str
    from_bus: str
    to_bus: str
    length_km: float
    r_ohm: float
    x_ohm: float
    c_nf: float
    i_max_a: float
    loading_max_percent: float
    r0_ohm: float = 0.0
    x0_ohm: float = 0.0
    c0_nf: float = 0.0


@dataclass(frozen=True, slots=True)
class Transformer:
    """Two-winding transformer. `tap_side`: hv or lv; each step changes that side's turns by `tap_step_percent`.

    `vector_group` (Dyn, YNyn, ...; empty where not known), `vk0_percent`, `vkr0_percent`: for unbalanced states.
    """

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
    vector_group: str = ""
    vk0_percent: float = 0.0
    vkr0_percent: float = 0.0


@dataclass(frozen=True, slots=True)
class Branch:
    """A two-port in per unit of `sn_mva` and the buses' rated voltages, as transmission data give lines and
    transformers: series r + jx, charging g + jb (half at each end), and an ideal transformer `ratio`, `shift_degree`
    at the from end. `rating_mva` at rated voltage, 0 where none is known."""

    branch: str
    from_bus: str
    to_bus: str
    r_pu: float
    x_pu: float
    g_pu: float
    b_pu: float
    ratio: float
    shift_degree: float
    sn_mva: float
    rating_mva: float
    loading_max_percent: float


@dataclass(frozen=True, slots=True)
class Switch:
    """`kind`: bus, line, transformer or branch, what `element` is; the switch sits between `bus` and that element."""

    switch: str
    kind: str
    bus: str
    element: str
    closed: bool


@dataclass(frozen=True, slots=True)
class Source:
    """The grid above: a voltage held at a bus. `s_sc_mva`: its short-circuit power, `rx` = R/X; 0 where not known."""

    source: str
    bus: str
    vm_pu: float
    s_sc_mva: float = 0.0
    rx: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """Withdrawal `p_mw * profile_p`, `q_mvar * profile_q`, both positive for consumption. `phase`: a, b or c of a
    single-phase load; empty for a balanced one."""

    load: str
    bus: str
    p_mw: float
    q_mvar: float
    profile_p: str
    profile_q: str
    phase: str = ""


@dataclass(frozen=True, slots=True)
class Generator:
    """Injection `p_mw * profile`, `q_mvar * profile`, both positive for production. `vm_pu`: the voltage it holds at
    its bus by reactive power of its own, 0 where it holds none. `phase` as of a load."""

    generator: str
    bus: str
    p_mw: float
    q_mvar: float
    technology: str
    profile: str
    vm_pu: float = 0.0
    phase: str = ""


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
class Shunt:
    """A capacitor bank or reactor in equal steps, `step` of `step_max` switched in. Each step withdraws `p_mw` and
    injects `q_mvar` at rated voltage."""

    shunt: str
    bus: str
    p_mw: float
    q_mvar: float
    step: int
    step_max: int


@dataclass(frozen=True, slots=True)
class Dispatch:
    """How far a source, generator or storage may be called, and at what cost: c0 + c1 p + c2 p^2 in EUR/h for p in
    MW, or by its `CostPoint` rows where it has any."""

    element: str
    p_min_mw: float
    p_max_mw: float
    q_min_mvar: float
    q_max_mvar: float
    c2_eur_mw2h: float
    c1_eur_mwh: float
    c0_eur_h: float


@dataclass(frozen=True, slots=True)
class CostPoint:
    """A corner of a convex cost curve that is linear between its corners. `point`: its own name."""

    point: str
    element: str
    p_mw: float
    cost_eur_h: float


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
    branches: tuple[Branch, ...] = ()
    shunts: tuple[Shunt, ...] = ()
    dispatches: tuple[Dispatch, ...] = ()
    cost_points: tuple[CostPoint, ...] = ()
