"""Meters and energy management systems behind Modbus TCP: the other party is pymodbus's own server; its registers are
written here with struct, so that word order, sign and scale are held against something else than the reader."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from coflex.adapters.field.meter import (
    CallbackManagement,
    CallbackSource,
    CommandManagement,
    CommandSource,
    ModbusManagement,
    ModbusSource,
    Readings,
    Source,
    readings,
)
from coflex.adapters.field.modbus import Modbus, NotReachable, Place, Register, spans
from coflex.evidence.message import Quantity

pytestmark = pytest.mark.spec("ACT-02")

HOLDING, DEVICE = 3, 17


class Meter:
    """A server with 200 registers that tests set."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.place = Place("127.0.0.1", free.getsockname()[1], DEVICE, timeout_s=1.0)
        self.words = [0] * 200
        self.asked = 0
        self._server: ModbusTcpServer | None = None

    async def _action(self, code: int, start: int, address: int, count: int, now: list[int], new: Any) -> None:
        self.asked += 1
        if new is None:
            now[:] = self.words[start : start + len(now)]
        else:
            self.words[address : address + count] = new

    async def start(self) -> None:
        device = SimDevice(
            DEVICE, simdata=SimData(0, count=200, values=0, datatype=DataType.REGISTERS), action=self._action
        )
        self._server = ModbusTcpServer(device, address=(self.place.host, self.place.port))
        await self._server.serve_forever(background=True)

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.shutdown()
        self._server = None

    def put(self, address: int, form: str, value: float, low_first: bool = False) -> None:
        raw = struct.pack(f">{form}", value)
        words = list(struct.unpack(f">{len(raw) // 2}H", raw))
        self.words[address : address + len(words)] = reversed(words) if low_first else words


@asynccontextmanager
async def running() -> AsyncIterator[Meter]:
    meter = Meter()
    await meter.start()
    try:
        yield meter
    finally:
        await meter.stop()


def with_meter(act: Callable[[Meter], Awaitable[None]]) -> None:
    async def run() -> None:
        async with running() as meter:
            await asyncio.wait_for(act(meter), 20)

    asyncio.run(run())


FORMS = {"int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q", "float32": "f",
         "float64": "d"}  # fmt: skip


@pytest.mark.parametrize("low_first", [False, True])
def test_every_type_in_both_word_orders_with_scale_and_sign(low_first: bool) -> None:
    async def act(meter: Meter) -> None:
        modbus = Modbus(meter.place)
        registers = {
            name: Register(10 * place, name, low_word_first=low_first, scale=0.5, sign=-1)  # type: ignore[arg-type]
            for place, name in enumerate(FORMS)
        }
        for place, (name, form) in enumerate(FORMS.items()):
            meter.put(10 * place, form, 1234 if name.startswith("u") else -1234, low_first)
        found = await modbus.read(registers)
        assert found == {name: -617.0 if name.startswith("u") else 617.0 for name in FORMS}
        for name, register in registers.items():
            await modbus.write(register, -50.0 if name.startswith("u") else 50.0)
        assert await modbus.read(registers) == {name: -50.0 if name.startswith("u") else 50.0 for name in FORMS}
        await modbus.close()

    with_meter(act)


def test_registers_without_a_gap_are_asked_for_at_once() -> None:
    some = [Register(4), Register(0, "int32"), Register(2, "float32"), Register(9), Register(4, table="input")]
    assert spans(some) == [("holding", 0, 5), ("holding", 9, 1), ("input", 4, 1)]
    many = spans([Register(place) for place in range(300)])
    assert [count for _, _, count in many] == [120, 120, 60]


def test_registers_that_overlap_are_each_read_whole() -> None:
    async def act(meter: Meter) -> None:
        registers = {f"low {place}": Register(place) for place in range(119)}
        registers |= {"last": Register(118, "int32"), "beside": Register(119, "int32")}
        for place in range(122):
            meter.put(place, "h", place)
        modbus = Modbus(meter.place)
        found = await modbus.read(registers)
        assert found["low 118"] == 118 and found["last"] == (118 << 16) + 119
        assert found["beside"] == (119 << 16) + 120
        await modbus.close()

    with_meter(act)


def test_a_meter_that_is_away_is_told_and_found_again() -> None:
    async def act(meter: Meter) -> None:
        source = ModbusSource(Modbus(meter.place), {"active_power": Register(0, "int32")})
        meter.put(0, "i", 4_321)
        assert await source.read() == {Quantity.ACTIVE_POWER_W: 4_321}
        await meter.stop()
        for _ in range(2):
            with pytest.raises(NotReachable, match="does not answer"):
                await source.read()
        await meter.start()
        assert await source.read() == {Quantity.ACTIVE_POWER_W: 4_321}
        await source.close()

    with_meter(act)


def test_what_the_register_says_is_missing_or_is_no_number_is_none() -> None:
    async def act(meter: Meter) -> None:
        registers = {"active_power": Register(0, "int16", missing=-32_768), "voltage": Register(1, "float32")}
        source = ModbusSource(Modbus(meter.place), registers)
        meter.put(0, "h", -32_768)
        meter.put(1, "f", math.nan)
        assert await source.read() == {Quantity.ACTIVE_POWER_W: None, Quantity.VOLTAGE_V: None}
        await source.close()

    with_meter(act)


def test_a_register_that_is_not_there_and_a_value_that_does_not_fit_are_told() -> None:
    async def act(meter: Meter) -> None:
        modbus = Modbus(meter.place)
        with pytest.raises(NotReachable, match="Correct the map"):
            await modbus.read({"active_power": Register(5_000)})
        with pytest.raises(NotReachable, match="does not fit"):
            await modbus.write(Register(0, "int16"), 40_000)
        assert await modbus.read({"active_power": Register(0)}) == {"active_power": 0}
        await modbus.close()

    with_meter(act)


