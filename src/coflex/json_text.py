"""JSON texts from others. A decoder follows brackets by its stack, and how deep that reaches is not ours to say: any
library may have raised the interpreter's limit beyond it. So what nests deeper than anybody needs is not decoded."""

from __future__ import annotations

import json
import re
from typing import Any

DEEPEST = 200
_TOKEN = re.compile(r'\\.|["\[\]{}]', re.DOTALL)


def loads(data: str | bytes, **how: Any) -> Any:
    """The value of a text; `how` as for `json.loads`. Raises ValueError on what is no JSON or nests too deep."""
    text = data if isinstance(data, str) else str(data, "utf-8")
    if too_deep(text):
        raise ValueError(f"it nests deeper than {DEEPEST} levels")
    return json.loads(text, **how)


def too_deep(text: str) -> bool:
    """Whether brackets outside strings nest deeper than `DEEPEST`."""
    if text.count("[") + text.count("{") <= DEEPEST:
        return False
    depth, inside = 0, False
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark == '"':
            inside = not inside
        elif not inside and len(mark) == 1:
            depth += 1 if mark in "[{" else -1
            if depth > DEEPEST:
                return True
    return False
