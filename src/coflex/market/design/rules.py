"""What a design may not say: settings that contradict each other, and times that leave a hole or meet twice.

A fault names the path in the document, a code and a sentence with the remedy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from coflex.domain.time import QUARTER, Axis, delivery_day
from coflex.domain.unit import Scope
from coflex.market.design.document import (
    PROBES,
    ZONE,
    Buyer,
    Carry,
    Design,
    DistributionGrid,
    Interface,
    Matching,
    Needs,
    Offered,
    Pricing,
    Priority,
    Resource,
    Session,
    Trades,
    TransmissionGrid,
    Validation,
)
from coflex.market.design.schedule import Times, rounds

Fault = tuple[str, str, str]  # path in the document, code, message


def faults(sessions: Sequence[Session | None], names: Sequence[str], design: Design | None = None) -> Iterator[Fault]:
    """Every fault of the sessions that could be read; `names` of all that are there; `design` when all of it could."""
    readable = {i: session for i, session in enumerate(sessions) if session is not None}
    yield from _name_faults(names)
    for i, session in readable.items():
        path = f"sessions[{i}]"
        yield from _combination_faults(path, session)
        yield from _trade_faults(path, session)
        yield from _word_faults(path, session)
        yield from _pointer_faults(path, i, session, readable, names)
    yield from _product_faults(readable)
    yield from _day_faults(readable, complete=len(readable) == len(sessions))
    if design is not None and design.iterate is not None:
        yield from _iterate_faults(design, names)


def _name_faults(names: Sequence[str]) -> Iterator[Fault]:
    for i, name in enumerate(names):
        first = names.index(name)
        if name and first < i:
            yield f"sessions[{i}].id", "repeated_id", f"'{name}' is already sessions[{first}]; name this one otherwise."


def _combination_faults(path: str, session: Session) -> Iterator[Fault]:
    """Settings of one session that contradict each other."""
    yield from _buyer_faults(path, session)
    yield from _grid_faults(path, session)
    yield from _model_faults(path, session)
    yield from _means_faults(path, session)
    yield from _price_faults(path, session)


def _buyer_faults(path: str, session: Session) -> Iterator[Fault]:
    joint = session.priority is Priority.NONE
    if len(set(session.buyers)) < len(session.buyers):
        yield f"{path}.buyers", "repeated_buyer", "A buyer stands twice; name each once."
    elif joint and len(session.buyers) == 1:
        message = "One buyer alone has no priority to share; leave priority out, or name another buyer."
        yield f"{path}.priority", "priority_of_one", message
    in_turn = len(session.buyers) > 1 and session.priority is Priority.LISTED
    if session.needs is Needs.BOTH and in_turn and session.buyers[0] is not Buyer.DSO:
        message = "In turn, the grid's needs come before requests; name dso first, or write priority: none."
        yield f"{path}.priority", "turn_without_dso", message
    if len(set(session.sellers.levels)) < len(session.sellers.levels):
        yield f"{path}.sellers.levels", "repeated_level", "A level stands twice; name each once."
    if session.needs.assessed and Buyer.DSO not in session.buyers and not session.grid.transmission.sees_network:
        message = "An assessment is of the DSO's grid, and the DSO does not buy here; add dso or take requests."
        yield f"{path}.needs", "needs_without_dso", message
    if session.needs is Needs.ASSESSMENT and Buyer.BRP in session.buyers:
        message = "Balance responsible parties buy by requests; write needs: both, or leave them out."
        yield f"{path}.needs", "needs_without_requests", message
    if session.matching is Matching.BILATERAL and session.priority is Priority.NONE:
        message = "Bilateral trades are made one after another, not in one clearing; leave priority out."
        yield f"{path}.priority", "bilateral_in_one", message


def _grid_faults(path: str, session: Session) -> Iterator[Fault]:
    view, sees_network = session.grid, session.grid.distribution.sees_network
    if sees_network and session.scope is Scope.GLOBAL:
        message = "Global offers are of groups, which have no place on the grid; write capability or none."
        yield f"{path}.grid.distribution", "groups_without_place", message
    if session.validation is Validation.TRAFFIC_LIGHT and view.distribution is not DistributionGrid.CAPABILITY:
        message = "Lights validate where the clearing keeps to them; write grid.distribution: capability."
        yield f"{path}.validation", "light_without_capability", message
    if session.validation is Validation.MERIT_ORDER and sees_network:
        message = "The clearing keeps the grid's limits itself; write grid.distribution: none for a walk over its list."
        yield f"{path}.validation", "validated_twice", message
    if session.needs.assessed and not sees_network and not view.transmission.sees_network:
        message = "Needs of an assessment are limits of the grid, which this clearing does not see; write ac."
        yield f"{path}.grid.distribution", "needs_without_grid", message
    if sees_network and view.transmission.sees_network and view.transmission.value != view.distribution.value:
        message = (
            f"One clearing has one physics of the network; write {view.distribution.value} for both, or none for one."
        )
        yield f"{path}.grid.transmission", "two_physics", message


def _model_faults(path: str, session: Session) -> Iterator[Fault]:
    compare, sees_network = session.grid.compare, session.grid.distribution.sees_network
    if compare and not sees_network:
        message = (
            "Grid models compare where offers have their place on the grid; write distribution: ac, or no compare."
        )
        yield f"{path}.grid.compare", "compare_without_grid", message
    if DistributionGrid.CAPABILITY in compare:
        message = "A capability needs lights, which a session that sees the network does not draw; leave it out."
        yield f"{path}.grid.compare", "capability_without_lights", message
    if len(set(compare)) < len(compare):
        yield f"{path}.grid.compare", "repeated_model", "A grid model stands twice; name each once."
    if session.own_means and compare:
        message = "Grid models compare on a network that stays as it is; leave own_means out, or compare."
        yield f"{path}.grid.compare", "compare_with_means", message


def _means_faults(path: str, session: Session) -> Iterator[Fault]:
    if session.own_means and not session.needs.assessed:
        message = "Own means are set by an assessment of the grid; write needs: assessment, or leave them out."
        yield f"{path}.own_means", "means_without_assessment", message
    if session.own_means and session.grid.distribution is not DistributionGrid.AC:
        message = "Own means are seen by the full power flow alone; write grid.distribution: ac."
        yield f"{path}.own_means", "means_without_ac", message


def _price_faults(path: str, session: Session) -> Iterator[Fault]:
    sees_network = session.grid.distribution.sees_network or session.grid.transmission.sees_network
    if session.pricing is Pricing.NODAL and not sees_network:
        message = "A price per node needs the grid in the clearing; write grid.distribution: ac or another pricing."
        yield f"{path}.pricing", "nodal_without_grid", message
    if session.pricing in (Pricing.PAY_AS_CLEAR, Pricing.MARGINAL) and session.needs is Needs.ASSESSMENT:
        message = "Needs at different places have no price in common; write pay_as_bid or nodal, or take requests."
        yield f"{path}.pricing", "clear_without_requests", message
    if session.interface is Interface.NETTED and not session.needs.requested:
        message = "Only requests can be netted at the interface; write free or take requests."
        yield f"{path}.interface", "netted_without_requests", message
    if session.interface in (Interface.FIXED, Interface.PRICED, Interface.BALANCED) and not session.needs.assessed:
        message = "It is fixed, balanced or priced for the one who keeps a grid; write needs: assessment, or netted."
        yield f"{path}.interface", "interface_without_grid", message
    if session.interface in (Interface.PRICED, Interface.BALANCED) and session.needs is Needs.BOTH:
        message = "A clearing that meets the system's need sets the price of energy itself; write free or netted."
        yield f"{path}.interface", "priced_with_requests", message
    turn = session.priority is Priority.LISTED and len(session.buyers) > 1
    if session.interface is Interface.FIXED and session.matching is Matching.BILATERAL:
        message = "Each demand by itself cannot keep what all of a grid's together should; write free or netted."
        yield f"{path}.interface", "bilateral_fixed", message
    elif session.interface is Interface.FIXED and session.needs is Needs.BOTH and not turn:
        message = "One clearing cannot keep each interface and meet the system's need; write free or netted."
        yield f"{path}.interface", "fixed_with_requests", message


def _trade_faults(path: str, session: Session) -> Iterator[Fault]:
    """What a quantity other than active energy asks of the rest."""
    trades = session.trades
    if trades.is_capacity and session.needs.assessed:
        message = f"{trades.value} is held ready for a request; write needs: requests."
        yield f"{path}.needs", "capacity_without_requests", message
    if trades.is_capacity and session.grid.distribution.sees_network and session.scenarios is None:
        message = "What is held ready has no flow; write grid.distribution: none or capability, or add scenarios."
        yield f"{path}.grid.distribution", "capacity_in_flow", message
    if trades in (Trades.REACTIVE_ENERGY, Trades.ACTIVE_AND_REACTIVE) and not (
        session.grid.distribution in (DistributionGrid.AC, DistributionGrid.LINEAR)
        or session.grid.transmission is TransmissionGrid.AC
    ):
        message = "Reactive power acts on voltages, which this clearing does not see; write grid.distribution: ac."
        yield f"{path}.grid.distribution", "reactive_without_voltage", message
    if trades is Trades.REACTIVE_ENERGY and session.needs.requested and Buyer.TSO not in session.buyers:
        message = "A profile of reactive power is what the TSO requests at the interfaces; add tso, or take assessment."
        yield f"{path}.needs", "reactive_requested", message
    if trades is Trades.PHASE_BALANCING and session.needs is not Needs.ASSESSMENT:
        message = "Phase balancing is bought for what the grid's phases lack; write needs: assessment."
        yield f"{path}.needs", "phases_requested", message
    if session.tender is not None and not trades.is_capacity:
        message = "A tender is for capacity; write trades: active_capacity, or leave the tender out."
        yield f"{path}.tender", "tender_without_capacity", message
    if session.request_share < 1 and not session.needs.requested:
        message = "A share of the request needs requests; leave request_share out."
        yield f"{path}.request_share", "share_without_request", message
    if Resource.CONTRACTS in session.sellers.resources and not session.admits:
        message = "Units under contract come from sessions that are admitted; name them under admits."
        yield f"{path}.sellers.resources", "contracts_without_admits", message
    if session.reserve_share and trades.is_capacity:
        message = "Capacity is held ready itself; leave reserve_share out."
        yield f"{path}.reserve_share", "reserve_of_capacity", message
    if session.scenarios is not None and not (
        session.needs is Needs.ASSESSMENT and session.grid.distribution is DistributionGrid.AC
    ):
        message = "Scenarios weigh what the grid may need; write needs: assessment and grid.distribution: ac."
        yield f"{path}.scenarios", "scenarios_without_grid", message
    plain = session.interface is Interface.FREE and session.pricing is Pricing.PAY_AS_BID
    checked = session.validation in (Validation.NONE, Validation.STATIC)
    if session.scenarios is not None and not (session.buyers == (Buyer.DSO,) and plain and checked):
        message = "Scenarios are weighed by a DSO, paid as bid, with a free interface and no further check; write that."
        yield f"{path}.scenarios", "scenarios_alone", message
    if trades.is_capacity and Resource.VOLTAGE_REDUCTION in session.sellers.resources:
        message = "A lower voltage has no price of availability; let units alone sell capacity."
        yield f"{path}.sellers.resources", "reduction_of_capacity", message
    if Resource.VOLTAGE_REDUCTION in session.sellers.resources and session.needs is not Needs.REQUESTS:
        message = "A DSO lowers its voltage for another's request; write needs: requests."
        yield f"{path}.sellers.resources", "reduction_without_request", message


def _word_faults(path: str, session: Session) -> Iterator[Fault]:
    """Lists that say one thing twice, and hours that are none."""
    lists: dict[str, Sequence[str]] = {
        "sellers.resources": session.sellers.resources,
        "services": session.services,
        "own_means": session.own_means,
        "admits": session.admits,
    }
    for key, words in lists.items():
        if len(set(words)) < len(words):
            yield f"{path}.{key}", "repeated_word", "A word stands twice; write each once."
    for k, window in enumerate(session.tender.windows if session.tender is not None else ()):
        begins, _, ends = window.partition("/")
        if ends <= begins:
            message = f"'{window}' ends before it begins; write two windows for hours on both sides of midnight."
            yield f"{path}.tender.windows[{k}]", "window_empty", message


def _pointer_faults(
    path: str, i: int, session: Session, readable: Mapping[int, Session], names: Sequence[str]
) -> Iterator[Fault]:
    """Names of other sessions: forwarded to, admitted, excluded."""
    if session.forward is not None:
        yield from _forward_faults(f"{path}.forward", i, session, readable, names)
    joined = next((s for s in readable.values() if session.sequence == s.id and s.sequence != s.id), None)
    if joined is not None and joined.id != session.id:
        message = (
            f"'{session.sequence}' is a session of its own; name the sequence otherwise, or put that session in it."
        )
        yield f"{path}.sequence", "sequence_is_session", message
    for k, name in enumerate(session.admits):
        place = f"{path}.admits[{k}]"
        source = next((s for s in readable.values() if s.id == name), None)
        if name not in names:
            yield place, "unknown_session", f"There is no session '{name}'; name one that comes earlier."
        elif name not in names[:i]:
            yield place, "admits_later", f"'{name}' does not come before '{session.id}'; admit an earlier session."
        elif source is not None and not (source.trades.is_capacity or source.reserve_share or source.scenarios):
            yield place, "admits_energy", f"'{name}' holds no capacity; admit a session that trades capacity."
    if session.exclusion is not None:
        yield from _exclusion_faults(path, i, session, readable, names)


def _exclusion_faults(
    path: str, i: int, session: Session, readable: Mapping[int, Session], names: Sequence[str]
) -> Iterator[Fault]:
    """Two gates at once stand side by side in the document, and close together in every round."""
    assert session.exclusion is not None
    excluded, first = session.exclusion.session, session.exclusion.first
    other = readable.get(i - 1)
    if excluded not in names[:i]:
        message = f"'{excluded}' does not come before '{session.id}'; name the earlier session of the two."
        yield f"{path}.exclusion.session", "unknown_session", message
    elif other is None or other.id != excluded:
        message = f"'{excluded}' does not stand right before '{session.id}'; put the two side by side."
        yield f"{path}.exclusion.session", "excluded_apart", message
    elif other.gate.closes != session.gate.closes or other.repeat != session.repeat:
        message = f"'{excluded}' closes at another time or in other rounds; give both one gate.closes and one repeat."
        yield f"{path}.exclusion.session", "excluded_apart", message
    if first not in (excluded, session.id):
        message = f"'{first}' is neither of the two; write {excluded} or {session.id}."
        yield f"{path}.exclusion.first", "unknown_session", message


def _forward_faults(
    path: str, i: int, session: Session, readable: Mapping[int, Session], names: Sequence[str]
) -> Iterator[Fault]:
    forward = session.forward
    assert forward is not None
    target = next((s for s in readable.values() if s.id == forward.to), None)
    if forward.to not in names:
        yield f"{path}.to", "unknown_session", f"There is no session '{forward.to}'; name one that comes later."
    elif forward.to not in names[i + 1 :]:
        message = f"'{forward.to}' does not come after '{session.id}'; forward to a later session."
        yield f"{path}.to", "forward_back", message
    elif target is not None and target.chain == session.chain:
        message = f"'{target.id}' makes the same day definitive; a session plans for itself, forward to another's."
        yield f"{path}.to", "forward_same", message
    if forward.offers is Offered.NONE and forward.carry is not Carry.NONE and session.scope is None:
        message = "Nothing is forwarded that could be cut; write carry: none."
        yield f"{path}.carry", "carry_without_offers", message
    if target is None:
        return
    if target.grid.distribution.sees_network and forward.offers is Offered.AGGREGATED:
        message = f"'{target.id}' sees the distribution grid, where an aggregate has no place; forward unused offers."
        yield f"{path}.offers", "aggregate_in_network", message
    if forward.offers is Offered.AGGREGATED and session.trades is Trades.REACTIVE_ENERGY:
        message = "A curve at the interface is of active power; forward unused offers."
        yield f"{path}.offers", "aggregate_of_reactive", message


def _iterate_faults(design: Design, names: Sequence[str]) -> Iterator[Fault]:
    assert design.iterate is not None
    for k, name in enumerate(design.iterate.sessions):
        place = f"iterate.sessions[{k}]"
        session = next((s for s in design.sessions if s.id == name), None)
        if session is None:
            yield place, "unknown_session", f"There is no session '{name}'; name one of {', '.join(names)}."
        elif session.repeat is not None or session.trades.is_capacity:
            message = f"'{name}' repeats or holds capacity; iterate sessions of energy that are held once."
            yield place, "iterate_repeat", message
        elif name in design.iterate.sessions[:k]:
            yield place, "repeated_id", f"'{name}' stands twice; name each session once."
        elif k and names.index(name) != names.index(design.iterate.sessions[0]) + k:
            message = (
                f"'{name}' does not follow the one before it; name sessions that stand one after another, in order."
            )
            yield place, "iterate_apart", message


def _product_faults(sessions: Mapping[int, Session]) -> Iterator[Fault]:
    for scope in Scope:
        members = {i: session for i, session in sessions.items() if session.scope is scope}
        named = [session.product is not None for session in members.values()]
        if any(named) and not all(named):
            message = f"Some sessions of scope {scope.value} name a product and some do not; let all or none name one."
            yield f"sessions[{min(members)}].product", "mixed_products", message


def _day_faults(sessions: Mapping[int, Session], *, complete: bool) -> Iterator[Fault]:
    """Faults of time, over days of every length; a fault of some days only names their lengths."""
    found: dict[Fault, list[int]] = {}
    for day in PROBES:
        axis = delivery_day(day, ZONE)
        times = {i: Times.of(session, day, ZONE) for i, session in sessions.items()}
        faults = [fault for i in sessions for fault in _gate_faults(f"sessions[{i}].gate", times[i])]
        faults += _order_faults(times)
        misplaced = [fault for i in sessions for fault in _horizon_faults(f"sessions[{i}].horizon", times[i], axis)]
        if not misplaced:
            held = [_Held(i, one, session) for i, session in sessions.items() for _, one in rounds(session, day, ZONE)]
            faults += _at_once_faults(held)
            if complete:
                faults += _tiling_faults(held, axis)
        faults += misplaced
        for fault in dict.fromkeys(faults):
            found.setdefault(fault, []).append(len(axis))
    for (path, code, message), lengths in found.items():
        counts = " and ".join(str(length) for length in sorted(set(lengths)))
        always = len(lengths) == len(PROBES)
        yield path, code, message if always else f"{message} This concerns days of {counts} quarter-hours."


@dataclass(frozen=True, slots=True)
class _Held:
    """A round of the session at `place` in the document."""

    place: int
    times: Times
    session: Session


def _gate_faults(path: str, times: Times) -> Iterator[Fault]:
    if times.closes <= times.opens:
        yield f"{path}.closes", "gate_empty", "The gate closes before it opens; close it later."
    if times.closes >= times.starts:
        message = "The gate closes only when the definitive part has begun; close it before the horizon starts."
        yield f"{path}.closes", "gate_late", message


def _horizon_faults(path: str, times: Times, axis: Axis) -> Iterator[Fault]:
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


def _order_faults(times: Mapping[int, Times]) -> Iterator[Fault]:
    for earlier, later in pairwise(times):
        if times[later].closes < times[earlier].closes:
            message = f"The gate closes before that of sessions[{earlier}]; list sessions in the order they close."
            yield f"sessions[{later}].gate.closes", "gate_order", message


def _at_once_faults(held: Sequence[_Held]) -> Iterator[Fault]:
    """Two gates that close at one instant for the same thing: neither can know what the other sells."""
    closing: dict[object, list[_Held]] = {}
    for one in held:
        closing.setdefault(one.times.closes, []).append(one)
    for together in closing.values():
        for place, later in enumerate(together):
            for earlier in together[:place]:
                if _sells_the_same(earlier, later):
                    message = (
                        f"It closes with sessions[{earlier.place}] and sells the same resources for the same hours; "
                        "close one gate later, or say by exclusion who keeps what both select."
                    )
                    yield f"sessions[{later.place}].gate.closes", "sold_at_once", message


def _sells_the_same(one: _Held, other: _Held) -> bool:
    a, b = one.session, other.session
    if a.chain == b.chain or (b.exclusion is not None and b.exclusion.session == a.id):
        return False
    meet = one.times.starts < other.times.ends and other.times.starts < one.times.ends
    levels = set(a.sellers.levels) & set(b.sellers.levels)
    resources = set(a.sellers.resources) & set(b.sellers.resources)
    kinds = {session.trades.is_capacity for session in (a, b)}
    reactive = [session.trades is Trades.REACTIVE_ENERGY for session in (a, b)]
    return meet and bool(levels) and bool(resources) and len(kinds) == 1 and reactive[0] == reactive[1]


def _tiling_faults(held: Sequence[_Held], axis: Axis) -> Iterator[Fault]:
    """The definitive parts of a chain cover every quarter-hour once, and nothing is bought after that.

    A session that names no scope and no sequence covers what it likes; its rounds leave no gap among them and nothing
    undecided.
    """
    chains: dict[str, list[_Held]] = {}
    for one in held:
        chains.setdefault(one.session.chain, []).append(one)
    for name, members in chains.items():
        yield from _settled_faults(members, axis)
        decided = [one.times for one in members if one.times.starts < one.times.firm_ends]
        covered = sorted((times.starts, times.firm_ends) for times in decided)
        alone = members[0].session
        if alone.scope is not None or alone.sequence is not None:
            for hole in _holes([(axis.start, axis.start), *covered, (axis.end, axis.end)]):
                message = f"No {name} session is definitive from {_elapsed(hole - axis.start)} on; cover every hour."
                yield "sessions", "firm_hole", message
        elif any(_holes(covered)):
            message = "Between two rounds some quarter-hours are never definitive; make firm as long as every."
            yield f"sessions[{members[0].place}].horizon.firm", "firm_hole", message
        else:
            yield from _undecided_faults(members)


def _undecided_faults(members: Sequence[_Held]) -> Iterator[Fault]:
    """What a session without a scope or sequence leaves preliminary no other ever decides."""
    last = max(members, key=lambda one: one.times.ends)
    decided = max(one.times.firm_ends for one in members)
    if last.times.ends > decided:
        message = "No round decides what stays preliminary; write firm: rest, or name a sequence that a later one ends."
        yield f"sessions[{last.place}].horizon.firm", "never_decided", message


def _holes(parts: Sequence[tuple[datetime, datetime]]) -> Iterator[datetime]:
    """Where parts sorted by their start leave a gap: the instants from which nothing is covered."""
    reached: datetime | None = None
    for starts, ends in parts:
        if reached is not None and starts > reached:
            yield reached
        reached = ends if reached is None else max(reached, ends)


def _settled_faults(members: Sequence[_Held], axis: Axis) -> Iterator[Fault]:
    """Rounds of one chain, in the order they are held, that decide or take up what an earlier one decided.

    Quarter-hours are bits of a number, so that a thousand rounds cost no more than a thousand steps.
    """
    settled: dict[int, int] = {}
    for one in sorted(members, key=lambda member: (member.times.closes, member.place)):
        firm = _bits(one.times.starts, one.times.firm_ends, axis)
        horizon = _bits(one.times.starts, one.times.ends, axis)
        for place, decided in settled.items():
            if decided & firm and place == one.place:
                message = "A round begins before the definitive part of the last one ends; make firm as long as every."
                yield f"sessions[{place}].horizon.firm", "firm_overlap", message
            elif decided & firm:
                message = f"The definitive part overlaps that of sessions[{place}]; let one end where the other starts."
                yield f"sessions[{one.place}].horizon.firm", "firm_overlap", message
            elif decided & horizon and place != one.place:
                message = f"The horizon takes in what sessions[{place}] made definitive; start later or end sooner."
                yield f"sessions[{one.place}].horizon", "horizon_settled", message
        settled[one.place] = settled.get(one.place, 0) | firm


def _bits(starts: datetime, ends: datetime, axis: Axis) -> int:
    """The quarter-hours of [starts, ends) as bits, the first of the day lowest."""
    first, last = ((instant - axis.start) // QUARTER for instant in (starts, ends))
    return (1 << max(first, last)) - (1 << first)


def _elapsed(span: timedelta) -> str:
    hours, minutes = divmod(span // timedelta(minutes=1), 60)
    return f"D+PT{hours}H{minutes}M" if minutes else f"D+PT{hours}H"
