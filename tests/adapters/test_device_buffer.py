"""The buffer of a device on a disk that forgets: no number for two messages, nothing gone without being named."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from coflex.adapters.field.buffer import LEAST_BYTES, DiskBroken, NoRoom, Outbox, sequence_of
from coflex.adapters.field.disk import FolderDisk
from coflex.domain.errors import CoflexError
from coflex.evidence.message import Kind, seal
from support.field_disk import CutDisk

pytestmark = pytest.mark.spec("ACT-02")


def message(sequence: int, text: bytes) -> bytes:
    return seal(lambda data: bytes(64), Kind.MEASUREMENT, 7, sequence, 1000 * sequence, text)


def anew(old: bytes, number: int) -> bytes:
    return message(number, old[24:-64])


class BufferMachine(RuleBasedStateMachine):
    """A device and its platform: what was handed out may have been sent, and the platform knows all that was sent.

    `sent`: by number, all that ever left. `kept`: texts that were appended, in order; `known`: the platform has them.
    """

    @initialize(seed=st.integers(0, 1 << 30))
    def begin(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.disk = CutDisk()
        self.images: list[tuple[CutDisk, list[bytes]]] = []
        self.sent: dict[int, bytes] = {}
        self.kept: list[bytes] = []
        self.count = 0
        self.start()

    def start(self) -> None:
        self.outbox = Outbox(self.disk, LEAST_BYTES)
        self.opened = False

    def known(self) -> int:
        return max(self.sent, default=0)

    @rule(size=st.integers(0, 3000), many=st.integers(1, 4))
    def append(self, size: int, many: int) -> None:
        for _ in range(many):
            self.count += 1
            text = self.count.to_bytes(4, "little") + bytes(size)
            self.outbox.append(message(self.outbox.last + 1, text), held=not self.opened)
            self.kept.append(text)

    @rule(most=st.integers(0, 5000))
    def send(self, most: int) -> None:
        """What may leave does; so does the hello, whose answer opens the rest."""
        hello = self.outbox.hello()
        for one in [*([hello] if hello else []), *self.outbox.pending(0, most)]:
            assert self.sent.setdefault(sequence_of(one), one) == one, "a number was used for two messages"

    @rule()
    def answer(self) -> None:
        """The platform says through which number it knows the device."""
        known = self.known()
        if known > self.outbox.last or (not self.opened and known > self.last_left()):
            self.outbox.raise_above(known, anew)
        self.outbox.release()
        self.opened = True

    def last_left(self) -> int:
        return self.outbox.last - self.outbox.held

    @rule(back=st.integers(0, 5))
    def acknowledge(self, back: int) -> None:
        # The platform names what has not come, and nothing that is still here goes for a word about later ones.
        missing = [number - 1 for number in self.outbox._pending if number not in self.sent]
        through = min([self.known() - back, self.last_left(), *missing])
        if self.opened and through > 0:
            self.outbox.acknowledge(through)

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        if self.outbox._pending:
            self.outbox.give_up(data.draw(st.sets(st.sampled_from(list(self.outbox._pending)), max_size=5)))

    @rule(back=st.integers(1, 5))
    def set_back(self, back: int) -> None:
        """The last ones never counted: their numbers stand for what they said, but for the last, which is dropped."""
        last = list(self.outbox._pending)[-back:]
        if not self.opened or not last or any(number in self.sent for number in last):
            return
        if self.outbox.lost and self.outbox.lost[-1][1] > last[0]:  # the platform knows one that is above
            return
        texts = [self.outbox._pending[number][24:-64] for number in last]
        anew = [message(last[0] + place, text) for place, text in enumerate(texts[:-1])]
        self.outbox.replace(last[0], last[0] - 1, 0, anew)
        self.kept.remove(texts[-1])

    @rule(size=st.integers(0, 3000))
    def note(self, size: int) -> None:
        self.outbox.note(count=self.count, long="x" * size)
        self.noted = self.count

    @rule()
    def kill(self) -> None:
        self.start()

    @rule()
    def cut(self) -> None:
        self.disk.cut(self.chance)
        self.start()

    @rule()
    def image(self) -> None:
        self.images.append((self.disk.copy(), list(self.kept)))

    @rule()
    def restore(self) -> None:
        if self.images:
            disk, self.kept = self.chance.choice(self.images)
            self.disk, self.kept = disk.copy(), list(self.kept)
            self.noted = None
            self.start()

    @invariant()
    def nothing_is_gone_unnamed(self) -> None:
        """All that was kept is in the buffer, or acknowledged, or its number is named lost."""
        pending = {one[24:-64] for one in self.outbox._pending.values()}
        arrived = {one[24:-64] for one in self.sent.values()}
        lost = sum(last - first + 1 for first, last in self.outbox.lost)
        missing = [text for text in self.kept if text not in pending and text not in arrived]
        assert len(missing) <= lost
        assert self.outbox.damaged == 0

    @invariant()
    def numbers_rise_and_the_disk_is_bounded(self) -> None:
        numbers = list(self.outbox._pending)
        assert numbers == sorted(set(numbers))
        assert self.outbox.size_bytes <= LEAST_BYTES + LEAST_BYTES // 8 + 20_000

    @invariant()
    def notes_stay(self) -> None:
        if getattr(self, "noted", None) is not None:
            assert self.outbox.notes["count"] >= self.noted


BufferMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBuffer = BufferMachine.TestCase


# ---------------------------------------------------------------- by hand


def filled(disk: CutDisk, count: int, size: int = 100) -> Outbox:
    outbox = Outbox(disk, LEAST_BYTES)
    for number in range(outbox.last + 1, outbox.last + 1 + count):
        outbox.append(message(number, bytes(size)), held=False)
    return outbox


def test_messages_leave_in_order_and_go_once_they_are_acknowledged() -> None:
    outbox = filled(CutDisk(), 5)
    assert [sequence_of(one) for one in outbox.pending(0, 400)] == [1, 2]
    assert [sequence_of(one) for one in outbox.pending(3, 10)] == [4]
    outbox.acknowledge(4)
    assert [sequence_of(one) for one in outbox.pending(0, 10_000)] == [5]
    outbox.acknowledge(5)
    assert outbox.pending(0, 1) == [] and sequence_of(outbox.hello()) == 5


def test_a_full_buffer_loses_the_oldest_and_says_which() -> None:
    outbox = filled(CutDisk(), 1000)
    pending = [sequence_of(one) for one in outbox.pending(0, 10**9)]
    assert outbox.lost == ((1, pending[0] - 1),) and pending == list(range(pending[0], 1001))
    again = Outbox(outbox._disk, LEAST_BYTES)
    assert (again.lost[0][0], again.damaged, again.last) == (1, 0, 1000)
    assert again.lost[0][1] + len(again) == 1000


def test_no_message_is_lost_to_notes_however_long_and_often_they_are_kept() -> None:
    disk = CutDisk()
    outbox = Outbox(disk, LEAST_BYTES)
    outbox.append(message(1, b""), False)
    outbox.acknowledge(1)
    for number in range(2, 102):
        outbox.append(message(number, b""), number > 60)
        outbox.note(long="x" * 500 * number, number=number)
    assert outbox.lost == () and outbox.size_bytes < 3 * LEAST_BYTES
    outbox.append(message(102, b""), True)
    outbox.give_up([102])
    outbox.note(long="x" * 60_000)
    for now in (outbox, Outbox(disk.copy(), LEAST_BYTES)):
        assert [*now._pending] == [*range(2, 102)] and now.held == 41 and now.damaged == 0
        assert (now.last, now.acknowledged, now.notes["number"], now.lost) == (102, 1, 101, ((102, 102),))


def test_a_device_whose_disk_is_an_old_copy_takes_no_number_again() -> None:
    disk = CutDisk()
    filled(disk, 10)
    image = disk.copy()
    filled(disk, 10)  # 11 to 20 are sent
    outbox = Outbox(image, LEAST_BYTES)
    outbox.append(message(11, b"new"), held=True)
    assert [sequence_of(one) for one in outbox.pending(0, 10**6)] == list(range(1, 11))
    outbox.raise_above(20, anew)
    for one in (outbox, again := Outbox(image, LEAST_BYTES)):
        assert one.pending(10, 10**6) == [message(21, b"new")]
        # What may have left is asked about again: the platform's word alone empties no buffer.
        assert [sequence_of(raw) for raw in one.pending(0, 10**6)] == [*range(1, 11), 21]
    assert (again.damaged, again.lost) == (0, ())
    again.acknowledge(21)
    assert (Outbox(image, LEAST_BYTES).pending(0, 1), Outbox(image, LEAST_BYTES).damaged) == ([], 0)


def test_what_is_given_up_is_named_lost_and_what_is_replaced_is_free_also_after_a_start() -> None:
    disk = CutDisk()
    outbox = filled(disk, 40, size=200)
    outbox.give_up([3, 1, 2, 7, 99])
    outbox.replace(30, 29, 29_500, [message(30, b"thirty")])
    again = Outbox(disk, LEAST_BYTES)
    for one in (outbox, again):
        numbers = [sequence_of(raw) for raw in one.pending(0, 10**6)]
        assert numbers == [4, 5, 6, *range(8, 31)]
        assert one.pending(29, 1) == [message(30, b"thirty")]
        assert (one.lost, one.last, one.signed_at, one.damaged) == (((1, 3), (7, 7)), 30, 30_000, 0)
    again.append(message(31, bytes(200)), held=False)
    again.acknowledge(31)
    assert len(Outbox(disk, LEAST_BYTES)) == 0


def test_a_number_that_is_free_twice_is_not_taken_for_acknowledged_after_a_start() -> None:
    disk = CutDisk()
    outbox = Outbox(disk, LEAST_BYTES)
    outbox.append(message(1, b"one"), held=True)
    outbox = Outbox(disk, LEAST_BYTES)
    outbox.append(message(2, b"two"), held=True)
    outbox.release()
    outbox.replace(2, 1, 0, [])
    outbox.replace(1, 0, 0, [])
    outbox.append(message(1, b"three"), held=False)
    for _ in range(3):
        outbox = Outbox(disk, LEAST_BYTES)
        assert (outbox.acknowledged, list(outbox._pending.values())) == (0, [message(1, b"three")])


def test_what_is_removed_is_gone_for_sure_before_the_next_one_goes() -> None:
    gone: list[str] = []

    class Watched(CutDisk):
        def remove(self, name: str) -> None:
            assert not self.removed
            gone.append(name)
            super().remove(name)

    outbox = filled(Watched(), 200)
    outbox.acknowledge(200)
    filled(outbox._disk, 1)  # type: ignore[arg-type]
    assert len(gone) > 3 and gone == sorted(gone)


def test_a_device_starts_on_a_full_disk_and_what_is_acknowledged_makes_room() -> None:
    disk = CutDisk()
    filled(disk, 60, size=100)
    disk.room = 0
    outbox = Outbox(disk, LEAST_BYTES)
    assert [sequence_of(one) for one in outbox.pending(0, 10**6)] == list(range(1, 61))
    with pytest.raises(NoRoom):
        outbox.append(message(61, b""), held=False)
    outbox.acknowledge(60)
    disk.room = None
    outbox.append(message(61, b""), held=False)
    again = Outbox(disk, LEAST_BYTES)
    assert ([sequence_of(one) for one in again.pending(0, 10**6)], again.lost) == ([61], ())


def test_an_empty_disk_that_is_full_takes_a_message_once_there_is_room() -> None:
    disk = CutDisk(room=0)
    outbox = Outbox(disk, LEAST_BYTES)
    with pytest.raises(NoRoom):
        outbox.append(message(1, b""), held=False)
    disk.room = None
    outbox.append(message(1, b""), held=False)
    assert len(Outbox(disk, LEAST_BYTES)) == 1


def test_a_rotten_record_is_named() -> None:
    disk = CutDisk()
    filled(disk, 40, size=200)
    first = disk.names()[0]
    held = bytearray(disk.files[first].synced)
    held[len(held) // 2] ^= 1
    disk.files[first].synced = bytes(held)
    outbox = Outbox(disk, LEAST_BYTES)
    pending = {sequence_of(one) for one in outbox.pending(0, 10**6)}
    named = {number for first, last in outbox.lost for number in range(first, last + 1)}
    assert outbox.damaged == len(named) > 0
    assert pending | named == set(range(1, outbox.last + 1)) and not pending & named


def test_a_full_disk_refuses_and_takes_again_when_there_is_room() -> None:
    disk = CutDisk()
    outbox = filled(disk, 3)
    disk.room = 50
    for _ in range(3):
        with pytest.raises(NoRoom, match="Make room"):
            outbox.append(message(4, b"four"), held=False)
    disk.room = None
    outbox.append(message(4, b"4"), held=False)
    assert [one[24:-64] for one in Outbox(disk, LEAST_BYTES).pending(3, 10**6)] == [b"4"]


def test_after_a_failed_sync_nothing_more_is_taken() -> None:
    disk = CutDisk()
    outbox = filled(disk, 3)
    disk.sync_fails = True
    with pytest.raises(DiskBroken):
        outbox.append(message(4, b"four"), held=False)
    disk.sync_fails = False
    with pytest.raises(DiskBroken):
        outbox.append(message(4, b"other"), held=False)


def test_a_number_that_does_not_follow_and_a_tiny_limit_are_refused() -> None:
    outbox = filled(CutDisk(), 2)
    with pytest.raises(CoflexError, match="does not follow"):
        outbox.append(message(4, b""), held=False)
    with pytest.raises(CoflexError, match="too small"):
        Outbox(CutDisk(), 100)


def test_the_same_on_a_real_folder(tmp_path: Path) -> None:
    outbox = Outbox(FolderDisk(tmp_path / "buffer"), LEAST_BYTES)
    for number in range(1, 50):
        outbox.append(message(number, bytes(150)), held=False)
    outbox.acknowledge(30)
    outbox.note(who="me")
    outbox.close()
    again = Outbox(FolderDisk(tmp_path / "buffer"), LEAST_BYTES)
    assert [sequence_of(one) for one in again.pending(0, 10**6)] == list(range(31, 50))
    assert again.notes == {"who": "me"}
