"""Meters and energy management systems behind Modbus TCP, as a register map in the configuration describes them.

A connection is made anew after every fault, with a client of its own: pymodbus would otherwise go on trying in the
background, and answers that come late would meet the wrong question.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from coflex.domain.errors import CoflexError

if TYPE_CHECKING:
    from pymodbus.client import AsyncModbusTcpClient

Type = Literal["int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
WORDS: dict[str, int] = {"int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "int64": 4, "uint64": 4, "float32": 2,
                         "float64": 4}  # fmt: skip
# One request reads at most 125 registers (MODBUS application protocol 1.1b3, section 6.3).
MOST_REGISTERS = 120


class NotReachable(CoflexError):
    """A meter or an energy management system that does not answer, or answers with a fault."""

    code = "NOT_REACHABLE"


@dataclass(frozen=True, slots=True)
class Register:
    """Where a value stands. value = raw * scale * sign, in the quantity's unit; `missing` is the raw value that says
    there is none. `low_word_first`: the less significant register comes first."""

    address: int
    type: Type = "int16"
    table: Literal["holding", "input"] = "holding"
    low_word_first: bool = False
    scale: float = 1.0
    sign: Literal[1, -1] = 1
    missing: int | None = None

    @property
    def words(self) -> int:
        return WORDS[self.type]


@dataclass(frozen=True, slots=True)
class Place:
    """A Modbus device."""

    host: str
    port: int = 502
    device: int = 1
    timeout_s: float = 2.0


class Modbus:
    """One Modbus device. Requests go one after another."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._client: AsyncModbusTcpClient | None = None
        self._lock = asyncio.Lock()

    async def read(self, registers: Mapping[str, Register]) -> dict[str, float | None]:
        """The values by name; None where a value says it is missing, or is no number. Raises NotReachable."""
        found: dict[str, float | None] = {}
        async with self._lock:
            for table, first, count in spans(list(registers.values())):
                words = await self._asked(table, first, count)
                for name, one in registers.items():
                    if one.table == table and first <= one.address <= first + count - one.words:
                        at = one.address - first
                        found[name] = self._value(one, words[at : at + one.words])
        return found

    async def write(self, register: Register, value: float) -> None:
        """Raises NotReachable."""
        from pymodbus.client.mixin import ModbusClientMixin

        raw = value / (register.scale * register.sign)
        kind = ModbusClientMixin.DATATYPE[register.type.upper()]
        try:
            words = ModbusClientMixin.convert_to_registers(
                raw if register.type.startswith("float") else round(raw), kind, _order(register)
            )
        except Exception as fault:  # struct.error for a number that does not fit, and pymodbus's own
            raise NotReachable(
                f"{value:g} does not fit into register {register.address} ({register.type}): {fault}.",
                "Correct its type or scale.",
            ) from fault
        async with self._lock:
            await self._call("write_registers", address=register.address, values=words)

    async def close(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None

    def _value(self, register: Register, words: list[int]) -> float | None:
        from pymodbus.client.mixin import ModbusClientMixin

        kind = ModbusClientMixin.DATATYPE[register.type.upper()]
        raw: Any = ModbusClientMixin.convert_from_registers(words, kind, _order(register))
        if raw == register.missing or not math.isfinite(raw):
            return None
        return float(raw) * register.scale * register.sign

    async def _asked(self, table: str, first: int, count: int) -> list[int]:
        answer = await self._call(f"read_{table}_registers", address=first, count=count)
        words: list[int] = answer.registers
        if len(words) != count:
            await self.close()
            raise NotReachable(f"{self._named} gave {len(words)} of {count} registers.", "Correct the register map.")
        return words

    async def _call(self, name: str, **words: Any) -> Any:
        from pymodbus.exceptions import ModbusException

        try:
            client = await self._connected()
            answer = await getattr(client, name)(device_id=self._place.device, **words)
        except (ModbusException, OSError, TimeoutError) as fault:
            await self.close()
            raise NotReachable(
                f"{self._named} does not answer: {fault}.", "Look at its power, its network and its address."
            ) from fault
        except asyncio.CancelledError:
            await self.close()
            raise
        if answer.isError():
            raise NotReachable(f"{self._named} refuses {name} at {words['address']}: {answer}.", "Correct the map.")
        return answer

    async def _connected(self) -> AsyncModbusTcpClient:
        if self._client is None or not self._client.connected:
            from pymodbus.client import AsyncModbusTcpClient

            await self.close()
            place = self._place
            client = AsyncModbusTcpClient(
                place.host, port=place.port, timeout=place.timeout_s, retries=0, reconnect_delay=0
            )
            if not await client.connect():
                client.close()
                raise OSError("no connection")
            self._client = client
        return self._client

    @property
    def _named(self) -> str:
        return f"Modbus device {self._place.device} at {self._place.host}:{self._place.port}"


def spans(registers: Sequence[Register]) -> list[tuple[str, int, int]]:
    """Table, first register and count of the requests that read them all: one for registers without a gap."""
    ordered = sorted({(one.table, one.address, one.words) for one in registers})
    merged: list[tuple[str, int, int]] = []
    for table, address, words in ordered:
        if merged:
            last, first, count = merged[-1]
            end = max(first + count, address + words)
            if last == table and address <= first + count and end - first <= MOST_REGISTERS:
                merged[-1] = (table, first, end - first)
                continue
        merged.append((table, address, words))
    return merged


def _order(register: Register) -> Literal["big", "little"]:
    return "little" if register.low_word_first else "big"
