"""Usage: [STAGE=unit] scripts/lib/mutants.py FILE...     with the mistakes of cargo-mutants --list --json on standard input

Puts every mistake into one program and one set of tests, each behind a number, and runs the tests with one
number after another in the environment: one build for hundreds of mistakes, where cargo-mutants makes one for
each. A function with mistakes becomes a match of that number, with a mutated copy of its body in each arm and
the body as it stands in the last. A mistake outside of a function (in a constant) is built by itself.

A FILE is a line of `scripts/mutants --list`: the file, the unit tests about it, and the integration tests for
what those let pass. Each is a list with commas, and what has a minus before it is left out.
"""

import concurrent.futures
import datetime
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid

ROOT = pathlib.Path.cwd()
FOLDER = ROOT / "target/mutants"
TREE = FOLDER / "tree"
NUMBER = "PSKGATE_MUTANT"
# Found again in /proc by this: a daemon leaves its parent's session.
MARK = "PSKGATE_MUTANTS_RUN"
STAGE = os.environ.get("STAGE")
THREADS = int(os.environ.get("RUST_TEST_THREADS", 4))
MODULE = '''

/// Which mistake is in effect.
#[doc(hidden)]
pub mod mutant {
    /// 0 is none.
    pub fn number() -> u32 {
        static NUMBER: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
        *NUMBER.get_or_init(|| {
            std::env::var("%s").ok().and_then(|said| said.parse().ok()).unwrap_or(0)
        })
    }
}
''' % NUMBER


def offset(starts, place):
    """Of a line and a column in characters, both from 1."""
    return starts[place["line"] - 1] + place["column"] - 1


def line_starts(text):
    return [0] + [found.end() for found in re.finditer("\n", text)]


def span(starts, one):
    return offset(starts, one["start"]), offset(starts, one["end"])


def body_of(text, start, end):
    """Between the braces of the function that begins there, its comments and attributes included."""
    begin = text.rfind("\n", 0, start) + 1
    name = re.compile(r"^[^/\n]*?\bfn\s+\w+", re.M).search(text, begin, end)
    depth, at = 0, name.end()
    while text[at] != "{" or depth:
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(text[at], 0)
        at += 1
    return at + 1, end - 1


def weave(text, mutants):
    """The text with all of its mistakes, and for each arm its lines and its number."""
    starts = line_starts(text)
    functions = {}
    for mutant in mutants:
        functions.setdefault(span(starts, mutant["function"]["span"]), []).append(mutant)
    out, arms = [], []

    def line():
        return sum(piece.count("\n") for piece in out) + 1

    def copy(start, end):
        """That part of the text, with what is inside of it woven."""
        at = start
        for inside in sorted(functions):
            if at <= inside[0] and inside[1] <= end:
                function(inside, at)
                at = inside[1]
        out.append(text[at:end])

    def function(where, since):
        first, last = body_of(text, *where)
        out.append(text[since:first])
        out.append("match crate::mutant::number() {\n")
        for mutant in functions[where]:
            begin, end = span(starts, mutant["span"])
            begun = line()
            mutated = text[first:begin] + mutant["replacement"] + text[end:last]
            out.append("%d => {%s}\n" % (mutant["number"], mutated))
            arms.append((begun, line() - 1, mutant["number"]))
        out.append("_ => {")
        copy(first, last)
        out.append("}\n}")
        out.append(text[last : where[1]])

    copy(0, len(text))
    return "".join(out), arms


def put(path, text):
    """Keeps the time of what does not change: it decides what is built."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def copy_tree(but):
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0")
    names = {name for name in names if name and (ROOT / name).is_file()}
    for name in sorted(names - but):
        there, here = ROOT / name, TREE / name
        if here.exists() and here.read_bytes() == there.read_bytes():
            continue
        here.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(there, here)
    for path in list(TREE.rglob("*")):
        if path.is_file() and str(path.relative_to(TREE)) not in names:
            path.unlink()


def cargo(*arguments):
    """Builds without running: the messages, and the tests' programs by their names."""
    environment = dict(os.environ, CARGO_TARGET_DIR=str(FOLDER / "build"), CARGO_PROFILE_DEV_DEBUG="0")
    environment.update(CARGO_PROFILE_TEST_DEBUG="0", CARGO_INCREMENTAL="1")
    command = ["cargo", "test", "--locked", "--quiet", "--no-run", "--message-format=json"]
    # Thousands of runs are worth an optimised build of what is mutated.
    for key in ("opt-level=1", 'package."*".opt-level=0'):
        command += ["--config", "profile.dev." + key]
    done = subprocess.run(command + list(arguments), cwd=TREE, env=environment, stdout=subprocess.PIPE, text=True)
    errors, programs = [], {}
    for line in done.stdout.splitlines():
        said = json.loads(line)
        if said["reason"] == "compiler-message" and said["message"]["level"] == "error":
            errors.append(said["message"])
        elif said["reason"] == "compiler-artifact" and said.get("executable") and said["profile"]["test"]:
            programs[said["target"]["kind"][0]] = said["executable"]
    return done.returncode, errors, programs


