"""OPC UA over its TCP binding.

opcua.py serve         a server with a counter and a setpoint: "READY PORT"
opcua.py client PORT   a client; orders on standard input
"""

import asyncio
import sys

from asyncua import Client, Server, ua
from orders import expect, obey_async, serving, trips_async

SPACE = "urn:plant"


async def serve():
    server = Server()
    await server.init()
    server.set_endpoint("opc.tcp://127.0.0.1:0/plant")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace(SPACE)
    plc = await server.nodes.objects.add_object(index, "PLC")
    counter = await plc.add_variable(index, "Counter", 0)
    setpoint = await plc.add_variable(index, "Setpoint", 20.5)
    await setpoint.set_writable()

    async def double(parent, value):
        return [ua.Variant(value.Value * 2, ua.VariantType.Int64)]

    await plc.add_method(index, "Double", double, [ua.VariantType.Int64], [ua.VariantType.Int64])
    async with server:
        listening = server.bserver._server.sockets[0]
        serving(listening.getsockname()[1])
        value = 0
        while True:
            await asyncio.sleep(0.05)
            value += 1
            await counter.write_value(value)


class Changes:
    def __init__(self):
        self.seen = asyncio.Queue()

    def datachange_notification(self, node, value, data):
        self.seen.put_nowait(value)


async def client():
    async with Client("opc.tcp://127.0.0.1:%s/plant" % sys.argv[2], timeout=20) as connection:
        index = await connection.get_namespace_index(SPACE)
        plc = await connection.nodes.objects.get_child(["%d:PLC" % index])
        counter = await plc.get_child(["%d:Counter" % index])
        setpoint = await plc.get_child(["%d:Setpoint" % index])

        async def write(value):
            await setpoint.write_value(float(value))
            expect("the setpoint", await setpoint.read_value(), float(value))

        async def call(value):
            result = await plc.call_method("%d:Double" % index, ua.Variant(int(value), ua.VariantType.Int64))
            expect("the method's result", result, 2 * int(value))

        async def watch(count):
            """So many changes of the counter, told by the server."""
            changes = Changes()
            subscription = await connection.create_subscription(50, changes)
            await subscription.subscribe_data_change(counter)
            seen = [await asyncio.wait_for(changes.seen.get(), 20) for _ in range(int(count))]
            await subscription.delete()
            expect("in order", seen, sorted(seen))
            expect("all different", len(set(seen)), int(count))

        print("READY", flush=True)
        orders = {
            "write": write,
            "call": call,
            "watch": watch,
            "trips": lambda seconds: trips_async(setpoint.read_value, seconds),
        }
        await obey_async(orders)


asyncio.run(serve() if sys.argv[1] == "serve" else client())
