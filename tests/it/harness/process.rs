//! A process whose output is collected while it runs, and which dies with its test.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{proc, until};

/// Both output streams as they came.
#[derive(Default)]
struct Collected {
    out: Vec<u8>,
    err: Vec<u8>,
    open: u8,
}

#[derive(Default)]
struct Shared {
    collected: Mutex<Collected>,
    more: Condvar,
}

pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    shared: Arc<Shared>,
    since: Instant,
}

/// Until a process has let go of what its start needed: 200 ms, and as much again and more.
const SETTLED: Duration = Duration::from_millis(600);

impl Process {
    /// Starts `command`; a program that is missing fails the test with `package`, the name to install.
    pub fn spawn(name: &str, package: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start {name} ({error}): install {package}; scripts/test does it")
            });
        let shared = Arc::new(Shared::default());
        shared.collected.lock().unwrap().open = 2;
        let stdin = child.stdin.take();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        collect(out, Arc::clone(&shared), |collected| &mut collected.out);
        collect(err, Arc::clone(&shared), |collected| &mut collected.err);
        Self { name: name.to_owned(), child, stdin, shared, since: Instant::now() }
    }

    /// Starts `command` with these as standard input and output; its standard error is collected.
    pub fn with_streams(name: &str, command: &mut Command, input: Stdio, output: Stdio) -> Self {
        let mut child = command
            .stdin(input)
            .stdout(output)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        // The test's own copies go, or the sockets among them would stay open.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let shared = Arc::new(Shared::default());
        shared.collected.lock().unwrap().open = 1;
        let err = child.stderr.take().unwrap();
        collect(err, Arc::clone(&shared), |collected| &mut collected.err);
        Self { name: name.to_owned(), child, stdin: None, shared, since: Instant::now() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All of standard error so far, byte for byte.
    pub fn err_bytes(&self) -> Vec<u8> {
        self.shared.collected.lock().unwrap().err.clone()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.err_bytes()).into_owned()
    }

    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.shared.collected.lock().unwrap().out).into_owned()
    }

    /// Standard output and standard error, in this order.
    pub fn text(&self) -> String {
        let collected = self.shared.collected.lock().unwrap();
        let (out, err) =
            (String::from_utf8_lossy(&collected.out), String::from_utf8_lossy(&collected.err));
        format!("{out}{err}")
    }

    /// Waits until a line of either stream contains `fragment`, and returns that line.
    pub fn wait_for(&self, fragment: &str, patience: Duration) -> String {
        self.wait_for_line(&format!("a line with `{fragment}`"), patience, |line| {
            line.contains(fragment)
        })
    }

    /// Waits until a line of either stream satisfies `wanted`.
    pub fn wait_for_line(
        &self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        let deadline = Instant::now() + patience;
        let mut collected = self.shared.collected.lock().unwrap();
        loop {
            for stream in [&collected.err, &collected.out] {
                // Half a line may say half an address.
                let whole = stream.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                let whole = if collected.open == 0 { stream.len() } else { whole };
                let text = String::from_utf8_lossy(&stream[..whole]);
                if let Some(line) = text.lines().find(|line| wanted(line)) {
                    return line.to_owned();
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || collected.open == 0 {
                let state = if collected.open == 0 { "ended its output" } else { "went on" };
                let (out, err) = (
                    String::from_utf8_lossy(&collected.out),
                    String::from_utf8_lossy(&collected.err),
                );
                let (out, err) = (out.into_owned(), err.into_owned());
                drop(collected);
                panic!(
                    "{} {state} without {what}\n--- its stdout\n{out}\n--- its stderr\n{err}\n---",
                    self.name
                );
            }
            collected = self.shared.more.wait_timeout(collected, left).unwrap().0;
        }
    }

    /// Writes to its standard input.
    pub fn type_in(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("its standard input is closed");
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).expect("it reads its input");
    }

    /// Closes its standard input.
    pub fn end_input(&mut self) {
        drop(self.stdin.take());
    }

    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).expect("it can be signalled");
    }

    /// Has it stop by itself, if it does within some seconds.
    fn end_gently(&mut self) {
        for _ in 0..2 {
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(3) {
                match self.child.try_wait() {
                    Ok(None) if start.elapsed() < Duration::from_millis(5) => {
                        self.signal(Signal::TERM);
                    }
                    Ok(None) => {}
                    _ => return,
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it can be waited for")
    }

    /// Waits for its end, and for the end of its output.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.ended() {
                break status;
            }
            assert!(
                start.elapsed() < patience,
                "{} had not ended after {patience:?}; it said so far:\n{}",
                self.name,
                self.text()
            );
            std::thread::sleep(Duration::from_millis(5));
        };
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut collected = self.shared.collected.lock().unwrap();
        while collected.open > 0 && Instant::now() < deadline {
            collected =
                self.shared.more.wait_timeout(collected, Duration::from_millis(100)).unwrap().0;
        }
        drop(collected);
        status
    }

    /// Resident memory in bytes, without what only the start needs.
    #[allow(dead_code, reason = "tests of the binaries and of a fleet have a use for it")]
    pub fn resident(&self) -> u64 {
        std::thread::sleep(SETTLED.saturating_sub(self.since.elapsed()));
        self.memory("VmRSS:")
    }

    /// That part of it which is the process's own, and not a file's that is mapped.
    pub fn anonymous(&self) -> u64 {
        self.memory("RssAnon:")
    }

    fn memory(&self, kind: &str) -> u64 {
        proc::memory(self.id(), kind).expect("it is alive")
    }

    /// Processor time so far, in kernel and program.
    pub fn cpu(&self) -> Duration {
        proc::cpu(self.id()).expect("/proc can be read")
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).expect("/proc can be read").count()
    }

    /// The same, when it has done whatever it does after a start.
    pub fn settled_descriptors(&self) -> usize {
        let mut last = (0, Instant::now());
        until("the number of descriptors to settle", super::WAIT_TIMEOUT, || {
            let now = self.descriptors();
            if now != last.0 || computes(self.id()) {
                last = (now, Instant::now());
            }
            (last.1.elapsed() > Duration::from_millis(500)).then_some(now)
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What is killed finds no leaks of its own.
        if std::env::var_os("PSKGATE_TESTS_END_GENTLY").is_some() {
            self.end_gently();
        }
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {} said\n{}\n---", self.name, self.text());
        }
    }
}

