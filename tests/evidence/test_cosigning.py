"""The witness: the exchange of others word for word, and no answer to a log that forks or rolls back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.errors import CoflexError, Conflict, Refused
from coflex.evidence import checkpoint, merkle, witness
from coflex.evidence.witness import Answer, consider, cosignatures, obtain, parse, request
from support import evidence
from support.evidence import LOG, ORIGIN, WITNESSES, Book, book, written

ME = WITNESSES[0]
LOGS = {ORIGIN: [LOG.key]}
NOW = 1_800_000_000

# Requests from the tests of the witness litewitness (filippo.io/torchwood): a log of made-up hashes at 1, 3 and 5.
TREE = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562"
TREE_KEY = checkpoint.NoteKey(TREE, bytes.fromhex("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f"))
ONE = f"""old 0

{TREE}
1
KgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

— {TREE} UgIom7fPZTqpxWWhyjWduBvTvGVqsokMbqTArsQilegKoFBJQjUFAmQ0+YeSPM3wfUQMFSzVnnNuWRTYrajXpNUbIQY=
"""
THREE = f"""old 1
KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
KgIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

{TREE}
3
RcCI1Nk56ZcSmIEfIn0SleqtV7uvrlXNccFx595Iwl0=

— {TREE} UgIom2VbtIcdFbwFAy1n7s6IkAxIY6J/GQOTuZF2ORV39d75cbAj2aQYwyJre36kezNobZs4SUUdrcawfAB8WVrx6go=
"""
FIVE = f"""old 1
KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
+fUDV+k970B4I3uKrqJM4aP1lloPZP8mvr2Z4wRw2LI=
KgQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

{TREE}
5
QrtXrQZCCvpIgsSmOsah7HdICzMLLyDfxToMql9WTjY=

— {TREE} UgIomw/EOJmWi0i1FQsOj+etB7F8IccFam/jgd6wzRns4QPVmyEZtdvl1U2KEmLOZ/ASRcWJi0tW90dJWAShei7sDww=
"""


class Desk:
    """A witness in memory, by the rules alone."""

    def __init__(self, logs: dict[str, list[checkpoint.NoteKey]] | None = None) -> None:
        self.logs, self.last, self.at = LOGS if logs is None else logs, dict[str, str](), NOW
        self.evidence: list[witness.Evidence] = []

    def ask(self, body: bytes | str) -> Answer:
        asked = parse(body if isinstance(body, bytes) else body.encode())
        origin = asked.note.partition("\n")[0]
        answer = consider(asked, self.logs, self.last.get(origin), ME, self.at)
        assert (answer.cosigned is None) == (answer.status != witness.OK)
        if answer.cosigned:
            self.last[origin] = answer.cosigned
        if answer.evidence:
            self.evidence.append(answer.evidence)
        return answer

    def post(self, body: bytes) -> tuple[int, str]:
        answer = self.ask(body)
        return answer.status, answer.body

    def size(self) -> int:
        return checkpoint.parse_note(self.last[ORIGIN]).checkpoint.size if ORIGIN in self.last else 0


def sent(log: Book, old: int, size: int, proof: Sequence[bytes] | None = None) -> bytes:
    told = merkle.consistency_proof(log.hashes, old, size) if proof is None else proof
    return request(old, told, log.note(size))


def proving(log: Book, size: int) -> Callable[[int], list[bytes]]:
    return lambda old: merkle.consistency_proof(log.hashes, old, size)


# ---------------------------------------------------------------- the protocol


@pytest.mark.spec("CERT-01")
def test_requests_of_another_implementation_are_answered_as_it_answers_them() -> None:
    desk = Desk({TREE: [TREE_KEY]})
    for body, status in ((ONE, 200), (THREE, 200), (FIVE, 409), (FIVE.replace("old 1", "old 3", 1), 422), (ONE, 409)):
        assert desk.ask(body).status == status
    assert desk.ask(THREE).body == "3\n"
    other = Desk({TREE: [TREE_KEY]})
    assert [other.ask(body).status for body in (ONE, FIVE, THREE)] == [200, 200, 409]
    note = checkpoint.with_lines(
        FIVE.partition("\n\n")[2], [other.ask(FIVE.replace(FIVE.partition("\n\n")[0], "old 5")).body]
    )
    assert checkpoint.cosigned_at(checkpoint.parse_note(note), ME.key) == NOW


@pytest.mark.spec("CERT-01")
def test_a_log_that_grows_is_cosigned_from_size_to_size() -> None:
    desk, log, known = Desk(), book(), 0
    for size in (0, 1, 1, 4, 8, 13):
        desk.at += 60
        answer = desk.ask(sent(log, known, size))
        assert answer.status == witness.OK and desk.size() == size
        note = cosignatures(log.note(size), answer.body, [ME.key])
        assert checkpoint.cosigned_at(checkpoint.parse_note(note), ME.key) == desk.at
        known = size


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 13), st.integers(0, 13), st.booleans()), max_size=12))
def test_whatever_it_is_asked_all_it_cosigned_is_one_growing_log(asked: list[tuple[int, int, bool]]) -> None:
    """Two versions of a log's history, both signed by it, sent in any order with the best proofs there are."""
    honest = book()
    forked = Book([written(7, {}), *honest.messages[1:]])
    desk, cosigned = Desk(), []
    for old, size, fork in asked:
        log = forked if fork else honest
        if desk.ask(sent(log, min(old, size), size)).status == witness.OK:
            cosigned.append((size, log.root(size)))
    assert [size for size, _ in cosigned] == sorted(size for size, _ in cosigned)
    histories = [{(k, log.root(k)) for k in range(14)} for log in (honest, forked)]
    assert any(set(cosigned) <= one for one in histories)
    assert all(one.proves(LOG.key) for one in desk.evidence)


