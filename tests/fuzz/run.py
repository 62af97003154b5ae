"""Fuzz what strangers send: every target of `targets.py`, guided by what of the code it reaches, for some seconds each.

    python tests/fuzz/run.py                 # all targets, 60 seconds each
    python tests/fuzz/run.py 300 body        # one of them, longer

Files `fuzz_*.py` are targets of their own (see `harness.py`), named as the file.
What breaks is written to tests/fuzz/cases/<target>-<digest> and fails from then on in tests/adapters/test_fuzzed.py.
Without atheris, which brings libFuzzer, nothing is fuzzed, and that is said.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CASES = HERE / "cases"
SECONDS = 60


def main() -> None:
    """Run the targets one after the other, each in a process of its own; ends with 1 where one broke."""
    sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "src")]
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], int(sys.argv[3]))
        return
    if importlib.util.find_spec("atheris") is None:
        print("fuzzing is left out: atheris is not installed (pip install atheris)")
        return
    words = sys.argv[1:]
    seconds = int(words.pop(0)) if words and words[0].isdigit() else SECONDS
    from fuzz.targets import TARGETS

    mine = str(HERE / "run.py")
    commands = {name: [mine, "--one", name, str(seconds)] for name in TARGETS}
    for file in sorted(HERE.glob("fuzz_*.py")):
        limits = [f"-max_total_time={seconds}", f"-artifact_prefix={CASES}/{file.stem}-"]
        commands[file.stem] = [str(file), *limits]
    if unknown := set(words) - commands.keys():
        sys.exit(f"there is no target {', '.join(sorted(unknown))}; the targets are {', '.join(commands)}")
    broken = [name for name in words or commands if not _stands(name, commands[name], seconds)]
    if broken:
        sys.exit(f"broken: {', '.join(broken)}; see {CASES}")


def _stands(name: str, command: list[str], seconds: int) -> bool:
    print(f"{name}: {seconds} s", flush=True)
    found = os.pathsep.join(sys.path[:2])
    done = subprocess.run(
        [sys.executable, *command],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": found},
    )
    rows = done.stderr.splitlines()
    print("\n".join(rows[-1:] if done.returncode == 0 else rows[-40:]), flush=True)
    return done.returncode == 0


def one(name: str, seconds: int) -> None:
    """Fuzz one target in this process, until the time is over or it breaks."""
    import atheris

    with atheris.instrument_imports(include=["coflex.adapters", "coflex.service.machine"]):
        from fuzz.targets import SEEDS, TARGETS

    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(SEEDS[name]):
            (Path(folder) / f"seed-{number}").write_bytes(seed)
        options = [f"-max_total_time={seconds}", f"-artifact_prefix={CASES}/{name}-", "-max_len=8192", "-timeout=10"]
        atheris.Setup([sys.argv[0], *options, folder], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
