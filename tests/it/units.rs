//! A configuration for a unit of systemd's: what its user may not do is told before the first start. No service
//! manager runs here; the units are files.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::harness::stage::{self, StunnelFolder};
use crate::harness::{KEY, free_port, program_command, secret, write_private};

/// User and group `nobody` and `nogroup`.
const NOBODY: u32 = 65534;

/// A unit as the package has it, for the files of this folder.
const UNIT: &str = "[Service]\nExecStart=/usr/bin/pskgate run FOLDER/%i.toml\nUser=nobody\nProtectSystem=strict\n\
                    LogsDirectory=pskgate\nLogsDirectoryMode=0750\nLimitNOFILE=4096\n";

struct Machine {
    stage: StunnelFolder,
}

impl Machine {
    /// With a typical file of Debian's stunnel4, a key that root alone may read, and the unit.
    fn new() -> Self {
        stage::need_root();
        let stage = StunnelFolder::new();
        let conf = format!(
            "setuid = daemon\nsetgid = daemon\npid = /run/stunnel4/plc.pid\noutput = /var/log/stunnel4/plc.log\n\
             [plc]\naccept = 127.0.0.1:{}\nconnect = 127.0.0.1:9\nciphers = PSK\nPSKsecrets = {}\n",
            free_port(),
            stage.path("psk.txt").display()
        );
        stage.file("stunnel.conf", &conf);
        write_private(&stage.path("psk.txt"), &secret("client1", KEY));
        let machine = Self { stage };
        std::fs::create_dir(machine.path("units")).unwrap();
        let unit = UNIT.replace("FOLDER", &machine.folder().display().to_string());
        std::fs::write(machine.path("units/pskgate@.service"), unit).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.stage.path(name)
    }

    fn folder(&self) -> PathBuf {
        self.path("psk.txt").parent().unwrap().canonicalize().unwrap()
    }

    /// Standard output and standard error as one text, and the exit code.
    fn run(&self, arguments: &[&str]) -> (String, Option<i32>) {
        let mut command = program_command();
        command.args(arguments).current_dir(self.folder());
        command.env("SYSTEMD_UNIT_PATH", self.path("units"));
        text_of(&command.output().unwrap())
    }

    /// Lets the user of the unit read these files.
    fn give(&self, names: &[&str]) {
        for name in names {
            std::os::unix::fs::chown(self.path(name), None, Some(NOBODY)).unwrap();
            set_mode(&self.path(name), 0o640);
        }
    }
}

fn text_of(output: &Output) -> (String, Option<i32>) {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(!text.contains(KEY), "a key was printed");
    (text, output.status.code())
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[track_caller]
fn has_all(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in\n{text}");
    }
}

/// What a typical file lacks for the unit, and the cure of each.
const OBSTACLES: [&str; 6] = [
    "user nobody may not read",
    "chgrp nogroup",
    "cannot become user daemon",
    "remove `user` and `group`",
    "user nobody may not write /var/log/stunnel4/plc.log",
    "output = \"/var/log/pskgate/plc.log\"",
];

#[test]
fn convert_check_and_doctor_foretell_what_the_user_of_the_unit_may_not_do() {
    let machine = Machine::new();
    let (text, _) = machine.run(&["convert", "stunnel.conf", "--output", "plc.toml"]);
    has_all(&text, &OBSTACLES);
    assert!(text.contains("as pskgate@plc.service, "), "{text}");

    let (text, code) = machine.run(&["check", "plc.toml"]);
    has_all(&text, &OBSTACLES);
    has_all(&text, &["warning[unit-cannot-read]", "warning[unit-cannot-become]"]);
    assert_eq!(code, Some(0), "the program may be started in another way: {text}");

    let (text, code) = machine.run(&["doctor", "plc.toml"]);
    has_all(&text, &OBSTACLES);
    has_all(&text, &["judged for pskgate@plc.service", "user nobody and group nogroup", "4096"]);
    assert_eq!(code, Some(78), "{text}");
    assert!(text.contains("the limit is 4096"), "the limit of the unit: {text}");

    // Another file is none of the unit's, and root may do all of it.
    std::fs::rename(machine.path("plc.toml"), machine.path("plc.other")).unwrap();
    let (text, _) = machine.run(&["doctor", "plc.other", "--format", "toml"]);
    assert!(!text.contains("judged for") && !text.contains("nobody may not"), "{text}");
}

