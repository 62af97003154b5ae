"""The same tables in pandapower, written from its own documentation: a second opinion on every power flow."""

from __future__ import annotations

from typing import Any

import numpy as np

from coflex.domain.quantity import Floats
from coflex.grid.network import Network
from coflex.grid.tables import GridTables


def pandapower_net(tables: GridTables) -> Any:
    """A net without loads; `run` puts injections on its buses."""
    import pandapower as pp

    net = pp.create_empty_network(f_hz=50.0)
    bus = {
        row.bus: pp.create_bus(net, row.vn_kv, name=row.bus, min_vm_pu=row.v_min_pu, max_vm_pu=row.v_max_pu)
        for row in tables.buses
    }
    lines, transformers = {}, {}
    for row in tables.lines:
        ends = bus[row.from_bus], bus[row.to_bus]
        km = row.length_km
        lines[row.line] = pp.create_line_from_parameters(
            net, *ends, km, row.r_ohm / km, row.x_ohm / km, row.c_nf / km, row.i_max_a / 1000, name=row.line
        )
    for t in tables.transformers:
        transformers[t.transformer] = pp.create_transformer_from_parameters(
            net,
            bus[t.hv_bus],
            bus[t.lv_bus],
            t.sn_mva,
            t.vn_hv_kv,
            t.vn_lv_kv,
            t.vkr_percent,
            t.vk_percent,
            t.pfe_kw,
            t.i0_percent,
            t.shift_degree,
            tap_side=t.tap_side,
            tap_neutral=t.tap_neutral,
            tap_min=t.tap_min,
            tap_max=t.tap_max,
            tap_pos=t.tap_pos,
            tap_step_percent=t.tap_step_percent,
            tap_changer_type="Ratio",
            name=t.transformer,
        )
    for switch in tables.switches:
        element = {"bus": bus, "line": lines, "transformer": transformers}[switch.kind][switch.element]
        pp.create_switch(net, bus[switch.bus], element, switch.kind[0], closed=switch.closed)
    for source in tables.sources:
        pp.create_ext_grid(net, bus[source.bus], vm_pu=source.vm_pu)
    for name, index in bus.items():
        pp.create_sgen(net, index, 0.0, 0.0, name=name)
    return net


def run(net: Any, network: Network, p_mw: Floats, q_mvar: Floats) -> Any:
    """Power flow of one period with node injections (n,), put on the first bus of each node."""
    import pandapower as pp

    first = {name: i for i, name in enumerate(network.node_names)}
    node = [first.get(name, -1) for name in net.sgen.name]
    net.sgen["p_mw"] = [p_mw[i] if i >= 0 else 0.0 for i in node]
    net.sgen["q_mvar"] = [q_mvar[i] if i >= 0 else 0.0 for i in node]
    pp.runpp(net, trafo_model="pi", calculate_voltage_angles=True, tolerance_mva=1e-9, numba=False)
    return net


def worst_margin(net: Any, slack_bus: str) -> float:
    """By how much pandapower finds the most broken limit broken (pu or share of rating); negative if none is."""
    inner = (net.bus.name != slack_bus).to_numpy()
    vm = net.res_bus.vm_pu.to_numpy()[inner]
    bounds = net.bus[inner]
    return float(
        max(
            np.max(vm - bounds.max_vm_pu.to_numpy()),
            np.max(bounds.min_vm_pu.to_numpy() - vm),
            np.nanmax(net.res_line.loading_percent.to_numpy()) / 100 - 1,
            np.nanmax(net.res_trafo.loading_percent.to_numpy()) / 100 - 1,
        )
    )
