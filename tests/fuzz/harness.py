"""Runs a target of this folder under atheris: inputs that reach new lines of code are kept and changed further.

    python tests/fuzz/fuzz_body.py -max_total_time=60

(with `coflex` installed, or PYTHONPATH=src). The options are those of libFuzzer. A target is a file `fuzz_*.py` with

    check(data)    raises where something is wrong with what the product made of the bytes, else returns
    SEEDS          inputs to begin with

and, where bytes changed at random would seldom be read at all, `mutated(data, chance)`: another input made of one, or
None to have its bytes changed.

What is found is written as a file `crash-...`; it belongs into tests/adapters/test_found_by_fuzzing.py, which also runs
every target on its seeds, without atheris.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

# Whose lines count as reached or not.
WATCHED = ("coflex", "json", "openpyxl", "joserfc")


def run(file: str) -> None:
    """Fuzz a target until an option says that it is enough, or something is found. Does not return."""
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    # What is imported already is not watched; it is imported anew, and with it what knows it.
    for name in [name for name in sys.modules if name.partition(".")[0] in (*WATCHED, "support")]:
        del sys.modules[name]
    name = Path(file).stem
    with atheris.instrument_imports(include=[*WATCHED, name]):
        target: Any = importlib.import_module(name)
    with TemporaryDirectory() as folder:
        for number, seed in enumerate(target.SEEDS):
            (Path(folder) / f"seed-{number}").write_bytes(seed)

        def mutate(data: bytes, most: int, seed: int) -> bytes:
            made: bytes | None = target.mutated(data, Random(seed))
            return made if made is not None and len(made) <= most else bytes(atheris.Mutate(data, most))

        more = {"custom_mutator": mutate} if hasattr(target, "mutated") else {}
        atheris.Setup([*sys.argv, folder], target.check, **more)
        atheris.Fuzz()
