"""PLCObject over eRPC: what erpcgen would make of an interface, both sides, on the package `erpc`."""

import ssl
import socket

import erpc
import sslpsk3

SERVICE = 1
METHODS = [
    "AppendChunkToBlob", "GetPLCstatus", "GetTraceVariables", "MatchMD5", "NewPLC", "PurgeBlobs",
    "SeedBlob", "SetTraceVariablesList", "StartPLC", "StopPLC",
]  # fmt: skip
NUMBERS = {name: number for number, name in enumerate(METHODS, 1)}

# How arguments and results travel, in order.
ARGUMENTS = {
    "AppendChunkToBlob": ["binary", "binary"],
    "GetTraceVariables": ["uint32"],
    "MatchMD5": ["string"],
    "NewPLC": ["string", "binary"],
    "SeedBlob": ["binary"],
    "SetTraceVariablesList": ["numbers"],
}
RESULTS = {
    "AppendChunkToBlob": ["binary"],
    "GetPLCstatus": ["string", "numbers"],
    "GetTraceVariables": ["string", "samples"],
    "MatchMD5": ["bool"],
    "NewPLC": ["bool"],
    "SeedBlob": ["binary"],
    "SetTraceVariablesList": ["uint32"],
    "StopPLC": ["bool"],
}


def write(codec, kind, value):
    if kind == "numbers":
        codec.start_write_list(len(value))
        for one in value:
            codec.write_uint32(one)
    elif kind == "samples":
        codec.start_write_list(len(value))
        for tick, data in value:
            codec.write_uint32(tick)
            codec.write_binary(data)
    else:
        getattr(codec, "write_" + kind)(value)


def read(codec, kind):
    if kind == "numbers":
        return [codec.read_uint32() for _ in range(codec.start_read_list())]
    if kind == "samples":
        return [(codec.read_uint32(), codec.read_binary()) for _ in range(codec.start_read_list())]
    value = getattr(codec, "read_" + kind)()
    return bytes(value) if kind == "binary" else value


class Service(erpc.server.Service):
    def __init__(self, plc):
        super().__init__(SERVICE)
        for name, number in NUMBERS.items():
            self._methods[number] = lambda sequence, codec, name=name, number=number: self._handle(
                getattr(plc, name), name, number, sequence, codec
            )

    def _handle(self, call, name, number, sequence, codec):
        result = call(*[read(codec, kind) for kind in ARGUMENTS.get(name, [])])
        kinds = RESULTS.get(name, [])
        codec.reset()
        info = erpc.codec.MessageInfo(
            type=erpc.codec.MessageType.kReplyMessage, service=SERVICE, request=number, sequence=sequence
        )
        codec.start_write_message(info)
        for kind, value in zip(kinds, result if len(kinds) > 1 else [result]):
            write(codec, kind, value)
        codec.write_uint32(0)


def run(plc, port):
    """As the runtime does it: one server loop over the package's TCP transport. That transport has one
    socket, which is whichever connection came last; the loop outlives a connection that is closed, and
    nothing else."""
    transport = erpc.transport.TCPTransport("127.0.0.1", port, True)
    server = erpc.simple_server.SimpleServer(transport, erpc.basic_codec.BasicCodec)
    server.add_service(Service(plc))
    while True:
        try:
            server.run()
        except erpc.transport.ConnectionClosed:
            pass


class PSKTransport(erpc.transport.TCPTransport):
    """What the IDE does for ERPCS: its own TLS, 1.2 alone, whatever suites `PSK` stands for, no name."""

    def __init__(self, connected):
        erpc.transport.FramedTransport.__init__(self)
        self._isServer = False
        self._sock = connected
        import threading

        self._socket_lock = threading.Lock()


def psk_socket(port, secret_file, old=False):
    """Connects with the key of `<project>/psk/<ID>.secret`, which is `ID:secret` without an end of line.
    `old` is what Beremiz up to 1.3 spoke: TLS 1.0 and one suite."""
    with open(secret_file) as file:
        identity, secret = file.read().split(":", 1)
    context = sslpsk3.SSLPSKContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    version = ssl.TLSVersion.TLSv1 if old else ssl.TLSVersion.TLSv1_2
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("PSK-AES256-CBC-SHA:@SECLEVEL=0" if old else "PSK")
    context.set_psk_client_callback(lambda hint: (identity, secret.encode()))
    raw = socket.create_connection(("127.0.0.1", port))
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(raw)


class Client:
    """Calls by name."""

    def __init__(self, transport):
        self.manager = erpc.client.ClientManager(transport, erpc.basic_codec.BasicCodec)

    def __getattr__(self, name):
        number = NUMBERS[name]

        def call(*arguments):
            request = self.manager.create_request()
            codec = request.codec
            codec.start_write_message(
                erpc.codec.MessageInfo(
                    type=erpc.codec.MessageType.kInvocationMessage,
                    service=SERVICE,
                    request=number,
                    sequence=request.sequence,
                )
            )
            for kind, value in zip(ARGUMENTS.get(name, []), arguments):
                write(codec, kind, value)
            self.manager.perform_request(request)
            result = [read(codec, kind) for kind in RESULTS.get(name, [])]
            if codec.read_uint32() != 0:
                raise erpc.client.RequestError("the runtime says no to %s" % name)
            return tuple(result) if len(result) > 1 else result[0] if result else None

        return call


def connect(port):
    return Client(erpc.transport.TCPTransport("127.0.0.1", port, False))


def connect_psk(port, secret_file):
    return Client(PSKTransport(psk_socket(port, secret_file)))
