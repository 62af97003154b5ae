"""The table of equivalences is an order, and it means what it says: who passes the harder test passes the easier."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coflex.domain.quantity import Direction
from coflex.qualification.equivalence import Configuration, configuration, equivalence, table
from coflex.qualification.requirements import Requirements, Service, SignalKind
from coflex.qualification.signals import make
from coflex.qualification.verdict import judge
from support.tested import BASE, CONTAINMENT, STARTS, failed, first_order, limited, recording

BOTH = (Direction.DOWN, Direction.UP)
ORDERED = (Service.CONGESTION_MANAGEMENT, Service.MANUAL_RESTORATION, Service.REPLACEMENT)

requirement = st.builds(
    replace,
    st.just(BASE),
    service=st.sampled_from(list(Service)),
    signal=st.sampled_from(list(SignalKind)),
    directions=st.sampled_from([(Direction.UP,), (Direction.DOWN,), BOTH]),
    symmetric=st.booleans(),
    divisible=st.booleans(),
    min_quantity_kw=st.sampled_from([100, 500, 1000]),
    tick_kw=st.sampled_from([1, 2, 4, 6]),
    resolution_s=st.sampled_from([900, 3600]),
    share=st.sampled_from([0.8, 0.9, 0.95]),
    within_s=st.sampled_from([900, 1500]),
    full_activation_time_s=st.sampled_from([300, 900]),
    ramp_s=st.sampled_from([240.0, 720.0]),
    min_duration_s=st.sampled_from([900, 3600]),
    max_duration_s=st.sampled_from([None, 3600, 7200]),
    deactivation_s=st.sampled_from([None, 300, 900]),
    recovery_s=st.sampled_from([0, 1800]),
    interval_s=st.sampled_from([1, 60]),
    accuracy_percent=st.sampled_from([0.5, 1.0]),
    full_mhz=st.sampled_from([100.0, 200.0]),
    dead_band_mhz=st.sampled_from([0.0, 10.0]),
    delay_s=st.sampled_from([1.0, 2.0]),
    months=st.sampled_from([(), (1, 2), (1, 2, 12)]),
    weekdays=st.sampled_from([(), (1,)]),
    hours=st.sampled_from([(), (8, 9)]),
)

# For each attribute a value that is easier than, or as hard as, the one given; the table is not asked.
EASIER: dict[str, Any] = {
    "service": lambda one: st.sampled_from(ORDERED) if one in ORDERED else st.just(one),
    "directions": lambda one: st.sampled_from([one, one[:1], one[-1:]]),
    "symmetric": lambda one: st.booleans() if one else st.just(False),
    "divisible": lambda one: st.booleans() if one else st.just(False),
    "min_quantity_kw": lambda one: st.integers(1, one),
    "tick_kw": lambda one: st.integers(1, 5).map(lambda k: k * one),
    "share": lambda one: st.floats(0.5, one),
    "within_s": lambda one: st.integers(one, 2 * one),
    "full_activation_time_s": lambda one: st.integers(one, 2 * one),
    "ramp_s": lambda one: st.floats(one, 2 * one),
    "min_duration_s": lambda one: st.integers(0, one),
    "max_duration_s": lambda one: st.none() | st.integers(1, 10**5) if one is None else st.integers(1, one),
    "deactivation_s": lambda one: st.just(None) if one is None else st.none() | st.integers(one, 2 * one),
    "recovery_s": lambda one: st.integers(one, one + 3600),
    "interval_s": lambda one: st.integers(one, 900),
    "accuracy_percent": lambda one: st.floats(one, 5.0),
    "delay_s": lambda one: st.floats(one, 10.0),
    "months": lambda one: st.just((1,)) if not one or 1 in one else st.just(one),
    "weekdays": lambda one: st.sampled_from([one, one[:1] or (3, 4)]),
    "hours": lambda one: st.sampled_from([one, one[:1] or (3, 4)]),
}


@st.composite
def easier(draw: st.DrawFn, than: Requirements) -> Requirements:
    some = draw(st.sets(st.sampled_from(sorted(EASIER))))
    return replace(than, **{name: draw(EASIER[name](getattr(than, name))) for name in sorted(some)})


# ---------------------------------------------------------------- an order


@pytest.mark.spec("REG-08")
@given(requirement)
def test_every_product_includes_itself(one: Requirements) -> None:
    assert table().covers(one, one)
    assert all(ruling.included for ruling in table().rule(one, one))


@pytest.mark.spec("REG-08")
@given(st.data())
def test_what_is_easier_in_every_attribute_is_included(data: st.DataObject) -> None:
    one = data.draw(requirement)
    assert table().covers(one, data.draw(easier(one)))


@pytest.mark.spec("REG-08")
@given(st.data())
def test_inclusion_is_transitive(data: st.DataObject) -> None:
    one = data.draw(requirement)
    other = data.draw(easier(one) | requirement)
    third = data.draw(easier(other) | requirement)
    assume(table().covers(one, other) and table().covers(other, third))
    assert table().covers(one, third)


@pytest.mark.spec("REG-08")
@given(st.data())
def test_two_that_include_each_other_ask_for_the_same(data: st.DataObject) -> None:
    one = data.draw(requirement)
    other = data.draw(easier(one))
    assume(table().covers(other, one))
    named = [field.name for field in fields(Requirements) if field.name not in ("product", "service")]
    assert [getattr(one, name) for name in named] == [getattr(other, name) for name in named]
    assert table().family_of[one.service] == table().family_of[other.service]


@pytest.mark.spec("REG-08")
def test_no_attribute_is_left_without_a_ruling_and_every_ruling_has_its_sentence() -> None:
    rulings = table().rule(BASE, CONTAINMENT)
    assert {one.attribute for one in rulings} == {field.name for field in fields(Requirements)} - {"product"}
    assert all(one.sentence.endswith(".") for one in rulings)
    by_name = {one.attribute: one for one in rulings}
    assert by_name["within_s"].sentence == "The smaller value is harder: 900 s does not include 30 s."
    assert "not of one family" in by_name["service"].sentence


# ---------------------------------------------------------------- and what it means


@pytest.mark.spec("REG-08")
@pytest.mark.parametrize("kind", list(SignalKind))
@given(st.data())
@settings(deadline=None, max_examples=20)
def test_an_answer_that_passes_the_harder_test_passes_the_easier_one(kind: SignalKind, data: st.DataObject) -> None:
    if kind is SignalKind.FREQUENCY:
        hard = CONTAINMENT
    else:
        hard = replace(BASE, signal=kind, full_activation_time_s=600, ramp_s=480.0, directions=BOTH, recovery_s=900)
    easy = data.draw(easier(hard))
    assert table().covers(hard, easy)
    signal = make(hard, 500, 500, seed=data.draw(st.integers(0, 99)))
    full, interval = hard.full_activation_time_s, hard.interval_s
    if data.draw(st.booleans()):
        answer = first_order(signal, data.draw(st.floats(0.05, 0.5)) * full, interval, data.draw(st.floats(0.85, 1.15)))
    else:
        answer = limited(signal, 500 / full / data.draw(st.floats(0.2, 1.3)), interval, data.draw(st.integers(0, 2)))
    noise = np.random.default_rng(data.draw(st.integers(0, 99))).normal(0, data.draw(st.floats(0, 15)), len(answer.kw))
    disturbed = recording(np.array(answer.kw) + noise, interval)
    judgement = judge(hard, signal, STARTS, disturbed)
    if judgement.passed:
        again = judge(easy, signal, STARTS, disturbed)
        assert again.passed, failed(again)


@pytest.mark.spec("REG-08")
def test_the_law_is_not_empty_and_its_reverse_does_not_hold() -> None:
    easy = replace(BASE, within_s=1500)
    signal = make(BASE, 500, 0)
    prompt, slow = first_order(signal, 200.0, 60), first_order(signal, 391.5, 60)
    assert judge(BASE, signal, STARTS, prompt).passed
    assert judge(easy, signal, STARTS, prompt).passed
    assert failed(judge(BASE, signal, STARTS, slow)) >= {"delivered_share"}
    assert "delivered_share" not in failed(judge(easy, signal, STARTS, slow))


# ---------------------------------------------------------------- the pure case


@pytest.mark.spec("REG-08")
@pytest.mark.parametrize(
    ("tested", "wanting", "how", "applies"),
    [
        ("abc", "cab", Configuration.IDENTICAL, True),
        ("abc", "ab", Configuration.CONTAINED, False),
        ("ab", "abc", Configuration.CONTAINED, False),
        ("abc", "bcd", Configuration.OVERLAPPING, False),
        ("ab", "cd", Configuration.DISJOINT, False),
    ],
)
def test_only_identical_groups_share_a_test(tested: str, wanting: str, how: Configuration, applies: bool) -> None:
    assert configuration(tested, wanting) is how
    ruling = equivalence([BASE], [BASE], how)
    assert ruling.applies is applies
    assert table().configurations[how][1] in ruling.sentence


@pytest.mark.spec("REG-08")
def test_two_providers_share_no_test() -> None:
    ruling = equivalence([BASE], [BASE], Configuration.IDENTICAL, one_provider=False)
    assert not ruling.applies
    assert "two providers" in ruling.sentence


@pytest.mark.spec("REG-08")
def test_a_test_for_the_tso_counts_for_the_dso_and_not_the_other_way_round() -> None:
    local = replace(BASE, product="congestion", service=Service.CONGESTION_MANAGEMENT, within_s=1500)
    assert equivalence([BASE], [local], Configuration.IDENTICAL).applies
    back = equivalence([local], [BASE], Configuration.IDENTICAL)
    assert not back.applies
    assert [one.attribute for one in back.rulings if not one.included] == ["within_s"]
    assert "within_s" in back.sentence


@pytest.mark.spec("REG-08")
def test_another_test_set_up_or_service_is_no_equivalence() -> None:
    for other in (
        replace(BASE, signal=SignalKind.RANDOM),
        replace(BASE, service=Service.AUTOMATIC_RESTORATION),
        replace(BASE, interval_s=4),
        replace(BASE, accuracy_percent=0.5),
    ):
        assert not equivalence([BASE], [other], Configuration.IDENTICAL).applies


@pytest.mark.spec("REG-08")
def test_each_wanted_signal_needs_one_that_was_shown() -> None:
    random = replace(BASE, signal=SignalKind.RANDOM)
    assert equivalence([BASE, random], [random, BASE], Configuration.IDENTICAL).applies
    assert not equivalence([BASE], [random, BASE], Configuration.IDENTICAL).applies
