"""The PLC's runtime.

runtime.py pyro4|pyro5|erpc          one of them: "READY PORT"
runtime.py erpc COUNT [PORT]         so many, each on a port of its own; the first one at PORT
"""

import os
import socket
import sys
import threading
import time

from orders import serving
from plcobject import PLC

KIND = sys.argv[1]
COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 1


def free_ports(count):
    """`erpc` wants a number: below the range from which the kernel takes ports by itself."""
    found, port = [], 31_100 + (os.getpid() * 101) % 1_600
    while len(found) < count:
        port = port + 1 if port < 32_700 else 31_100
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
                found.append(port)
            except OSError:
                pass
    return found


def erpc_runtimes():
    import erpc_plc

    def run(port):
        # What ends the loop ends the runtime's calls for good; the process lives on, as a PLC's does.
        erpc_plc.run(PLC(), port)

    ports = [int(sys.argv[3])] if len(sys.argv) > 3 else free_ports(COUNT)
    for port in ports:
        threading.Thread(target=run, args=[port], daemon=True).start()
    for port in ports:
        wait_listening(port)
    serving(*ports)
    threading.Event().wait()


def wait_listening(port):
    """Without connecting: that alone would break the runtime."""
    wanted = ":%04X" % port
    while True:
        with open("/proc/self/net/tcp") as table:
            lines = [line.split() for line in table][1:]
        if any(fields[1].endswith(wanted) and fields[3] == "0A" for fields in lines):
            return
        time.sleep(0.005)


def pyro_runtime(expose, Daemon):
    daemon = Daemon(host="127.0.0.1", port=0)
    daemon.register(expose(PLC)(), "PLCObject")
    serving(daemon.locationStr.rsplit(":", 1)[1])
    daemon.requestLoop()


if KIND == "erpc":
    erpc_runtimes()
elif KIND == "pyro4":
    import Pyro4

    Pyro4.config.SERIALIZERS_ACCEPTED.add("msgpack")
    pyro_runtime(Pyro4.expose, Pyro4.Daemon)
else:
    import Pyro5.api

    pyro_runtime(Pyro5.api.expose, Pyro5.api.Daemon)
