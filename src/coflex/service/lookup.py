"""A mapping that is asked for single keys: for rules that look up a few of a hundred thousand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

V = TypeVar("V")


class Lookup(Mapping[str, V]):
    """Finds a value when its key is first asked for, and remembers; None means that there is none. `known`: values that
    are not to be found but are given. To walk through it is a mistake of the program: TypeError."""

    def __init__(self, find: Callable[[str], V | None], known: Mapping[str, V | None] | None = None) -> None:
        self._find = find
        self._known: dict[str, V | None] = dict(known or {})

    def __getitem__(self, key: str) -> V:
        if key not in self._known:
            self._known[key] = self._find(key)
        value = self._known[key]
        if value is None:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[str]:
        raise TypeError("a look-up is not walked through")

    def __len__(self) -> int:
        raise TypeError("a look-up has no length")
