//! Every command that the documents show is run: each document from top to bottom, by one shell, in an
//! empty folder and on a network of its own where `plc.example` is this machine.
//!
//! Blocks of `sh` are commands; in blocks of `console` commands stand behind `$ ` and what they say below,
//! where `...` is any lines and `[..]` anything within one. Comments in the document, which nobody sees who
//! reads it, say the rest; each stands on a line of its own:
//!
//! - `<!-- file: NAME -->`: the next block is a file that the reader has.
//! - `<!-- run: COMMAND -->`: what the reader has done, or would see; it must succeed.
//! - `<!-- exits: N -->`: how the last command of the next block ends; 0 if unsaid.
//! - `<!-- not run: REASON -->`: the next block is not run.
//! - ``<!-- not run: `COMMAND`: REASON -->``: nor is that command of the next block.
//!
//! `pskgate run FILE`, `pskgate server` and `pskgate client` go on until the end of the document, where SIGTERM
//! must end them well. A command whose comment speaks of Ctrl-C gets one when it has said something.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::stage::need_root;
use crate::harness::{Process, WAIT_TIMEOUT, python, root};
use crate::schema::walk;

/// Every document of the project.
pub fn documents() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path()).collect();
    for folder in ["docs", "dist", "examples"] {
        walk(&root().join(folder), &mut found);
    }
    found.retain(|path| path.extension().is_some_and(|e| e == "md"));
    found.sort();
    found
}

/// What is done, in the order of the document.
#[derive(Debug, PartialEq)]
enum Step {
    File { name: String, text: String },
    Run { command: String, exits: i32, says: Option<String> },
    NotRun { command: String, reason: String },
}

/// The commands of a block: a line each, but for continued ones and what ends in a here-document.
fn commands(block: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = block.lines();
    while let Some(line) = lines.next() {
        let mut command = line.to_owned();
        while command.ends_with('\\') {
            let next = lines.next().expect("a line after a backslash");
            let _ = write!(command, "\n{next}");
        }
        if let Some((_, word)) = line.split_once("<<") {
            let word = word.trim_matches(['\'', '"', '-']);
            loop {
                let next = lines.next().expect("the end of a here-document");
                let _ = write!(command, "\n{next}");
                if next == word {
                    break;
                }
            }
        }
        let is_nothing = command.trim().is_empty() || command.trim_start().starts_with('#');
        if !is_nothing {
            found.push(command);
        }
    }
    found
}

/// The commands of a block of `console`, each with what it says.
fn conversations(block: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), found.last_mut()) {
            (Some(command), _) => found.push((command.to_owned(), String::new())),
            (None, Some((command, said))) if said.is_empty() && command.ends_with('\\') => {
                let _ = write!(command, "\n{line}");
            }
            (None, Some((_, said))) => {
                let _ = writeln!(said, "{line}");
            }
            (None, None) => panic!("a console begins with `$ `: {line}"),
        }
    }
    found
}

/// What a document asks for.
fn steps(text: &str) -> Vec<Step> {
    let mut found = Vec::new();
    let (mut file, mut exits, mut not_run) = (None, 0, Vec::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(said) = line.strip_prefix("<!-- ").and_then(|l| l.strip_suffix(" -->")) {
            match said.split_once(": ") {
                Some(("file", name)) => file = Some(name.to_owned()),
                Some(("exits", code)) => exits = code.parse().expect("a number"),
                Some(("not run", reason)) => {
                    let one = reason.strip_prefix('`').and_then(|rest| rest.split_once("`: "));
                    let (command, reason) = one.unwrap_or(("", reason));
                    not_run.push((command.to_owned(), reason.to_owned()));
                }
                Some(("run", command)) => {
                    found.push(Step::Run { command: command.to_owned(), exits: 0, says: None })
                }
                _ => {}
            }
            continue;
        }
        let Some(language) = line.trim_start().strip_prefix("```") else { continue };
        let indent = line.len() - line.trim_start().len();
        let mut block = String::new();
        for line in lines.by_ref().take_while(|line| line.trim_start() != "```") {
            let _ = writeln!(block, "{}", line.get(indent..).unwrap_or_default());
        }
        let pairs: Vec<(String, Option<String>)> = match language {
            _ if file.is_some() => Vec::new(),
            "sh" | "bash" | "shell" => commands(&block).into_iter().map(|c| (c, None)).collect(),
            "console" => conversations(&block).into_iter().map(|(c, s)| (c, Some(s))).collect(),
            _ => Vec::new(),
        };
        if let Some(name) = file.take() {
            found.push(Step::File { name, text: block });
        }
        let last = pairs.len().saturating_sub(1);
        for (number, (command, says)) in pairs.into_iter().enumerate() {
            let reason = not_run.iter().find(|(which, _)| command.starts_with(which.as_str()));
            found.push(match reason {
                Some((_, reason)) => Step::NotRun { command, reason: reason.clone() },
                None => Step::Run { command, exits: if number == last { exits } else { 0 }, says },
            });
        }
        (exits, not_run) = (0, Vec::new());
    }
    found
}