/// Whether one of a process's threads computes, or waits for a processor or a disk.
pub fn computes(id: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{id}/task"));
    threads.into_iter().flatten().flatten().any(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['R', 'D']))
    })
}

/// What a command that ran to its end said.
pub struct Finished {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs pskgate to its end in `folder`.
pub fn pskgate<S: AsRef<OsStr>>(folder: &std::path::Path, arguments: &[S]) -> Finished {
    let mut command = super::program_command();
    command.args(arguments).current_dir(folder).env("RUNTIME_DIRECTORY", folder);
    let mut process = Process::spawn("pskgate", "cargo", &mut command);
    drop(process.stdin.take());
    // The demo carries 256 MB, and a debug build on a busy machine is slow.
    let status = process.wait(Duration::from_secs(600));
    Finished { code: status.code(), out: process.out(), err: process.err() }
}

fn collect(
    mut from: impl Read + Send + 'static,
    shared: Arc<Shared>,
    which: impl Fn(&mut Collected) -> &mut Vec<u8> + Send + 'static,
) {
    std::thread::spawn(move || {
        let mut piece = [0_u8; 8192];
        loop {
            let count = from.read(&mut piece).unwrap_or(0);
            let mut collected = shared.collected.lock().unwrap();
            if count == 0 {
                collected.open -= 1;
            } else {
                which(&mut collected).extend_from_slice(&piece[..count]);
            }
            shared.more.notify_all();
            if count == 0 {
                return;
            }
        }
    });
}

/// The children of a process, and whether each is a zombie.
pub fn children_of(parent: u32) -> Vec<(u32, bool)> {
    let stat = |entry: std::fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let text = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // A name may have blanks and parentheses.
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?;
        (fields.next()?.parse() == Ok(parent)).then_some((pid, state == "Z"))
    };
    std::fs::read_dir("/proc").expect("/proc").flatten().filter_map(stat).collect()
}

/// Ends a program that the harness does not collect lines from.
pub struct Unread(pub std::process::Child);

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
