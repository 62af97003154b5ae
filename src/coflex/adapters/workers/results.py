"""A folder of results, one JSON file each, found again by what they are the result of."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

FORMAT = 1


@dataclass(frozen=True, slots=True)
class ResultFolder:
    """The folder. A file is named by a word for people and the beginning of its key, and holds
    {"format", "key", "sha256", "result"}; `sha256` is that of the result as it is written here."""

    folder: Path

    def read(self, name: str, key: str) -> tuple[dict[str, Any] | None, str]:
        """The result kept under a key, or None and, where a file is there all the same, what is wrong with it."""
        path = self.path(name, key)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None, ""
        except UnicodeDecodeError:
            return None, f"{path} is no text"
        try:
            held = json.loads(text)
        except json.JSONDecodeError:
            return None, f"{path} is cut off or no JSON"
        if not isinstance(held, dict) or held.get("format") != FORMAT or held.get("key") != key:
            return None, f"{path} is the result of something else"
        result = held.get("result")
        if not isinstance(result, dict) or held.get("sha256") != _digest(result):
            return None, f"{path} was changed after it was written"
        return result, ""

    def write(self, name: str, key: str, result: Mapping[str, Any]) -> Path:
        """Keep a result: whole or not at all, in the place of an earlier one. Returns the file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        held = {"format": FORMAT, "key": key, "sha256": _digest(result), "result": result}
        put_whole(self.path(name, key), json.dumps(held, sort_keys=True, indent=1, allow_nan=False) + "\n")
        return self.path(name, key)

    def path(self, name: str, key: str) -> Path:
        return self.folder / f"{name}-{key[:16]}.json"


def put_whole(path: Path, text: str) -> None:
    """Write a file beside its place, then put it there in one step: who reads it sees all of it or the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp lets nobody else read; a result is as readable as any other file of the user.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(beside, 0o666 & ~mask)
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _digest(result: Mapping[str, Any]) -> str:
    written = json.dumps(result, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(written.encode()).hexdigest()