/// Whether it is meant to go on, and with which configuration; an empty name if there is no file.
fn goes_on(command: &str) -> Option<&str> {
    if command.starts_with("pskgate server ") || command.starts_with("pskgate client ") {
        return Some("");
    }
    let file = command.strip_prefix("pskgate run ")?;
    Some(file.split_once('#').map_or(file, |(file, _)| file).trim())
}

/// What was said, against what a document says: `...` is any lines, `[..]` anything within one.
fn is_said(wanted: &str, said: &str) -> bool {
    fn lines(wanted: &[&str], said: &[&str]) -> bool {
        match (wanted, said) {
            ([], []) => true,
            (["...", rest @ ..], _) => (0..=said.len()).any(|skip| lines(rest, &said[skip..])),
            ([first, wanted @ ..], [line, said @ ..]) => within(first, line) && lines(wanted, said),
            _ => false,
        }
    }
    fn within(wanted: &str, line: &str) -> bool {
        let Some((head, rest)) = wanted.split_once("[..]") else { return wanted == line };
        line.strip_prefix(head).is_some_and(|line| {
            (0..=line.len()).filter_map(|at| line.get(at..)).any(|tail| within(rest, tail))
        })
    }
    let split = |text| -> Vec<&str> { str::lines(text).map(str::trim_end).collect() };
    lines(&split(wanted.trim_end()), &split(said.trim_end()))
}

const BEGIN: &str = r##"
set -u
ip link set lo up
mount -t tmpfs tmpfs /run
cp /etc/hosts "$NOTES/hosts" && echo '127.0.0.1 plc.example' >>"$NOTES/hosts"
mount --bind "$NOTES/hosts" /etc/hosts
pids=()
fail() {
    echo "--- $1" >&2
    cat "$NOTES/command.$2" >&2
    echo '--- it said' >&2
    cat "$NOTES/said.$2" >&2
    exit 1
}
# In this shell, so that `cd` and variables last.
plain() {
    eval "$(cat "$NOTES/command.$1")" >"$NOTES/said.$1" 2>&1 </dev/null
    code=$?
    [ "$code" = "$2" ] || fail "exit code $code, not $2" "$1"
}
lasting() {
    (eval "exec $(cat "$NOTES/command.$1")") >"$NOTES/said.$1" 2>&1 </dev/null &
    pids+=($!)
    for _ in {1..200}; do
        if [ -n "$2" ]; then pskgate status "$2" >/dev/null 2>&1; else grep -q 'listening on' "$NOTES/said.$1"; fi && return
        kill -0 $! 2>/dev/null || fail 'it ended' "$1"
        sleep 0.1
    done
    fail 'it does not answer' "$1"
}
interrupted() {
    (eval "exec $(cat "$NOTES/command.$1")") >"$NOTES/said.$1" 2>&1 </dev/null &
    for _ in {1..200}; do
        [ -s "$NOTES/said.$1" ] && break
        sleep 0.1
    done
    [ -s "$NOTES/said.$1" ] || fail 'it says nothing' "$1"
    kill -INT $!
    wait $!
    code=$?
    [ "$code" = 0 ] || [ "$code" = 130 ] || fail "exit code $code after Ctrl-C" "$1"
}
"##;

const END: &str = r#"
for pid in "${pids[@]}"; do
    kill -TERM "$pid"
    wait "$pid" || { echo "what goes on ended with $? after SIGTERM" >&2; exit 1; }
done
"#;

