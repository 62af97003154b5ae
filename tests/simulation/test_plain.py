"""Records as JSON and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from math import isnan

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coflex.domain.quantity import Direction, Floats
from coflex.market.coordination.outcome import Run
from coflex.market.coordination.run import nothing
from coflex.simulation.coordination import case
from coflex.simulation.plain import kept, plain


@dataclass(frozen=True)
class Inner:
    at: datetime
    price: Decimal
    direction: Direction | None


@dataclass(frozen=True)
class Outer:
    name: str
    yes: bool
    count: int
    share: float
    pair: tuple[int, str]
    inners: tuple[Inner, ...]
    by_key: Mapping[tuple[int, Direction], float]


inners = st.builds(
    Inner,
    at=st.datetimes(timezones=st.just(UTC)),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    direction=st.none() | st.sampled_from(Direction),
)
outers = st.builds(
    Outer,
    name=st.text(),
    yes=st.booleans(),
    count=st.integers(),
    share=st.floats(allow_nan=False),
    pair=st.tuples(st.integers(), st.text()),
    inners=st.lists(inners, max_size=3).map(tuple),
    by_key=st.dictionaries(st.tuples(st.integers(), st.sampled_from(Direction)), st.floats(allow_nan=False)),
)


# The first example is slow to draw on a busy machine; that says nothing about the records.
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(outers)
def test_a_record_is_the_same_after_json(record: Outer) -> None:
    text = json.dumps(plain(record), allow_nan=False)
    assert kept(Outer, json.loads(text)) == record


def test_what_is_not_a_number_stays_so() -> None:
    assert isnan(kept(float, json.loads(json.dumps(plain(float("nan")), allow_nan=False))))
    values: Floats = np.array([[1.5, np.nan], [np.inf, -np.inf]])
    again = kept(Floats, json.loads(json.dumps(plain(values), allow_nan=False)))
    assert np.array_equal(again, values, equal_nan=True)


def test_a_run_is_the_same_after_json() -> None:
    run = nothing(case("small"))
    again = kept(Run, json.loads(json.dumps(plain(run), allow_nan=False)))
    # Arrays are compared by themselves.
    flat: Floats = np.zeros(0)
    for field in fields(run.final):
        assert np.array_equal(getattr(again.final, field.name), getattr(run.final, field.name)), field.name
    without = [{**vars_of(one), "final": vars_of(replace(one.final, interface_kw=flat))} for one in (run, again)]
    assert repr(without[0]) == repr(without[1])


def vars_of(record: object) -> dict[str, object]:
    return {field.name: getattr(record, field.name) for field in fields(record)}  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "data"), [(int, "1"), (str, 1), (Inner, {}), (tuple[int, ...], ["a"])])
def test_what_does_not_fit_is_not_taken(kind: type, data: object) -> None:
    with pytest.raises((TypeError, KeyError, ValueError)):
        kept(kind, data)


def test_what_has_no_plain_form_is_refused() -> None:
    with pytest.raises(TypeError, match="set has no plain form"):
        plain({1, 2})
