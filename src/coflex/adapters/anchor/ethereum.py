"""The contract `anchor.vy` on a chain of the Ethereum family, through web3 (the extra `anchor`), imported when needed.

`anchor.json` holds its interface and code as vyper made them from the source; a test compiles it anew and compares.
Every call is signed here with the key of the account; the node that is asked needs no key and is not trusted with one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import import_module, resources
from typing import Any

from coflex.domain.errors import CoflexError, Conflict, Finding, NotReady
from coflex.evidence.checkpoint import Checkpoint

NOBODY = "0x" + "0" * 40


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a transaction did: its hash (hexadecimal), the block that holds it, and the gas it took."""

    transaction: str
    block: int
    gas: int


@dataclass(frozen=True, slots=True)
class Anchored:
    """A checkpoint on the chain: leaves, root (32 bytes), and the time of the block that brought it."""

    size: int
    root: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms of settlement on the chain. `document`: SHA-256 of the rule document; `parties`: two addresses.

    `agreed`: when each party agreed, None where it has not.
    """

    document: bytes
    parties: tuple[str, str]
    agreed: tuple[datetime | None, datetime | None]

    @property
    def in_force(self) -> bool:
        """Whether both parties agreed."""
        return all(self.agreed)


def connect(url: str, seconds: float = 20.0) -> Any:
    """A chain behind a node's JSON-RPC address. Raises: NotReady without web3, CoflexError where nothing answers."""
    web3 = _web3().Web3
    chain = web3(web3.HTTPProvider(url, request_kwargs={"timeout": seconds}))
    if not chain.is_connected():
        raise CoflexError(f"No node of a chain answers at {url}.", "Give the address of its JSON-RPC.")
    return chain


class Anchor:
    """The contract at one address. `secret`: key of the account that signs, 32 bytes; None: for reading alone."""

    def __init__(self, chain: Any, address: str, secret: bytes | None = None, patience: float = 180.0) -> None:
        """`chain`: a web3.Web3; `patience`: seconds to wait for a block. Raises: CoflexError where another contract,
        or none, lives at the address."""
        self.address = _address(address)
        if bytes(chain.eth.get_code(self.address)) != bytes.fromhex(_built()["runtime"].removeprefix("0x")):
            raise CoflexError(
                f"At {address} there is no contract of coflex.", "Check chain and address, or deploy one."
            )
        self._chain, self._patience = chain, patience
        self._account = None if secret is None else _account(chain, secret)
        self._functions = chain.eth.contract(address=self.address, abi=_built()["abi"]).functions

    @classmethod
    def deploy(cls, chain: Any, secret: bytes, patience: float = 180.0) -> Anchor:
        """Put a new contract on the chain; the account of the key is its owner, who alone anchors and registers."""
        built, account = _built(), _account(chain, secret)
        contract = chain.eth.contract(abi=built["abi"], bytecode=built["bytecode"])
        receipt = _sent(chain, account, contract.constructor(), patience)
        return cls(chain, receipt["contractAddress"], secret, patience)

    @property
    def owner(self) -> str:
        """Address of the account that may anchor and register."""
        return str(self._functions.owner().call())

    @property
    def account(self) -> str:
        """Address of the account that signs. Raises: NotReady where there is none."""
        return str(self._signing().address)

    # ------------------------------------------------------------ checkpoints

    def anchor(self, checkpoint: Checkpoint) -> Receipt:
        """Anchor a checkpoint, larger than the log's last one there. Raises: Conflict where the contract refuses."""
        return self._send(self._functions.anchor(_name(checkpoint.origin), checkpoint.size, checkpoint.root))

    def read(self, origin: str, size: int | None = None, block: int | str = "latest") -> Anchored | None:
        """The log's checkpoint of this size, or its newest one; None where there is none.

        `block`: as of which block ("finalized" where the chain knows it: what can no longer be undone).
        """
        functions, name = self._functions, _name(origin)
        call = functions.latest(name) if size is None else functions.anchored(name, size)
        size, root, at = call.call(block_identifier=block)
        return None if not any(root) else Anchored(int(size), bytes(root), datetime.fromtimestamp(at, UTC))

    def check(self, checkpoint: Checkpoint, block: int | str = "latest") -> list[Finding]:
        """Whether the chain holds this checkpoint: a finding where it holds none of its size, or another root."""
        place = f"checkpoint {checkpoint.origin} of size {checkpoint.size}"
        there = self.read(checkpoint.origin, checkpoint.size, block)
        if there is None:
            last = self.read(checkpoint.origin, None, block)
            newest = "none of this log" if last is None else f"size {last.size} as its newest"
            return [Finding(place, "not_anchored", f"the chain holds {newest}; ask for a checkpoint that was anchored")]
        if there.root != checkpoint.root:
            return [Finding(place, "other_root", "the chain holds another root; keep the checkpoint, it proves a fork")]
        return []

    # ------------------------------------------------------------ terms

    def register(self, name: str, document: bytes, first: str, second: str) -> Receipt:
        """Register terms of settlement between two accounts. `document`: the rule document itself; its hash goes there.

        Raises: Conflict where the contract refuses (the name is taken, or the two parties are one), CoflexError where
        an address is none.
        """
        digest = hashlib.sha256(document).digest()
        return self._send(self._functions.register(_name(name), digest, _address(first), _address(second)))

    def agree(self, name: str, document: bytes) -> Receipt:
        """Agree to the terms, for the account that signs. Raises: Conflict where the document is not the one
        registered, or the account no party, or it agreed already."""
        return self._send(self._functions.agree(_name(name), hashlib.sha256(document).digest()))

    def terms(self, name: str, block: int | str = "latest") -> Terms | None:
        """The terms of a name; None where there are none."""
        document, first, second, *times = self._functions.terms(_name(name)).call(block_identifier=block)
        agreed = tuple(datetime.fromtimestamp(at, UTC) if at else None for at in times)
        return None if not any(document) else Terms(bytes(document), (first, second), (agreed[0], agreed[1]))

    def hand_over(self, owner: str) -> Receipt:
        """Make another account the owner. Raises: Conflict where the contract refuses, CoflexError where the address is
        none."""
        return self._send(self._functions.hand_over(_address(owner)))

    # ------------------------------------------------------------ helpers

    def _signing(self) -> Any:
        if self._account is None:
            raise NotReady("There is no key to sign a transaction with.", "Give the key of the account.")
        return self._account

    def _send(self, call: Any) -> Receipt:
        account = self._signing()
        with _told():
            call.call({"from": account.address})  # costs nothing, and a refusal has the contract's own words
        receipt = _sent(self._chain, account, call, self._patience)
        return Receipt("0x" + bytes(receipt["transactionHash"]).hex(), receipt["blockNumber"], receipt["gasUsed"])


