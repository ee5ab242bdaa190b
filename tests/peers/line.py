"""What lies between two hosts: packets of one tun device go into the other, late, in part or not at all.

    line.py DEVICE DEVICE [MTU]

Says `ready` when both devices are there; whoever started it gives them to the hosts. Then a line of
standard input is an order, answered by `done`:

    delay MILLISECONDS   each packet takes so long (0 at first)
    loss PERCENT         so many of them are lost, the same ones in every run
    freeze, thaw         packets are held back, and all come at once afterwards
    cut, mend            packets are lost, and are not any more
    count                says how many came and how many of them were lost
"""

import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
TUN_WITHOUT_HEADER = 0x1001


def device(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), TUN_WITHOUT_HEADER))
    return fd


def main():
    ends = [device(name) for name in sys.argv[1:3]]
    print("ready", flush=True)
    dice = random.Random(5)
    delay, loss, frozen, cut = 0.0, 0.0, False, False
    queue, number, came, lost = [], 0, 0, 0
    while True:
        wait = None
        if queue and not frozen:
            wait = max(0.0, queue[0][0] - time.monotonic())
        ready, _, _ = select.select([*ends, 0], [], [], wait)
        for fd in ready:
            if fd == 0:
                words = sys.stdin.readline().split()
                if not words:
                    return
                order, value = words[0], float(words[1]) if len(words) > 1 else 0.0
                if order == "delay":
                    delay = value / 1000
                elif order == "loss":
                    loss = value / 100
                elif order in ("freeze", "thaw"):
                    frozen = order == "freeze"
                elif order == "count":
                    print("lost", lost, "of", came, flush=True)
                else:
                    cut = order == "cut"
                print("done", number, flush=True)
                number += 1
                continue
            try:
                packet = os.read(fd, 65536)
            except OSError:
                continue
            came += 1
            if cut or dice.random() < loss or len(queue) > 5000:
                lost += 1
                continue
            other = ends[1] if fd == ends[0] else ends[0]
            number += 1
            heapq.heappush(queue, (time.monotonic() + delay, number, other, packet))
        while queue and not frozen and not cut and queue[0][0] <= time.monotonic():
            _, _, other, packet = heapq.heappop(queue)
            try:
                os.write(other, packet)
            except OSError:
                pass
        if cut:
            queue.clear()


main()
