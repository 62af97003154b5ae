"""Shared fixtures. pytest puts this folder on the path, so tests import `support` as it stands."""

from __future__ import annotations

from support.postgres import postgresql
from support.simbench_grids import grids, urban

__all__ = ["grids", "postgresql", "urban"]