#[test]
fn a_file_made_for_the_unit_lacks_the_right_to_its_key_alone() {
    let machine = Machine::new();
    let order = ["convert", "--for-systemd", "stunnel.conf", "--output", "plc.toml"];
    let (text, _) = machine.run(&order);
    has_all(&text, &OBSTACLES[..2]);
    for obstacle in &OBSTACLES[2..] {
        assert!(!text.contains(obstacle), "{text}");
    }
    let made = machine.stage.read("plc.toml");
    let is_set = |key: &str| made.lines().any(|line| line.starts_with(&format!("{key} =")));
    assert!(!is_set("user") && !is_set("group") && !is_set("pid"), "{made}");
    has_all(&made, &["output = \"/var/log/pskgate/plc.log\"", "# setuid = daemon"]);

    machine.give(&["plc.toml", "psk.txt"]);
    let (text, code) = machine.run(&["doctor", "plc.toml"]);
    assert!(!text.contains("unit-cannot"), "{text}");
    assert_eq!(code, Some(0), "{text}");
    // The key is of no use to a user whom the file is not for.
    let (text, code) = machine.run(&["doctor", "plc.toml", "--as", "daemon"]);
    has_all(&text, &["user daemon may not read", "as --as says"]);
    assert_eq!(code, Some(78), "{text}");
    let (text, _) = machine.run(&["doctor", "plc.toml", "--as", "root"]);
    has_all(&text, &["judged for root"]);
    assert!(!text.contains("may not read"), "{text}");
    let (text, code) = machine.run(&["doctor", "plc.toml", "--as", "no-such-user"]);
    has_all(&text, &["no-such-account"]);
    assert_eq!(code, Some(78), "{text}");
}

#[test]
fn a_key_file_may_belong_to_the_user_of_the_unit() {
    let machine = Machine::new();
    machine.run(&["convert", "--for-systemd", "stunnel.conf", "--output", "plc.toml"]);
    machine.give(&["plc.toml"]);
    std::os::unix::fs::chown(machine.path("psk.txt"), Some(NOBODY), Some(NOBODY)).unwrap();
    set_mode(&machine.path("psk.txt"), 0o600);
    for command in ["check", "doctor"] {
        let (text, code) = machine.run(&[command, "plc.toml"]);
        assert!(!text.contains("foreign-owner"), "{text}");
        assert_eq!(code, Some(0), "{text}");
    }
}

#[test]
fn a_port_for_root_needs_a_socket_unit_or_a_capability() {
    let machine = Machine::new();
    let low = "[services.plc]\nmode = \"server\"\naccept = 1\nconnect = \"127.0.0.1:9\"\npsk-secrets = \"psk.txt\"\n";
    machine.stage.file("plc.toml", low);
    machine.give(&["plc.toml", "psk.txt"]);
    let (text, _) = machine.run(&["check", "plc.toml"]);
    has_all(&text, &["unit-cannot-listen", "systemctl edit pskgate@plc.service"]);
    let folder = machine.path("units/pskgate@plc.service.d");
    std::fs::create_dir(&folder).unwrap();
    let drop_in = "[Service]\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n";
    std::fs::write(folder.join("override.conf"), drop_in).unwrap();
    let (text, _) = machine.run(&["check", "plc.toml"]);
    assert!(!text.contains("unit-cannot-listen"), "{text}");
}

/// As the user of a unit would, without one.
#[test]
fn a_program_without_rights_says_what_gives_them() {
    let machine = Machine::new();
    let port = free_port();
    let service = format!(
        "[services.plc]\nmode = \"server\"\naccept = \"127.0.0.1:{port}\"\nconnect = \"127.0.0.1:9\"\npsk-secrets = \"psk.txt\"\n"
    );
    machine.stage.file("plc.toml", &service);
    machine.stage.file("other.toml", &format!("# one\nuser = \"daemon\"\n{service}"));
    let run = |arguments: &[&str]| {
        let mut command = program_command();
        command.args(arguments).current_dir(machine.folder()).uid(NOBODY).gid(NOBODY);
        text_of(&command.env("RUNTIME_DIRECTORY", machine.folder()).output().unwrap())
    };
    machine.give(&["plc.toml", "other.toml"]);
    let (text, _) = run(&["check", "plc.toml"]);
    has_all(&text, &["not-readable", "chgrp nogroup", "psk.txt && chmod 640"]);
    machine.give(&["psk.txt"]);
    let (text, code) = run(&["run", "other.toml"]);
    has_all(
        &text,
        &["other.toml:2: cannot change to the configured user", "remove `user` and `group`"],
    );
    assert_eq!(code, Some(77), "{text}");
}
