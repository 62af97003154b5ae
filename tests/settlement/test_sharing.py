"""Cost sharing between operators whose one purchase serves them all."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.domain.errors import CoflexError, Refused
from coflex.domain.statement import Cause
from coflex.settlement.charges import settle
from coflex.settlement.document import Need, Payer, ShareBy, Sharing
from coflex.settlement.inputs import Bought, Purchase
from coflex.settlement.sharing import part, shapley, weights
from support.settling import PURCHASES, ROLES, RULES, D, delivery, settled_inputs, shapley_by_orders

PLAYERS = (Payer.BRP, Payer.DSO, Payer.TSO)
GROUPS = ["+".join(one) for size in (1, 2, 3) for one in combinations(PLAYERS, size)]
costs = st.fixed_dictionaries({name: st.decimals(0, 1000, places=2) for name in GROUPS})
ONE = delivery(need=Need.SHARED, purchase="p")


def rule(by: ShareBy, **shares: Decimal):  # type: ignore[no-untyped-def]
    sharing = Sharing(by=by, shares={Payer(name): share for name, share in shares.items()})
    return RULES["local_congestion"].model_copy(update={"sharing": sharing})


@pytest.mark.spec("SET-03")
@given(costs)
def test_the_shapley_value_is_the_mean_over_all_orders_of_joining(game: dict[str, Decimal]) -> None:
    values = shapley(PLAYERS, game)
    assert {str(one): value for one, value in values.items()} == shapley_by_orders(game, [str(one) for one in PLAYERS])
    assert sum(values.values()) == Fraction(game["brp+dso+tso"])


@given(costs)
def test_one_that_adds_nothing_pays_nothing_and_likes_pay_alike(game: dict[str, Decimal]) -> None:
    idle = {
        name: (game["dso"] if "dso" in name else D(0)) + (game["tso"] if "tso" in name else D(0)) for name in GROUPS
    }
    assert shapley(PLAYERS, idle) == {Payer.BRP: 0, Payer.DSO: Fraction(game["dso"]), Payer.TSO: Fraction(game["tso"])}
    alike = {name: game[["dso", "dso+tso", "brp+dso+tso"][name.count("+")]] for name in GROUPS}
    assert len(set(shapley(PLAYERS, alike).values())) == 1


@pytest.mark.spec("SET-03")
def test_shares_by_need_all_the_same_or_fixed() -> None:
    needs = Purchase("p", needs={Payer.DSO: D(1), Payer.TSO: D(3)})
    assert weights(rule(ShareBy.NEED), ONE, needs) == {Payer.DSO: Fraction(1, 4), Payer.TSO: Fraction(3, 4)}
    assert weights(rule(ShareBy.EQUAL), ONE, None) == dict.fromkeys(ROLES, Fraction(1, 3))
    fixed = rule(ShareBy.FIXED, dso=D("0.7"), tso=D("0.3"))
    assert weights(fixed, ONE, None) == {Payer.DSO: Fraction(7, 10), Payer.TSO: Fraction(3, 10)}


@given(st.decimals(-(10**6), 10**6, places=9), st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any))
def test_parts_add_to_the_amount_and_miss_their_share_by_a_few_grains(amount: Decimal, by: list[int]) -> None:
    shares = [Fraction(one, sum(by)) for one in by]
    parts = part(amount, shares)
    assert sum(parts) == amount
    for one, share in zip(parts, shares, strict=True):
        assert abs(Fraction(one) - Fraction(amount) * share) <= Fraction(len(by), 10**9)


def test_costs_that_leave_a_share_below_zero_are_not_shared_by() -> None:
    game = Purchase("p", costs={"dso": D(1), "tso": D(100), "dso+tso": D(50)})
    with pytest.raises(CoflexError, match="below zero"):
        weights(RULES["reactive_interface"], ONE, game)


def test_a_party_that_plays_two_parts_pays_both_on_one_line() -> None:
    one = delivery(need=Need.SHARED, purchase="need", roles={Payer.DSO: "grid", Payer.TSO: "grid", Payer.BRP: "brp"})
    charges = settle(settled_inputs(one, purchases=PURCHASES), RULES)
    paid = {charge.customer: charge.amount_eur for charge in charges if charge.cause is Cause.ACTIVATION}
    assert set(paid) == {"grid", "brp"}
    assert sum(paid.values()) == 2
    assert abs(paid["brp"] - D(2) * D("0.3") / D("3.8")) < D("1e-8")


@pytest.mark.parametrize(
    ("purchase", "code"),
    [
        (Purchase("game", costs={"dso": D(1), "tso": D(1)}), "costs"),
        (Purchase("game", costs={"dso": D(1), "tso": D(1), "tso+dso": D(2), "dso+tso": D(2)}), "costs"),
        (Purchase("game"), "no_payer"),
        (Purchase("other"), "unknown_purchase"),
    ],
)
def test_a_purchase_that_lacks_what_its_sharing_needs_is_refused(purchase: Purchase, code: str) -> None:
    bought = (Bought("a1", D(25), nodal_eur_mwh=D(1)),)
    one = delivery(rule="reactive_interface", need=Need.SHARED, purchase="game", bought=bought)
    with pytest.raises(Refused) as refused:
        settle(settled_inputs(one, purchases=(purchase,)), RULES)
    assert {fault.code for fault in refused.value.findings} == {code}


@pytest.mark.parametrize("needs", [{Payer.DSO: D(0)}, {Payer.DSO: D(-1), Payer.TSO: D(2)}])
def test_needs_are_not_negative_and_one_is_above_zero(needs: dict[Payer, Decimal]) -> None:
    one = delivery(need=Need.SHARED, purchase="p")
    with pytest.raises(Refused) as refused:
        settle(settled_inputs(one, purchases=(Purchase("p", needs=needs),)), RULES)
    assert {fault.code for fault in refused.value.findings} == {"needs"}
