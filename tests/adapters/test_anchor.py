"""The contract on a chain: what stands there is what was compiled, and cannot be taken back."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from coflex.adapters.anchor import ethereum
from coflex.adapters.anchor.ethereum import Anchor, address_of, connect
from coflex.domain.errors import CoflexError, Conflict, NotReady
from coflex.evidence import certificate
from coflex.evidence.checkpoint import Checkpoint, NoteSigner, sign_note
from support.chain import Node, node
from support.command import coflex
from support.evidence import LOG, ORIGIN, book, certified

for name in ("web3", "eth_tester", "eth"):
    pytest.importorskip(name, reason="a chain in this process needs the extras anchor and dev")

CONTRACT = resources.files("coflex.adapters.anchor")
RULES = b"rules: rome-2027\nprice_eur_mwh: 7\n"


@pytest.fixture(scope="module")
def chain() -> Iterator[Node]:
    with node() as there:
        yield there


@pytest.fixture
def owner(chain: Node) -> Anchor:
    return Anchor.deploy(connect(chain.url), chain.secrets[0])


def other(contract: Anchor, chain: Node, number: int) -> Anchor:
    return Anchor(connect(chain.url), contract.address, chain.secrets[number])


def point(size: int) -> Checkpoint:
    return Checkpoint(ORIGIN, size, book().root(size))


# ---------------------------------------------------------------- the contract


def test_the_code_that_comes_with_coflex_was_made_from_this_source() -> None:
    built = json.loads(CONTRACT.joinpath("anchor.json").read_text())
    assert built["source"] == hashlib.sha256(CONTRACT.joinpath("anchor.vy").read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.spec("CERT-03")
def test_the_code_that_comes_with_coflex_is_what_the_source_gives() -> None:
    vyper = pytest.importorskip("vyper", reason="the compiler is one of the tools of development")
    built = json.loads(CONTRACT.joinpath("anchor.json").read_text())
    assert built["compiler"] == f"vyper {vyper.__version__}"
    forms = ["abi", "bytecode", "bytecode_runtime"]
    made = vyper.compile_code(CONTRACT.joinpath("anchor.vy").read_text(), output_formats=forms)
    assert (built["abi"], built["bytecode"], built["runtime"]) == tuple(made[form] for form in forms)


@pytest.mark.spec("CERT-03")
def test_a_checkpoint_is_anchored_read_back_and_held_against_the_log(chain: Node, owner: Anchor) -> None:
    reader = Anchor(connect(chain.url), owner.address)
    assert reader.read(ORIGIN) is None
    assert [one.code for one in reader.check(point(4))] == ["not_anchored"]
    before = owner.anchor(point(4))
    after = owner.anchor(point(9))
    assert after.block > before.block and after.transaction != before.transaction and 0 < after.gas < 200_000
    for size in (4, 9):
        there = reader.read(ORIGIN, size)
        assert there and (there.size, there.root) == (size, book().root(size))
        assert reader.check(point(size)) == []
    newest, then = reader.read(ORIGIN), reader.read(ORIGIN, None, before.block)
    assert newest and newest.size == 9 and then and then.size == 4
    assert [one.code for one in reader.check(point(8))] == ["not_anchored"]
    assert [one.code for one in reader.check(Checkpoint("coflex/milan/x", 4, book().root(4)))] == ["not_anchored"]
    forked = Checkpoint(ORIGIN, 9, bytes(32))
    assert [one.code for one in reader.check(forked)] == ["other_root"]


@pytest.mark.spec("CERT-03")
def test_what_was_anchored_cannot_be_taken_back(chain: Node, owner: Anchor) -> None:
    owner.anchor(point(9))
    for size in (9, 8, 0):
        with pytest.raises(Conflict, match="sizes only grow"):
            owner.anchor(Checkpoint(ORIGIN, size, b"r" * 32))
    with pytest.raises(Conflict, match="a root is not zero"):
        owner.anchor(Checkpoint(ORIGIN, 10, bytes(32)))
    with pytest.raises(Conflict, match="only the owner anchors"):
        other(owner, chain, 1).anchor(point(13))
    assert owner.check(point(9)) == []
    # Other logs stand beside it with sizes of their own.
    owner.anchor(Checkpoint("coflex/milan/x", 1, b"m" * 32))
    there = owner.read(ORIGIN)
    assert there and there.size == 9


@pytest.mark.spec("CERT-03")
def test_terms_are_registered_once_and_agreed_by_both_parties(chain: Node, owner: Anchor) -> None:
    buyer, seller, stranger = (other(owner, chain, number) for number in (1, 2, 3))
    assert owner.terms("rome-2027") is None
    owner.register("rome-2027", RULES, buyer.account, seller.account)
    found = owner.terms("rome-2027")
    assert found and found.document == hashlib.sha256(RULES).digest() and not found.in_force
    assert found.parties == (buyer.account, seller.account) and found.agreed == (None, None)
    with pytest.raises(Conflict, match="other terms"):
        buyer.agree("rome-2027", RULES + b"\n")
    with pytest.raises(Conflict, match="only its parties agree"):
        stranger.agree("rome-2027", RULES)
    with pytest.raises(Conflict, match="other terms"):
        buyer.agree("rome-2028", RULES)
    seller.agree("rome-2027", RULES)
    found = owner.terms("rome-2027")
    assert found and found.agreed[0] is None and found.agreed[1] and not found.in_force
    with pytest.raises(Conflict, match="agreed already"):
        seller.agree("rome-2027", RULES)
    buyer.agree("rome-2027", RULES)
    found = owner.terms("rome-2027")
    assert found and found.in_force
    for name, first, second, said in (
        ("rome-2027", buyer.account, seller.account, "the name is taken"),
        ("rome-2028", buyer.account, buyer.account, "two parties"),
        ("rome-2028", buyer.account, ethereum.NOBODY, "two parties"),
    ):
        with pytest.raises(Conflict, match=said):
            owner.register(name, RULES, first, second)
    with pytest.raises(Conflict, match="only the owner registers"):
        buyer.register("rome-2028", RULES, buyer.account, seller.account)


def test_the_owner_hands_over_to_another_account(chain: Node, owner: Anchor) -> None:
    next_one = other(owner, chain, 4)
    with pytest.raises(Conflict, match="only the owner hands over"):
        next_one.hand_over(next_one.account)
    with pytest.raises(Conflict, match="somebody"):
        owner.hand_over(ethereum.NOBODY)
    owner.hand_over(next_one.account)
    assert owner.owner == next_one.account
    next_one.anchor(point(4))
    with pytest.raises(Conflict, match="only the owner anchors"):
        owner.anchor(point(9))


# ---------------------------------------------------------------- what goes wrong


def test_another_contract_or_none_is_not_taken_for_ours(chain: Node, owner: Anchor) -> None:
    there = connect(chain.url)
    for address in (owner.account, ethereum.NOBODY):
        with pytest.raises(CoflexError, match="no contract of coflex"):
            Anchor(there, address)
    with pytest.raises(CoflexError, match="no address"):
        Anchor(there, "rome")
    with pytest.raises(NotReady, match="no key"):
        Anchor(there, owner.address).anchor(point(4))
    with pytest.raises(CoflexError, match="32 bytes"):
        address_of(there, b"short")
    for secret in (bytes(32), b"\xff" * 32):  # zero, and more than the curve has
        with pytest.raises(CoflexError, match="no key of an account"):
            address_of(there, secret)


def test_an_account_without_money_is_told_so(chain: Node, owner: Anchor) -> None:
    poor = Anchor(connect(chain.url), owner.address, b"p" * 32)
    owner.hand_over(poor.account)
    with pytest.raises(CoflexError, match=r"The node refuses: .*cannot afford"):
        poor.anchor(point(4))
    assert owner.read(ORIGIN) is None


def test_a_node_that_does_not_answer_is_said() -> None:
    with pytest.raises(CoflexError, match="No node of a chain answers"):
        connect("http://127.0.0.1:9", 1)


def test_without_web3_the_remedy_is_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "web3", None)
    with pytest.raises(NotReady, match=r"coflex\[anchor\]"):
        connect("http://127.0.0.1:9")


# ---------------------------------------------------------------- the commands


@pytest.mark.slow
@pytest.mark.spec("CERT-03")
def test_checkpoints_and_terms_go_to_the_chain_by_command(chain: Node, tmp_path: Path) -> None:
    secrets = []
    for number, secret in enumerate(chain.secrets[:3]):
        (tmp_path / f"{number}.key").write_text(f"0x{secret.hex()}\n")
        secrets.append(("--secret", tmp_path / f"{number}.key"))
    (tmp_path / "four.txt").write_text(book().note(4))
    (tmp_path / "nine.txt").write_text(book().note(9))
    (tmp_path / "all.json").write_bytes(certificate.encode(certified()))
    (tmp_path / "rules.yaml").write_bytes(RULES)
    made = said("deploy", "--chain", chain.url, *secrets[0])
    there, key = ("--chain", chain.url, "--contract", made["contract"]), ("--key", LOG.key)
    assert said("put", tmp_path / "nine.txt", *key, *there, *secrets[0])["gas"] > 0
    assert said("check", tmp_path / "nine.txt", *key, *there)["size"] == 9
    assert said("put", tmp_path / "all.json", *key, *there, *secrets[0])["block"] > 0
    refused = coflex("anchor", "put", tmp_path / "four.txt", *key, *there, *secrets[0])
    assert refused.exit_code == 1 and "sizes only grow" in refused.stderr
    answer = said("check", tmp_path / "four.txt", *key, *there)
    assert answer["error"] == "NOT_PROVEN" and answer["findings"][0]["code"] == "not_anchored"
    parties = [address_of(connect(chain.url), secret) for secret in chain.secrets[1:3]]
    said("register", "rome-2027", tmp_path / "rules.yaml", *parties, *there, *secrets[0])
    said("agree", "rome-2027", tmp_path / "rules.yaml", *there, *secrets[1])
    found = said("terms", "rome-2027", *there)
    assert list(found["agreed"]) == parties and found["agreed"][parties[1]] == "not yet" and not found["in_force"]
    assert "not yet" in coflex("anchor", "terms", "rome-2027", *there).stdout
    assert coflex("anchor", "terms", "rome-2028", *there).exit_code == 1


def test_an_account_with_a_character_wrong_is_no_party_and_no_owner(chain: Node, owner: Anchor) -> None:
    """An address tells by its capitals whether it was copied right; terms of a wrong one could never be mended."""
    right, party = (address_of(connect(chain.url), secret) for secret in chain.secrets[1:3])
    letter = next(i for i, one in enumerate(right) if i > 1 and one.isalpha())
    wrong = right[:letter] + right[letter].swapcase() + right[letter + 1 :]
    for given in (wrong, right[:-1], "0xA", "anna"):
        with pytest.raises(CoflexError, match="is no address"):
            owner.register("typo", RULES, given, party)
        with pytest.raises(CoflexError, match="is no address"):
            owner.hand_over(given)
    assert owner.terms("typo") is None
    owner.register("typo", RULES, right.lower(), party)  # in small letters it tells nothing
    assert owner.terms("typo").parties == (right, party)


def test_what_the_log_did_not_sign_is_not_anchored(chain: Node, owner: Anchor, tmp_path: Path) -> None:
    (tmp_path / "a.key").write_text(chain.secrets[0].hex())
    (tmp_path / "bad.key").write_text("secret stuff")
    (tmp_path / "good.txt").write_text(book().note(4))
    (tmp_path / "forged.txt").write_text(sign_note(point(4), NoteSigner(ORIGIN, bytes(32))))
    there = "--chain", chain.url, "--contract", owner.address
    told = coflex("anchor", "put", tmp_path / "forged.txt", "--key", LOG.key, *there, "--secret", tmp_path / "a.key")
    assert told.exit_code == 1 and "not signed" in told.stderr and owner.read(ORIGIN) is None
    told = coflex("anchor", "put", tmp_path / "good.txt", "--key", LOG.key, *there, "--secret", tmp_path / "bad.key")
    assert told.exit_code == 1 and "no key of an account" in told.stderr and "stuff" not in told.stderr


def said(command: str, *words: object) -> Any:
    return json.loads(coflex("anchor", command, *words, "--json").stdout)
