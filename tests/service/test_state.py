"""The state of a tenant against a plain dictionary, and what a write may cost among many records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.register.resources import Perimeter
from coflex.service.index import index
from coflex.service.state import State, Undo

KIND = "perimeter"
BUSES = ["B1", "B2", "B3"]

names = st.text("abc", max_size=3)
written = st.one_of(st.none(), st.lists(st.sampled_from(BUSES), max_size=3).map(tuple))
steps = st.lists(st.one_of(st.tuples(names, written), st.just("take back"), st.just("look")), max_size=60)


def a_perimeter(id: str, buses: Iterable[str]) -> Perimeter:
    return Perimeter(id, "dso", "", tuple(buses))


def by_bus(state: State, name: str = "bus") -> Any:
    return index(state, Perimeter, name, lambda one: one.buses)


@settings(max_examples=300, deadline=None)
@given(steps)
def test_after_any_writes_and_taking_back_it_is_what_a_dictionary_is(steps: list[Any]) -> None:
    """Lists, numbers and indexes, also those that somebody asks for in the middle."""
    state, plain = State("t"), dict[str, tuple[Perimeter, int]]()
    past: list[tuple[Undo, dict[str, tuple[Perimeter, int]]]] = []
    told: dict[str, Perimeter] = {}

    def tell(before: Perimeter | None, after: Perimeter | None) -> None:
        if before is not None:
            assert told.pop(before.id) is before
        if after is not None:
            told[after.id] = after

    state.watch(Perimeter, tell)
    early = by_bus(state)
    for number, step in enumerate(steps, start=1):
        if step == "take back":
            if past:
                undo, plain = past.pop()
                state.take_back(undo)
        elif step != "look":
            id, buses = step
            before = dict(plain)
            record = None if buses is None else a_perimeter(id, buses)
            past.append((state.put(KIND, id, record, number), before))
            plain = {name: kept for name, kept in plain.items() if name != id}
            plain |= {} if record is None else {id: (record, number)}
        if step == "look" or number == len(steps):
            found = [plain[id] for id in sorted(plain)]
            assert list(state.all(Perimeter)) == [record for record, _ in found]
            assert [state.number(Perimeter, one.id) for one in state.all(Perimeter)] == [number for _, number in found]
            assert state.count(Perimeter) == len(plain) and told == {id: kept[0] for id, kept in plain.items()}
            for bus in BUSES:
                there = tuple(record for record, _ in found if bus in record.buses)
                assert early.at(bus) == by_bus(state, f"bus at {number}").at(bus) == there


class Counted(str):
    """A text that counts how often it is asked whether it comes first."""

    asked = 0

    def __lt__(self, other: str) -> bool:
        Counted.asked += 1
        return str.__lt__(self, other)

    __hash__ = str.__hash__


def test_a_write_among_many_records_sorts_and_indexes_nothing_anew() -> None:
    """A sort of 10,000 ids takes 9,999 comparisons at the least, to find a place among them takes 14."""
    state, keyed = State("t"), []
    for n in range(10_000):
        id = Counted(f"{n:05d}")
        state.put(KIND, id, a_perimeter(id, ("B1",)), n)

    def keys(one: Perimeter) -> tuple[str, ...]:
        keyed.append(one.id)
        return one.buses

    assert len(index(state, Perimeter, "bus", keys).at("B1")) == len(state.all(Perimeter)) == 10_000
    Counted.asked = 0
    keyed.clear()
    for id in ("05000", "10000", "00000a"):
        state.put(KIND, Counted(id), a_perimeter(id, ("B2",)), 1)
        assert any(one.id == id for one in state.all(Perimeter))
    assert len(index(state, Perimeter, "bus", keys).at("B2")) == 3
    assert keyed == ["05000", "05000", "10000", "00000a"]
    assert Counted.asked < 100
