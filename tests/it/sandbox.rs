//! What a serving program cannot do any more, looked at from inside the running process and tried.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use pskgate::sys::sandbox::{
    SandboxStatus, WritablePath, WriteAccess, enter_sandbox, probe_sandbox, set_no_new_privileges,
};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::process::pskgate;
use crate::harness::stage::{
    DaemonProcess, StunnelFolder, client_of, echo_through, need_root, section,
};
use crate::harness::{
    Backend, PlainClient, Process, Pskgate, PskgateBuilder, WAIT_TIMEOUT, client_toml, free_port,
    replace, server_toml, until,
};

/// Low ports, files and sockets of others, devices to bind to: capability(7)'s CHOWN, DAC_OVERRIDE,
/// FOWNER, NET_BIND_SERVICE and NET_RAW.
const TUNNEL: u64 = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 10 | 1 << 13;

/// What a line of each thread's status says.
fn of_threads(pid: u32, name: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it is alive");
    // One that looks at a file and ends may be gone by now; those that serve are not.
    let status = |task: std::io::Result<fs::DirEntry>| {
        fs::read_to_string(task.ok()?.path().join("status")).ok()
    };
    let statuses: Vec<String> = tasks.filter_map(status).collect();
    assert!(!statuses.is_empty(), "it has ended");
    let value = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("{name} is not in {status}")).trim().to_owned()
    };
    statuses.into_iter().map(value).collect()
}

#[track_caller]
fn all_threads(pid: u32, name: &str, wanted: &str) {
    let found = of_threads(pid, name);
    assert!(found.iter().all(|value| value == wanted), "{name} should be {wanted}: {found:?}");
}

/// A server end with a log in a folder of its own.
fn logging(backend: &Backend, top: &str) -> PskgateBuilder {
    let text = format!(
        "{top}\n[log]\nlevel = \"debug\"\noutput = \"logs/log\"\n[control]\n\
         socket = \"run/control.sock\"\n{}",
        server_toml(backend.address(), "")
    );
    let gate = PskgateBuilder::new().toml(&text);
    for folder in ["logs", "run", "elsewhere"] {
        fs::create_dir(gate.folder().join(folder)).unwrap();
    }
    gate
}

/// Starts it and waits for its log to say this.
fn launched(gate: PskgateBuilder, wanted: &str) -> Pskgate {
    let running = gate.launch();
    wait_log(&running, wanted);
    running
}

fn log(gate: &Pskgate) -> String {
    fs::read_to_string(gate.folder().join("logs/log")).unwrap_or_default()
}

#[track_caller]
fn wait_log(gate: &Pskgate, wanted: &str) {
    until(&format!("`{wanted}` in the log:\n{}{}", log(gate), gate.err()), WAIT_TIMEOUT, || {
        log(gate).contains(wanted).then_some(())
    });
}

/// `pskgate reload`, and what came of it.
fn reload(gate: &Pskgate, toml: &str) -> (bool, String) {
    replace(&gate.folder().join("pskgate.toml"), toml);
    let done = pskgate(gate.folder(), &["reload", "pskgate.toml"]);
    (done.code == Some(0), done.out + &done.err)
}

fn toml(gate: &Pskgate) -> String {
    fs::read_to_string(gate.folder().join("pskgate.toml")).unwrap()
}

/// What a kernel does is known only to itself. This one has landlock, or these tests say so.
fn need_landlock() {
    assert_eq!(
        probe_sandbox().unwrap(),
        SandboxStatus::Full,
        "this test needs a kernel with landlock (Linux 6.10 or later, lsm=landlock)"
    );
}

#[test]
fn every_thread_of_a_server_that_stays_root_keeps_a_tunnels_powers_and_gains_none() {
    need_root();
    let backend = Backend::echo();
    let gate = launched(logging(&backend, ""), "control socket at");
    let client = PskgateBuilder::new().toml(&client_toml(address(&gate), "")).start();
    PlainClient::connect(client.address("plain")).echo(b"there and back");
    for pid in [gate.id(), client.id()] {
        assert!(of_threads(pid, "NoNewPrivs").len() > 1, "is there no thread for the log?");
        all_threads(pid, "NoNewPrivs", "1");
        for name in ["CapPrm", "CapEff"] {
            all_threads(pid, name, &format!("{TUNNEL:016x}"));
        }
        for name in ["CapInh", "CapBnd", "CapAmb"] {
            all_threads(pid, name, &format!("{:016x}", 0));
        }
    }
}

