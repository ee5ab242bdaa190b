//! The program under stunnel's name, as those start it who know nothing else: also in the background,
//! where it is nobody's child.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::process::Finished;
use super::{
    Backend, IDENTITY, KEY, PlainClient, Pskgate, PskgateBuilder, WAIT_TIMEOUT, client_toml, local,
    secret,
};
use super::{until, write_private};

/// A folder with a program named `stunnel`, and `psk.txt` with the key of the tests. What was started
/// from it ends with it.
pub struct StunnelFolder {
    folder: TempDir,
}

impl StunnelFolder {
    pub fn new() -> Self {
        Self::of(TempDir::new().expect("a folder for the test"))
    }

    /// In memory, as a board's /var/run is: a disk that others write to may take its time to remove
    /// a file.
    pub fn in_memory() -> Self {
        Self::of(TempDir::new_in("/dev/shm").expect("a folder in memory"))
    }

    fn of(folder: TempDir) -> Self {
        // Other users go in and write, where a test is about them.
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(folder.path(), open).expect("a mode");
        let program = super::program().pop().expect("a program");
        symlink(program, folder.path().join("stunnel")).expect("a symlink");
        write_private(&folder.path().join("psk.txt"), &secret(IDENTITY, KEY));
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// One more file in the folder, for its owner only.
    pub fn file(&self, name: &str, text: &str) -> &Self {
        write_private(&self.path(name), text);
        self
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Asks for a reload, and waits until the log tells that it was done. The start has such a line too,
    /// which is written before the program is ready.
    pub fn reload(&self, log: &str, ask: impl FnOnce()) {
        let count = || self.read(log).matches("Configuration successful").count();
        let before = count();
        ask();
        until("the reload", WAIT_TIMEOUT, || (count() > before).then_some(()));
    }

    /// The program by its full name, in its folder.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.path("stunnel"));
        command.current_dir(self.folder.path());
        command.env("RUNTIME_DIRECTORY", self.folder.path());
        command
    }

    /// A shell script in the folder; `$STUNNEL` is the program.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).current_dir(self.folder.path());
        command.env("STUNNEL", self.path("stunnel"));
        command.env("RUNTIME_DIRECTORY", self.folder.path());
        command
    }

    /// Runs the program until what was started has ended; in the background it runs on.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        finish(self.command().args(arguments))
    }

    /// Starts `stunnel FILE` in the background; its process, which wrote `pid.txt`.
    pub fn background(&self, file: &str) -> DaemonProcess {
        let done = self.run(&[file]);
        assert_eq!(done.code, Some(0), "{}", done.err);
        self.daemon()
    }

    /// The process that `pid.txt` names.
    pub fn daemon(&self) -> DaemonProcess {
        let text = self.read("pid.txt");
        DaemonProcess(text.trim().parse().unwrap_or_else(|_| panic!("a number, not {text:?}")))
    }

    /// Every process that was started from here and runs still.
    pub fn processes(&self) -> Vec<DaemonProcess> {
        let name = self.path("stunnel");
        let entries = std::fs::read_dir("/proc").expect("/proc can be read");
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
                first == name.as_os_str().as_encoded_bytes()
            })
            .map(DaemonProcess)
            .collect()
    }
}

impl Drop for StunnelFolder {
    fn drop(&mut self) {
        for daemon in self.processes() {
            daemon.signal(Signal::KILL);
        }
    }
}

/// Runs a command to its end, and does not wait for those who hold its streams.
pub fn finish(command: &mut Command) -> Finished {
    let folder = TempDir::new().expect("a folder for what it says");
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    let create = |path: &Path| std::fs::File::create(path).expect("a file");
    let mut child = command
        .stdout(create(&out))
        .stderr(create(&err))
        .stdin(Stdio::null())
        .spawn()
        .expect("it can be started");
    let code = until("its end", WAIT_TIMEOUT, || child.try_wait().expect("it can be waited for"));
    let said = |path: &Path| {
        String::from_utf8_lossy(&std::fs::read(path).expect("what it said")).into_owned()
    };
    Finished { code: code.code(), out: said(&out), err: said(&err) }
}

/// A process that is nobody's child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaemonProcess(pub i32);

impl DaemonProcess {
    pub fn signal(self, signal: Signal) {
        // It may have ended by itself.
        let _ = kill_process(Pid::from_raw(self.0).expect("a number"), signal);
    }

    /// What stands behind `name:` in its status.
    pub fn status(self, name: &str) -> Option<String> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        let line = text.lines().find(|line| line.starts_with(&format!("{name}:")))?;
        Some(line.split_once(':')?.1.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    pub fn is_alive(self) -> bool {
        self.status("State").is_some_and(|state| !state.starts_with('Z'))
    }

    pub fn wait_gone(self) {
        until("the process to end", WAIT_TIMEOUT, || (!self.is_alive()).then_some(()));
    }

    /// What one of its links in /proc points to.
    pub fn link(self, name: &str) -> PathBuf {
        std::fs::read_link(format!("/proc/{}/{name}", self.0)).expect("/proc can be read by root")
    }
}

/// Whether the tests run as root, as they do in CI.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Rights can only be dropped by who has them; a test that cannot run must not pass.
pub fn need_root() {
    assert!(is_root(), "this test needs root: run scripts/test as root");
}

/// A server section `[tunnel]` on this port, before this backend.
pub fn section(port: u16, backend: &Backend) -> String {
    format!(
        "[tunnel]\naccept = 127.0.0.1:{port}\nconnect = {}\nPSKsecrets = psk.txt\n",
        backend.address()
    )
}

/// A client end of pskgate before that port.
pub fn client_of(port: u16) -> Pskgate {
    PskgateBuilder::new().toml(&client_toml(local(port), "")).start()
}

/// Sends something through a client end and expects it back.
pub fn echo_through(client: &Pskgate) -> PlainClient {
    let plain = PlainClient::connect(client.address("plain"));
    plain.echo(b"there and back");
    plain
}