def test_two_trees_of_one_size_are_kept_as_proof_of_misbehaviour() -> None:
    desk, log = Desk(), book()
    forked = Book([*log.messages[:12], written(7, {})])
    assert desk.ask(sent(log, 0, 13)).status == witness.OK
    for old in (13, 5, 0):
        answer = desk.ask(request(old, [], forked.note()))
        assert (answer.status, answer.body, answer.media_type) == (409, "13\n", "text/x.tlog.size")
        assert answer.evidence == witness.Evidence(log.note(), forked.note())
        assert answer.evidence.proves(LOG.key) and not answer.evidence.proves(ME.key)
    assert desk.size() == 13 and desk.ask(sent(log, 13, 13)).status == witness.OK
    assert not witness.Evidence(log.note(), log.note()).proves(LOG.key)
    assert not witness.Evidence(log.note(), log.note(12)).proves(LOG.key)
    unsigned = forked.note().replace("— coflex", "— x")
    assert not witness.Evidence(log.note(), unsigned).proves(LOG.key)


def test_what_others_signed_is_no_proof_against_a_log() -> None:
    desk, log = Desk(), book()
    desk.ask(sent(log, 0, 13))
    forged = checkpoint.sign_note(
        checkpoint.Checkpoint(ORIGIN, 13, bytes(32)), checkpoint.NoteSigner(ORIGIN, bytes(32))
    )
    answer = desk.ask(request(13, [], forged))
    assert answer.status == witness.FORBIDDEN and answer.evidence is None


def test_each_fault_has_its_status() -> None:
    log, unknown = book(), checkpoint.NoteSigner("coflex/milan/x", bytes(32))
    desk = Desk()
    foreign = checkpoint.sign_note(checkpoint.Checkpoint(unknown.name, 1, log.root(1)), unknown)
    assert desk.ask(request(0, [], foreign)).status == witness.NOT_FOUND
    # A witness is told of logs; the key of another witness is not one of theirs.
    assert Desk({ORIGIN: [ME.key]}).ask(sent(log, 0, 1)).status == witness.NOT_FOUND
    unsigned = log.note(4).replace("\n4\n", "\n5\n")
    assert desk.ask(request(0, [], unsigned)).status == witness.FORBIDDEN
    assert desk.ask(request(5, [], log.note(4))).status == witness.BAD_REQUEST
    assert desk.ask(request(2, [bytes(32)], log.note(4))).body == "0\n"
    assert desk.ask(request(0, [bytes(32)], log.note(4))).status == witness.UNPROCESSABLE
    empty = checkpoint.sign_note(checkpoint.Checkpoint(ORIGIN, 0, bytes(32)), LOG)
    assert desk.ask(request(0, [], empty)).status == witness.UNPROCESSABLE
    assert desk.ask(sent(log, 0, 4)).status == witness.OK
    assert desk.ask(sent(log, 4, 13, [bytes(32)])).status == witness.UNPROCESSABLE
    assert desk.ask(sent(log, 4, 13, [])).status == witness.UNPROCESSABLE
    assert desk.size() == 4
    text = "coflex/rome/measurements\nfour\n"
    assert desk.ask(request(4, [], f"{text}\n{LOG.line(text)}")).status == witness.BAD_REQUEST