/// Its address, from a log that is a file.
fn address(gate: &Pskgate) -> String {
    let text = log(gate);
    let line = text.lines().find(|line| line.contains("[tls] listening on ")).expect("it listens");
    line.rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn a_server_that_became_somebody_else_has_no_power_and_no_group_left() {
    need_root();
    let backend = Backend::echo();
    let stage = StunnelFolder::new();
    let port = free_port();
    let jail = stage.path("jail");
    fs::create_dir(&jail).unwrap();
    fs::set_permissions(&jail, fs::Permissions::from_mode(0o777)).unwrap();
    let conf = format!(
        "setuid = nobody\nchroot = {}\npid = /pid.txt\noutput = /log.txt\ndebug = debug\n{}",
        jail.display(),
        section(port, &backend)
    );
    stage.file("x.conf", &conf);
    let done = stage.run(&["x.conf"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let text = fs::read_to_string(jail.join("pid.txt")).expect("a pid file");
    let daemon = DaemonProcess(text.trim().parse().unwrap());
    let pid = u32::try_from(daemon.0).unwrap();
    all_threads(pid, "NoNewPrivs", "1");
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        all_threads(pid, name, &format!("{:016x}", 0));
    }
    all_threads(pid, "Groups", "");
    // Whatever holds it, it still does its work: a session, its log under another name, its pid file.
    let client = client_of(port);
    echo_through(&client);
    fs::rename(jail.join("log.txt"), jail.join("old.txt")).unwrap();
    daemon.signal(Signal::USR1);
    until("a new log", WAIT_TIMEOUT, || {
        fs::read_to_string(jail.join("log.txt")).ok()?.contains("Log file reopened").then_some(())
    });
    let text = fs::read_to_string(jail.join("old.txt")).unwrap();
    assert!(text.contains("nothing is executed") && !text.contains("cannot limit"), "{text}");
    daemon.signal(Signal::TERM);
    daemon.wait_gone();
    assert!(!jail.join("pid.txt").exists(), "the pid file is left");
}

#[test]
fn even_root_cannot_have_the_log_written_to_another_folder() {
    need_root();
    need_landlock();
    let backend = Backend::echo();
    for (top, held) in [("", true), ("sandbox = false", false)] {
        let gate = launched(logging(&backend, top), "control socket at");
        let (path, other) =
            (gate.folder().join("logs/log"), gate.folder().join("elsewhere/stolen"));
        // In the same folder it may have any name.
        fs::rename(&path, path.with_extension("1")).unwrap();
        gate.signal(Signal::USR1);
        wait_log(&gate, "reopened the log file");
        // The same name, but it leads out of the folder.
        fs::rename(&path, path.with_extension("2")).unwrap();
        symlink(&other, &path).unwrap();
        gate.signal(Signal::USR1);
        let second = path.with_extension("2");
        if held {
            until("a refusal", WAIT_TIMEOUT, || {
                let text = fs::read_to_string(&second).ok()?;
                text.contains("Permission denied").then_some(())
            });
        } else {
            until("the file elsewhere", WAIT_TIMEOUT, || other.exists().then_some(()));
        }
        assert_eq!(other.exists(), !held, "{top}");
    }
}

#[test]
fn what_a_thread_has_walled_in_can_neither_write_nor_execute_elsewhere() {
    need_landlock();
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["logs", "logs/deep", "sockets", "keys"] {
        fs::create_dir(at(name)).unwrap();
    }
    fs::write(at("keys/psk.txt"), "text").unwrap();
    fs::write(at("logs/old"), "text").unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), 0o600.into()).unwrap();
    let rooms = [
        WritablePath::folder(&at("logs"), WriteAccess::Files).unwrap(),
        WritablePath::folder(&at("sockets"), WriteAccess::Sockets).unwrap(),
        WritablePath::stream(&at("pipe")).unwrap(),
    ];
    assert!(WritablePath::stream(&at("logs/old")).is_err(), "a regular file is no stream");
    Command::new("true").status().expect("before, programs can be started");
    let write = |name: &str| OpenOptions::new().write(true).open(at(name)).map(drop);
    let create = |name: &str| fs::File::create(at(name)).map(drop);
    let inside = || {
        set_no_new_privileges().unwrap();
        assert_eq!(enter_sandbox(&rooms).unwrap(), SandboxStatus::Full);
        // What a log and a pid file need.
        create("logs/new").unwrap();
        create("logs/deep/new").unwrap();
        write("logs/old").unwrap();
        fs::File::create(at("logs/old")).unwrap().write_all(b"more").unwrap();
        fs::rename(at("logs/new"), at("logs/newer")).unwrap();
        fs::remove_file(at("logs/newer")).unwrap();
        OpenOptions::new().read(true).write(true).open(at("pipe")).unwrap();
        // What a socket needs, and who connects.
        let listener = UnixListener::bind(at("sockets/one")).unwrap();
        UnixStream::connect(at("sockets/one")).unwrap();
        drop(listener);
        fs::remove_file(at("sockets/one")).unwrap();
        // What a reload needs.
        assert_eq!(fs::read(at("keys/psk.txt")).unwrap(), b"text");
        assert_eq!(fs::read_dir(at("keys")).unwrap().count(), 1);
        let denied = |what: &str, done: std::io::Result<()>| {
            assert_eq!(done.expect_err(what).kind(), ErrorKind::PermissionDenied, "{what}");
        };
        denied("a key file, written", write("keys/psk.txt"));
        denied("a key file, new", create("keys/new"));
        denied(
            "a key file, emptied",
            rustix::fs::open(
                at("keys/psk.txt"),
                rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::TRUNC,
                rustix::fs::Mode::empty(),
            )
            .map(drop)
            .map_err(Into::into),
        );
        denied("a key file, removed", fs::remove_file(at("keys/psk.txt")));
        denied("a file, moved out", fs::rename(at("logs/old"), at("keys/old")));
        denied("a file where sockets are", create("sockets/file"));
        denied("a socket where logs are", UnixListener::bind(at("logs/socket")).map(drop));
        denied("a folder", fs::create_dir(at("logs/folder")));
        denied("a link", symlink("/etc", at("logs/link")));
        denied("a device", OpenOptions::new().write(true).open("/dev/full").map(drop));
        denied("a program", Command::new("/bin/true").status().map(drop));
        fs::set_permissions(at("logs/old"), fs::Permissions::from_mode(0o755)).unwrap();
        denied("a program of its own", Command::new(at("logs/old")).status().map(drop));
    };
    std::thread::scope(|scope| scope.spawn(inside).join()).expect("as promised");
    Command::new("true").status().expect("another thread can still start programs");
    write("keys/psk.txt").expect("and write");
}

