"""Laws of market designs, on random small cases and on the small case.

What any design must keep (nothing sold twice, the same outcome in any order), what one design owes to another (a common
market is never dearer than a sequence of markets on the same resources), and a second engine: the common optimum of
lossless grids by `scipy.optimize.linprog` on the linear (DC) power flow.

Worlds of the first kind have an emergency price far above every bid, so that mending is never cheaper than a market.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from coflex.domain.offer import Offer
from coflex.domain.quantity import Bools, Direction, Floats
from coflex.grid import assess
from coflex.grid.powerflow import solve
from coflex.grid.validation import SPARE
from coflex.market.coordination.outcome import Bought, Run
from coflex.market.coordination.run import obstacles, run
from coflex.market.coordination.world import World, limited
from coflex.market.design import Design, Service, Validation, designs, load_design, read_design, schedule
from coflex.simulation.coordination.assembly import DAY, ZONE
from coflex.simulation.coordination.small import small
from support.worlds import worlds

HOURS = 0.25
# EUR/MWh of mending in the worlds of the cost laws: above any bid times any ratio of effects.
DEAR = 20_000.0
# Sequences of markets on the resources of the common one, those that clear fast and those that draw lights or curves.
FAST = (
    "smartnet_c",
    "coordinet_fragmented",
    "interrface_1a_tso_first",
    "interrface_1a_dso_first",
    "interrface_1a_at_once",
    "interrface_1b",
    "interrface_1c",
    "interrface_2b",
)
SLOW = ("smartnet_a", "smartnet_b", "smartnet_d_two", "coordinet_multi_level", "beflexible_six")
# Designs that take seconds on the small case: lights in many rounds, own means, curves.
LONG = {"coordinet_congestion", "flexhub_reactive", "smartnet_d_two", "onenet_cy_02"}


def few(examples: int) -> Any:
    """Random worlds are dear to make, and the same in every run."""
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@cache
def bare(name: str) -> Design:
    """A design that comes with the platform without its margins to limits, so that all see the same."""
    return without_margin(load_design(name))


def without_margin(design: Design) -> Design:
    bare_sessions = tuple(one.model_copy(update={"security_margin": None}) for one in design.sessions)
    return design.model_copy(update={"sessions": bare_sessions})


@cache
def case() -> World:
    return small()


def eur(bought: Iterable[Bought]) -> float:
    """What awards cost at their bids."""
    return sum(float(one.award.bid_eur_mwh) * one.award.quantity_kw for one in bought) * HOURS / 1000


def cost(found: Run) -> float:
    """EUR at bids and for mending: what a design costs, however it shares and pays."""
    return eur(found.bought) + found.final.mended_eur


def slack_eur(found: Run) -> float:
    """What whole kW may cost: one for each award and quarter-hour, of prices up to 300 EUR/MWh, and the clearing's own
    tightening of limits by 2e-4 of ratings up to some 10 MW where rounding has spoilt them."""
    cells = {one.award.start for one in found.bought}
    return 0.02 + (len(found.bought) + 2 * len(cells)) * 300 * HOURS / 1000


def net_kw(world: World, found: Iterable[Bought]) -> Floats:
    """kW (t,) by which awards bring the system up."""
    kw = np.zeros(len(world.axis))
    for one in found:
        if not one.reactive:
            kw[world.axis.position(one.award.start)] += one.award.direction.sign * one.award.quantity_kw
    return kw


# ---------------------------------------------------------------- the common market against sequences


def dear(world: World, orders: int = 0) -> World:
    """The world with mending that nobody wants, and branches overloaded by a fifteenth of their flow at most, so that
    offers suffice more often than not."""
    flow = np.abs(world.p_mw @ ptdf(world).T).max(axis=0)
    most = np.maximum(world.network.loading_max, flow / world.network.rating_from / (1 + 1 / 15))
    eased = replace(world.network, loading_max=most)
    return replace(world, network=eased, emergency_eur_mwh=DEAR, orders=world.orders[:orders])


@few(10)
@given(worlds(), st.sampled_from(SLOW))
def test_no_sequence_is_cheaper_than_the_common_market(world: World, slow: str) -> None:
    cheaper_than_none(dear(world), (*FAST, slow))


@pytest.mark.slow
@few(80)
@given(worlds())
def test_no_sequence_is_cheaper_than_the_common_market_in_many_worlds(world: World) -> None:
    cheaper_than_none(dear(world), (*FAST, *SLOW))


def cheaper_than_none(world: World, sequences: Sequence[str]) -> None:
    """Where the offers suffice for all limits and the balance; where not, what the common market leaves open is counted
    in its own measure, which is not the mending's."""
    common = run(bare("smartnet_d_one"), world)
    assume(common.final.mended_kwh == 0)
    for name in sequences:
        other = run(bare(name), world)
        assert cost(common) <= cost(other) + slack_eur(common), name


