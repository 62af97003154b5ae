"""Signatures: the vectors of RFC 8032, and another library's verdict on ours."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.evidence import keys

# RFC 8032 section 7.1: secret key, public key, message, signature; tests 1, 2, 3 and SHA(abc).
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd"
        "454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e030"
        "3dca179c138ac17ad9bef1177331a704",
    ),
]
ORDER = 2**252 + 27742317777372353535851937790883648493
seeds = st.binary(min_size=32, max_size=32)


@pytest.mark.spec("CERT-01")
@pytest.mark.parametrize(("seed", "public", "data", "signature"), RFC_8032)
def test_the_vectors_of_the_standard_come_out(seed: str, public: str, data: str, signature: str) -> None:
    secret, told = bytes.fromhex(seed), bytes.fromhex(data)
    assert keys.public_of(secret).hex() == public == keys.Signer(secret).public.hex()
    assert keys.sign(secret, told).hex() == signature == keys.signer(secret).sign(told).hex()
    assert keys.verify(bytes.fromhex(public), told, bytes.fromhex(signature))


@pytest.mark.spec("CERT-01")
@settings(deadline=None)
@given(seeds, st.binary(max_size=200), st.integers(0, 511))
def test_another_library_makes_the_same_signature_and_both_refuse_it_changed(
    seed: bytes, data: bytes, bit: int
) -> None:
    other = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = other.public_key().public_bytes_raw(), other.sign(data)
    assert (keys.public_of(seed), keys.sign(seed, data)) == (public, signature)
    changed = (int.from_bytes(signature, "big") ^ 1 << bit).to_bytes(64, "big")
    with pytest.raises(InvalidSignature):
        Ed25519PublicKey.from_public_bytes(public).verify(changed, data)
    assert keys.verify(public, data, signature)
    assert not keys.verify(public, data, changed)
    assert not keys.verify(public, data + b"x", signature)
    assert not keys.verify(keys.public_of(bytes(32)), data, signature) or seed == bytes(32)


def test_one_message_has_one_signature_and_a_weak_key_none() -> None:
    _, public, data, signature = (bytes.fromhex(one) for one in RFC_8032[1])
    # The same number and the group's order: equal in the group, refused by RFC 8032 section 5.1.7.
    lifted = signature[:32] + (int.from_bytes(signature[32:], "little") + ORDER).to_bytes(32, "little")
    assert not keys.verify(public, data, lifted)
    # The neutral element as key and as R, with number 0, fits every message in the bare equation.
    neutral = (1).to_bytes(32, "little")
    assert not keys.verify(neutral, data, neutral + bytes(32))


def test_wrong_lengths_are_a_no_and_a_wrong_seed_is_an_error() -> None:
    seed, public, data, signature = (bytes.fromhex(one) for one in RFC_8032[2])
    assert not keys.verify(public, data, signature[:-1])
    assert not keys.verify(public, data, signature + b"\0")
    # The same bytes in all, cut elsewhere.
    assert not keys.verify(public, signature[-1:] + data, signature[:-1])
    assert not keys.verify(public, data[1:], signature + data[:1])
    assert not keys.verify(public[:-1], data, signature)
    assert not keys.verify(b"", data, b"")
    with pytest.raises(ValueError, match="32 bytes"):
        keys.sign(seed[:-1], data)
    with pytest.raises(ValueError, match="32 bytes"):
        keys.public_of(seed + b"\0")
    assert seed.hex() not in repr(keys.Signer(seed))


def test_a_fingerprint_is_the_digest_of_the_key() -> None:
    # SHA-256 of 32 zero bytes, as any tool prints it.
    assert keys.fingerprint(bytes(32)) == "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925"