def spans(message):
    for one in message["spans"]:
        while one:
            yield one["file_name"], one["line_start"]
            one = (one.get("expansion") or {}).get("span")
    for child in message["children"]:
        yield from spans(child)


def build(files, unviable):
    """All of them, less those that turn out not to compile, in a program of unit tests and one of integration tests."""
    while True:
        arms = {}
        for file, mutants in files.items():
            text, arms[file] = weave(
                (ROOT / file).read_text(), [one for one in mutants if one["number"] not in unviable]
            )
            put(TREE / file, text)
        put(TREE / "src/lib.rs", (ROOT / "src/lib.rs").read_text() + MODULE)
        code, errors, programs = cargo("--lib")
        if code == 0:
            code, errors, more = cargo("--test", "it")
            if code == 0:
                return dict(programs, **more)
        found = set()
        for message in errors:
            primary = [(s["file_name"], s["line_start"]) for s in message["spans"] if s["is_primary"]]
            for places in (primary, spans(message)):
                hit = {
                    number
                    for file, line in places
                    for first, last, number in arms.get(file, [])
                    if first <= line <= last
                }
                if hit:
                    found |= hit
                    break
        if not found:
            for message in errors:
                print(message["rendered"], file=sys.stderr)
            sys.exit("mutants: the copy with all mistakes does not build, and none of them is to blame")
        print("   %d do not compile" % len(found), flush=True)
        unviable |= found


def end_marked(mark):
    wanted = ("%s=%s" % (MARK, mark)).encode()
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            pass


def run(program, words, number, limit, threads):
    """The tests of these words, until one fails: what came of it, and which failed."""
    mark = uuid.uuid4().hex
    folder = tempfile.mkdtemp(prefix="mutants")
    os.chmod(folder, 0o711)
    environment = dict(os.environ, TMPDIR=folder, RUST_TEST_THREADS=str(threads), RUST_MIN_STACK=str(16 << 20))
    environment.update({NUMBER: str(number), MARK: mark})
    environment.setdefault("PSKGATE_PEERS", str(ROOT / "target/peers/venv"))
    command = ["env", "--default-signal=INT", "--default-signal=QUIT", program]
    for word in words:
        command += ["--skip", word[1:]] if word.startswith("-") else [word]
    over = threading.Event()
    process = subprocess.Popen(
        command,
        cwd=TREE,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        errors="replace",
        start_new_session=True,
    )

    def stop():
        over.set()
        end_marked(mark)

    clock = threading.Timer(limit, stop)
    clock.start()
    failed, count = None, 0
    for line in process.stdout:
        if line.startswith("running "):
            count = int(line.split()[1])
        found = re.match(r"test (\S+) .*\.\.\. FAILED$|test (\S+) \.\.\. FAILED", line)
        if found:
            failed = found.group(1) or found.group(2)
            end_marked(mark)
            break
    clock.cancel()
    process.stdout.close()
    code = process.wait()
    end_marked(mark)
    shutil.rmtree(folder, ignore_errors=True)
    if over.is_set():
        return "hang", None
    if failed or code != 0:
        return "caught", failed or "the tests' program ended with %d" % code
    if count == 0:
        sys.exit("mutants: no test has a name with %s" % " or ".join(words))
    return "missed", None


def baseline(program, words, threads):
    """How long they take without a mistake; that it is a bad moment can be said of one run, and not of three."""
    for _ in range(3):
        began = time.monotonic()
        state, failed = run(program, words, 0, 1800, threads)
        if state == "missed":
            return time.monotonic() - began
    sys.exit("mutants: %s fails without a mistake" % (failed or " ".join(words)))


def by_integration(program, words, number, limit):
    state, failed = run(program, words, number, limit, THREADS)
    # On a busy machine one may fail that has nothing to do with it: it has to fail by itself again.
    if state == "caught" and failed and "::" in failed:
        again, _ = run(program, [failed], number, limit, 1)
        if again == "missed":
            return run(program, words + ["-" + failed], number, limit, THREADS)
    return state, failed


def alone(mutant, units, integration, stage):
    """A mistake in a constant: a build of its own."""
    file = mutant["file"]
    text = (ROOT / file).read_text()
    begin, end = span(line_starts(text), mutant["span"])
    kept = (TREE / file).read_text()
    put(TREE / file, text[:begin] + mutant["replacement"] + text[end:])
    try:
        code, _, programs = cargo(*(("--lib",) if stage == "unit" else ("--test", "it")))
        if code != 0:
            return "unviable", None
        if stage == "unit":
            return run(programs["lib"], units, 0, 120, 2)
        return by_integration(programs["test"], integration, 0, 1800)
    finally:
        put(TREE / file, kept)


UNVIABLE = FOLDER / "does-not-compile.json"


def digest(file):
    return hashlib.sha256((ROOT / file).read_bytes()).hexdigest()


def known_unviable(mutants):
    """Of a run before, for files that have not changed since."""
    kept = json.loads(UNVIABLE.read_text()) if UNVIABLE.exists() else {}
    same = {file for file, (then, _) in kept.items() if (ROOT / file).exists() and then == digest(file)}
    return {one["number"] for one in mutants if one["file"] in same and one["name"] in kept[one["file"]][1]}


