"""A market that has rows over places and no network clears as if it had one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.errors import CoflexError
from coflex.domain.offer import Offer
from coflex.domain.quantity import Floats
from coflex.grid.assess import margins
from coflex.grid.network import build
from coflex.grid.powerflow import solve
from coflex.grid.published import Desk, Disclosure, Published, PublishedGrid, Sites, from_document, to_document
from coflex.grid.rows import AcGrid, Guard, RowKeys
from coflex.market.book import Place
from coflex.market.clearing import Answer
from support.books import DOWN, UP, book, bought, cleared, offer, places_of
from support.small_grids import injections, radial

TABLES = radial(i_max_a=200.0, v_min=0.97, v_max=1.02)
NETWORK = build(TABLES)
TAN_PHI = 0.2
BUSES = ("A1", "A2", "A3", "A4", "B1", "B2", "B3")
# Heavy load, then much sun, then a day like any other.
LOADS = ((1.6, 0.0), (0.3, 6.0), (0.5, 1.0))


def injected() -> tuple[Floats, Floats]:
    pairs = [injections(TABLES, NETWORK, load, pv) for load, pv in LOADS]
    p, q = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return p, q


def on_the_grid() -> AcGrid:
    return AcGrid(NETWORK, *injected())


def sites(reach_mw: float = 6.0) -> Sites:
    """One unit a bus, that offers under a name of its own."""
    return Sites(
        tuple(f"unit {k}" for k in range(len(BUSES))),
        np.arange(len(BUSES)),
        np.array([NETWORK.node_of(bus) for bus in BUSES]),
        np.full(len(BUSES), TAN_PHI),
        np.ones(len(BUSES)),
        np.full((len(BUSES), len(LOADS)), reach_mw),
    )


def offers(names: tuple[str, ...]) -> list[Offer]:
    both = [(name, direction) for name in names for direction in (UP, DOWN)]
    return [
        offer(k + 1, name, direction, (str(30 + 7 * (k % 5)), [4000] * 3), (str(95 + k), [2000] * 3))
        for k, (name, direction) in enumerate(both)
    ]


def on_network() -> tuple[dict, Answer]:
    """The clearing with the network, by number of offer, step and quarter-hour."""
    of = book(offers(BUSES), len(LOADS), places_of(NETWORK, TAN_PHI))
    answer = cleared(of, grid=on_the_grid())
    return bought(of, answer), answer


def on_rows(grid: PublishedGrid) -> tuple[dict, Answer]:
    """The same offers at a market that knows places by name."""
    names = grid.published.places
    of = book(offers(names), len(LOADS), {name: Place(k, "", 0.0) for k, name in enumerate(names)})
    answer = cleared(of, grid=grid)
    return bought(of, answer), answer


def changes(awards: dict) -> Floats:
    """What awards change at each place (t, p) in MW."""
    change = np.zeros((len(LOADS), len(BUSES)))
    for (name, _, period), kw in awards.items():
        k = int(name.removeprefix("offer ")) - 1
        change[period, k // 2] += (1 if k % 2 == 0 else -1) * kw / 1000
    return change


def sent(published: Published) -> Published:
    """Over the wire and back."""
    back = from_document(json.loads(json.dumps(to_document(published))))
    assert back == published
    return back


@pytest.mark.spec("GRID-14", "MKT-06")
def test_asking_the_operator_after_each_answer_clears_as_on_its_network() -> None:
    desk = Desk(on_the_grid(), sites())
    nothing = np.zeros((len(LOADS), len(BUSES)))
    asked: list[int] = []

    def ask(change: Floats, periods: np.ndarray) -> Published:
        asked.append(len(periods))
        return sent(desk.answer(change, periods))

    first = ask(nothing, np.arange(len(LOADS)))
    (own, whole), (rows, answer) = on_network(), on_rows(PublishedGrid(first, ask))
    assert sum(own.values()) > 1000 and not whole.short.any()
    assert rows == own
    assert not answer.short.any() and len(asked) > 3
    p, q = injected()
    change = changes(rows)
    for place, bus in enumerate(BUSES):
        p[:, NETWORK.node_of(bus)] += change[:, place]
        q[:, NETWORK.node_of(bus)] += change[:, place] * TAN_PHI
    high, low, loading = margins(NETWORK, solve(NETWORK, p, q))
    inner = NETWORK.not_slack
    assert max(high[:, inner].max(), low[:, inner].max(), loading.max()) <= 1e-6


@pytest.mark.spec("GRID-14", "MKT-06")
def test_the_rows_of_the_final_pass_alone_give_the_same_awards_as_the_network() -> None:
    own, _ = on_network()
    desk = Desk(on_the_grid(), sites())
    everywhere = np.arange(len(LOADS))
    while True:
        known = len(desk.answer(changes(own), everywhere).rows)
        desk.at_risk()
        published = desk.answer(changes(own), everywhere)
        if len(published.rows) == known:
            break
    rows, answer = on_rows(PublishedGrid(sent(published)))
    assert not answer.short.any()
    assert rows == own


@pytest.mark.spec("GRID-14")
def test_a_document_names_no_bus_no_branch_and_no_limit_unless_the_operator_says_so() -> None:
    masked, named = (Desk(on_the_grid(), sites(), how).at_risk() for how in (Disclosure.MASKED, Disclosure.NAMED))
    text = json.dumps(to_document(masked))
    secret = {*NETWORK.bus_names, *NETWORK.branch_names, *NETWORK.element_names} - {"H", "T"}
    assert masked.rows
    assert not [name for name in secret if name in text]
    assert {row.limit for row in masked.rows} == {f"limit {row.number}" for row in masked.rows}
    told = {row.limit.split(" ", 1)[1] for row in named.rows}
    assert told <= {*NETWORK.bus_names, *NETWORK.branch_names}
    assert [replace(row, limit="") for row in named.rows] == [replace(row, limit="") for row in masked.rows]


@pytest.mark.spec("GRID-14")
def test_a_market_that_asks_once_is_told_every_limit_that_full_use_would_break() -> None:
    document = Desk(on_the_grid(), sites(3.0), Disclosure.NAMED).at_risk()
    p, q = injected()
    told = {(row.period, row.limit) for row in document.rows}
    found = set()
    for way in (0.0, 3.0, -3.0):
        moved = np.zeros_like(p)
        moved[:, [NETWORK.node_of(bus) for bus in BUSES]] = way
        state = solve(NETWORK, p + moved, q + moved * TAN_PHI)
        high, low, loading = margins(NETWORK, state)
        high[:, NETWORK.slack] = low[:, NETWORK.slack] = -1
        for kind, margin, names in (
            ("voltage_high", high, NETWORK.node_names),
            ("voltage_low", low, NETWORK.node_names),
            ("loading", loading, NETWORK.branch_names),
        ):
            found |= {(int(t), f"{kind} {names[i]}") for t, i in np.argwhere(margin > 1e-6)}
    assert found and found <= told


@pytest.mark.spec("GRID-14")
@settings(max_examples=40, deadline=None)
@given(decimals=st.integers(3, 6), seed=st.integers(0, 10_000))
def test_what_keeps_a_rounded_row_keeps_the_true_one_however_a_group_splits_its_power(decimals: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    units, reach = len(BUSES), 30.0
    place = np.array([0, 0, 1, 1, 1, 2, 3])
    share = np.array([1 / (place == one).sum() for one in place])
    nodes = np.array([NETWORK.node_of(bus) for bus in BUSES])
    pool = Sites(("a", "b", "c", "d"), place, nodes, np.full(units, TAN_PHI), share, np.full((4, 3), reach))
    grid = on_the_grid()
    desk = Desk(grid, pool, decimals=decimals)
    nothing = np.zeros((3, NETWORK.n))
    everywhere = np.arange(3)
    published = desk.answer(np.zeros((3, 4)), everywhere)
    seen = grid.look(nothing, nothing, everywhere, RowKeys.none())
    true = grid.rows(seen.state, everywhere, seen.broken, nothing, nothing)
    assert len(published.rows) == len(true) > 2
    of_unit = true.dp[:, nodes] + TAN_PHI * true.dq[:, nodes]
    order = np.lexsort(([row.number for row in published.rows], [row.period for row in published.rows]))
    assert np.array_equal(order, np.arange(len(order)))
    numbers = {(int(f), int(i)): n for (f, i), n in desk._number.items()}
    place_of = {
        (int(t), numbers[int(f), int(i)]): k
        for k, (t, f, i) in enumerate(zip(seen.broken.period, seen.broken.form, seen.broken.index, strict=True))
    }
    tried = 0
    for row in published.rows:
        k = place_of[row.period, row.number]
        effect = np.array(row.effect)
        for _ in range(20):
            # A change on the edge of what the published row allows.
            x = rng.uniform(-1.0, 1.0, 4)
            x *= row.room / (effect @ x)
            if np.abs(x).max() > reach:
                continue
            split = rng.dirichlet(np.full(units, 0.2))
            weight = split / np.bincount(place, split, 4)[place]
            assert of_unit[k] @ (x[place] * weight) <= true.room[k] + 1e-12
            tried += 1
    assert tried > 10


@pytest.mark.spec("GRID-14")
def test_a_guard_tightens_published_rows_each_in_its_own_unit() -> None:
    document = Desk(on_the_grid(), sites()).at_risk()
    everywhere, nothing = np.arange(3), np.zeros((3, len(BUSES)))
    plain, tight = PublishedGrid(document), PublishedGrid(document).with_guard(Guard(0.001, 0.02))
    known = plain.look(nothing, nothing, everywhere, RowKeys.none()).broken
    state = plain.look(nothing, nothing, everywhere, known).state
    lost = plain.headroom(state, everywhere, known) - tight.headroom(state, everywhere, known)
    unit = {row.number: 0.001 if row.quantity == "voltage" else 0.02 for row in document.rows}
    assert len(known) and lost == pytest.approx([unit[n] for n in known.index.tolist()])


def test_documents_that_are_none_and_reactive_offers_are_refused() -> None:
    document = to_document(Desk(on_the_grid(), sites()).at_risk())
    for broken in ({}, document | {"rows": [{}]}, document | {"places": ["one"]}, document | {"periods": 1}):
        with pytest.raises(CoflexError, match="row"):
            from_document(broken)
    grid = PublishedGrid(from_document(json.loads(json.dumps(document))))
    nothing = np.zeros((3, len(BUSES)))
    with pytest.raises(CoflexError, match="reactive"):
        grid.look(nothing, nothing + 1, np.arange(3), RowKeys.none())
    absent = RowKeys(np.array([0]), np.array([0]), np.array([9999]))
    with pytest.raises(CoflexError, match="not published"):
        grid.headroom(grid.look(nothing, nothing, np.arange(3), absent).state, np.arange(3), absent)
