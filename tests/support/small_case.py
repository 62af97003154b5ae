"""A small case: the two feeders of `small_grids`, 16 units of three providers, five weeks around a summer day."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from coflex.adapters.exchange.tables.case_folder import write_case
from coflex.domain.series import Series
from coflex.domain.time import QUARTER, Axis, midnight
from coflex.process.ports import Case, CaseSettings, DeviceSettings, TsoSettings
from coflex.simulation.cases import draw_case
from support.small_grids import radial

DAY = date(2016, 7, 5)
ZONE = ZoneInfo("Europe/Berlin")


def small_case(seed: int = 7, day: date = DAY) -> Case:
    """Loads with an evening peak, and photovoltaics that lift the end of their feeder over its limit at noon."""
    start = midnight(day - timedelta(days=31), ZONE)
    axis = Axis(start, (midnight(day + timedelta(days=2), ZONE) - start) // QUARTER)
    clock = np.arange(len(axis)) % 96 / 96
    days = np.arange(len(axis)) // 96
    load = 0.45 + 0.25 * np.sin(2 * np.pi * (clock - 0.55)) ** 2 + 0.02 * np.cos(2 * np.pi * days / 7)
    sun = np.maximum(0.0, np.sin(np.pi * (clock - 0.25) / 0.5)) * (0.9 + 0.1 * np.cos(days))
    profiles = Series(("load", "sun"), axis, np.round(np.vstack([load, sun]), 6))
    grid = radial(v_min=0.96, v_max=1.03)
    grid = replace(
        grid,
        loads=tuple(replace(row, profile_p="load", profile_q="load") for row in grid.loads),
        generators=tuple(replace(row, p_mw=6 * row.p_mw, profile="sun") for row in grid.generators),
        storages=(),
    )
    settings = CaseSettings(
        id="small",
        title="Two feeders",
        grid="hand-made",
        day=day,
        zone="Europe/Berlin",
        seed=seed,
        design="beflexible_six",
        load_scale=1.0,
        pv_scale=1.0,
        tso=TsoSettings(up_mw=0.5, down_mw=0.5, price_limit_eur_mwh=Decimal(300)),
        devices=DeviceSettings(failure_share=0.1, noise_share=0.0),
    )
    return draw_case(grid, profiles, settings, units=16, providers=3)


def small_folder(parent: Path) -> Path:
    """The case as a folder."""
    folder = parent / "small"
    write_case(folder, small_case())
    return folder
