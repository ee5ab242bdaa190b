"""An MQTT client; the broker is mosquitto.

mqtt.py PORT TOPIC   orders on standard input
"""

import queue
import socket
import sys

import paho.mqtt.client as mqtt
from orders import expect, obey, trips

PORT, TOPIC = int(sys.argv[1]), sys.argv[2]


class Connection:
    """One that has subscribed to its own topic."""

    def __init__(self):
        self.came = queue.Queue()
        self.subscribed = queue.Queue()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self.client.on_message = lambda client, data, message: self.came.put(message.payload)
        self.client.on_subscribe = lambda *told: self.subscribed.put(True)
        self.client.on_connect = lambda client, *told: client.subscribe(TOPIC, qos=1)
        # Without it a small message waits for the acknowledgement of the one before: 40 ms.
        self.client.on_socket_open = lambda client, data, sock: sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        self.client.reconnect_delay_set(1, 2)
        self.client.connect("127.0.0.1", PORT)
        self.client.loop_start()
        self.subscribed.get(timeout=20)

    def there_and_back(self, payload):
        self.client.publish(TOPIC, payload, qos=1)
        got = self.came.get(timeout=20)
        expect("the message", got, bytes(payload))


connection = Connection()
numbers = iter(range(10**9))


def big(size):
    connection.there_and_back(bytes(index % 251 for index in range(int(size))))


def again():
    """After the connection was lost, the library has made another and subscribed again."""
    connection.subscribed.get(timeout=20)
    connection.there_and_back(b"back again")


print("READY", flush=True)
obey({
    "big": big,
    "again": again,
    "trips": lambda seconds: trips(
        lambda: connection.there_and_back(b"%d" % next(numbers)), seconds
    ),
})  # fmt: skip
