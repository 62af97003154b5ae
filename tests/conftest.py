"""Shared fixtures. pytest puts this folder on the path, so tests import `support` as it stands."""

from __future__ import annotations

from support.postgres import postgresql
from support.shared import shared
from support.simbench_grids import grids, urban
from support.small_runs import on_the_small_case

__all__ = ["grids", "on_the_small_case", "postgresql", "shared", "urban"]