def test_the_sequences_are_dearer_in_the_small_case() -> None:
    """Else the law above could hold for want of any difference."""
    common = cost(run(bare("smartnet_d_one"), case()))
    assert common > 0
    for name in ("smartnet_a", "smartnet_b", "smartnet_c", "coordinet_fragmented", "interrface_2b"):
        assert cost(run(bare(name), case())) > common + 0.5, name


# ---------------------------------------------------------------- a second engine


def ptdf(world: World) -> Floats:
    """MW (m, n) on each branch for one at each node, taken out at the slack: B theta = p, flow = b (theta_i - theta_j).

    By the series reactances alone, as the lines have next to no resistance.
    """
    net = world.network
    b = -np.imag(net.y_series)
    ends = np.zeros((net.m, net.n))
    ends[np.arange(net.m), net.from_node] = 1.0
    ends[np.arange(net.m), net.to_node] = -1.0
    flow = b[:, None] * ends
    keep = np.delete(np.arange(net.n), net.slack)
    found = np.zeros((net.m, net.n))
    found[:, keep] = flow[:, keep] @ np.linalg.inv((ends.T @ flow)[np.ix_(keep, keep)])
    return found


def optimum(world: World) -> float | None:
    """EUR of the cheapest awards that keep every rating and the system's balance; None where there are none."""
    effect, total = ptdf(world), 0.0
    rating = world.network.rating_from * world.network.loading_max * world.network.slack_vm_pu
    bound = np.isfinite(rating)
    offered = [one for one in world.offers if one.product not in world.reactive]
    node = [world.seller[one.unit or ""].node for one in offered]
    sign = np.array([one.direction.sign for one in offered])
    price = np.array([float(one.steps[0].price_eur_mwh) for one in offered])
    of_kw = effect[:, node][bound] * sign / 1000
    busy = np.flatnonzero(np.abs(world.p_mw).any(axis=1) | (world.system_kw != 0))
    for t in busy.tolist():
        flow, most = (effect @ world.p_mw[t])[bound], rating[bound]
        rows, right = np.concatenate([of_kw, -of_kw]), np.concatenate([most - flow, most + flow])
        kw = [(0, one.steps[0].quantity_kw[t]) for one in offered]
        found = linprog(price, rows, right, sign[None], [world.system_kw[t]], kw)
        if found.status == 2:
            return None
        assert found.status == 0
        total += found.fun * HOURS / 1000
    return total


@few(25)
@given(worlds())
def test_the_common_market_costs_what_linear_programming_says(world: World) -> None:
    world = dear(world)
    best = optimum(world)
    found = run(bare("smartnet_d_one"), world)
    assert (best is None) == (found.final.mended_kwh > 0)
    if best is not None:
        assert best - 0.02 <= cost(found) <= best + slack_eur(found)


# ---------------------------------------------------------------- the price at the interface

PRICED = """
id: priced
title: a local market that counts energy at a price, then the market of the TSO
source: {document: B, section: "3.1"}
sessions:
- id: local
  buyers: [dso]
  sellers: {levels: [distribution]}
  gate: {opens: "D-1T08:00", closes: "D-1T10:00"}
  horizon: {starts: "D", ends: "D+1", firm: rest}
  needs: assessment
  grid: {distribution: ac, transmission: none}
  interface: priced
  pricing: pay_as_bid
  validation: static
- id: central
  buyers: [tso]
  sellers: {levels: [distribution, transmission]}
  gate: {opens: "D-1T10:30", closes: "D-1T12:00"}
  horizon: {starts: "D", ends: "D+1", firm: rest}
  needs: both
  grid: {distribution: ac, transmission: ac}
  interface: netted
  pricing: pay_as_bid
  validation: static
"""


