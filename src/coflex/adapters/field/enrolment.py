"""The key of a device: made where it stays. What leaves is the public key, with a proof that the device has the other.

    {"fingerprint", "format": "coflex enrolment v1", "owner", "point", "proof", "public_key", "unit"}

The proof is the Ed25519 signature over "coflex enrolment v1\\n" and the canonical JSON of the rest (RFC 8785).
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from coflex.domain.errors import CoflexError, Finding, refuse
from coflex.evidence.keys import PUBLIC_BYTES, SEED_BYTES, fingerprint, public_of, sign, verify
from coflex.evidence.message import canonical

FORMAT = "coflex enrolment v1"
KEY, REQUEST = "key", "enrolment.json"


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A fresh key. `public_key`, `fingerprint`: hexadecimal; `request`: the file for the register."""

    point: int
    unit: str
    owner: str
    public_key: str
    fingerprint: str
    request: Path


def enrol(folder: Path, point: int, unit: str, owner: str) -> Enrolled:
    """Make a key in a folder, and the request for the register. Raises CoflexError when there is a key already, or it
    cannot be written."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    seed = secrets.token_bytes(SEED_BYTES)
    try:
        file = os.open(folder / KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CoflexError(f"{folder} has a key already.", "Take another folder: a key is never replaced.") from None
    public, request = public_of(seed), folder / REQUEST
    try:
        with os.fdopen(file, "wb") as key:
            key.write(seed)
            key.flush()
            os.fsync(key.fileno())
        request.write_bytes(request_for(seed, point, unit, owner))
    except OSError as fault:  # nobody knows this key yet
        (folder / KEY).unlink()
        raise CoflexError(f"The key cannot be written: {fault}.", "Make room on the disk, then enrol again.") from None
    return Enrolled(point, unit, owner, public.hex(), fingerprint(public), request)


def request_for(seed: bytes, point: int, unit: str, owner: str) -> bytes:
    """The request of a key for the register."""
    public = public_of(seed)
    told = {
        "format": FORMAT,
        "point": point,
        "unit": unit,
        "owner": owner,
        "public_key": public.hex(),
        "fingerprint": fingerprint(public),
    }
    return canonical(told | {"proof": sign(seed, _proved(told)).hex()})


def check_request(data: bytes) -> dict[str, object]:
    """What a request says. Raises Refused when it is none, or its proof is not of its key."""
    faults = []
    try:
        told = json.loads(data)
        proof, public = bytes.fromhex(told["proof"]), bytes.fromhex(told["public_key"])
        rest = {name: value for name, value in told.items() if name != "proof"}
        if told["format"] != FORMAT or len(public) != PUBLIC_BYTES or told["fingerprint"] != fingerprint(public):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        told, faults = {}, [Finding("request", "bad_format", "It is no enrolment request; send the device's file.")]
    else:
        if not verify(public, _proved(rest), proof):
            faults.append(Finding("proof", "wrong_signature", "It is not of this key; make the request anew."))
    refuse("The enrolment request", faults)
    return dict(told)


def _proved(told: dict[str, object]) -> bytes:
    return f"{FORMAT}\n".encode() + canonical(told)


def read_key(folder: Path) -> bytes:
    """The seed in a device's folder. Raises CoflexError when there is none, or others may read it."""
    path = folder / KEY
    try:
        seed, mode = path.read_bytes(), path.stat().st_mode
    except OSError:
        raise CoflexError(f"There is no key in {folder}.", "Make one with coflex device enrol.") from None
    if len(seed) != SEED_BYTES:
        raise CoflexError(f"{path} is no key: it has {len(seed)} bytes.", "Enrol the device anew in another folder.")
    if mode & 0o077:
        raise CoflexError(f"Others may read {path}.", f"Take the right away: chmod 600 {path}.")
    return seed
