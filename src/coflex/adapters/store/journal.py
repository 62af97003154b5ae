"""The journal in a database: a SQLite file by default, PostgreSQL when its URL is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.exc import IntegrityError

from coflex.adapters.store.journal_reader import JournalReader
from coflex.adapters.store.journal_rows import batch, check
from coflex.adapters.store.journal_writer import writer
from coflex.adapters.store.place import PATIENCE_S, place_of, reason
from coflex.domain.errors import CoflexError
from coflex.service.ports import Entry, Head, KeysTaken, StoreBroken


class SqlJournal(JournalReader):
    """The port `Journal` in a database; opening it takes the writer's lock and brings the tables to this version.

    `place`: the path of a file, or a database URL (`postgresql://user@host/name`; the link must be to the server
    itself, as a pooler that shares sessions would share their locks). `wait_s`: how long the server of before is
    given to let go, and another program to let go of the file. `patience_s`: seconds after which a PostgreSQL server
    that says nothing counts as lost.

    Raises InUse when another server writes to the place, CoflexError when it cannot be opened or holds something else.
    """

    def __init__(self, place: str | Path, wait_s: float = 5.0, patience_s: float = PATIENCE_S) -> None:
        self._writer = writer(place_of(place), wait_s, patience_s)
        try:
            super().__init__(place)
            self._number = self.head().number
        except BaseException:
            self._writer.close()
            raise

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries in one transaction with one sync.

        Raises StoreFull, KeysTaken, StoreLost, StoreBroken; ValueError for what no table can give back.
        """
        if not entries:
            return
        check(entries, self._number)
        try:
            self._writer.write(batch(entries))
        except IntegrityError as fault:
            raise self._taken(entries, fault) from fault
        self._number = entries[-1].number

    def _taken(self, entries: Sequence[Entry], fault: IntegrityError) -> CoflexError:
        """What a row that is there already means: keys that were used long ago, or a store that is not ours alone."""
        scopes = [(one.command.tenant, one.command.by, one.command.key) for one in entries]
        taken = [(tenant, by, key) for tenant, by, key in scopes if key is not None and self.key(tenant, by, key)]
        if taken and self.head().number == self._number:
            return KeysTaken(taken)
        return self._writer.distrust(
            StoreBroken(
                f"The store {self._place.name} has entries that this server did not write: {reason(fault)}.",
                "Let one server write to a store; verify it, then start again.",
            )
        )

    def recover(self) -> Head:
        """After StoreLost: a new link and the lock on it; what is there. Raises StoreLost, StoreBroken."""
        head = self._writer.recover()
        self._number = head.number
        return head

    def close(self) -> None:
        """Let go of the database; a SQLite journal is one file again."""
        super().close()
        self._writer.close()
