"""A daemon with an object of the shape of Beremiz' PLCObject, and a client that calls it.

plc.py 4|5 serve            prints "READY PORT" and serves until its standard input ends
plc.py 4|5 session PORT     what an IDE does: connect, upload, start, trace, stop
plc.py 4|5 blob PORT SIZE   SIZE bytes each way, compared by hash
plc.py 4|5 calls PORT COUNT COUNT calls one after the other over one connection; "CALLED N" at each hundred
plc.py 4|5 watch PORT       asks for the status all the time, over one connection, until its input ends
"""

import hashlib
import importlib
import os
import sys
import threading

VERSION = sys.argv[1]
if VERSION == "4":
    pyro = importlib.import_module("Pyro4")
    expose, Daemon, Proxy, Config = pyro.expose, pyro.Daemon, pyro.Proxy, pyro.config
else:
    api = importlib.import_module("Pyro5.api")
    expose, Daemon, Proxy, Config = api.expose, api.Daemon, api.Proxy, api.config
serpent = importlib.import_module("serpent")

Config.COMMTIMEOUT = 60.0
NAME = "PLCObject"


def data(size, salt):
    """The same bytes in every run, without a pattern that a copy could hide in."""
    out = bytearray()
    block = salt
    while len(out) < size:
        block = hashlib.sha512(block).digest()
        out += block
    return bytes(out[:size])


def digest(blob):
    return hashlib.sha256(blob).hexdigest()


@expose
class PLCObject:
    def __init__(self):
        self.status = "Stopped"
        self.blobs = {}
        self.tick = 0

    def GetPLCstatus(self):
        return self.status, [0, 0, 0, 0]

    def StartPLC(self):
        self.status = "Started"
        return True

    def StopPLC(self):
        self.status = "Stopped"
        return True

    def SetTraceVariablesList(self, variables):
        self.traced = list(variables)
        return len(self.traced)

    def GetTraceVariables(self, token):
        self.tick += 1
        return self.status, [(self.tick, [index * self.tick for index in self.traced])]

    def SeedBlob(self, seed):
        self.blobs[seed] = b""
        return seed

    def AppendChunkToBlob(self, chunk, blob_id):
        self.blobs[blob_id] += serpent.tobytes(chunk)
        return blob_id

    def BlobHash(self, blob_id):
        return digest(self.blobs[blob_id])

    def TakeBlob(self, blob):
        return digest(serpent.tobytes(blob))

    def GiveBlob(self, size):
        return data(size, b"down")

    def Count(self, number):
        return number + 1


def serve():
    daemon = Daemon(host="127.0.0.1", port=0)
    daemon.register(PLCObject(), NAME)
    print("READY", daemon.locationStr.rsplit(":", 1)[1], flush=True)

    def leave_with_parent():
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=leave_with_parent, daemon=True).start()
    daemon.requestLoop()


def expect(got, wanted):
    if got != wanted:
        sys.exit("got %r instead of %r" % (got, wanted))


def session(plc):
    expect(plc.GetPLCstatus()[0], "Stopped")
    program = data(200_000, b"program")
    blob = plc.SeedBlob("program")
    for start in range(0, len(program), 4096):
        plc.AppendChunkToBlob(program[start : start + 4096], blob)
    expect(plc.BlobHash(blob), digest(program))
    expect(plc.StartPLC(), True)
    expect(plc.SetTraceVariablesList([1, 2, 3]), 3)
    for tick in range(1, 51):
        status, samples = plc.GetTraceVariables(0)
        expect(status, "Started")
        expect([list(map(int, values)) for _, values in samples], [[tick, 2 * tick, 3 * tick]])
    expect(plc.StopPLC(), True)
    expect(plc.GetPLCstatus()[0], "Stopped")


def blob(plc, size):
    up = data(size, b"up")
    expect(plc.TakeBlob(up), digest(up))
    expect(digest(serpent.tobytes(plc.GiveBlob(size))), digest(data(size, b"down")))


def calls(plc, count):
    for number in range(count):
        expect(plc.Count(number), number + 1)
        if number % 100 == 0:
            print("CALLED", number, flush=True)


def watch(plc):
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    polls = 0
    while not over.wait(0.02):
        expect(plc.GetPLCstatus()[0], "Stopped")
        polls += 1
        if polls == 1:
            print("WATCHING", flush=True)
    print("POLLS", polls, flush=True)


def main():
    command = sys.argv[2]
    if command == "serve":
        return serve()
    with Proxy("PYRO:%s@127.0.0.1:%s" % (NAME, sys.argv[3])) as plc:
        if command == "session":
            session(plc)
        elif command == "blob":
            blob(plc, int(sys.argv[4]))
        elif command == "calls":
            calls(plc, int(sys.argv[4]))
        elif command == "watch":
            watch(plc)
    print("DONE", command, flush=True)


main()
