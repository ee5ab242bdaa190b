"""Beremiz' WAMP connector: runtime and IDE are both clients of a router, over WebSocket.

wamp.py runtime PORT ID [FILE]   registers the runtime's calls under `ID.`, and publishes its status
wamp.py ide PORT ID [FILE]       an IDE, as for `WAMP://127.0.0.1:PORT#Automation#ID`; orders on standard input

With FILE, a key file of one line `NAME:secret`, they log in at the router by WAMP-CRA with that name and secret, as
newer versions of Beremiz do for `WAMP://`; without it they are anonymous, which is `WAMP-ANNON://` there.

Both connect again by themselves after 2 to 3 s, as Beremiz' runtime does.
"""

import asyncio
import hashlib
import sys

from autobahn.asyncio.component import Component
from autobahn.wamp.exception import Error
from orders import expect, obey_async, trips_async
from plcobject import PLC, program

ROLE, PORT, ID, *FILE = sys.argv[1:]
CHUNK = 4096


def component():
    transport = {
        "type": "websocket",
        "url": "ws://127.0.0.1:%s" % PORT,
        "max_retries": -1,
        "initial_retry_delay": 2,
        "max_retry_delay": 3,
        "retry_delay_growth": 1.2,
        "retry_delay_jitter": 0.1,
    }
    login = None
    if FILE:
        with open(FILE[0]) as file:
            name, secret = file.read().strip().split(":", 1)
        login = {"wampcra": {"authid": name, "secret": secret}}
    one = Component(transports=[transport], realm="Automation", authentication=login)

    @one.on_leave
    def leave(session, details):
        print("LEFT", details.reason, flush=True)

    return one


async def runtime():
    plc, member = PLC(), component()

    @member.on_join
    async def join(session, details):
        for name in dir(plc):
            call = getattr(plc, name)
            if callable(call) and name[0].isupper():
                await session.register(call, "%s.%s" % (ID, name))
        print("JOINED", flush=True)
        tick = 0
        while session.is_attached():
            session.publish("%s.tick" % ID, tick)
            tick += 1
            await asyncio.sleep(0.1)

    await member.start()


class Seat:
    """The IDE's session that there is now."""

    def __init__(self):
        self.session = None
        self.member = component()

        @self.member.on_join
        async def join(session, details):
            self.session = session

    async def call(self, name, *arguments):
        if self.session is None or not self.session.is_attached():
            raise ConnectionError("not connected now")
        return await self.session.call("%s.%s" % (ID, name), *arguments)


async def ide():
    seat = Seat()
    staying = asyncio.ensure_future(seat.member.start())

    async def until_answered():
        """Either of them may need some seconds to be back."""
        why = None
        for _ in range(400):
            try:
                return await seat.call("GetPLCstatus")
            except (Error, OSError) as error:
                why = error
                await asyncio.sleep(0.05)
        raise AssertionError("nobody answers under %s: %r" % (ID, why))

    async def upload(size):
        text = program(int(size))
        md5 = hashlib.md5(b"seed")
        blob = await seat.call("SeedBlob", b"seed")
        for at in range(0, len(text), CHUNK):
            blob = await seat.call("AppendChunkToBlob", text[at : at + CHUNK], blob)
            md5.update(text[at : at + CHUNK])
            expect("the hash so far", blob, md5.digest())
        whole = hashlib.md5(text).hexdigest()
        expect("the new program", await seat.call("NewPLC", whole, blob), True)
        expect("its hash", await seat.call("MatchMD5", whole), True)

    async def watch(count):
        """So many of the runtime's publications, in order."""
        came = asyncio.Queue()
        subscription = await seat.session.subscribe(came.put_nowait, "%s.tick" % ID)
        seen = [await asyncio.wait_for(came.get(), 20) for _ in range(int(count))]
        await subscription.unsubscribe()
        expect("in order", seen, list(range(seen[0], seen[0] + len(seen))))

    async def status():
        state, counts = await until_answered()
        return {"status": state}

    print("READY", flush=True)
    await obey_async({
        "status": status,
        "upload": upload,
        "watch": watch,
        "trips": lambda seconds: trips_async(lambda: seat.call("GetPLCstatus"), seconds),
    })  # fmt: skip
    staying.cancel()


asyncio.run(runtime() if ROLE == "runtime" else ide())
