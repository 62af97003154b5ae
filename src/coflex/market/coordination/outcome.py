"""What a run leaves behind: who holds what and who pays, what each session did, who told whom what, what is broken."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import numpy as np

from coflex.domain.clearing import Award, MeritLine, Status, Uncovered
from coflex.domain.quantity import Floats
from coflex.domain.reserve import Reservation
from coflex.market.leasing import Lease


class Actor(StrEnum):
    """Who takes part. One word for all of a role: three DSOs are `dso`."""

    TSO = "tso"
    DSO = "dso"
    MARKET_OPERATOR = "mo"
    SERVICE_PROVIDER = "sp"
    BALANCE_RESPONSIBLE_PARTY = "brp"


@dataclass(frozen=True, slots=True)
class Message:
    """`count` messages of one kind from one actor to another in a session."""

    session: str
    sender: Actor
    receiver: Actor
    information: str
    count: int


@dataclass(frozen=True, slots=True)
class Bought:
    """An award with who pays it. `share_dso`, `share_tso`, `share_brp` add to 1: of a clearing for several, by what
    its limits and requests were worth to each. `reactive`: kvar instead of kW."""

    award: Award
    grid: str
    share_dso: float
    share_tso: float
    share_brp: float
    reactive: bool = False


@dataclass(frozen=True, slots=True)
class LeaseAgreement:
    """Storage let in a session: the lot, its owner, the seller that it is (empty where none), as what its lessee buys
    (`dso`, `tso`, `brp`), and the lease with lessee, bundles and payment. It is definitive for all of its windows where
    the first of them is."""

    session: str
    lot: str
    owner: str
    unit: str
    buyer: str
    lease: Lease
    status: Status

    @property
    def start(self) -> datetime:
        """The first window's."""
        return min(bundle.start for bundle in self.lease.bid.bundles)


@dataclass(frozen=True, slots=True)
class Delivering:
    """How far what distribution grids offer gets through a session, in quarter-hours that it decides for good and in
    which something is asked for. `lines` of the list, of all levels; `stopped` of them by a light; `local_kwh`: what
    distribution units offer; `refused_kwh` of it, worth its price and kept out by a light, a walk or a grid's limit."""

    lines: int = 0
    stopped: int = 0
    local_kwh: float = 0.0
    refused_kwh: float = 0.0

    def __add__(self, other: Delivering) -> Delivering:
        return Delivering(
            self.lines + other.lines,
            self.stopped + other.stopped,
            self.local_kwh + other.local_kwh,
            self.refused_kwh + other.refused_kwh,
        )


@dataclass(frozen=True, eq=False)
class Held:
    """One round of a session as it was held.

    `bought_kwh`: up and down together; `cost_eur` at paid prices; both of what the session itself decided, which a
    later round may change. `concordant_kwh`, `discordant_kwh`: what others had moved at the interface with and against
    this buyer's need (document B, figure 15). `validated`: rounds of walking the list until it was safe, 0 without.
    `limited_kwh`: what lights, filters and walks took off
    offers. `uncovered`: with what binds. `energy_eur_mwh[h]`: price of energy in the balance of its clearing, NaN where
    none.
    """

    session: str
    closes: datetime
    offers: int
    awards: int
    bought_kwh: float
    cost_eur: float
    concordant_kwh: float
    discordant_kwh: float
    validated: int
    limited_kwh: float
    uncovered: tuple[Uncovered, ...]
    merit: tuple[MeritLine, ...] = ()
    energy_eur_mwh: Floats = field(default_factory=lambda: np.zeros(0))
    delivering: Delivering = Delivering()
    remark: str = ""


@dataclass(frozen=True, eq=False)
class Final:
    """The state that a run leaves, by full power flow at what really flows, and what an operator pays to mend it.

    `violations_distribution`, `violations_transmission`: elements and quarter-hours beyond a limit; `worst_...` in pu
    of voltage or share of rating; `before_...`: without any market. `unbalanced_kwh`: what the system need still lacks.
    `limits_kwh`: changes ordered without a market, in balance, until both networks are in their limits; `mended_kwh`,
    `mended_eur`: those and the unbalanced energy, at the emergency price; `unmended`: limits that even that leaves.
    `losses_kwh` over all. `interface_kw[g, t]`: by how much each grid gives more to transmission than without a market.
    """

    before_distribution: int
    before_transmission: int
    violations_distribution: int
    violations_transmission: int
    worst_voltage_pu: float
    worst_loading_share: float
    unbalanced_kwh: float
    limits_kwh: float
    mended_kwh: float
    mended_eur: float
    unmended: int
    losses_kwh: float
    interface_kw: Floats


@dataclass(frozen=True, eq=False)
class Run:
    """A design run on a case. `ending`: how an iteration ended (`converged`, `cycle`, `limit`), empty without one;
    `rounds` of it. `leases` by session, lot and receipt: what lessees pay stands there alone."""

    design: str
    case: str
    held: tuple[Held, ...]
    bought: tuple[Bought, ...]
    reserved: tuple[Reservation, ...]
    messages: tuple[Message, ...]
    final: Final
    ending: str = ""
    rounds: int = 0
    leases: tuple[LeaseAgreement, ...] = ()