def address_of(chain: Any, secret: bytes) -> str:
    """Address of the account of a key."""
    return str(_account(chain, secret).address)


@contextmanager
def _told() -> Iterator[None]:
    """What contract and node say against a transaction, as ours."""
    faults = import_module("web3.exceptions")
    try:
        yield
    except faults.ContractLogicError as error:
        reason = str(error.args[0]).removeprefix("execution reverted: ")
        raise Conflict(f"The contract refuses: {reason}.", "Read what it holds, and send what it takes.") from None
    except faults.Web3RPCError as error:
        reason = (error.rpc_response or {}).get("error", {}).get("message", error)
        raise CoflexError(f"The node refuses: {reason}.", "Check the account's money, and the node.") from None
    except faults.TimeExhausted:
        fault = "No block held the transaction in time."
        raise CoflexError(fault, "Look for it on the chain before sending it again.") from None


def _sent(chain: Any, account: Any, call: Any, patience: float) -> Any:
    """Sign a call, send it, and wait until a block holds it. Raises: CoflexError, Conflict as `_told` says."""
    with _told():
        nonce = chain.eth.get_transaction_count(account.address, "pending")
        signed = account.sign_transaction(call.build_transaction({"from": account.address, "nonce": nonce}))
        sent = chain.eth.send_raw_transaction(signed.raw_transaction)
        receipt = chain.eth.wait_for_transaction_receipt(sent, timeout=patience)
    if receipt["status"] != 1:
        raise Conflict("The contract refused in the block.", "Read what it holds now, and send what it takes.")
    return receipt


def _account(chain: Any, secret: bytes) -> Any:
    if len(secret) != 32:
        raise CoflexError(f"The key of an account has 32 bytes, not {len(secret)}.", "Give it whole.")
    try:
        return chain.eth.account.from_key(secret)
    except ValueError:
        raise CoflexError("These 32 bytes are no key of an account.", "Make one with a wallet.") from None


def _address(given: str) -> str:
    """An address as it is sent; its capitals, where it has any, must be those that its digits ask for (EIP-55).

    Raises: CoflexError.
    """
    web3, digits = _web3().Web3, given.removeprefix("0x")
    plain = digits in (digits.lower(), digits.upper())
    if not (web3.is_address(given) and (plain or web3.is_checksum_address(given))):
        raise CoflexError(f"'{given}' is no address of a chain.", "Copy it whole, with 0x and its capitals.")
    return str(web3.to_checksum_address(given))


def _name(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@cache
def _built() -> dict[str, Any]:
    """Interface and code of the contract."""
    built: dict[str, Any] = json.loads(resources.files(__package__).joinpath("anchor.json").read_text(encoding="utf-8"))
    return built


def _web3() -> Any:
    try:
        return import_module("web3")
    except ImportError:
        raise NotReady("web3 is not installed.", "Install it: pip install coflex[anchor].") from None