def keep_unviable(mutants, unviable):
    names = {one["file"]: [] for one in mutants}
    for one in mutants:
        if one["number"] in unviable:
            names[one["file"]].append(one["name"])
    UNVIABLE.write_text(json.dumps({file: (digest(file), names[file]) for file in names}, indent=1))


class Asked:
    """What was noticed, of files that have not changed since: asked once, however often this breaks off. What no
    test noticed is asked again, as there may be a new one."""

    FILE = FOLDER / "asked.json"

    def __init__(self):
        self.kept = json.loads(self.FILE.read_text()) if self.FILE.exists() else {}

    def known(self, file):
        then, states = self.kept.get(file, (None, {}))
        return {name: tuple(state) for name, state in states.items()} if then == digest(file) else {}

    def keep(self, file, states):
        noticed = {name: state for name, state in states.items() if state[1] in ("caught", "hang")}
        self.kept[file] = (digest(file), noticed)
        self.FILE.write_text(json.dumps(self.kept, indent=1))


def show(stage, mutant, state, failed):
    words = " (%s)" % failed if failed else ""
    print("   %s by %s: %s%s" % (state, stage, mutant["name"], words), flush=True)


def keep(file, states):
    def count(*wanted):
        return sum(1 for stage, state in states.values() if state in wanted and stage in wanted)

    lines = [
        "date %s" % datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "file %s" % file,
        "caught-by-unit-tests %d" % count("unit", "caught"),
        "caught-by-integration-tests %d" % count("integration", "caught"),
        "hangs %d" % count("unit", "integration", "hang"),
        "does-not-compile %d" % count("build", "unviable"),
    ]
    # With STAGE=unit the integration tests have not been asked, nor any about constants.
    word = {"unit": "left", "integration": "missed"}
    lines += ["%s %s" % (word[stage], name) for name, (stage, state) in states.items() if state == "missed"]
    text = "\n".join(lines) + "\n"
    result_of(file).write_text(text)
    print(text, flush=True)


def result_of(file):
    return FOLDER / (file.replace("/", "-") + ".txt")


def main(rows):
    table = {file: (units.split(","), integration.split(",")) for file, units, integration in rows}
    mutants = json.load(sys.stdin)
    for number, mutant in enumerate(mutants, 1):
        mutant["number"] = number
    woven, single = ({mutant["file"]: [] for mutant in mutants} for _ in range(2))
    for mutant in mutants:
        (woven if mutant["function"] else single)[mutant["file"]].append(mutant)
    TREE.mkdir(parents=True, exist_ok=True)
    copy_tree(set(woven) | {"src/lib.rs"})
    print("== one program with %d mistakes" % len(mutants), flush=True)
    unviable = known_unviable(mutants)
    programs = build(woven, unviable)
    keep_unviable(mutants, unviable)
    states = {file: {} for file in table}
    asked = Asked()

    def staged(file, stage, ones, work, workers):
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            for one, (state, failed) in zip(ones, pool.map(work, ones)):
                states[file][one["name"]] = (stage, state)
                show(stage, one, state, failed)
                asked.keep(file, states[file])

    for file, (units, integration) in table.items():
        result_of(file).unlink(missing_ok=True)
        states[file] = asked.known(file)
        for one in woven[file]:
            if one["number"] in unviable:
                states[file][one["name"]] = ("build", "unviable")
        known = {one["number"] for one in woven[file] if one["name"] in states[file]}
        alive = [one for one in woven[file] if one["number"] not in unviable | known]
        unit_took = baseline(programs["lib"], units, 2)
        print("== %s: %d mistakes, %.0f s of unit tests" % (file, len(alive), unit_took), flush=True)

        def by_unit(one):
            return run(programs["lib"], units, one["number"], 20 + 3 * unit_took, 2)

        staged(file, "unit", alive, by_unit, os.cpu_count() or 1)
        left = [one for one in alive if states[file][one["name"]][1] == "missed"]
        if left and STAGE != "unit":
            took = baseline(programs["test"], integration, THREADS)
            print("   %d left, %.0f s of integration tests" % (len(left), took), flush=True)

            def by_all(one):
                return by_integration(programs["test"], integration, one["number"], 60 + 4 * took)

            staged(file, "integration", left, by_all, 1)
        if not single[file]:
            keep(file, states[file])
    # Last and only with all the rest, for each of them takes the place of the program with all the others.
    for file in table:
        ones = single[file]
        for one in ones:
            if one["name"] in states[file]:
                continue
            if STAGE == "unit":
                states[file][one["name"]] = ("unit", "missed")
                continue
            for stage in ("unit", "integration"):
                state, failed = alone(one, *table[file], stage)
                states[file][one["name"]] = ("build" if state == "unviable" else stage, state)
                show(stage, one, state, failed)
                if state != "missed":
                    break
            asked.keep(file, states[file])
        if ones:
            keep(file, states[file])


main([row.split() for row in sys.argv[1:]])
