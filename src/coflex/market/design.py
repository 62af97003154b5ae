"""A market design is a document: sessions in order, who buys, what grid is seen, what is forwarded.

`read_design` takes a YAML text and gives a `Design`, or refuses it with every fault and its place. A design that
was read is sound on days of 92, 96 and 100 quarter-hours; `schedule` lays it on one delivery day.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import pairwise
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from coflex.domain.clearing import Status
from coflex.domain.errors import CoflexError, Finding, Refused, refuse
from coflex.domain.party import Role
from coflex.domain.time import QUARTER, Axis, delivery_day, duration, midnight, moment
from coflex.domain.unit import Level, Scope

REST = "rest"
_ZONE = ZoneInfo("Europe/Rome")
# One ordinary day, the two days on which the clock is changed, and the days after them, whose D-1 is such a day.
_PROBES = (date(2016, 7, 5), date(2016, 3, 27), date(2016, 10, 30), date(2016, 3, 28), date(2016, 10, 31))
_FARTHEST = timedelta(days=366)


class Buyer(StrEnum):
    DSO = "dso"
    TSO = "tso"

    @property
    def role(self) -> Role:
        """The role a party must hold to buy as this."""
        return Role.DSO if self is Buyer.DSO else Role.TSO


class Needs(StrEnum):
    """Where the buy side comes from: the buyers' requests, or the assessment of the DSO's grid."""

    ASSESSMENT = "assessment"
    REQUESTS = "requests"


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


class OwnMeans(StrEnum):
    """What a DSO sets before it buys: transformers' taps, steps of capacitor banks, open points of its rings."""

    TAPS = "taps"
    CAPACITORS = "capacitors"
    SWITCHING = "switching"


class Interface(StrEnum):
    """`netted`: the buyer's need is netted with what earlier sessions moved at the interface between the grids."""

    FREE = "free"
    NETTED = "netted"


class Pricing(StrEnum):
    PAY_AS_BID = "pay_as_bid"
    PAY_AS_CLEAR = "pay_as_clear"
    NODAL = "nodal"


class Validation(StrEnum):
    """Which light the outcome must respect: none, the static one of each unit, or the perimeters' dynamic one."""

    NONE = "none"
    STATIC = "static"
    TRAFFIC_LIGHT = "traffic_light"


def _expression(text: str) -> str:
    try:
        distance = abs(moment(text, _PROBES[0], _ZONE) - midnight(_PROBES[0], _ZONE))
    except CoflexError as error:
        raise ValueError(str(error)) from None
    except OverflowError:
        distance = timedelta.max
    if distance > _FARTHEST:
        raise ValueError(f"'{text}' is more than a year from the delivery day. Write a moment nearer to it.")
    return text


def _firm(text: str) -> str:
    if text == REST:
        return text
    try:
        span = duration(text)
    except CoflexError as error:
        raise ValueError(f"{error} Or write rest.") from None
    except OverflowError:
        span = timedelta.max
    if not timedelta(0) < span <= _FARTHEST:
        raise ValueError(f"'{text}' is no part of a day. Write a length such as PT4H, or rest.")
    return text


