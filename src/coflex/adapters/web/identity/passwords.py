"""Passwords: argon2id (RFC 9106), computed beside the machine's thread and never more than two at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar
from unicodedata import normalize

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from coflex.adapters.web.api.problems import TooMany
from coflex.domain.errors import Finding

LEAST, MOST = 12, 256
AT_ONCE, MOST_WAITING = 2, 50

T = TypeVar("T")


class Passwords:
    """Hashes and checks. Used on one event loop."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._nobody = ""

    async def hashed(self, password: str) -> str:
        """The text form of its argon2id hash, with a salt of its own. Raises TooMany."""
        return await self._run(lambda: self._hasher.hash(_normal(password)))

    async def right(self, kept: str, password: str) -> bool:
        """Whether a password has this hash; with no hash no, after the same time. Raises TooMany."""
        if not kept and not self._nobody:
            self._nobody = await self.hashed("nobody's password")
        against = kept or self._nobody

        def check() -> bool:
            try:
                return self._hasher.verify(against, _normal(password)) and bool(kept)
            except (Argon2Error, InvalidHashError):
                return False

        return await self._run(check)

    async def _run(self, act: Callable[[], T]) -> T:
        if self._waiting >= MOST_WAITING:
            raise TooMany("Too many passwords are being checked.", "Try again in a moment.")
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(act)
        finally:
            self._waiting -= 1


def faults(password: str, name: str = "") -> list[Finding]:
    """Why a password is not taken."""
    found = []
    if not LEAST <= len(password) <= MOST:
        found.append(Finding("password", "length", f"A password has {LEAST} to {MOST} characters; choose another."))
    if name and normalize("NFKC", name).strip().lower() in normalize("NFKC", password).lower():
        found.append(Finding("password", "holds_name", "The password holds the sign-in name; choose another."))
    if len(set(password)) < 5:
        found.append(Finding("password", "repeated", "The password has few different characters; choose another."))
    return found


def _normal(password: str) -> str:
    """The same characters as the same bytes, however a keyboard composed them (RFC 8265)."""
    return normalize("NFC", password)
