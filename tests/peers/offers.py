"""TLS 1.3 peers that the openssl command cannot play: odd identities, lists of keys, other hashes.

offers.py call PORT    for each line on standard input, a JSON object, one connection to that port:
                       "keys": [[identity in hex, key in hex, "sha256" or "sha384"], ...], "modes":
                       ["psk_dhe_ke", "psk_ke"], "say": a text that an echo is to send back.
                       Prints {"alert": number or null, "echo": text, "suite": name, "ended": how}
offers.py serve ...    IDENTITY KEY HASH, the first two in hex: prints "READY PORT", sends back what it
                       is sent, and says "SUITE name" of each connection and "ENDED close_notify"
                       when it heard that
"""

import json
import socket
import sys

from tlslite.api import HandshakeSettings, TLSConnection
from tlslite.constants import CipherSuite
from tlslite.errors import TLSAbruptCloseError, TLSAlert


def settings(keys, modes=("psk_dhe_ke",)):
    one = HandshakeSettings()
    one.minVersion = one.maxVersion = (3, 4)
    one.pskConfigs = [
        (bytearray.fromhex(name), bytearray.fromhex(key), kind) for name, key, kind in keys
    ]
    one.psk_modes = list(modes)
    # No ticket of its own: a server that gave one would not be what is asked for here.
    one.ticket_count = 0
    return one


def suite(connection):
    return CipherSuite.ietfNames[connection.session.cipherSuite]


def call(port, order):
    stream = socket.create_connection(("127.0.0.1", port))
    stream.settimeout(20)
    connection = TLSConnection(stream)
    connection.closeSocket = True
    seen = {"alert": None, "echo": "", "suite": None, "ended": None}
    try:
        connection.handshakeClientCert(settings=settings(order["keys"], order["modes"]))
        seen["suite"] = suite(connection)
        say = order.get("say", "").encode()
        if say:
            connection.sendall(say)
            seen["echo"] = connection.recv(len(say)).decode()
            # What the server's end says when everything has been said.
            try:
                seen["ended"] = "close_notify" if connection.recv(1) == b"" else "data"
            except TLSAbruptCloseError:
                seen["ended"] = "cut"
    except TLSAlert as alert:
        seen["alert"] = int(alert.description)
    except (OSError, TLSAbruptCloseError) as error:
        seen["ended"] = repr(error)
    stream.close()
    return seen


def serve(keys):
    listener = socket.create_server(("127.0.0.1", 0))
    print("READY", listener.getsockname()[1], flush=True)
    while True:
        stream, _ = listener.accept()
        connection = TLSConnection(stream)
        try:
            connection.handshakeServer(settings=settings(keys))
            print("SUITE", suite(connection), flush=True)
            while data := connection.recv(4096):
                connection.sendall(data)
            print("ENDED close_notify", flush=True)
            connection.close()
        except (OSError, TLSAlert, TLSAbruptCloseError) as error:
            print("REFUSED", error, flush=True)
        stream.close()


if sys.argv[1] == "serve":
    serve([sys.argv[2:5]])
else:
    for line in sys.stdin:
        print(json.dumps(call(int(sys.argv[2]), json.loads(line))), flush=True)
