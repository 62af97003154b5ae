"""Work done by the workers of a Dask cluster that runs already (distributed, BSD-3-Clause)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from coflex.domain.errors import CoflexError

J = TypeVar("J")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class DaskWorkers:
    """The workers of the scheduler at `address` (tcp://host:port), who need coflex installed as it is here.

    `patience_s`: how long the scheduler, and then its first worker, may let wait for themselves.
    """

    address: str
    patience_s: float = 10.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The cluster is not ours to end."""

    def run(self, work: Callable[[J], R], jobs: Sequence[J]) -> Iterator[tuple[int, R | CoflexError]]:
        """Yield (position, answer) as jobs end; see the package. Where it is left early, also by an interrupt, what
        has not ended is taken back from the cluster.

        Raises CoflexError when the package distributed is not installed, when the scheduler cannot be reached, has no
        worker, or is lost on the way.
        """
        if not jobs:
            return
        with self._client() as client:
            # Not pure: the key of a job is its own, so nothing of an earlier call is taken for it.
            futures = client.map(work, list(jobs), pure=False)
            position = {future.key: k for k, future in enumerate(futures)}
            try:
                for future in _ended(client, futures):
                    if client.status != "running":
                        raise _lost(self.address)
                    yield position[future.key], _answer(future)
            finally:
                if client.status == "running":
                    client.cancel([future for future in futures if not future.done()])

    @contextmanager
    def _client(self) -> Iterator[Any]:
        distributed = _distributed()
        with _quiet():
            yield from self._connected(distributed)

    def _connected(self, distributed: Any) -> Iterator[Any]:
        try:
            client = distributed.Client(self.address, timeout=self.patience_s, set_as_default=False)
        except (OSError, ValueError) as error:
            raise CoflexError(
                f"There is no Dask scheduler at {self.address} ({error or type(error).__name__}).",
                "Start one with dask scheduler, and give its address as tcp://host:port.",
            ) from None
        try:
            try:
                client.wait_for_workers(1, timeout=self.patience_s)
            except TimeoutError:
                raise CoflexError(
                    f"The Dask scheduler at {self.address} has no workers.",
                    f"Start one with dask worker {self.address} --nthreads 1.",
                ) from None
            yield client
        finally:
            client.close(timeout=self.patience_s)


@contextmanager
def _quiet() -> Iterator[None]:
    """What is wrong is told in one sentence; the pages that the package would log about it are not."""
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise CoflexError(
            "A cluster needs the package distributed, which is not installed.",
            "Install it with pip install 'coflex[cluster]', or use the processors of this machine with --workers.",
        ) from None
    return distributed


def _ended(client: Any, futures: Sequence[Any]) -> Iterator[Any]:
    """The futures as they end. Raised errors stay in them."""
    found: Iterator[Any] = _distributed().as_completed(futures, loop=client.loop, raise_errors=False)
    return found


def _answer(future: Any) -> Any:
    """What a job gave, or why it gave nothing: its worker died, or could not even begin."""
    try:
        return future.result()
    except CoflexError as error:
        return error
    except (Exception, CancelledError) as error:
        return CoflexError(
            f"A worker of the cluster could not run this ({type(error).__name__}: {error}).",
            "See that every worker has coflex as it is here, and memory enough.",
        )


def _lost(address: str) -> CoflexError:
    return CoflexError(
        f"The Dask scheduler at {address} was lost on the way.",
        "Start it again, then give the same command: what was finished is kept.",
    )
