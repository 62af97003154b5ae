"""Many values as one text of a record: JSON, deflated (repeated names cost nothing), in base64.

Every zlib inflates a text to the same bytes; which bytes they deflate to, only one build of zlib says alike.
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from typing import Any

import msgspec


def canonical(value: Any) -> bytes:
    """JSON with sorted keys: the same bytes for equal values."""
    return msgspec.json.encode(value, order="sorted")


def deflated(contents: bytes) -> str:
    return b64encode(zlib.compress(contents, 6)).decode()


def inflated(packed: str) -> bytes:
    return zlib.decompress(b64decode(packed))
