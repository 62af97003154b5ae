"""Ed25519 keys and signatures (RFC 8032): the only place that knows the library behind them.

A secret is the 32-byte seed of RFC 8032 section 5.1.5, a public key the 32 bytes of its point, a signature 64 bytes.
libsodium lets go of the interpreter's lock while it works, so threads share the cost of many signatures.
"""

from __future__ import annotations

import hashlib

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

SEED_BYTES, PUBLIC_BYTES, SIGNATURE_BYTES = 32, 32, 64


def sign(secret_seed: bytes, data: bytes) -> bytes:
    """The 64-byte signature over `data`; the same key and data always give the same signature.

    Raises: ValueError for a seed that has not 32 bytes.
    """
    return crypto_sign(data, _pair(secret_seed)[1])[:SIGNATURE_BYTES]


def signer(secret_seed: bytes) -> Signer:
    """The same as `sign` for who signs often with one key: the key is expanded once."""
    return Signer(secret_seed)


class Signer:
    """One secret key, ready to sign. `public` is its public key; the secret shows in no text."""

    __slots__ = ("_secret", "public")

    def __init__(self, secret_seed: bytes) -> None:
        self.public, self._secret = _pair(secret_seed)

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature over `data`."""
        return crypto_sign(data, self._secret)[:SIGNATURE_BYTES]


def verify(public: bytes, data: bytes, signature: bytes) -> bool:
    """Whether `signature` is this key's over these bytes. Wrong lengths and weak keys are a plain no.

    libsodium refuses keys of small order and signatures whose number is not reduced (RFC 8032 section 5.1.7),
    so one message has one signature that anybody accepts.
    """
    if len(signature) != SIGNATURE_BYTES or len(public) != PUBLIC_BYTES:
        return False
    try:
        crypto_sign_open(signature + data, public)
    except BadSignatureError:
        return False
    return True


def public_of(seed: bytes) -> bytes:
    """The 32-byte public key of a seed. Raises: ValueError for a seed that has not 32 bytes."""
    return _pair(seed)[0]


def fingerprint(public: bytes) -> str:
    """SHA-256 of the public key in hexadecimal: what two people compare when they hand over a key."""
    return hashlib.sha256(public).hexdigest()


def _pair(seed: bytes) -> tuple[bytes, bytes]:
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
    public, secret = crypto_sign_seed_keypair(seed)
    return public, secret