@few(10)
@given(worlds(busy=2))
def test_a_sequence_that_meets_at_the_common_price_costs_the_same(world: World) -> None:
    """The price of energy in the common balance parts the optimum into one problem a grid and one above (a Lagrangian
    decomposition), as long as transmission is a copper plate and the unit at the margin, which one session alone can
    hold, is the TSO's."""
    world = dear(world)
    network = limited(world.network, np.ones(world.network.n, dtype=np.bool_), world.branch_grid >= 0)
    world = replace(world, network=network)
    common = run(bare("smartnet_d_one"), world)
    assume(common.final.mended_kwh == 0)
    price = common.held[0].energy_eur_mwh
    busy = np.abs(world.p_mw).any(axis=1) | (world.system_kw != 0)
    below = {float(o.steps[0].price_eur_mwh) for o in world.offers if world.seller[o.unit or ""].grid}
    margins = np.array([abs(abs(at) - bid) for at in price[busy] for bid in below])
    assume((margins > 0.01).all())
    stated = replace(world, energy_eur_mwh=np.where(busy, np.nan_to_num(price), 0.0))
    sequence = run(read_design(PRICED, "priced.yaml"), stated)
    assert cost(sequence) == pytest.approx(cost(common), abs=slack_eur(common) + slack_eur(sequence))


# ---------------------------------------------------------------- who keeps the grid

WALKED = """
id: walked
title: a local market, then a list that the DSO walks
source: {document: T, section: "offering, 5"}
sessions:
- id: local
  buyers: [dso]
  sellers: {levels: [distribution]}
  gate: {opens: "D-1T08:00", closes: "D-1T10:00"}
  horizon: {starts: "D", ends: "D+1", firm: rest}
  needs: assessment
  grid: {distribution: ac, transmission: none}
  interface: free
  pricing: pay_as_bid
  validation: static
- id: central
  buyers: [tso]
  sellers: {levels: [distribution, transmission]}
  gate: {opens: "D-1T10:30", closes: "D-1T12:00"}
  horizon: {starts: "D", ends: "D+1", firm: rest}
  needs: requests
  grid: {distribution: none, transmission: none}
  interface: netted
  pricing: pay_as_bid
  validation: merit_order
"""


def beyond(world: World, bought: Iterable[Bought]) -> tuple[Floats, Bools]:
    """By how much limits of distribution grids are broken, (t, nodes + branches), with awards put on their nodes one by
    one; and whether they are."""
    p, q = world.p_mw.copy(), world.q_mvar.copy()
    for one in bought:
        award, of = one.award, world.seller[one.award.unit or ""]
        mw = award.direction.sign * award.quantity_kw / 1000
        t = world.axis.position(award.start)
        p[t, of.node] += 0.0 if one.reactive else mw
        q[t, of.node] += mw if one.reactive else of.tan_phi * mw
    high, low, loading = assess.margins(world.network, solve(world.network, p, q))
    margin = np.concatenate([np.maximum(high, low), loading], axis=1)
    mine = np.concatenate([world.node_grid >= 0, world.branch_grid >= 0])
    return margin[:, mine], margin[:, mine] > assess.TOLERANCE


@pytest.mark.spec("MKT-07")
@few(25)
@given(worlds())
def test_a_list_that_the_dso_walked_breaks_nothing_more(world: World) -> None:
    found = run(read_design(WALKED, "walked.yaml"), world)
    was, before = beyond(world, ())
    after, broken = beyond(world, found.bought)
    assert not (broken & ~before).any()
    assert (after[before] <= was[before] + SPARE + 1e-6).all()
    assert found.final.violations_distribution == broken.sum() <= found.final.before_distribution == before.sum()


