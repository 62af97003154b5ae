# pragma version 0.4.3
# pragma evm-version paris
# pragma optimize gas

# @title Checkpoints of logs, and terms of settlement
# @license Apache-2.0
# @notice What stands here cannot be taken back: sizes only grow, a root once anchored stays, terms never change.
#         Names are told as SHA-256 of their text, documents as SHA-256 of their bytes; nothing personal comes here.

struct Anchored:
    size: uint64
    root: bytes32
    at: uint64

struct Terms:
    document: bytes32
    first: address
    second: address
    first_agreed: uint64
    second_agreed: uint64

event CheckpointAnchored:
    origin: indexed(bytes32)
    size: indexed(uint64)
    root: bytes32

event TermsRegistered:
    name: indexed(bytes32)
    document: indexed(bytes32)
    first: address
    second: address

event TermsAgreed:
    name: indexed(bytes32)
    document: indexed(bytes32)
    party: indexed(address)

event OwnerChanged:
    previous: indexed(address)
    owner: indexed(address)

owner: public(address)
# The newest checkpoint of each log.
latest: public(HashMap[bytes32, Anchored])
# Every checkpoint that was ever the newest, by origin and size; a root of zeros means that there is none.
anchored: public(HashMap[bytes32, HashMap[uint64, Anchored]])
terms: public(HashMap[bytes32, Terms])


@deploy
def __init__():
    self.owner = msg.sender


@external
def anchor(origin: bytes32, size: uint64, root: bytes32):
    """
    @notice Anchor a log's checkpoint; it must be larger than the last one.
    """
    assert msg.sender == self.owner, "only the owner anchors"
    assert size > self.latest[origin].size, "sizes only grow"
    assert root != empty(bytes32), "a root is not zero"
    entry: Anchored = Anchored(size=size, root=root, at=convert(block.timestamp, uint64))
    self.latest[origin] = entry
    self.anchored[origin][size] = entry
    log CheckpointAnchored(origin=origin, size=size, root=root)


@external
def register(name: bytes32, document: bytes32, first: address, second: address):
    """
    @notice Register terms between two parties; each then agrees by itself. A name is used once.
    """
    assert msg.sender == self.owner, "only the owner registers"
    assert document != empty(bytes32), "a document is not zero"
    assert first != empty(address) and second != empty(address) and first != second, "two parties"
    assert self.terms[name].document == empty(bytes32), "the name is taken"
    self.terms[name] = Terms(document=document, first=first, second=second, first_agreed=0, second_agreed=0)
    log TermsRegistered(name=name, document=document, first=first, second=second)


@external
def agree(name: bytes32, document: bytes32):
    """
    @notice Agree to terms. The document is told again, so that nobody agrees to another one than they read.
    """
    assert document != empty(bytes32) and self.terms[name].document == document, "other terms"
    if msg.sender == self.terms[name].first:
        assert self.terms[name].first_agreed == 0, "agreed already"
        self.terms[name].first_agreed = convert(block.timestamp, uint64)
    else:
        assert msg.sender == self.terms[name].second, "only its parties agree"
        assert self.terms[name].second_agreed == 0, "agreed already"
        self.terms[name].second_agreed = convert(block.timestamp, uint64)
    log TermsAgreed(name=name, document=document, party=msg.sender)


@external
def hand_over(owner: address):
    """
    @notice Make another account the owner, where keys change.
    """
    assert msg.sender == self.owner, "only the owner hands over"
    assert owner != empty(address), "an owner is somebody"
    log OwnerChanged(previous=self.owner, owner=owner)
    self.owner = owner
