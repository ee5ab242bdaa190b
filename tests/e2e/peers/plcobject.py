"""The runtime's object that an IDE calls, in the shape of Beremiz' PLCObject: the same calls, the same
order of them, the same sizes; behind it is a counter in place of a program."""

import hashlib
import threading


def program(size):
    """The same bytes in every run, without a pattern that a lost or doubled chunk could hide in."""
    out, block = bytearray(), b"program"
    while len(out) < size:
        block = hashlib.sha512(block).digest()
        out += block
    return bytes(out[:size])


class PLC:
    def __init__(self):
        # Pyro serves each connection in a thread of its own.
        self.lock = threading.Lock()
        self.status = "Empty"
        self.blobs = {}
        self.md5 = None
        self.traced = []
        self.tick = 0

    def GetPLCstatus(self):
        # The numbers of log messages of each level.
        return self.status, [0, 0, 0, self.tick]

    def SeedBlob(self, seed):
        with self.lock:
            return self._keep([seed], hashlib.md5(seed))

    def AppendChunkToBlob(self, chunk, blob):
        """The blob's name is the hash of what has come so far: a chunk that is lost, doubled or
        changed leads to a name that nobody knows."""
        with self.lock:
            chunks, sum_ = self.blobs.pop(blob)
            chunks.append(chunk)
            sum_.update(chunk)
            return self._keep(chunks, sum_)

    def _keep(self, chunks, sum_):
        name = sum_.digest()
        self.blobs[name] = (chunks, sum_)
        return name

    def PurgeBlobs(self):
        with self.lock:
            self.blobs.clear()

    def NewPLC(self, md5, blob):
        with self.lock:
            chunks, _ = self.blobs.pop(blob)
            # The first one is the seed.
            if hashlib.md5(b"".join(chunks[1:])).hexdigest() != md5:
                return False
            self.md5, self.status, self.tick = md5, "Stopped", 0
            return True

    def MatchMD5(self, md5):
        return md5 == self.md5

    def StartPLC(self):
        self.status = "Started"

    def StopPLC(self):
        self.status = "Stopped"
        return True

    def SetTraceVariablesList(self, variables):
        self.traced = list(variables)
        return len(self.traced)

    def GetTraceVariables(self, token):
        """The ticks since the last call, each with the values that were asked for."""
        self.tick += 1
        return self.status, [(self.tick, b"".join(self._value(one) for one in self.traced))]

    def _value(self, index):
        return (index * self.tick % 2**32).to_bytes(4, "little")
