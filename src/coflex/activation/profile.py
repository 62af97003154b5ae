"""Profiles: unsigned power in one direction over time, as pieces; every operation gives the shortest form.

The shortest form has no piece of zero, and no two of the same power that touch, so equal profiles are equal values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from coflex.domain.activation import Piece

Profile = tuple[Piece, ...]
_HOUR = timedelta(hours=1)


def profile(pieces: Iterable[Piece]) -> Profile:
    """The shortest form of pieces in any order. Raises ValueError where two overlap or one is no power in a time."""
    found: list[Piece] = []
    for piece in sorted(pieces):
        if piece.ends <= piece.starts or piece.kw < 0:
            raise ValueError(f"{piece} is no power in a time")
        if found and piece.starts < found[-1].ends:
            raise ValueError(f"{found[-1]} and {piece} overlap")
        if not piece.kw:
            continue
        if found and found[-1].ends == piece.starts and found[-1].kw == piece.kw:
            found[-1] = Piece(found[-1].starts, piece.ends, piece.kw)
        else:
            found.append(piece)
    return tuple(found)


def constant(kw: int, starts: datetime, ends: datetime) -> Profile:
    """The same power in [starts, ends); nothing where it is zero or the time is empty."""
    return (Piece(starts, ends, kw),) if kw > 0 and ends > starts else ()


def kw_at(one: Profile, instant: datetime) -> int:
    """Power at an instant."""
    return next((piece.kw for piece in one if piece.starts <= instant < piece.ends), 0)


def combined(act: Callable[..., int], *profiles: Profile) -> Profile:
    """`act` of the powers of all profiles at every instant; what comes out negative is zero. `act` of zeros is 0."""
    bounds = sorted({bound for one in profiles for piece in one for bound in (piece.starts, piece.ends)})
    places = [0] * len(profiles)
    found = []
    for starts, ends in pairwise(bounds):
        powers = []
        for i, one in enumerate(profiles):
            while places[i] < len(one) and one[places[i]].ends <= starts:
                places[i] += 1
            here = one[places[i]] if places[i] < len(one) else None
            powers.append(here.kw if here is not None and here.starts <= starts else 0)
        found.append(Piece(starts, ends, max(0, act(*powers))))
    return profile(found)


def plus(*profiles: Profile) -> Profile:
    return combined(lambda *kw: sum(kw), *profiles)


def minus(one: Profile, other: Profile) -> Profile:
    """What is left of one above the other, never below zero."""
    return combined(lambda a, b: a - b, one, other)


def least(one: Profile, other: Profile) -> Profile:
    """The smaller of the two at every instant."""
    return combined(min, one, other)


def between(one: Profile, starts: datetime | None, ends: datetime | None) -> Profile:
    """The part in [starts, ends); None: no bound on that side."""
    found = []
    for piece in one:
        first = piece.starts if starts is None else max(piece.starts, starts)
        last = piece.ends if ends is None else min(piece.ends, ends)
        if first < last:
            found.append(Piece(first, last, piece.kw))
    return tuple(found)


def without(one: Profile, starts: datetime, ends: datetime) -> Profile:
    """All of it outside [starts, ends)."""
    return profile((*between(one, None, starts), *between(one, ends, None)))


def exceeds(one: Profile, most: Profile) -> Profile:
    """Where and by how much one is above the most; empty where it nowhere is."""
    return minus(one, most)


def kwh(one: Profile) -> float:
    """Energy."""
    return sum(piece.kw * ((piece.ends - piece.starts) / _HOUR) for piece in one)


def bounds(profiles: Sequence[Profile]) -> tuple[datetime, ...]:
    """Every instant at which one of them changes, in order."""
    return tuple(sorted({bound for one in profiles for piece in one for bound in (piece.starts, piece.ends)}))
