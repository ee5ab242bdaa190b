"""What the peers have in common: a server says where it is and ends with its parent; a client takes
orders, a line each, and answers each with `DONE` and JSON, or with `FAILED` and why."""

import asyncio
import json
import os
import sys
import threading
import time
import traceback


def serving(*ports):
    """Says where it serves. The process ends when its standard input does."""
    print("READY", *ports, flush=True)

    def leave_with_parent():
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def expect(what, got, wanted):
    if got != wanted:
        raise AssertionError("%s: got %r instead of %r" % (what, got, wanted))


def answer(seen):
    print("DONE", json.dumps(seen or {}), flush=True)


def failed(error):
    traceback.print_exc()
    print("FAILED", type(error).__name__, str(error).replace("\n", " "), flush=True)


def obey(orders):
    """`orders` are functions by name; their arguments are texts."""
    for line in sys.stdin:
        name, *arguments = line.split()
        try:
            answer(orders[name](*arguments))
        except Exception as error:
            failed(error)


async def obey_async(orders):
    """The same with coroutines."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        name, *arguments = line.split()
        try:
            answer(await orders[name](*arguments))
        except Exception as error:
            failed(error)


def trips(call, seconds):
    """Calls one after the other for so long: how many there were, and how long they took."""
    over = time.perf_counter() + float(seconds)
    start, count = time.perf_counter(), 0
    while (now := time.perf_counter()) < over:
        call()
        count += 1
    return {"count": count, "seconds": now - start}


async def trips_async(call, seconds):
    over = time.perf_counter() + float(seconds)
    start, count = time.perf_counter(), 0
    while (now := time.perf_counter()) < over:
        await call()
        count += 1
    return {"count": count, "seconds": now - start}
