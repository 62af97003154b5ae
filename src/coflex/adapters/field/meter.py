"""Where readings come from and where set points go: Modbus, a function, a program, or a unit that is simulated.

A source says what it knows in the quantity's unit (W, var, V, Hz, Wh), injection positive; what it does not know is
None. Of energy it gives the net counter (exported less imported); a counter that began anew is told once as NaN.
"""

from __future__ import annotations

import asyncio
import importlib
import math
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, cast

from coflex.adapters.field.modbus import Modbus, NotReachable, Register
from coflex.domain.errors import CoflexError
from coflex.evidence.message import Quantity
from coflex.json_text import loads

QUANTITIES = {
    "active_power": Quantity.ACTIVE_POWER_W,
    "reactive_power": Quantity.REACTIVE_POWER_VAR,
    "voltage": Quantity.VOLTAGE_V,
    "frequency": Quantity.FREQUENCY_HZ,
    "energy": Quantity.ACTIVE_ENERGY_WH,
    "state_of_energy": Quantity.STATE_OF_ENERGY_WH,
    "baseline": Quantity.BASELINE_W,
}
IMPORTED, EXPORTED = "energy_imported", "energy_exported"
# A line of a program that measures is short.
_MOST_LINE = 64 * 1024

Readings = dict[Quantity, float | None]


class Source(Protocol):
    """What is measured."""

    async def read(self) -> Readings:
        """The values now. Raises NotReachable."""
        ...

    async def close(self) -> None: ...


class Management(Protocol):
    """The energy management system of a unit."""

    async def hold(self, power_w: float) -> None:
        """Let the unit hold a power, injection positive, until told otherwise. Raises NotReachable."""
        ...

    async def release(self) -> None:
        """Let the unit follow its own plan. Raises NotReachable."""
        ...

    async def close(self) -> None: ...


# ---------------------------------------------------------------- Modbus


class ModbusSource:
    """Registers by the names of `QUANTITIES`, or `energy_imported` and `energy_exported`, whose difference is net.
    `before`: these two as they were read last."""

    def __init__(self, modbus: Modbus, registers: Mapping[str, Register]) -> None:
        self._modbus, self._registers = modbus, registers
        self.before: dict[str, float] = {}

    async def read(self) -> Readings:
        values = await self._modbus.read(self._registers)
        found: Readings = {QUANTITIES[name]: value for name, value in values.items() if name in QUANTITIES}
        if IMPORTED in values or EXPORTED in values:
            found[Quantity.ACTIVE_ENERGY_WH] = self._net(values)
        return found

    def _net(self, values: Mapping[str, float | None]) -> float | None:
        counters = {name: values[name] for name in (IMPORTED, EXPORTED) if name in values}
        if any(value is None for value in counters.values()):
            return None
        known = cast("dict[str, float]", counters)
        anew = any(value < self.before.get(name, value) for name, value in known.items())
        self.before = dict(known)
        return math.nan if anew else known.get(EXPORTED, 0.0) - known.get(IMPORTED, 0.0)

    async def close(self) -> None:
        await self._modbus.close()


class ModbusManagement:
    """Writes the power, and an enabling register where there is one. Without one, `release` writes `rest_w`."""

    def __init__(
        self,
        modbus: Modbus,
        power: Register,
        enable: Register | None = None,
        on: float = 1,
        off: float = 0,
        rest_w: float = 0,
    ) -> None:
        self._modbus, self._power, self._enable = modbus, power, enable
        self._on, self._off, self._rest_w = on, off, rest_w

    async def hold(self, power_w: float) -> None:
        await self._modbus.write(self._power, power_w)
        if self._enable is not None:
            await self._modbus.write(self._enable, self._on)

    async def release(self) -> None:
        if self._enable is not None:
            await self._modbus.write(self._enable, self._off)
        else:
            await self._modbus.write(self._power, self._rest_w)

    async def close(self) -> None:
        await self._modbus.close()


# ---------------------------------------------------------------- a function


def function(place: str) -> Callable[..., Any]:
    """What `module:name` names. Raises CoflexError."""
    module, _, name = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as fault:
        raise CoflexError(
            f"There is no function {place}: {fault}.", "Give it as module:function, and its folder in PYTHONPATH."
        ) from None
    if not callable(found):
        raise CoflexError(f"{place} is no function.", "Give it as module:function.")
    return cast("Callable[..., Any]", found)


