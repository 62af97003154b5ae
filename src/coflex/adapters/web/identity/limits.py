"""How much one caller may send: token buckets, and waits after failed sign-ins. Constant time and bounded memory.

A bucket holds up to `burst` and gains `rate` in a second; a request takes one. What is refused costs a few look-ups and
leaves no trace, so a caller at ten times its rate takes nothing from the others.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from ipaddress import IPv6Address, IPv6Network, ip_address

from coflex.adapters.web.api.problems import TooMany

MOST_CALLERS = 100_000

# Callers that are not known, by network address: for tokens that do not hold, and for the pages of sign-in.
UNKNOWN_PER_S, UNKNOWN_BURST = 50, 200

FREE_FAILURES = 5
LONGEST_WAIT_S = 900.0
FORGOTTEN_AFTER_S = 3_600.0


class Limits:
    """Token buckets by caller. `clock`: seconds that never go back. Used from one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = MOST_CALLERS) -> None:
        self._clock, self._most = clock, most
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def wait(self, caller: Hashable, rate: float, burst: float, cost: float = 1.0) -> float:
        """0 when the caller may: then it is counted. Else the seconds until it may, and nothing is counted.

        A cost above the burst is let through by a full bucket, which then owes: a batch larger than the burst is slow
        but not impossible.
        """
        now = self._clock()
        kept = self._buckets.pop(caller, None)
        level = burst if kept is None else min(burst, kept[0] + rate * (now - kept[1]))
        needed = min(cost, burst)
        taken = level >= needed
        self._buckets[caller] = (level - cost if taken else level, now)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (needed - level) / rate

    def drained(self, caller: Hashable, rate: float, burst: float) -> bool:
        """Whether nothing is left for a caller; counts nothing."""
        kept = self._buckets.get(caller)
        return kept is not None and min(burst, kept[0] + rate * (self._clock() - kept[1])) < 1

    def take(self, caller: Hashable, rate: float, burst: float, cost: float = 1.0) -> None:
        """Raises TooMany, with the whole seconds to wait."""
        wait = self.wait(caller, rate, burst, cost)
        if wait:
            raise too_many(rate, burst, wait)


def too_many(rate: float, burst: float, wait: float) -> TooMany:
    """More was sent than may be. `wait`: seconds until the next is taken."""
    return TooMany(
        f"More than {rate:g} in a second and {burst:g} at once were sent.",
        "Send less, and again after the seconds in Retry-After.",
        max(1, math.ceil(wait)),
    )


def network(address: str) -> str:
    """What one subscriber has of a network: an address of IPv4, the first 64 bits of one of IPv6 (RFC 6177)."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        mapped = found.ipv4_mapped
        return str(mapped) if mapped is not None else str(IPv6Network((int(found) >> 64 << 64, 64)))
    return str(found)


class Throttle:
    """Waits after failures: five are free, then 1, 2, 4, ... seconds up to a quarter of an hour. Used from one thread.

    An attempt counts as failed until it is known to have succeeded, so that many at once do not slip through.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = MOST_CALLERS) -> None:
        self._clock, self._most = clock, most
        self._failures: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()

    def attempt(self, who: Hashable, free: int = FREE_FAILURES) -> None:
        """Raises TooMany while there is a wait, which is not counted as an attempt."""
        now = self._clock()
        count, last = self._failures.pop(who, (0, now))
        if now - last > FORGOTTEN_AFTER_S:
            count = 0
        wait = min(LONGEST_WAIT_S, 2.0 ** min(count - free, 20)) - (now - last) if count >= free else 0.0
        self._failures[who] = (count, last) if wait > 0 else (count + 1, now)
        if len(self._failures) > self._most:
            self._failures.popitem(last=False)
        if wait > 0:
            raise TooMany("There were too many failed attempts.", "Try again later.", math.ceil(wait))

    def succeeded(self, who: Hashable) -> None:
        self._failures.pop(who, None)

    def took_back(self, who: Hashable) -> None:
        """The attempt was no failure of the caller's."""
        count, last = self._failures.get(who, (0, 0.0))
        if count > 1:
            self._failures[who] = (count - 1, last)
        else:
            self._failures.pop(who, None)
