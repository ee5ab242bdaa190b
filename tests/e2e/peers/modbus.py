"""Modbus/TCP.

modbus.py serve         a device with 100 holding registers: "READY PORT"
modbus.py client PORT   a master that connects anew for every poll, as many do; orders on standard input
"""

import asyncio
import sys

from orders import expect, obey, serving, trips
from pymodbus.client import ModbusTcpClient
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


async def serve():
    registers = SimData(0, values=[index * 7 for index in range(100)], datatype=DataType.REGISTERS)
    server = ModbusTcpServer(SimDevice(1, simdata=[registers]), address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    serving(server.transport.sockets[0].getsockname()[1])
    await asyncio.Event().wait()


def connected(act):
    client = ModbusTcpClient("127.0.0.1", port=int(sys.argv[2]), timeout=20, retries=0)
    expect("connected", client.connect(), True)
    try:
        answer = act(client)
        expect("an exception's answer", answer.isError(), False)
        return answer
    finally:
        client.close()


def poll():
    answer = connected(lambda client: client.read_holding_registers(10, count=8))
    expect("registers", answer.registers, [index * 7 for index in range(10, 18)])


def write(value):
    connected(lambda client: client.write_register(90, int(value)))
    answer = connected(lambda client: client.read_holding_registers(90, count=1))
    expect("what was written", answer.registers, [int(value)])


def several(count):
    """Polls over one connection."""

    def act(client):
        for _ in range(int(count)):
            answer = client.read_holding_registers(0, count=100)
            expect("registers", answer.registers[:90], [index * 7 for index in range(90)])
        return answer

    connected(act)


if sys.argv[1] == "serve":
    asyncio.run(serve())
else:
    print("READY", flush=True)
    obey({
        "poll": poll,
        "write": write,
        "several": several,
        "trips": lambda seconds: trips(poll, seconds),
    })  # fmt: skip