class CallbackSource:
    """A function without arguments that returns readings as `readings` understands them. It runs in a thread."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call

    async def read(self) -> Readings:
        try:
            given = await asyncio.to_thread(self._call)
        except Exception as fault:  # code of others: whatever it raises, the device goes on
            raise NotReachable(f"The function that measures failed: {fault!r}.", "Correct it.") from fault
        return readings(given)

    async def close(self) -> None:
        """There is nothing to close."""


class CallbackManagement:
    """A function that takes the power in W, or None for the unit's own plan. It runs in a thread."""

    def __init__(self, call: Callable[[float | None], Any]) -> None:
        self._call = call

    async def hold(self, power_w: float) -> None:
        await self._do(power_w)

    async def release(self) -> None:
        await self._do(None)

    async def _do(self, power_w: float | None) -> None:
        try:
            await asyncio.to_thread(self._call, power_w)
        except Exception as fault:  # code of others: whatever it raises, the device goes on
            raise NotReachable(f"The function that controls failed: {fault!r}.", "Correct it.") from fault

    async def close(self) -> None:
        """There is nothing to close."""


def readings(given: Any) -> Readings:
    """A number is active power in W; a mapping gives values by the names of `QUANTITIES`; None is nothing.

    Raises NotReachable on anything else.
    """
    if isinstance(given, Mapping):
        unknown = sorted(str(name) for name in given if name not in QUANTITIES)
        if unknown:
            raise NotReachable(f"There is no quantity {', '.join(unknown)}.", f"Use {', '.join(QUANTITIES)}.")
        return {QUANTITIES[name]: _number(value) for name, value in given.items()}
    return {Quantity.ACTIVE_POWER_W: _number(given)}


def _number(given: Any) -> float | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise NotReachable(f"{given!r} is no number.", "Give numbers, or null where a value is missing.")
    try:
        value = float(given)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


# ---------------------------------------------------------------- a program


class CommandSource:
    """A program whose lines on stdout are readings: a number (W), or a JSON object by the names of `QUANTITIES`.

    `read` gives its latest line, unless that is older than `stale_s`. A program that ends is started again, at most
    once in `stale_s`.
    """

    def __init__(self, command: Sequence[str], stale_s: float) -> None:
        self._command, self._stale_s = command, stale_s
        self._task: asyncio.Task[None] | None = None
        self._latest: Readings = {}
        self._at = -math.inf
        self._fault = "it has said nothing yet"

    async def read(self) -> Readings:
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        age = asyncio.get_running_loop().time() - self._at
        if age > self._stale_s:
            raise NotReachable(f"The program {self._command[0]} gives no readings: {self._fault}.", "Look at it.")
        return self._latest

    async def _run(self) -> None:
        while True:
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._command, stdin=DEVNULL, stdout=PIPE, limit=_MOST_LINE
                )
            except OSError as fault:
                self._fault = str(fault)
            else:
                try:
                    await self._follow(process)
                finally:
                    await _ended(process)
            await asyncio.sleep(self._stale_s)

    async def _follow(self, process: Process) -> None:
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                try:
                    self._latest = readings(loads(line))
                    self._at = asyncio.get_running_loop().time()
                except (ValueError, NotReachable) as fault:
                    self._fault = f"a line it wrote is none: {fault}"
        except ValueError as fault:  # a line beyond the limit
            self._fault = str(fault)
        else:
            self._fault = "it has ended"

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._task = None


class CommandManagement:
    """A program run for each change with one argument more: the power in W, or `release`."""

    def __init__(self, command: Sequence[str], timeout_s: float) -> None:
        self._command, self._timeout_s = command, timeout_s

    async def hold(self, power_w: float) -> None:
        await self._do(f"{power_w:.0f}")

    async def release(self) -> None:
        await self._do("release")

    async def _do(self, word: str) -> None:
        try:
            process = await asyncio.create_subprocess_exec(*self._command, word, stdin=DEVNULL, stdout=DEVNULL)
        except OSError as fault:
            raise NotReachable(f"{self._command[0]} cannot be run: {fault}.", "Correct the command.") from fault
        try:
            async with asyncio.timeout(self._timeout_s):
                code = await process.wait()
        except TimeoutError:
            raise NotReachable(f"{self._command[0]} does not end.", f"It has {self._timeout_s:g} s.") from None
        finally:
            await _ended(process)
        if code:
            raise NotReachable(f"{self._command[0]} ended with {code}.", "Look at what it says.")

    async def close(self) -> None:
        """There is nothing to close."""


async def _ended(process: Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
