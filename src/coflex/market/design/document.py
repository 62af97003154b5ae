"""The words of a design document: one class a part, one enum a choice. Unknown keys and unknown words are refused."""

from __future__ import annotations

import re
from datetime import date, timedelta
from enum import StrEnum
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from coflex.domain.errors import CoflexError
from coflex.domain.party import Role
from coflex.domain.time import QUARTER, duration, midnight, moment
from coflex.domain.unit import Level, Scope

REST = "rest"
NEVER = "none"
ZONE = ZoneInfo("Europe/Rome")
# One ordinary day, the two days on which the clock is changed, and the days after them, whose D-1 is such a day.
PROBES = (date(2016, 7, 5), date(2016, 3, 27), date(2016, 10, 30), date(2016, 3, 28), date(2016, 10, 31))
FARTHEST = timedelta(days=3 * 366)
NAME = r"^[a-z0-9][a-z0-9_-]*$"
WINDOW = r"^([01]\d|2[0-3]):[0-5]\d/(([01]\d|2[0-3]):[0-5]\d|24:00)$"
TERM = r"^P[1-9]\d*[YMD]$"


class Buyer(StrEnum):
    """Who buys: the operators of the grids, or `brp`, balance responsible parties, who buy energy for themselves."""

    DSO = "dso"
    TSO = "tso"
    BRP = "brp"

    @property
    def role(self) -> Role:
        """The role a party must hold to buy as this."""
        return {Buyer.DSO: Role.DSO, Buyer.TSO: Role.TSO, Buyer.BRP: Role.BALANCE_RESPONSIBLE_PARTY}[self]


class Priority(StrEnum):
    """Among several buyers of one session. `listed`: each in turn, the first before the second. `none`: one clearing
    of least total cost, in which the highest value wins."""

    LISTED = "listed"
    NONE = "none"


class Matching(StrEnum):
    """`auction`: one clearing of all offers at the gate. `bilateral`: each demand by itself finds its sellers, in the
    order of receipt, and every trade is checked against what the grid still allows."""

    AUCTION = "auction"
    BILATERAL = "bilateral"


class Trades(StrEnum):
    """Energy is moved, capacity held ready. `inertia` and `storage_capacity` are capacities too; `phase_balancing`
    moves power from one phase to another."""

    ACTIVE_ENERGY = "active_energy"
    REACTIVE_ENERGY = "reactive_energy"
    ACTIVE_AND_REACTIVE = "active_and_reactive"
    ACTIVE_CAPACITY = "active_capacity"
    PHASE_BALANCING = "phase_balancing"
    INERTIA = "inertia"
    STORAGE_CAPACITY = "storage_capacity"

    @property
    def is_capacity(self) -> bool:
        """Whether what is bought is held ready, not moved."""
        return self in (Trades.ACTIVE_CAPACITY, Trades.INERTIA, Trades.STORAGE_CAPACITY)


class Service(StrEnum):
    """What an offer is qualified for. A session that names services takes offers of units that passed one of them."""

    CONGESTION = "congestion"
    VOLTAGE = "voltage"
    BALANCING = "balancing"
    FCR = "fcr"
    AFRR = "afrr"
    MFRR = "mfrr"
    RR = "rr"
    INERTIA = "inertia"
    PHASE_BALANCING = "phase_balancing"
    COMMERCIAL = "commercial"


class Resource(StrEnum):
    """What sells: providers' units and groups by their free offers, units under contract by the capacity that the
    session admits (always, and alone where `contracts` stands alone), or a DSO by the voltage of its grid
    (conservation voltage reduction)."""

    UNITS = "units"
    CONTRACTS = "contracts"
    VOLTAGE_REDUCTION = "voltage_reduction"


class Needs(StrEnum):
    """Where the buy side comes from: the limits that the assessment of a grid finds broken, the buyers' requests, or
    both in one clearing, where requests are for the balance of all that is bought."""

    ASSESSMENT = "assessment"
    REQUESTS = "requests"
    BOTH = "both"

    @property
    def assessed(self) -> bool:
        return self is not Needs.REQUESTS

    @property
    def requested(self) -> bool:
        return self is not Needs.ASSESSMENT