@pytest.mark.spec("MKT-07")
@pytest.mark.parametrize("name", ["onenet_pt_01", "tdx_1_with_dso", "flexhub_active", "platone_day_ahead"])
def test_designs_with_a_walk_break_no_distribution_grid_in_the_small_case(
    name: str, on_the_small_case: Callable[[str], Run]
) -> None:
    design = load_design(name)
    assert any(one.validation is Validation.MERIT_ORDER for one in design.sessions)
    found = on_the_small_case(name)
    assert found.final.violations_distribution <= found.final.before_distribution
    assert any(one.grid for one in found.bought)


def test_without_the_walk_the_same_list_breaks_a_grid() -> None:
    """At 10 the need of 4000 takes s3 2000, w1 1000 and n1 1000 by price. North's line of 4 MW carries 3.5 MW, so it
    has room for 500 kW of n1, of which a walk leaves `SPARE`."""
    unwalked = WALKED.replace("merit_order", "static")
    found = {text: run(read_design(text, "walked.yaml"), case()) for text in (WALKED, unwalked)}
    ten = range(40, 44)
    broken = {text: beyond(case(), one.bought)[1][ten].sum() for text, one in found.items()}
    assert (broken[WALKED], broken[unwalked]) == (0, 4)
    n1 = {text: {o.award.quantity_kw for o in one.bought if o.award.unit == "n1" and o.award.session == "central"
                 and case().axis.position(o.award.start) in ten} for text, one in found.items()}  # fmt: skip
    assert (n1[WALKED], n1[unwalked]) == ({500 - round(4000 * SPARE)}, {1000})


def test_a_market_blind_to_distribution_breaks_it_and_the_run_shows_it(on_the_small_case: Callable[[str], Run]) -> None:
    """SmartNet A in the small case: twelve distribution limits are broken before; n1's kW at 10 break four more."""
    final = on_the_small_case("smartnet_a").final
    assert final.before_distribution == 12
    assert final.violations_distribution == 16
    assert final.mended_eur > 0


# ---------------------------------------------------------------- nothing is sold twice


def sound(design: Design, world: World, found: Run) -> None:
    """What holds for every run: one holder and one direction of a unit and quarter-hour; awards within offers, offers
    within qualifications; shares that add up; statuses definitive; final books that agree with what was bought."""
    plans = {plan.id: plan for plan in schedule(design, DAY, ZONE)}
    chain = {name: plan.session.chain for name, plan in plans.items()}
    holders: dict[Any, set[str]] = defaultdict(set)
    ways: dict[Any, set[Direction]] = defaultdict(set)
    sold: dict[Any, int] = defaultdict(int)
    kept: dict[Any, int] = defaultdict(int)
    of_step: dict[Any, int] = defaultdict(int)
    for one in found.bought:
        award = one.award
        assert award.quantity_kw > 0 and award.start in plans[award.session].horizon
        assert min(one.share_dso, one.share_tso, one.share_brp) >= 0
        assert one.share_dso + one.share_tso + one.share_brp == pytest.approx(1)
        of_step[award.offer, award.step, award.start] += award.quantity_kw
        if award.unit is None:
            continue
        holders[award.unit, award.start].add(chain[award.session])
        if not one.reactive:
            ways[award.unit, award.start].add(award.direction)
        if not one.reactive and not award.offer.startswith("contract "):
            sold[award.unit, award.direction, award.start] += award.quantity_kw
    keepers: dict[Any, set[str]] = defaultdict(set)
    for kept_ready in found.reserved:
        keepers[kept_ready.unit, kept_ready.start].add(chain[kept_ready.session])
        of_step[kept_ready.offer, kept_ready.step, kept_ready.start] += kept_ready.quantity_kw
        if kept_ready.product != Service.INERTIA:
            kept[kept_ready.unit, kept_ready.direction, kept_ready.start] += kept_ready.quantity_kw
    assert all(len(names) == 1 for names in (*holders.values(), *keepers.values()))
    assert all(len(directions) == 1 for directions in ways.values())
    within_offers(world, of_step)
    if all(one.validation is not Validation.NONE for one in design.sessions):
        for unit, way, start in {*sold, *kept}:
            if unit in world.seller:
                both = sold[unit, way, start] + kept[unit, way, start]
                assert both <= world.seller[unit].limit_kw(way), (unit, start)
    called_within_what_is_kept(found)
    booked(world, found)