#[test]
fn a_service_that_starts_programs_runs_without_and_says_so_everywhere() {
    let text = "[log]\nlevel = \"notice\"\n[services.shell]\nmode = \"server\"\n\
                accept = \"127.0.0.1:0\"\nexec = \"/bin/cat\"\npsk-secrets = \"psk.txt\"\n";
    let gate = PskgateBuilder::new().toml(text).launch();
    let line = gate.wait_logged("without a sandbox");
    assert!(line.contains("notice") && line.contains("the service shell starts"), "{line}");
    until("it to serve", WAIT_TIMEOUT, || {
        gate.folder().join("pskgate.sock").exists().then_some(())
    });
    all_threads(gate.id(), "NoNewPrivs", "0");
    let own = fs::read_to_string("/proc/self/status").unwrap();
    for name in ["CapPrm", "CapEff", "CapBnd"] {
        let own = own.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
        all_threads(gate.id(), name, own.trim());
    }
    let done = pskgate(gate.folder(), &["check", "--effective", "pskgate.toml"]);
    let line = done.out.lines().find(|line| line.contains("sandbox = false")).unwrap_or_default();
    assert!(line.contains("because of exec, ") && line.contains("pskgate.toml:6"), "{}", done.out);
    let done = pskgate(gate.folder(), &["doctor", "pskgate.toml"]);
    let said = done.out.lines().find(|line| line.contains("sandbox:")).unwrap_or_default();
    assert!(said.starts_with("note") && said.contains("the service shell starts"), "{}", done.out);
}

#[test]
fn check_and_doctor_say_whether_there_is_one() {
    need_landlock();
    for (top, effective, who, doctor) in [
        ("", "sandbox = true", "default", "ok    sandbox: nothing is executed"),
        ("sandbox = false", "sandbox = false", "pskgate.toml:1", "note  sandbox: there is none"),
    ] {
        let gate =
            PskgateBuilder::new().toml(&format!("{top}\n{}", server_toml("127.0.0.1:9", "")));
        let done = pskgate(gate.folder(), &["check", "--effective", "pskgate.toml"]);
        let fits = |line: &str| line.contains(effective) && line.trim_end().ends_with(who);
        assert!(done.out.lines().any(fits), "{}", done.out);
        let done = pskgate(gate.folder(), &["doctor", "pskgate.toml"]);
        assert!(done.out.lines().any(|line| line.starts_with(doctor)), "{}", done.out);
    }
}