class DistributionGrid(StrEnum):
    """What the clearing sees of the grid: nothing, a capability per perimeter, or the network by a model of it.

    linear: branch flow without losses; conic: the second-order cone relaxation, radial grids alone; dc: real power
    alone; ac: the full power flow, the one whose answers keep every limit.
    """

    NONE = "none"
    CAPABILITY = "capability"
    LINEAR = "linear"
    CONIC = "conic"
    DC = "dc"
    AC = "ac"

    @property
    def sees_network(self) -> bool:
        """Whether offers act at their nodes."""
        return self not in (DistributionGrid.NONE, DistributionGrid.CAPABILITY)


class TransmissionGrid(StrEnum):
    """What the clearing sees of the transmission grid: nothing, or its limits by real power alone or in full."""

    NONE = "none"
    DC = "dc"
    AC = "ac"

    @property
    def sees_network(self) -> bool:
        """Whether limits of the transmission grid enter."""
        return self is not TransmissionGrid.NONE


class OwnMeans(StrEnum):
    """What a DSO sets before it buys: transformers' taps, steps of capacitor banks, open points of its rings."""

    TAPS = "taps"
    CAPACITORS = "capacitors"
    SWITCHING = "switching"


class Interface(StrEnum):
    """What a session does about the power between transmission and distribution.

    `free`: it may change, and nobody is told. `netted`: the buyer's need is netted with what other sessions moved
    there. `fixed`: each distribution grid keeps its schedule there, and what it promised above. `balanced`: what the
    session buys adds to nothing over all grids. `priced`: a change is paid or earned at the price of energy there, so
    what is cheaper is bought beyond the need.
    """

    FREE = "free"
    NETTED = "netted"
    FIXED = "fixed"
    BALANCED = "balanced"
    PRICED = "priced"


class Pricing(StrEnum):
    """`pay_as_bid`: its own price. `pay_as_clear`: the dearest accepted of the quarter-hour and direction. `marginal`:
    the last mobilised of the clock hour and direction. `nodal`: the dual at the place."""

    PAY_AS_BID = "pay_as_bid"
    PAY_AS_CLEAR = "pay_as_clear"
    MARGINAL = "marginal"
    NODAL = "nodal"


class Validation(StrEnum):
    """What the outcome must respect: nothing, the static light of each unit by itself or of all together (the DSO then
    takes no further part), the DSO's walk over the merit order list
    with substitution, or the perimeters' dynamic light."""

    NONE = "none"
    STATIC = "static"
    STATIC_TOGETHER = "static_together"
    MERIT_ORDER = "merit_order"
    TRAFFIC_LIGHT = "traffic_light"


class Activation(StrEnum):
    """How contracted capacity comes into the sessions that admit it: `automatic`, as an offer in every quarter-hour it
    is held for; `conditional`, only where the buyer's own need calls for it after all free offers."""

    AUTOMATIC = "automatic"
    CONDITIONAL = "conditional"


def _expression(text: str) -> str:
    try:
        distance = abs(moment(text, PROBES[0], ZONE) - midnight(PROBES[0], ZONE))
    except CoflexError as error:
        raise ValueError(str(error)) from None
    except OverflowError:
        distance = timedelta.max
    if distance > FARTHEST:
        message = f"'{text}' is more than three years from the delivery day. Write a moment nearer to it."
        raise ValueError(message)
    return text


def _firm(text: str) -> str:
    if text in (REST, NEVER):
        return text
    try:
        span = duration(text)
    except CoflexError as error:
        raise ValueError(f"{error} Or write rest.") from None
    except OverflowError:
        span = timedelta.max
    if not timedelta(0) < span <= timedelta(days=366):
        raise ValueError(f"'{text}' is no part of a day. Write a length such as PT4H, rest or none.")
    return text


def _every(text: str) -> str:
    try:
        span = duration(text)
    except CoflexError as error:
        raise ValueError(str(error)) from None
    except OverflowError:
        span = timedelta.max
    if span < timedelta(minutes=1) or timedelta(days=1) % span or (span > QUARTER and span % QUARTER):
        message = f"'{text}' does not divide a day in quarter-hours. Write a length such as PT4H, PT15M or PT5M."
        raise ValueError(message)
    return text