def within_offers(world: World, of_step: dict[Any, int]) -> None:
    phases = () if world.phases is None else world.phases.offers
    known: dict[str, Offer] = {one.id: one for one in (*world.offers, *phases)}
    known |= {one.offer.id: one.offer for held in world.capacity.values() for one in held}
    for (offer, number, start), kw in of_step.items():
        if offer in known:
            step = next(one for one in known[offer].steps if one.number == number)
            place = world.axis.position(start) - world.axis.position(step.start)
            assert kw <= step.quantity_kw[place], (offer, start)
        else:
            assert offer.startswith(("contract ", "voltage ")), offer


def called_within_what_is_kept(found: Run) -> None:
    """A contract is called for no more than it keeps ready, whichever sessions admit it."""
    ready: dict[tuple[str | None, Direction, datetime], int] = defaultdict(int)
    called: dict[tuple[str | None, Direction, datetime], int] = defaultdict(int)
    for kept in found.reserved:
        ready[kept.unit, kept.direction, kept.start] += kept.quantity_kw
    for one in found.bought:
        if one.award.offer.startswith("contract "):
            called[one.award.unit, one.award.direction, one.award.start] += one.award.quantity_kw
    assert all(kw <= ready[cell] for cell, kw in called.items())


def booked(world: World, found: Run) -> None:
    """Interfaces are the sums of the awards below them; where nothing else moves, what is unbalanced is the need less
    the awards."""
    below = {one.id for one in world.sellers}
    if any(one.award.unit is None for one in found.bought):
        return
    mine = [one for one in found.bought if one.award.unit in below]
    for g, name in enumerate(world.grids):
        kw = net_kw(world, (one for one in mine if one.grid == name))
        assert found.final.interface_kw[g] == pytest.approx(kw, abs=1e-6)
    if not world.orders:
        lacking = np.abs(world.system_kw - net_kw(world, mine))
        assert found.final.unbalanced_kwh == pytest.approx(lacking.sum() * HOURS, abs=1e-6)


# ---------------------------------------------------------------- the same in any order


def told(thing: Any) -> Any:
    """All of a run as plain lists and texts, to the last bit, without the time that solving took."""
    if is_dataclass(thing) and not isinstance(thing, type):
        return [[field.name, told(getattr(thing, field.name))] for field in fields(thing)]
    if isinstance(thing, np.ndarray):
        return told(thing.tolist())
    if isinstance(thing, dict):
        return [[told(key), told(thing[key])] for key in thing]
    if isinstance(thing, list | tuple):
        return [told(one) for one in thing]
    return thing.hex() if isinstance(thing, float) else repr(thing)


def digest(found: Run) -> str:
    return hashlib.sha256(json.dumps(told(found)).encode()).hexdigest()


