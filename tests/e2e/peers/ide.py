"""The IDE's side of a connection to a runtime. Orders on standard input: see `orders` below.

ide.py pyro4|pyro5|erpc PORT               plain, as it talks to a tunnel's client end
ide.py pyros4|pyros4old|erpcs PORT FILE    its own TLS with the key of FILE, straight to a server end
"""

import hashlib
import sys
import time

from orders import expect, obey, trips
from plcobject import program

KIND, PORT = sys.argv[1], int(sys.argv[2])
CHUNK = 4096


def pyro4(psk_socket=None):
    import Pyro4

    Pyro4.config.COMMTIMEOUT = 60.0
    Pyro4.config.SERIALIZER = "msgpack"
    if psk_socket:
        # What Beremiz' adapter does: Pyro's connections are made by another function.
        Pyro4.socketutil.createSocket = lambda *arguments, **more: psk_socket()
    return Pyro4.Proxy("PYRO:PLCObject@127.0.0.1:%d" % PORT)


def connect():
    """A proxy for the runtime's object."""
    if KIND == "pyro4":
        return pyro4()
    if KIND in ("pyros4", "pyros4old"):
        import erpc_plc

        old = KIND == "pyros4old"
        return pyro4(lambda: erpc_plc.psk_socket(PORT, sys.argv[3], old))
    if KIND == "pyro5":
        import Pyro5.api

        Pyro5.api.config.COMMTIMEOUT = 60.0
        Pyro5.api.config.SERIALIZER = "msgpack"
        return Pyro5.api.Proxy("PYRO:PLCObject@127.0.0.1:%d" % PORT)
    import erpc_plc

    if KIND == "erpcs":
        return erpc_plc.connect_psk(PORT, sys.argv[3])
    return erpc_plc.connect(PORT)


plc = connect()


def status():
    state, counts = plc.GetPLCstatus()
    expect("levels of log", len(counts), 4)
    return {"status": state}


def upload(size, stop_after="1e9"):
    """Sends a program in chunks; in full, or only so many of them."""
    text = program(int(size))
    seed = b"seed"
    md5 = hashlib.md5(seed)
    start = time.perf_counter()
    blob = bytes(plc.SeedBlob(seed))
    expect("the seed's name", blob, md5.digest())
    for number, at in enumerate(range(0, len(text), CHUNK)):
        if number >= float(stop_after):
            return {"chunks": number}
        chunk = text[at : at + CHUNK]
        blob = bytes(plc.AppendChunkToBlob(chunk, blob))
        md5.update(chunk)
        expect("the hash after chunk %d" % number, blob, md5.digest())
    whole = hashlib.md5(text).hexdigest()
    expect("the new program", plc.NewPLC(whole, blob), True)
    expect("its hash", plc.MatchMD5(whole), True)
    expect("another's hash", plc.MatchMD5("0" * 32), False)
    return {"seconds": time.perf_counter() - start, "bytes": len(text)}


def has(size):
    """Whether the PLC runs this program."""
    return {"has": plc.MatchMD5(hashlib.md5(program(int(size))).hexdigest()), **status()}


def start():
    plc.StartPLC()
    expect("traced variables", plc.SetTraceVariablesList([1, 2, 3]), 3)


def stop():
    expect("stopped", plc.StopPLC(), True)


def work(seconds):
    """What an IDE does all day: status every 500 ms, traces every 100 ms."""
    polls = {"status": 0, "traces": 0, "slowest": 0.0}
    begin = time.perf_counter()
    due = {"status": begin, "traces": begin}
    tick = None
    while (now := time.perf_counter()) - begin < float(seconds):
        what = min(due, key=due.get)
        if due[what] > now:
            time.sleep(due[what] - now)
        asked = time.perf_counter()
        if what == "status":
            due[what] += 0.5
            expect("status", status(), {"status": "Started"})
        else:
            due[what] += 0.1
            state, samples = plc.GetTraceVariables(3)
            expect("status with traces", state, "Started")
            for number, data in samples:
                number, data = int(number), bytes(data)
                if tick is not None:
                    expect("tick", number, tick + 1)
                tick = number
                values = [int.from_bytes(data[at : at + 4], "little") for at in range(0, 12, 4)]
                expect("values", values, [number, 2 * number, 3 * number])
        polls["slowest"] = max(polls["slowest"], time.perf_counter() - asked)
        polls[what] += 1
    return polls


orders = {
    "status": status,
    "upload": upload,
    "has": has,
    "start": start,
    "stop": stop,
    "work": work,
    "trips": lambda seconds: trips(plc.GetPLCstatus, seconds),
}

if __name__ == "__main__":
    # Pyro connects with the first call.
    status()
    print("READY", flush=True)
    obey(orders)
