"""Baselines from a control group: what similar units did that nobody called.

Equations 7 and 8 of docs/mathematics/baselines.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from coflex.domain.errors import Finding, refuse
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.metering.baselines.days import considered_days
from coflex.metering.baselines.result import BaselineResult, Given, Peers, bounds, nothing


class Compare(StrEnum):
    """The group's mean times the size ratio, or the unit's own days moved by how the group moved."""

    RATIO = "ratio"
    DIFFERENCE = "difference"


class Match(StrEnum):
    """The units whose mean day is most like this one's, or all that are unaffected."""

    PROFILE = "profile"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """`size` unaffected peers, chosen and scaled by the `days` most recent eligible days. Raises Refused.

    least: fewer peers or days than this give no baseline.
    """

    size: int = 8
    days: int = 10
    least: int = 3
    compare: Compare = Compare.RATIO
    match: Match = Match.PROFILE

    def __post_init__(self) -> None:
        refuse("Control group baseline", self._findings())

    def _findings(self) -> Iterator[Finding]:
        for name, count in (("size", self.size), ("days", self.days)):
            if not 1 <= self.least <= count:
                message = f"At least {self.least} of {count} cannot be; give 1 <= least <= {name}."
                yield Finding(f"control_group: {name}", "out_of_range", message)

    @property
    def label(self) -> str:
        means = {Compare.RATIO: "scaled", Compare.DIFFERENCE: "difference in differences"}[self.compare]
        who = f"{self.size} most alike" if self.match == Match.PROFILE else "all unaffected"
        return f"control group of {who}, {means}"


def control_group(given: Given, method: ControlGroup) -> BaselineResult:
    """What the unit would have done, told by its peers. Ex post: known when the event is over.

    A peer counts when it is unaffected and metered on the days before and in the event. Those most alike have the
    smallest Euclidean distance between mean days, each divided by its mean size; ties to the earlier peer. Where the
    peers are not metered, and after the event, the values are the unit's own mean of the days before.
    Raises CoflexError on an event without a quarter.
    """
    quarters, last = len(given.event), bounds(given.event)[1]
    usable = np.flatnonzero(given.eligible & np.isfinite(given.history).all(axis=1))[-method.days :]
    considered = considered_days(given.eligible, usable, method.days)
    if len(usable) < method.least:
        return nothing(method.label, quarters, f"{len(usable)} days of {method.least} that are needed", considered)
    if given.peers is None:
        return nothing(method.label, quarters, "no peers are given", considered)
    own = given.history[usable].mean(axis=0)
    group = _group(own, given.peers, usable, given.event, method)
    if len(group) < method.least:
        note = f"{len(group)} peers of {method.least} that are needed"
        return nothing(method.label, quarters, note, considered, last + 1)
    before = given.peers.history[group][:, usable].mean(axis=(0, 1))
    if before.mean() == 0:
        return nothing(
            method.label, quarters, "the peers moved no energy in sum on the days before", considered, last + 1
        )
    ratio = own.mean() / before.mean()
    now = given.peers.today[group].mean(axis=0)
    told = ratio * now if method.compare == Compare.RATIO else own + ratio * (now - before)
    values = np.where(np.isfinite(now) & (np.arange(quarters) <= last), told, own)
    return BaselineResult(
        method.label,
        values,
        tuple(int(d) for d in usable),
        None,
        True,
        last + 1,
        considered,
        peers=tuple(int(p) for p in group),
    )


def _group(own: Floats, peers: Peers, usable: Ints, event: Bools, method: ControlGroup) -> Ints:
    """The peers that are averaged, ascending."""
    whole = np.isfinite(peers.history[:, usable]).all(axis=(1, 2)) & np.isfinite(peers.today[:, event]).all(axis=1)
    able = np.flatnonzero(peers.unaffected & whole)
    if method.match == Match.ALL or not len(able):
        return able
    days = peers.history[able][:, usable].mean(axis=1)
    sizes = np.abs(days).mean(axis=1)
    able, days, sizes = able[sizes > 0], days[sizes > 0], sizes[sizes > 0]
    size = np.abs(own).mean()
    far = np.linalg.norm(days / sizes[:, None] - (own / size if size > 0 else own), axis=1)
    return np.sort(able[np.argsort(far, kind="stable")[: method.size]])
