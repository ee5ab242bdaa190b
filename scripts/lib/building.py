"""Usage: scripts/lib/building.py FOLDER

Keeps the figures of scripts/release (FOLDER has a file each target) in docs/building, and makes the table of
docs/building.md of all that are there.
"""

import json
import pathlib
import shutil
import sys

PAGE = pathlib.Path("docs/building.md")
KEPT = pathlib.Path("docs/building")
BEGIN, END = "<!-- begin targets -->", "<!-- end targets -->"


def row(file):
    seen = json.loads(file.read_text())
    openssl = next(line for line in seen["version"].splitlines() if line.startswith("runs with"))
    openssl = openssl.split()[3] + (", static" if "built in" in openssl else ", the system's")
    mega = lambda name: "%.2f MB" % (seen[name] / 1e6) if name in seen else ""
    rate = lambda name: "{:,}".format(seen[name]) if name in seen else ""
    cells = [
        "`%s`" % file.stem,
        openssl,
        mega("size"),
        mega("memory-at-start"),
        rate("handshakes-per-second"),
        rate("round-trips-per-second"),
        "%s, %d checks" % (seen["ran-under"], len(seen["shown"])),
    ]
    return "| %s |" % " | ".join(cells)


def main(fresh):
    KEPT.mkdir(exist_ok=True)
    for file in sorted(pathlib.Path(fresh).glob("*.json")):
        shutil.copy(file, KEPT / file.name)
    order = [line.split()[0] for line in open("scripts/cross/targets") if line.strip()]
    files = [KEPT / (target + ".json") for target in order if (KEPT / (target + ".json")).exists()]
    if not files:
        sys.exit("building: no target was tried yet; run scripts/release")
    head = [
        "| target | OpenSSL | size | memory at start | handshakes/s | round trips/s | shown under |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    before, rest = PAGE.read_text().split(BEGIN)
    table = "\n".join(head + [row(file) for file in files])
    PAGE.write_text("%s%s\n\n%s\n\n%s%s" % (before, BEGIN, table, END, rest.split(END)[1]))
    print("%s: %d targets" % (PAGE, len(files)))


main(*sys.argv[1:])