def test_a_log_may_change_its_key() -> None:
    fresh, log = checkpoint.NoteSigner(ORIGIN, bytes(32)), book()
    desk = Desk({ORIGIN: [LOG.key, fresh.key]})
    assert desk.ask(sent(log, 0, 4)).status == witness.OK
    note = checkpoint.sign_note(checkpoint.Checkpoint(ORIGIN, 8, log.root(8)), fresh)
    assert desk.ask(request(4, merkle.consistency_proof(log.hashes, 4, 8), note)).status == witness.OK


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 0\n",
        b"old 00\n\nx",
        b"old -1\n\nx",
        b"old 9223372036854775808\n\nx",
        b"new 0\n\nx",
        b"\xff",
        b"old 0\nme\n\nx",
        b"old 0\nAAAA\n\nx",
        b"old 0\n" + b"KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n" * 64 + b"\nx",
        b"old 0\n\nno note",
    ],
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(Refused) as caught:
        parse(body)
    assert caught.value.findings[0].code in ("bad_request", "bad_note")


def test_a_request_is_what_it_was() -> None:
    log = book()
    proof = merkle.consistency_proof(log.hashes, 5, 13)
    assert parse(request(5, proof, log.note())) == witness.Request(5, tuple(proof), log.note())
    assert request(5, [bytes(32)], "text\n") == b"old 5\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\ntext\n"


# ---------------------------------------------------------------- the log's side


def test_a_log_that_does_not_know_where_its_witness_is_asks_once_more() -> None:
    desk, log, asked = Desk(), book(), list[bytes]()

    def post(body: bytes) -> tuple[int, str]:
        asked.append(body)
        return desk.post(body)

    for size, known, talks in ((4, 0, 1), (9, 0, 2), (13, 9, 1), (13, 0, 2)):
        asked.clear()
        note = obtain(log.note(size), known, proving(log, size), [ME.key], post)
        assert len(asked) == talks and desk.size() == size
        assert checkpoint.cosigned_at(checkpoint.parse_note(note), ME.key) == NOW
        assert checkpoint.verify_note(checkpoint.parse_note(note), LOG.key)


def test_a_log_learns_that_its_witness_saw_more_or_something_else() -> None:
    desk, log = Desk(), book()
    obtain(log.note(), 0, proving(log, 13), [ME.key], desk.post)
    with pytest.raises(Conflict, match="size 13"):
        obtain(log.note(4), 0, proving(log, 4), [ME.key], desk.post)
    forked = Book([*log.messages[:12], written(7, {})])
    with pytest.raises(Conflict, match="does not go on"):
        obtain(forked.note(), 0, proving(forked, 13), [ME.key], desk.post)
    assert len(desk.evidence) == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((500, "out of order\n"), CoflexError),
        ((404, "unknown\n"), CoflexError),
        ((409, "many\n"), Conflict),
        ((409, "99\n"), Conflict),
        ((200, ""), Refused),
        ((200, "— witness.example/w2 AAAAAAAAAAAA\n"), Refused),
        ((200, evidence.book().note()), Refused),
    ],
)
def test_an_answer_that_is_none_is_said(answer: tuple[int, str], error: type[CoflexError]) -> None:
    log = book()
    with pytest.raises(error):
        obtain(log.note(), 0, proving(log, 13), [ME.key], lambda _: answer)


def test_cosignatures_of_keys_that_are_not_trusted_are_left_out() -> None:
    log = book()
    lines = "".join(checkpoint.cosign(log.note(), one, NOW) for one in WITNESSES)
    note = cosignatures(log.note(), f"{lines}nonsense\n", [ME.key])
    assert [one.name for one in checkpoint.parse_note(note).lines] == [ORIGIN, ME.name]
    with pytest.raises(Refused):
        cosignatures(log.note(12), lines, [ME.key])