def shuffled(world: World, seed: int) -> World:
    """The same world, everything in it that has no order of its own in another one."""
    by = random.Random(seed)

    def mixed(things: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(by.sample(list(things), len(things)))

    capacity = {key: mixed(world.capacity[key]) for key in mixed(list(world.capacity))}
    reserve = {key: world.reserve_kw[key] for key in mixed(list(world.reserve_kw))}
    below = {key: world.local_kw[key] for key in mixed(list(world.local_kw))}
    groups = {key: world.groups[key] for key in mixed(list(world.groups))}
    return replace(
        world,
        sellers=mixed(world.sellers),
        offers=mixed(world.offers),
        orders=mixed(world.orders),
        capacity=capacity,
        reserve_kw=reserve,
        local_kw=below,
        groups=groups,
        reductions=mixed(world.reductions),
        lots=mixed(world.lots),
        lease_bids=mixed(world.lease_bids),
    )


def same(first: Run, second: Run) -> None:
    """Runs are equal to the bit; if not, say where."""
    for field in fields(first):
        assert told(getattr(first, field.name)) == told(getattr(second, field.name)), field.name


def possible(name: str, world: World) -> bool:
    return not list(obstacles(load_design(name), world))


ALL = [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in designs()]


@pytest.mark.spec("MKT-09", "MKT-19")
@pytest.mark.parametrize("name", ALL)
def test_every_design_sells_nothing_twice_and_asks_no_order_of_the_small_case(
    name: str, on_the_small_case: Callable[[str], Run]
) -> None:
    if not possible(name, case()):
        pytest.skip("the small case has not what this design asks for")
    found = on_the_small_case(name)
    sound(load_design(name), case(), found)
    same(found, run(load_design(name), shuffled(case(), 7)))


# Random worlds have no taps, feeder of three phases, storage or lower voltage to offer.
BEYOND = {
    "flexgrid_storage_leasing",
    "flexhub_reactive",
    "onenet_cy_02",
    "platone_day_ahead",
    "platone_real_time",
    "tdx_2_voltage_reduction",
}
RANDOM = sorted(set(designs()) - LONG - BEYOND)
RESERVES = (
    Service.FCR,
    Service.AFRR,
    Service.MFRR,
    Service.RR,
    Service.INERTIA,
    Service.CONGESTION,
    Service.VOLTAGE,
    Service.BALANCING,
)


def furnished(world: World) -> World:
    """The world with capacity asked for and offered for every service, by units that are qualified for all."""
    offered, capacity = world.capacity[Service.AFRR], {}
    for k, service in enumerate(RESERVES):
        capacity[service] = tuple(
            replace(
                one,
                offer=replace(
                    one.offer,
                    id=f"{service}-{one.offer.id}",
                    receipt=100 * k + one.offer.receipt,
                    product=service.value,
                ),
            )
            for one in offered
        )
    asked = {(one, way): kw for one in RESERVES for (_, way), kw in world.reserve_kw.items()}
    return replace(
        world,
        sellers=tuple(replace(one, services=tuple(sorted(Service))) for one in world.sellers),
        capacity=capacity,
        reserve_kw=asked,
        local_kw={key: kw // 2 for key, kw in asked.items() if key[0] in (Service.CONGESTION, Service.VOLTAGE)},
    )


@pytest.mark.spec("MKT-09", "MKT-19")
@few(18)
@given(worlds(reactive=True, reserve=True, forecast_error=1.0), st.integers(0, 99))
def test_designs_sell_nothing_twice_and_ask_no_order_of_random_worlds(world: World, seed: int) -> None:
    """Which design is a matter of the world's prices: one drawn beside it would often be the first of the list."""
    cents = sum(int(100 * step.price_eur_mwh) for one in world.offers for step in one.steps)
    name = RANDOM[cents % len(RANDOM)]
    world = furnished(world)
    found = run(load_design(name), world)
    sound(load_design(name), world, found)
    same(found, run(load_design(name), shuffled(world, seed)))


@pytest.mark.slow
@pytest.mark.spec("MKT-09", "MKT-19")
@pytest.mark.parametrize("name", sorted(set(designs()) - BEYOND))
@few(5)
@given(world=worlds(reactive=True, reserve=True, forecast_error=1.0), seed=st.integers(0, 99))
def test_each_design_sells_nothing_twice_and_asks_no_order(name: str, world: World, seed: int) -> None:
    world = furnished(world)
    found = run(load_design(name), world)
    sound(load_design(name), world, found)
    same(found, run(load_design(name), shuffled(world, seed)))


@few(4)
@given(worlds(reactive=True, reserve=True), st.sampled_from(("smartnet_d_one", "interrface_1a_at_once", "vpp_afrr")))
def test_two_runs_are_one(world: World, name: str) -> None:
    same(run(load_design(name), world), run(load_design(name), world))


_REPLAY = """
from coflex.simulation.coordination.small import small
from market.test_coordination_laws import digest, load_design, run
print(digest(run(load_design("coordinet_distributed"), small())))
"""


@pytest.mark.spec("MKT-19")
def test_another_process_with_another_hash_seed_says_the_same(on_the_small_case: Callable[[str], Run]) -> None:
    here = digest(on_the_small_case("coordinet_distributed"))
    seed = "1" if os.environ.get("PYTHONHASHSEED") == "4711" else "4711"
    place = os.pathsep.join(path for path in sys.path if path)
    env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": place, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", _REPLAY], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == here


# ---------------------------------------------------------------- liquidity


@few(12)
@given(
    worlds(), st.sampled_from(("smartnet_d_one", "smartnet_e", "coordinet_common")), st.randoms(use_true_random=False)
)
def test_more_offers_never_raise_the_cost_of_one_optimisation(world: World, name: str, by: random.Random) -> None:
    """Less what served orders were worth. Where all offers together suffice; else see `cheaper_than_none`."""
    world = dear(world, 1)
    world = replace(world, orders=tuple(replace(one, kw=np.abs(one.kw)) for one in world.orders))
    every = run(bare(name), world)
    assume(every.final.mended_kwh == 0)
    ranked = by.sample(list(world.offers), len(world.offers))
    last = net_of_value(world, every)
    for share in (0.8, 0.5, 0.0):
        fewer = replace(world, offers=tuple(ranked[: int(share * len(ranked))]))
        found = run(bare(name), fewer)
        now = net_of_value(fewer, found)
        if found.final.mended_kwh == 0:
            assert now >= last - slack_eur(found) - slack_eur(every)
            last = now
        else:
            assert now > last


def net_of_value(world: World, found: Run) -> float:
    """Cost less the value of the order that was served: with the system in balance, all awards beyond its need."""
    if not any("brp" in one.award.buyer for one in found.bought) or not world.orders:
        return cost(found)
    served = np.clip(net_kw(world, found.bought) - world.system_kw, 0, world.orders[0].kw)
    return cost(found) - float(served.sum()) * world.orders[0].limit_eur_mwh * HOURS / 1000


# ---------------------------------------------------------------- netting at the interface

NETTED = """
id: netting
title: a local market, then the balance
source: {document: B, section: "6.3, figure 15"}
sessions:
- id: local
  buyers: [dso]
  sellers: {levels: [distribution]}
  gate: {opens: "D-1T08:00", closes: "D-1T10:00"}
  horizon: {starts: "D", ends: "D+1", firm: rest}
  needs: assessment
  grid: {distribution: ac, transmission: none}
  interface: free
  pricing: pay_as_bid
  validation: static
- id: central
  buyers: [tso]
  sellers: {levels: [transmission]}
  gate: {opens: "D-1T10:30", closes: "D-1T12:00"}
  horizon: {starts: "D", ends: "D+1", firm: rest}
  needs: requests
  grid: {distribution: none, transmission: none}
  interface: INTERFACE
  pricing: pay_as_bid
  validation: static
"""


@pytest.mark.spec("MKT-11")
@few(12)
@given(worlds(binding=True), st.sampled_from(("netted", "free")))
def test_the_tso_nets_what_others_moved_where_it_is_told(world: World, interface: str) -> None:
    """Netted, it buys its need less what the DSO moved, with its sign; free, all of its need."""
    world = replace(world, orders=())
    found = run(read_design(NETTED.replace("INTERFACE", interface), "netting.yaml"), world)
    moved = net_kw(world, (one for one in found.bought if one.award.session == "local"))
    bought = net_kw(world, (one for one in found.bought if one.award.session == "central"))
    need = world.system_kw
    asked = need - moved if interface == "netted" else need
    # Transmission sellers: two or three with at least a MW each way; what they have not, they cannot give.
    able = [sum(one.limit_kw(way) for one in world.sellers if not one.grid) for way in (Direction.DOWN, Direction.UP)]
    assert bought == pytest.approx(np.clip(asked, -able[0], able[1]))
    central = found.held[1]
    against = np.sign(moved) * np.sign(need) < 0
    assert central.discordant_kwh == pytest.approx(np.abs(moved[against]).sum() * HOURS)
    with_it = np.minimum(np.abs(moved), np.abs(need))[~against]
    assert central.concordant_kwh == pytest.approx(with_it.sum() * HOURS)