/// Runs a document's commands; how many there were.
fn perform(document: &Path) -> usize {
    let name = document.strip_prefix(root()).unwrap_or(document).display().to_string();
    let text = std::fs::read_to_string(document).unwrap();
    let (notes, home) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let note = |name: String, text: &str| std::fs::write(notes.path().join(name), text).unwrap();
    let bin = notes.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pskgate"), bin.join("pskgate")).unwrap();
    let mut script = BEGIN.to_owned();
    let mut expected = Vec::new();
    for (number, step) in steps(&text).into_iter().enumerate() {
        match step {
            Step::File { name, text } => {
                note(format!("file.{number}"), &text);
                let _ = writeln!(
                    script,
                    "mkdir -p \"$(dirname '{name}')\" && install -m 600 \"$NOTES/file.{number}\" '{name}'"
                );
            }
            Step::NotRun { command, reason } => {
                assert!(reason.len() >= 12, "{name}: `{command}` is not run; say why");
            }
            Step::Run { command, exits, says } => {
                note(format!("command.{number}"), &command);
                let comment = command.rsplit_once('#').map_or("", |(_, comment)| comment);
                let _ = match goes_on(&command) {
                    Some(file) => writeln!(script, "lasting {number} '{file}'"),
                    None if comment.contains("Ctrl-C") => writeln!(script, "interrupted {number}"),
                    None => writeln!(script, "plain {number} {exits}"),
                };
                expected.push((number, command, says));
            }
        }
    }
    if expected.is_empty() {
        return 0;
    }
    note("script".into(), &(script + END));
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash"])
        .arg(notes.path().join("script"))
        .current_dir(home.path())
        .env("NOTES", notes.path())
        .env("HOME", home.path())
        .env("LC_ALL", "C.UTF-8")
        .env_remove("RUNTIME_DIRECTORY")
        .env_remove("XDG_RUNTIME_DIR");
    let mut path = std::ffi::OsString::from(&bin);
    for folder in [python().parent().map(Path::as_os_str), std::env::var_os("PATH").as_deref()] {
        path.push(":");
        path.push(folder.unwrap_or_default());
    }
    command.env("PATH", path);
    let mut shell = Process::spawn(&name, "the Debian package util-linux", &mut command);
    shell.end_input();
    let status = shell.wait(WAIT_TIMEOUT * 6);
    assert!(status.success(), "{name}: {status}\n{}", shell.text());
    for (number, command, says) in &expected {
        let said = std::fs::read_to_string(notes.path().join(format!("said.{number}"))).unwrap();
        if let Some(wanted) = says {
            assert!(
                is_said(wanted, &said),
                "{name}: {command}\n--- said\n{said}--- and the document says\n{wanted}"
            );
        }
    }
    expected.len()
}

#[test]
fn every_command_of_the_documents_does_what_they_say() {
    need_root();
    let documents = documents();
    assert!(documents.len() >= 5, "{documents:?}");
    let count: usize = std::thread::scope(|scope| {
        let running: Vec<_> =
            documents.iter().map(|document| scope.spawn(move || perform(document))).collect();
        running.into_iter().map(|one| one.join().expect("it went well")).sum()
    });
    assert!(count >= 15, "only {count} commands: is this test still reading the documents?");
}

#[test]
fn a_document_is_read_as_a_reader_would() {
    let text = "# A\n<!-- file: a.toml -->\n```toml\nx = 1\n```\n<!-- run: true -->\n\n\
                <!-- not run: `scp`: there is no other machine -->\n<!-- exits: 3 -->\n\
                ```sh\n# nothing\nscp a b\ncat <<EOF\nx\nEOF\nexit \\\n  3  # because\n```\n\
                ```console\n$ echo a\na\n...\n$ true\n```\n<!-- not run: it takes a day -->\n```sh\nsleep 86400\n```\n\
                ```text\nno command\n```\n";
    let run = |command: &str, exits, says: Option<&str>| Step::Run {
        command: command.into(),
        exits,
        says: says.map(Into::into),
    };
    let not = |command: &str, reason: &str| Step::NotRun {
        command: command.into(),
        reason: reason.into(),
    };
    let wanted = [
        Step::File { name: "a.toml".into(), text: "x = 1\n".into() },
        run("true", 0, None),
        not("scp a b", "there is no other machine"),
        run("cat <<EOF\nx\nEOF", 0, None),
        run("exit \\\n  3  # because", 3, None),
        run("echo a", 0, Some("a\n...\n")),
        run("true", 0, Some("")),
        not("sleep 86400", "it takes a day"),
    ];
    assert_eq!(steps(text), wanted);
}

#[test]
fn what_is_said_is_compared_line_by_line() {
    for (wanted, said, is) in [
        ("a\n", "a\n", true),
        ("a\n", "a\nb\n", false),
        ("...\nb\n", "a\na\nb\n", true),
        ("a\n...\n", "a\n", true),
        ("a [..] c\n", "a b c\n", true),
        ("a [..]\n", "a b c\n", true),
        ("[..] c\n", "a b c\n", true),
        ("[..] c\n", "a b d\n", false),
        ("a [..] c\n", "a b c d\n", false),
        ("", "a\n", false),
    ] {
        assert_eq!(is_said(wanted, said), is, "{wanted:?} {said:?}");
    }
}