def _formed(pattern: str, remedy: str) -> AfterValidator:
    """A text must have the form."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(f"'{text}' {remedy}")
        return text

    return AfterValidator(check)


def _written(pattern: str, *examples: str) -> WithJsonSchema:
    """How a text of its own form stands in the schema."""
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples)})


Moment = Annotated[
    str,
    AfterValidator(_expression),
    _written(r"^D([+-]\d+)?(T\d\d:\d\d|\+PT(?=\d)(\d+H)?(\d+M)?)?$", "D-1T10:00", "D+PT4H", "D+1"),
]
Firm = Annotated[
    str, AfterValidator(_firm), _written(r"^(rest|none)$|^PT(?=\d)(\d+H)?(\d+M)?$", "PT4H", "rest", "none")
]
Every = Annotated[str, AfterValidator(_every), _written(r"^PT(?=\d)(\d+H)?(\d+M)?$", "PT4H", "PT15M", "PT5M")]
Name = Annotated[
    str,
    _formed(NAME, "is no name. Write small letters, digits, - and _, beginning with a letter or digit."),
    _written(NAME, "local-1"),
]
Text = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Window = Annotated[
    str, _formed(WINDOW, "is no part of the day. Write hours as 17:00/21:00."), _written(WINDOW, "17:00/21:00")
]
Term = Annotated[
    str, _formed(TERM, "is no term. Write years, months or days as P1Y, P3M or P30D."), _written(TERM, "P1Y", "P3M")
]


class Part(BaseModel):
    """A part of a document: strict, fixed once read, without unknown keys."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True)


class Source(Part):
    """Where the design is described."""

    document: Text
    """Short name of the document."""
    section: Text
    """Section, table or figure of it."""


class Sellers(Part):
    """Who may sell: the resources that the buyer may reach."""

    levels: Annotated[tuple[Level, ...], Field(min_length=1)]
    """Units connected at these levels may offer."""
    resources: Annotated[tuple[Resource, ...], Field(min_length=1)] = (Resource.UNITS,)
    """What offers there."""


class Gate(Part):
    """Offers are taken in [opens, closes)."""

    opens: Moment
    """First instant at which an offer is taken."""
    closes: Moment
    """First instant at which none is taken any more: the session clears, on what is foreseen then."""


class Horizon(Part):
    """What a session buys for: [starts, ends), definitive for `firm` from the start on, preliminary after."""

    starts: Moment
    """First quarter-hour of delivery, on the delivery day."""
    ends: Moment
    """First instant after the last quarter-hour, at most D+1."""
    firm: Firm
    """Length of the definitive part. `rest`: to the end, whatever the day's length; `none`: nothing is definitive, and
    a later session of the sequence decides."""


class Repeat(Part):
    """A session held again and again, gate and horizon so much later each time.

    A horizon begins on a quarter-hour and is cut off at the day's end; the last round is definitive to its end. Where
    rounds follow each other below a quarter-hour, the last one before a quarter-hour decides it.
    """

    every: Every
    """Time from one round to the next; it divides a day, and is a quarter-hour, shorter, or several of them."""
    times: Annotated[int, Field(ge=2, le=1500)]
    """How many rounds at most; those that would begin after the day are left out."""


class GridView(Part):
    """What the clearing sees of the grid."""

    distribution: DistributionGrid
    """Of the distribution grids."""
    transmission: TransmissionGrid
    """Of the transmission grid."""
    compare: tuple[DistributionGrid, ...] = ()
    """Grid models that clear the same book beside the chosen one, for the report alone."""


class SecurityMargin(Part):
    """What a clearing keeps free of every grid limit, so that later sessions and forecast errors find room."""

    voltage_pu: Annotated[float, Field(ge=0, lt=0.05, allow_inf_nan=False)]
    """Off each voltage limit, in pu."""
    loading_share: Annotated[float, Field(ge=0, lt=0.5, allow_inf_nan=False)]
    """Off each rating, as a share of it."""


class Offered(StrEnum):
    """What of the offers goes on: those not selected, one residual supply curve an interface, or none."""

    UNUSED = "unused"
    AGGREGATED = "aggregated"
    NONE = "none"


class Carry(StrEnum):
    """What goes with them: the perimeters' lights; a filter, which cuts each offer to what it may do by itself and
    all together; or nothing, and what breaks is corrected after."""

    TRAFFIC_LIGHT = "traffic_light"
    FILTER = "filter"
    NONE = "none"


class Forward(Part):
    """What goes to a later session: offers, and what tells how far they are safe."""

    to: Name
    """The later session; it takes offers of distribution resources only as they are forwarded."""
    offers: Offered
    """What the later session gets."""
    carry: Carry
    """How far they are safe."""


class Exclusion(Part):
    """A session whose gate is open at the same time for the same units. Both clear on the same information; of what
    both select, one keeps the unit, and the other clears again without it."""

    session: Name
    """The other session, which comes earlier in the document."""
    first: Name
    """Who keeps what both select: one of the two."""