#[test]
fn a_reload_goes_where_the_start_went_and_is_refused_elsewhere_with_the_remedy() {
    need_landlock();
    let backend = Backend::echo();
    let gate = launched(logging(&backend, ""), "control socket at");
    let start = toml(&gate);
    // Another name in a folder that is known, for the log and for a socket.
    let (done, said) = reload(&gate, &start.replace("logs/log", "logs/other"));
    assert!(done && gate.folder().join("logs/other").exists(), "{said}");
    let socket = |path: &str| start.replace("127.0.0.1:0\"", &format!("127.0.0.1:0\", \"{path}\""));
    let with = |path: &str| {
        socket(path)
            .replace("accept = \"127.0.0.1:0\", ", "accept = [\"127.0.0.1:0\", ")
            .replace(&format!("\"{path}\""), &format!("\"{path}\"]"))
    };
    let near = gate.folder().join("run/near.sock");
    let (done, said) = reload(&gate, &with(near.to_str().unwrap()));
    assert!(done, "{said}");
    UnixStream::connect(&near).expect("it listens there");
    let far = gate.folder().join("elsewhere/far.sock");
    let program =
        start.replace(&format!("connect = \"{}\"", backend.address()), "exec = \"/bin/cat\"");
    for (text, what) in [
        (start.replace("logs/log", "elsewhere/log"), "elsewhere/log is a log in a folder"),
        (with(far.to_str().unwrap()), "elsewhere/far.sock is a socket in a folder"),
        (start.replace("run/control", "elsewhere/c"), "elsewhere/c.sock is a socket"),
        (program, "the service tls starts a program now"),
    ] {
        // As a changed file: the command would ask at the new control socket.
        replace(&gate.folder().join("pskgate.toml"), &text);
        let line = until(&format!("`{what}` in {}", log(&gate)), WAIT_TIMEOUT, || {
            log(&gate).lines().find(|line| line.contains(what)).map(str::to_owned)
        });
        assert!(line.contains(" error ") && line.contains("restart the program"), "{line}");
    }
    assert!(!far.exists() && !gate.folder().join("elsewhere/log").exists());
    let (done, said) = reload(&gate, &start);
    assert!(done, "{said}");
    PlainClient::connect(
        PskgateBuilder::new().toml(&client_toml(address(&gate), "")).start().address("plain"),
    )
    .echo(b"it serves as before");
}

#[test]
fn without_a_sandbox_a_reload_goes_anywhere() {
    let backend = Backend::echo();
    let gate = launched(logging(&backend, "sandbox = false"), "control socket at");
    let (done, said) = reload(&gate, &toml(&gate).replace("logs/log", "elsewhere/log"));
    assert!(done && gate.folder().join("elsewhere/log").exists(), "{said}");
}

#[test]
fn root_that_stays_root_binds_a_low_port_in_a_reload() {
    need_root();
    let backend = Backend::echo();
    let gate = launched(logging(&backend, ""), "control socket at");
    // An address of loopback's that nobody else has.
    let port = 600 + std::process::id() % 400;
    let low = format!("127.77.{}.9:{port}", std::process::id() % 250);
    let (done, said) = reload(&gate, &toml(&gate).replace("127.0.0.1:0", &low));
    assert!(done, "{said}");
    let client = PskgateBuilder::new().toml(&client_toml(&low, "")).start();
    PlainClient::connect(client.address("plain")).echo(b"over a low port");
}

/// Ends the program whose pid file this is: one that was traced outlives its tracer.
struct EndOf(PathBuf);

impl Drop for EndOf {
    fn drop(&mut self) {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        if let Ok(pid) = text.trim().parse() {
            DaemonProcess(pid).signal(Signal::KILL);
        }
    }
}

#[test]
fn a_kernel_without_landlock_stops_nothing_and_that_is_said_at_debug() {
    let backend = Backend::echo();
    let gate = logging(&backend, "pid-file = \"run/pid\"");
    let folder: &Path = gate.folder();
    let _end = EndOf(folder.join("run/pid"));
    let mut command = Command::new("strace");
    // Only the three calls are stopped at: the program runs at its own speed.
    command.args(["-f", "-qq", "--seccomp-bpf", "-o", "/dev/null"]);
    command.args(["-e", "trace=landlock_create_ruleset,landlock_add_rule,landlock_restrict_self"]);
    command.args(["-e", "inject=landlock_create_ruleset:error=ENOSYS"]);
    command.arg(env!("CARGO_BIN_EXE_pskgate")).args(["run", "pskgate.toml"]);
    command.current_dir(folder).env("RUNTIME_DIRECTORY", folder);
    let _traced = Process::spawn("strace", "the Debian package strace", &mut command);
    let log = || fs::read_to_string(folder.join("logs/log")).unwrap_or_default();
    let line = until("the line", WAIT_TIMEOUT, || {
        log().lines().find(|line| line.contains("no landlock")).map(str::to_owned)
    });
    assert!(line.contains(" debug "), "{line}");
    until("it to serve", WAIT_TIMEOUT, || log().contains("accepting connections").then_some(()));
    // Nothing limits writing there, and so nothing is refused for it.
    let text = fs::read_to_string(folder.join("pskgate.toml")).unwrap();
    replace(&folder.join("pskgate.toml"), &text.replace("logs/log", "elsewhere/log"));
    let done = pskgate(folder, &["reload", "pskgate.toml"]);
    assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
}