Moment = Annotated[str, AfterValidator(_expression)]
Firm = Annotated[str, AfterValidator(_firm)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Text = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Source(_Part):
    """Where the design is described."""

    document: Text
    section: Text


class Sellers(_Part):
    """Units at these levels may offer: the resources the buyer may reach."""

    levels: Annotated[tuple[Level, ...], Field(min_length=1)]


class Gate(_Part):
    """Offers are taken in [opens, closes)."""

    opens: Moment
    closes: Moment


class Horizon(_Part):
    """What a session buys for: [starts, ends), definitive for `firm` from the start on, preliminary after.

    `firm: rest` is definitive to the end, whatever the day's length.
    """

    starts: Moment
    ends: Moment
    firm: Firm


class GridView(_Part):
    """`compare`: grid models that clear the same book beside the chosen one, for the report alone."""

    distribution: DistributionGrid
    transmission: Literal["none"]
    compare: tuple[DistributionGrid, ...] = ()


class SecurityMargin(_Part):
    """What a clearing keeps free of every grid limit, so that later sessions and forecast errors find room."""

    voltage_pu: Annotated[float, Field(ge=0, lt=0.05, allow_inf_nan=False)]
    loading_share: Annotated[float, Field(ge=0, lt=0.5, allow_inf_nan=False)]


class Forward(_Part):
    """What goes to a later session: offers that were not selected, and the traffic light around what was."""

    to: Name
    offers: Literal["unused", "none"]
    carry: Literal["traffic_light", "none"]


class Session(_Part):
    """One market round. `buyers`: one, for now; `product` narrows the session to one of its scope's products.

    `security_margin`: what a clearing that sees the network keeps free of every limit. `own_means`: what the DSO sets
    before an assessment says what is left to buy.
    """

    id: Name
    buyers: Annotated[tuple[Buyer, ...], Field(min_length=1)]
    sellers: Sellers
    scope: Scope
    product: Text | None = None
    gate: Gate
    horizon: Horizon
    needs: Needs
    grid: GridView
    interface: Interface
    pricing: Pricing
    validation: Validation
    security_margin: SecurityMargin | None = None
    own_means: tuple[OwnMeans, ...] = ()
    forward: Forward | None = None

    @property
    def sequence(self) -> str:
        """The sessions that make one day definitive together: those of a scope, or of a product in it."""
        return self.scope.value if self.product is None else f"{self.scope.value} {self.product}"


class Design(_Part):
    """A market design: its sessions in the order in which they clear."""

    id: Name
    title: Text
    source: Source
    sessions: Annotated[tuple[Session, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """A session laid on a delivery day.

    `number`: 1, 2, ... within its scope (or product). Offers are taken in [opens, closes). `firm` is the
    definitive part of `horizon`; both lie on the quarter-hours of the day. `zone`: the market's, for messages.
    """

    id: str
    number: int
    session: Session
    opens: datetime
    closes: datetime
    horizon: Axis
    firm: Axis
    zone: ZoneInfo

    def status(self, start: datetime) -> Status:
        """Whether what the session selects for the quarter-hour is definitive. Raises OutsideAxis off the horizon."""
        self.horizon.position(start)
        return Status.DEFINITIVE if self.firm.covers(start) else Status.PRELIMINARY


def designs() -> tuple[str, ...]:
    """The ids of the designs that come with the platform, sorted."""
    names = (entry.name for entry in _shelf().iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def load_design(name: str) -> Design:
    """A design that comes with the platform. Raises CoflexError on an unknown id, Refused on a faulty document."""
    if name not in designs():
        raise CoflexError(f"There is no design '{name}'.", f"Choose one of: {', '.join(designs())}.")
    file = f"{name}.yaml"
    return read_design(_shelf().joinpath(file).read_text(encoding="utf-8"), file)


def schedule(design: Design, day: date, zone: ZoneInfo) -> tuple[SessionPlan, ...]:
    """The design's sessions on a delivery day of 92, 96 or 100 quarter-hours, in the document's order.

    Raises OutsideAxis where a horizon misses the day's quarter-hours, which `read_design` rules out.
    """
    axis = delivery_day(day, zone)
    seen: Counter[str] = Counter()
    plans = []
    for session in design.sessions:
        seen[session.sequence] += 1
        times = _Times.of(session, day, zone)
        horizon, firm = axis.window(times.starts, times.ends), axis.window(times.starts, times.firm_ends)
        number = seen[session.sequence]
        plans.append(SessionPlan(session.id, number, session, times.opens, times.closes, horizon, firm, zone))
    return tuple(plans)


def read_design(text: str, place: str) -> Design:
    """The design that a YAML document describes.

    `place` names the document in messages. Raises Refused with every fault at once, each with its place, such
    as "mine.yaml: sessions[3].gate.closes". Rules that need the whole sequence (definitive parts that tile the
    day) are checked once every session can be read.
    """
    data = _parse(text, place)
    try:
        content = json.dumps(data, default=str)
    except (TypeError, ValueError) as error:
        fault = Finding(place, "not_a_document", f"The document holds more than plain values: {error}.")
        raise Refused(place, [fault]) from None
    try:
        design = Design.model_validate_json(content)
    except ValidationError as error:
        faults = [_schema_finding(place, detail) for detail in error.errors()]
        entries = data.get("sessions")
        given = entries if isinstance(entries, list) else []
        sessions = [_readable(entry) for entry in given]
        raise Refused(place, [*faults, *_rule_findings(place, sessions, [_name(entry) for entry in given])]) from None
    refuse(place, _rule_findings(place, design.sessions, [session.id for session in design.sessions]))
    return design


def _shelf() -> Traversable:
    return resources.files("coflex.market").joinpath("designs")


# ---------------------------------------------------------------- the document


def _parse(text: str, place: str) -> dict[str, Any]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        refuse(place, _repeated_keys(root, place))
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise Refused(place, [Finding(f"{place}{line}", "not_yaml", f"This is no YAML: {error.problem}.")]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise Refused(place, [Finding(place, "not_yaml", f"This is no YAML: {error}.")]) from None
    if not isinstance(data, dict):
        raise Refused(place, [Finding(place, "not_a_document", "A design is a mapping that begins with its id.")])
    return data


def _repeated_keys(root: yaml.Node | None, place: str) -> list[Finding]:
    """YAML readers keep the last of two equal keys without a word, so the tree is searched before it is read."""
    findings, waiting, met = [], [root] if root else [], set()
    while waiting:
        node = waiting.pop()
        if id(node) in met or not isinstance(node, yaml.CollectionNode):
            continue
        met.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                waiting.append(value)
                name = str(key.value)
                if name in keys:
                    line = key.start_mark.line + 1
                    message = f"The key '{name}' stands twice in one place; keep one of them."
                    findings.append(Finding(f"{place}, line {line}", "repeated_key", message))
                keys.add(name)
        else:
            waiting.extend(node.value)
    return findings


_PARTS: Mapping[tuple[str, ...], type[_Part]] = {
    (): Design,
    ("source",): Source,
    ("sessions",): Session,
    ("sessions", "sellers"): Sellers,
    ("sessions", "gate"): Gate,
    ("sessions", "horizon"): Horizon,
    ("sessions", "grid"): GridView,
    ("sessions", "forward"): Forward,
}


def _schema_finding(place: str, detail: Mapping[str, Any]) -> Finding:
    location: tuple[str | int, ...] = detail["loc"]
    kind, given = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        part = _PARTS[tuple(step for step in location[:-1] if isinstance(step, str))]
        message = f"The key '{location[-1]}' is not known; known here are {', '.join(part.model_fields)}."
        code = "unknown_key"
    elif kind == "missing":
        code, message = "missing_key", f"The key '{location[-1]}' is missing; add it."
    elif kind in ("enum", "literal_error"):
        code, message = "not_offered", f"'{given}' is not offered; choose {detail['ctx']['expected']}."
    elif kind == "value_error":
        code, message = "malformed", str(detail["ctx"]["error"])
    else:
        code, message = "malformed", f"{detail['msg']}; given is {given!r}."
    return Finding(f"{place}: {_path(location)}", code, message)


def _path(location: Sequence[str | int]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return text.removeprefix(".")


def _readable(entry: object) -> Session | None:
    """A session of a faulty document, or None, so that those that can be read are checked with the rest."""
    try:
        return Session.model_validate_json(json.dumps(entry, default=str))
    except ValidationError:
        return None


def _name(entry: object) -> str:
    return str(entry.get("id", "")) if isinstance(entry, dict) else ""


# ---------------------------------------------------------------- the rules

_Fault = tuple[str, str, str]  # path in the document, code, message


def _rule_findings(place: str, sessions: Sequence[Session | None], names: Sequence[str]) -> list[Finding]:
    faults = _rule_faults(sessions, names)
    return [Finding(f"{place}: {path}", code, message) for path, code, message in faults]


def _rule_faults(sessions: Sequence[Session | None], names: Sequence[str]) -> Iterator[_Fault]:
    readable = {i: session for i, session in enumerate(sessions) if session is not None}
    yield from _name_faults(names)
    for i, session in readable.items():
        yield from _combination_faults(f"sessions[{i}]", session)
        yield from _forward_faults(f"sessions[{i}].forward.to", i, session, names)
        target = next((s for s in readable.values() if session.forward and s.id == session.forward.to), None)
        if target is not None and target.sequence == session.sequence:
            message = f"'{target.id}' makes the same day definitive; a session plans for itself, forward to another's."
            yield f"sessions[{i}].forward.to", "forward_same", message
    yield from _product_faults(readable)
    yield from _day_faults(readable, complete=len(readable) == len(sessions))


def _name_faults(names: Sequence[str]) -> Iterator[_Fault]:
    for i, name in enumerate(names):
        first = names.index(name)
        if name and first < i:
            yield f"sessions[{i}].id", "repeated_id", f"'{name}' is already sessions[{first}]; name this one otherwise."


def _forward_faults(path: str, i: int, session: Session, names: Sequence[str]) -> Iterator[_Fault]:
    if session.forward is None:
        return
    target = session.forward.to
    if target not in names:
        yield path, "unknown_session", f"There is no session '{target}'; name one that comes later."
    elif target not in names[i + 1 :]:
        yield path, "forward_back", f"'{target}' does not come after '{session.id}'; forward to a later session."


def _combination_faults(path: str, session: Session) -> Iterator[_Fault]:
    """Settings that contradict each other."""
    sees_network = session.grid.distribution.sees_network
    if sees_network and session.scope is Scope.GLOBAL:
        message = "Global offers are of groups, which have no place on the grid; write capability or none."
        yield f"{path}.grid.distribution", "groups_without_place", message
    if session.validation is Validation.TRAFFIC_LIGHT and session.grid.distribution is not DistributionGrid.CAPABILITY:
        message = "Lights validate where the clearing keeps to them; write grid.distribution: capability."
        yield f"{path}.validation", "light_without_capability", message
    assessed = session.needs is Needs.ASSESSMENT
    if len(set(session.buyers)) < len(session.buyers):
        yield f"{path}.buyers", "repeated_buyer", "A buyer stands twice; name each once."
    elif len(session.buyers) > 1:
        message = "Several buyers in one clearing are not offered; give each buyer a session of its own."
        yield f"{path}.buyers", "not_offered", message
    if len(set(session.sellers.levels)) < len(session.sellers.levels):
        yield f"{path}.sellers.levels", "repeated_level", "A level stands twice; name each once."
    if assessed and Buyer.DSO not in session.buyers:
        message = "An assessment is of the DSO's grid, and the DSO does not buy here; add dso or take requests."
        yield f"{path}.needs", "needs_without_dso", message
    if assessed and not sees_network:
        message = "Needs of an assessment are limits of the grid, which this clearing does not see; write ac."
        yield f"{path}.grid.distribution", "needs_without_grid", message
    if session.own_means and not assessed:
        message = "Own means are set by an assessment of the grid; write needs: assessment, or leave them out."
        yield f"{path}.own_means", "means_without_assessment", message
    if session.own_means and session.grid.distribution is not DistributionGrid.AC:
        message = "Own means are seen by the full power flow alone; write grid.distribution: ac."
        yield f"{path}.own_means", "means_without_ac", message
    if session.own_means and session.grid.compare:
        message = "Grid models compare on a network that stays as it is; leave own_means out, or compare."
        yield f"{path}.grid.compare", "compare_with_means", message
    if session.grid.compare and not sees_network:
        message = (
            "Grid models compare where offers have their place on the grid; write distribution: ac, or no compare."
        )
        yield f"{path}.grid.compare", "compare_without_grid", message
    if DistributionGrid.CAPABILITY in session.grid.compare:
        message = "A capability needs lights, which a session that sees the network does not draw; leave it out."
        yield f"{path}.grid.compare", "capability_without_lights", message
    if len(set(session.grid.compare)) < len(session.grid.compare):
        yield f"{path}.grid.compare", "repeated_model", "A grid model stands twice; name each once."
    if session.pricing is Pricing.NODAL and not sees_network:
        message = "A price per node needs the grid in the clearing; write grid.distribution: ac or another pricing."
        yield f"{path}.pricing", "nodal_without_grid", message
    if session.pricing is Pricing.PAY_AS_CLEAR and assessed:
        message = "Needs at different places have no price in common; write pay_as_bid or nodal, or take requests."
        yield f"{path}.pricing", "clear_without_requests", message
    if session.interface is Interface.NETTED and assessed:
        message = "Only requests can be netted at the interface; write free or take requests."
        yield f"{path}.interface", "netted_without_requests", message


def _product_faults(sessions: Mapping[int, Session]) -> Iterator[_Fault]:
    for scope in Scope:
        members = {i: session for i, session in sessions.items() if session.scope is scope}
        named = [session.product is not None for session in members.values()]
        if any(named) and not all(named):
            message = f"Some sessions of scope {scope.value} name a product and some do not; let all or none name one."
            yield f"sessions[{min(members)}].product", "mixed_products", message


@dataclass(frozen=True, slots=True)
class _Times:
    opens: datetime
    closes: datetime
    starts: datetime
    ends: datetime
    firm_ends: datetime

    @classmethod
    def of(cls, session: Session, day: date, zone: ZoneInfo) -> _Times:
        gate, horizon = session.gate, session.horizon
        texts = (gate.opens, gate.closes, horizon.starts, horizon.ends)
        opens, closes, starts, ends = (moment(text, day, zone) for text in texts)
        return cls(opens, closes, starts, ends, ends if horizon.firm == REST else starts + duration(horizon.firm))


def _day_faults(sessions: Mapping[int, Session], *, complete: bool) -> Iterator[_Fault]:
    """Faults of time, over days of every length; a fault of some days only names their lengths."""
    found: dict[_Fault, list[int]] = {}
    for day in _PROBES:
        axis = delivery_day(day, _ZONE)
        times = {i: _Times.of(session, day, _ZONE) for i, session in sessions.items()}
        faults = [fault for i in sessions for fault in _gate_faults(f"sessions[{i}].gate", times[i])]
        faults += _order_faults(times)
        misplaced = [fault for i in sessions for fault in _horizon_faults(f"sessions[{i}].horizon", times[i], axis)]
        if complete and not misplaced:
            faults += _tiling_faults(sessions, times, axis)
        faults += misplaced
        for fault in faults:
            found.setdefault(fault, []).append(len(axis))
    for (path, code, message), lengths in found.items():
        counts = " and ".join(str(length) for length in sorted(set(lengths)))
        always = len(lengths) == len(_PROBES)
        yield path, code, message if always else f"{message} This concerns days of {counts} quarter-hours."


def _gate_faults(path: str, times: _Times) -> Iterator[_Fault]:
    if times.closes <= times.opens:
        yield f"{path}.closes", "gate_empty", "The gate closes before it opens; close it later."
    if times.closes >= times.starts:
        message = "The gate closes only when the definitive part has begun; close it before the horizon starts."
        yield f"{path}.closes", "gate_late", message


def _horizon_faults(path: str, times: _Times, axis: Axis) -> Iterator[_Fault]:
    bounds = (("starts", times.starts), ("ends", times.ends), ("firm", times.firm_ends))
    if times.ends <= times.starts:
        yield f"{path}.ends", "horizon_empty", "The horizon ends before it starts; end it later."
    elif times.firm_ends > times.ends:
        message = "The definitive part is longer than the horizon; shorten it or write rest."
        yield f"{path}.firm", "firm_too_long", message
    for name, instant in bounds:
        if (instant - axis.start) % QUARTER:
            yield f"{path}.{name}", "off_quarter_hour", "This is not on a quarter-hour; use multiples of 15 minutes."
    for name, instant in bounds[:2]:
        if not axis.start <= instant <= axis.end:
            yield f"{path}.{name}", "outside_day", "This lies outside the delivery day; stay in D to D+1."


def _order_faults(times: Mapping[int, _Times]) -> Iterator[_Fault]:
    for earlier, later in pairwise(times):
        if times[later].closes < times[earlier].closes:
            message = f"The gate closes before that of sessions[{earlier}]; list sessions in the order they close."
            yield f"sessions[{later}].gate.closes", "gate_order", message


def _tiling_faults(sessions: Mapping[int, Session], times: Mapping[int, _Times], axis: Axis) -> Iterator[_Fault]:
    """The definitive parts of a sequence cover every quarter-hour once, and nothing is bought after that."""
    sequences: dict[str, list[int]] = {}
    for i, session in sessions.items():
        sequences.setdefault(session.sequence, []).append(i)
    for name, members in sequences.items():
        for place, i in enumerate(members):
            for j in members[:place]:
                yield from _overlap_faults(i, j, times)
        covered = sorted((times[i].starts, times[i].firm_ends) for i in members)
        reached = axis.start
        for starts, ends in [*covered, (axis.end, axis.end)]:
            if starts > reached:
                message = f"No {name} session is definitive from {_elapsed(reached - axis.start)} on; cover every hour."
                yield "sessions", "firm_hole", message
            reached = max(reached, ends)


def _overlap_faults(i: int, j: int, times: Mapping[int, _Times]) -> Iterator[_Fault]:
    if times[i].starts < times[j].firm_ends and times[j].starts < times[i].firm_ends:
        message = f"The definitive part overlaps that of sessions[{j}]; let one end where the other starts."
        yield f"sessions[{i}].horizon.firm", "firm_overlap", message
    elif times[i].starts < times[j].firm_ends and times[j].starts < times[i].ends:
        message = f"The horizon takes in what sessions[{j}] has made definitive; start it later or end it sooner."
        yield f"sessions[{i}].horizon", "horizon_settled", message


def _elapsed(span: timedelta) -> str:
    hours, minutes = divmod(span // timedelta(minutes=1), 60)
    return f"D+PT{hours}H{minutes}M" if minutes else f"D+PT{hours}H"