def test_net_energy_is_exported_less_imported_and_a_counter_that_begins_anew_is_told_once() -> None:
    async def act(meter: Meter) -> None:
        registers = {"energy_imported": Register(0, "uint32"), "energy_exported": Register(2, "uint32")}
        source = ModbusSource(Modbus(meter.place), registers)
        found = []
        for imported, exported in ((100, 40), (110, 40), (3, 41), (4, 50)):
            meter.put(0, "I", imported)
            meter.put(2, "I", exported)
            found.append((await source.read())[Quantity.ACTIVE_ENERGY_WH])
        assert found[:2] == [-60, -70] and math.isnan(found[2] or 0.0) and found[3] == 46
        await source.close()

    with_meter(act)


@pytest.mark.spec("ACT-01")
def test_a_set_point_is_written_and_given_back() -> None:
    async def act(meter: Meter) -> None:
        power = Register(20, "int32", low_word_first=True, scale=10.0, sign=-1)
        led = ModbusManagement(Modbus(meter.place), power, Register(30, "uint16"))
        await led.hold(-4_560)
        assert (meter.words[20], meter.words[21], meter.words[30]) == (456, 0, 1)
        await led.release()
        assert meter.words[30] == 0
        plain = ModbusManagement(Modbus(meter.place), power, rest_w=-100.0)
        await plain.release()
        assert meter.words[20] == 10
        await led.close()
        await plain.close()

    with_meter(act)


# ---------------------------------------------------------------- functions and programs


def test_what_a_function_gives_is_read_or_told() -> None:
    assert readings(5) == {Quantity.ACTIVE_POWER_W: 5.0}
    assert readings(None) == {Quantity.ACTIVE_POWER_W: None}
    assert readings({"frequency": 50.1, "voltage": float("inf")}) == {
        Quantity.FREQUENCY_HZ: 50.1,
        Quantity.VOLTAGE_V: None,
    }
    assert readings(10**400) == {Quantity.ACTIVE_POWER_W: None}
    for bad in ("5", {"warmth": 1}, {"voltage": "x"}, True, [1]):
        with pytest.raises(NotReachable):
            readings(bad)
    assert asyncio.run(CallbackSource(lambda: {"active_power": 7}).read()) == {Quantity.ACTIVE_POWER_W: 7.0}
    with pytest.raises(NotReachable, match="ZeroDivisionError"):
        asyncio.run(CallbackSource(lambda: 1 / 0).read())


@pytest.mark.spec("ACT-01")
def test_a_function_is_led_by_power_and_none() -> None:
    told: list[float | None] = []

    async def act() -> None:
        led = CallbackManagement(told.append)
        await led.hold(5.0)
        await led.release()
        with pytest.raises(NotReachable):
            await CallbackManagement(lambda power: [][0]).hold(1.0)

    asyncio.run(act())
    assert told == [5.0, None]


PROGRAM = """
import sys
print("noise", flush=True)
for power in range(3):
    print(power, flush=True)
print('{"active_power": 9, "frequency": 49.9}', flush=True)
sys.stdin.read() if len(sys.argv) > 1 else __import__("time").sleep(30)
"""


async def first(source: Source) -> Readings:
    for _ in range(100):
        try:
            found = await source.read()
        except NotReachable:
            found = {}
        if Quantity.FREQUENCY_HZ in found:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError("no reading came")


def test_a_programs_lines_are_readings_and_one_that_ends_is_started_again() -> None:
    async def act() -> None:
        source = CommandSource([sys.executable, "-c", PROGRAM], stale_s=5.0)
        assert await first(source) == {Quantity.ACTIVE_POWER_W: 9, Quantity.FREQUENCY_HZ: 49.9}
        await source.close()
        short = CommandSource([sys.executable, "-c", PROGRAM, "end"], stale_s=0.3)
        await first(short)
        for _ in range(100):
            try:
                await short.read()
            except NotReachable as fault:
                assert "gives no readings" in str(fault)
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("a line stays for ever")
        await first(short)
        await short.close()
        with pytest.raises(NotReachable):
            await CommandSource(["/nowhere/at/all"], 1.0).read()

    asyncio.run(asyncio.wait_for(act(), 30))


def test_whatever_a_program_writes_it_is_heard_again() -> None:
    noise = "print('9' * 400); print('[' * 60_000); print('{\"frequency\": 50}', flush=True); input()"

    async def act() -> None:
        source = CommandSource([sys.executable, "-c", noise], stale_s=5.0)
        assert await first(source) == {Quantity.FREQUENCY_HZ: 50}
        await source.close()

    asyncio.run(asyncio.wait_for(act(), 10))


def test_a_program_is_led_and_its_fault_is_told() -> None:
    async def act() -> None:
        code = "import sys; sys.exit(sys.argv[1] not in ('1500', 'release'))"
        led = CommandManagement([sys.executable, "-c", code], 10.0)
        await led.hold(1_500.4)
        await led.release()
        with pytest.raises(NotReachable, match="ended with 1"):
            await led.hold(7)
        with pytest.raises(NotReachable, match="cannot be run"):
            await CommandManagement(["/nowhere"], 1.0).release()
        with pytest.raises(NotReachable, match="does not end"):
            await CommandManagement([sys.executable, "-c", "import time; time.sleep(30)"], 0.2).hold(1)

    asyncio.run(asyncio.wait_for(act(), 30))
