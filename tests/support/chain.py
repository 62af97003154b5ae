"""A chain in this process: eth-tester on py-evm, behind the JSON-RPC that a node speaks, on 127.0.0.1."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


@dataclass(frozen=True)
class Node:
    """Where the chain answers, and the keys of accounts that have money there."""

    url: str
    secrets: tuple[bytes, ...]


@contextmanager
def node() -> Iterator[Node]:
    """A fresh chain, whose every transaction is a block."""
    from eth_tester import EthereumTester, PyEVMBackend
    from eth_tester.exceptions import TransactionFailed
    from eth_utils import ValidationError
    from web3 import EthereumTesterProvider, Web3

    backend = PyEVMBackend()
    provider = EthereumTesterProvider(EthereumTester(backend))
    inner, one = Web3(provider), threading.Lock()

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        """As geth answers; a contract that reverts is error 3, a transaction that is none error -32000."""
        try:
            with one:
                said = dict(provider.request_func(inner, inner.middleware_onion)(asked["method"], asked["params"]))
        except TransactionFailed as error:
            said = {"jsonrpc": "2.0", "error": {"code": 3, "message": str(error)}}
        except ValidationError as error:
            said = {"jsonrpc": "2.0", "error": {"code": -32000, "message": str(error)}}
        return {**said, "id": asked["id"]}

    async def rpc(request: Request) -> Response:
        said = await run_in_threadpool(answer, json.loads(await request.body()))
        return Response(json.dumps(said, default=_plain), media_type="application/json")

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=[Route("/", rpc, methods=["POST"])]), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield Node(
            f"http://127.0.0.1:{listener.getsockname()[1]}", tuple(key.to_bytes() for key in backend.account_keys)
        )
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def _plain(value: Any) -> Any:
    return "0x" + bytes(value).hex() if isinstance(value, bytes | bytearray) else dict(value)
