"""The secrets of the server itself: keys that sign tokens, and one from which other secrets are derived.

They lie in one file of the data folder, readable by its owner alone, and nowhere else. A signing key is used for a
quarter of a year; the next one is published a day before it is used, and the last one for two days after, so nobody who
keeps a copy of the public keys meets a token that it cannot verify.
"""

from __future__ import annotations

import hmac
import os
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from joserfc.jwk import OKPKey

from coflex.domain.errors import CoflexError

USED_FOR = timedelta(days=91)
PUBLISHED_BEFORE = timedelta(days=1)
KEPT_AFTER = timedelta(days=2)


class KeysUnsafe(CoflexError):
    """The file of the server's secrets cannot be used: it is damaged, or others can read it."""

    code = "KEYS_UNSAFE"


class _Signing(msgspec.Struct, frozen=True):
    """A signing key as the file holds it: a private JWK (RFC 8037), and from when it signs."""

    jwk: dict[str, str]
    starts: datetime


class _File(msgspec.Struct, frozen=True):
    seal: str
    signing: tuple[_Signing, ...]


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs tokens from `starts` on."""

    kid: str
    key: OKPKey
    starts: datetime


class Keys:
    """The server's secrets, from a file that is made when there is none. Used from one thread."""

    def __init__(self, path: Path, at: datetime) -> None:
        """Raises KeysUnsafe."""
        self._path = path
        if not path.exists():
            first = _generated(at)
            self._keep(_File(urlsafe_b64encode(secrets.token_bytes(32)).decode(), (first,)), new=True)
        self._file = self._read()
        self._load()

    def derived(self, purpose: str, *parts: str) -> bytes:
        """32 bytes that only this server can make: HMAC-SHA256 under its key of purpose and parts, zero bytes between
        (so none of them may hold one)."""
        return hmac.digest(self._seal, "\0".join((purpose, *parts)).encode(), "sha256")

    def signer(self, at: datetime) -> Signer:
        """The key that signs now."""
        return next((one for one in reversed(self._signers) if one.starts <= at), self._signers[0])

    def key(self, kid: str) -> OKPKey | None:
        """A key whose tokens may still hold."""
        return next((one.key for one in self._signers if one.kid == kid), None)

    def public(self) -> dict[str, list[dict[str, Any]]]:
        """The JSON Web Key Set (RFC 7517): every key that signs, signed, or is about to."""
        return {"keys": [_public(one) for one in self._signers]}

    def tend(self, at: datetime) -> bool:
        """Make the next key when it is time and drop what nobody needs; whether anything changed."""
        newest = self._signers[-1]
        if at < newest.starts + USED_FOR - PUBLISHED_BEFORE:
            return False
        self.rotate(at)
        return True

    def rotate(self, at: datetime, starts: datetime | None = None) -> None:
        """Another key, from a day hence, or from an instant: at once when a key has become known to others."""
        following = _generated(at + PUBLISHED_BEFORE if starts is None else starts)
        signing = [*self._file.signing, following]
        while len(signing) > 1 and signing[1].starts + KEPT_AFTER < at:
            signing.pop(0)
        self._file = _File(self._file.seal, tuple(signing))
        self._keep(self._file, new=False)
        self._load()

    def _load(self) -> None:
        self._seal = urlsafe_b64decode(self._file.seal)
        self._signers = [_signer(one) for one in self._file.signing]

    def _read(self) -> _File:
        mode = self._path.stat().st_mode & 0o777
        if os.name == "posix" and mode & 0o077:
            raise KeysUnsafe(
                f"Others can read the server's secrets in {self._path} (mode {mode:o}).",
                f"Run 'chmod 600 {self._path}'; if somebody may have read it, delete it: all tokens and secrets of "
                "webhooks change then.",
            )
        try:
            read = msgspec.json.decode(self._path.read_bytes(), type=_File)
            if len(urlsafe_b64decode(read.seal)) != 32 or not read.signing:
                raise ValueError("a key is missing")
            for one in read.signing:
                OKPKey.import_key(dict(one.jwk))
        except (msgspec.MsgspecError, ValueError) as fault:
            raise KeysUnsafe(
                f"The server's secrets in {self._path} are damaged: {fault}.",
                "Put back the file from the backup; without one delete it: all tokens and secrets of webhooks change.",
            ) from fault
        return read

    def _keep(self, file: _File, new: bool) -> None:
        """Whole or not at all, for its owner alone from its first byte."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(msgspec.json.encode(file))
            out.flush()
            os.fsync(out.fileno())
        if new:
            with suppress(FileExistsError):  # another process was quicker: its file stays
                os.link(draft, self._path)
            draft.unlink()
        else:
            draft.replace(self._path)
        if os.name == "posix":
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _generated(starts: datetime) -> _Signing:
    key = OKPKey.generate_key("Ed25519", private=True)
    made: dict[str, Any] = dict(key.as_dict(private=True))
    return _Signing({name: str(made[name]) for name in ("kty", "crv", "x", "d")}, starts.astimezone(UTC))


def _signer(one: _Signing) -> Signer:
    key = OKPKey.import_key(dict(one.jwk))
    return Signer(key.thumbprint(), key, one.starts)


def _public(one: Signer) -> dict[str, Any]:
    return {**one.key.as_dict(private=False), "kid": one.kid, "use": "sig", "alg": "EdDSA"}


def digest(text: str) -> str:
    """SHA-256 of a random text, hexadecimal: how secrets and ids of tokens are kept."""
    return sha256(text.encode()).hexdigest()