class Tender(Part):
    """An availability contract: capacity held ready for a term, whose units come into the sessions that admit it."""

    lasts: Term
    """How long the contract lasts: P3M, P1Y."""
    windows: tuple[Window, ...] = ()
    """Hours of the local day in which it holds (17:00/21:00); none: all of it."""
    activation: Activation = Activation.AUTOMATIC
    """How it is used."""
    called_share: Share = 0.0
    """Share of the time the buyer reckons to use it, which weighs the use price in the choice."""


class Scenarios(Part):
    """Forecast scenarios of a two-stage clearing: reservations and awards first, calls in each scenario after."""

    count: Annotated[int, Field(ge=2, le=50)]
    """How many scenarios."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Where drawing them starts; the same seed gives the same scenarios."""


class Iterate(Part):
    """Sessions that answer each other in turn until dispatch and interface price stand still; a state that comes again
    ends it as a cycle."""

    sessions: Annotated[tuple[Name, ...], Field(min_length=2)]
    """The sessions, in the order in which they answer."""
    until_mw: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01
    """It ends when no dispatch moves by more than this, in MW."""
    at_most: Annotated[int, Field(ge=1, le=200)] = 30
    """It ends after so many rounds in any case."""


class Session(Part):
    """One market round, or as many as `repeat` says."""

    id: Name
    """Name of the session, once in the document."""
    buyers: Annotated[tuple[Buyer, ...], Field(min_length=1)]
    """Who buys, in the order that `priority` gives them. The only buyer operates its session; several buyers, or
    balance responsible parties, have a neutral market operator."""
    priority: Priority = Priority.LISTED
    """Whose needs come first."""
    matching: Matching = Matching.AUCTION
    """How offers find their buyers."""
    sellers: Sellers
    """Who may sell."""
    trades: Trades = Trades.ACTIVE_ENERGY
    """The quantity that is traded."""
    services: tuple[Service, ...] = ()
    """Services that a seller is qualified for; none named: any unit."""
    scope: Scope | None = None
    """Narrows the offers to those for local or for global needs."""
    product: Text | None = None
    """Narrows them to one product of the scope."""
    sequence: Name | None = None
    """Sessions of one name make one day definitive together, each replacing what those before left preliminary."""
    gate: Gate
    """When offers are taken."""
    horizon: Horizon
    """What is bought for."""
    repeat: Repeat | None = None
    """How often the session is held again."""
    needs: Needs
    """What decides how much is bought."""
    grid: GridView
    """What the clearing sees of each grid."""
    interface: Interface
    """Whether the power at the interface may change."""
    pricing: Pricing
    """What a selected offer is paid."""
    validation: Validation
    """Checks beyond the clearing."""
    security_margin: SecurityMargin | None = None
    """What a clearing that sees the network keeps free of every limit."""
    own_means: tuple[OwnMeans, ...] = ()
    """Set before an assessment says what is left to buy."""
    request_share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    """The part of a request that is bought here, where a later session buys the rest."""
    reserve_share: Share = 0.0
    """Lines kept ready beyond what is bought, as a share of it; a session that admits this one calls them."""
    tender: Tender | None = None
    """Makes an availability contract of what is bought."""
    admits: tuple[Name, ...] = ()
    """Earlier sessions whose contracted units offer here."""
    scenarios: Scenarios | None = None
    """Clears in two stages over forecast scenarios."""
    exclusion: Exclusion | None = None
    """Who keeps a unit where two gates are open at once."""
    forward: Forward | None = None
    """What goes to a later session."""

    @property
    def chain(self) -> str:
        """The sessions that make one day definitive together: those of a sequence, of a scope, or of a product in it;
        a session that names none stands for itself."""
        if self.sequence is not None:
            return self.sequence
        if self.scope is None:
            return self.id
        return self.scope.value if self.product is None else f"{self.scope.value} {self.product}"


class Design(Part):
    """A market design: its sessions in the order in which they clear."""

    id: Name
    """Name of the design, that of its file."""
    title: Text
    """What it is, in one line."""
    source: Source
    """Where it is described."""
    same_as: Name | None = None
    """A design that behaves the same under another name."""
    note: Text | None = None
    """What the source leaves open and this document chooses."""
    sessions: Annotated[tuple[Session, ...], Field(min_length=1)]
    """The sessions, in the order in which their gates close."""
    iterate: Iterate | None = None
    """Sessions that answer each other until none of them moves."""
