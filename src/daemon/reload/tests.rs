#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use super::read::{ReloadJob, ReloadRefusal};
use super::*;
use crate::config::{self, Format};
use crate::daemon::build::{BuiltConfig, limits};
use crate::daemon::files::Files;
use crate::secrets::KeyFileReader;
use crate::tunnel::{ProcessLimits, ProcessResources, Service};

const KEY: &str = "client1:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n";

fn write_key(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// A reload of the configuration in a folder, where `meanwhile` happens after everything was read of it.
fn job(folder: &Path, meanwhile: impl Fn() + Send + Sync + 'static) -> ReloadJob {
    let file = folder.join("pskgate.toml");
    let (config, mut report) = config::survey(&file, Format::Auto);
    let plan = BuiltConfig::build(&config.unwrap(), &mut report).unwrap();
    let shared =
        ProcessResources::new(ProcessLimits { sessions: 10, connections: 10, handshakes: 10 });
    let in_force = plan.services.into_iter().map(|(config, snapshot)| {
        let service = Service::new(&config.name.value, snapshot, limits(&config), shared.clone());
        let snapshot = service.snapshot();
        ServiceInForce { service, config: Arc::new(config), snapshot }
    });
    ReloadJob {
        in_force: in_force.collect(),
        load: Arc::new(move || {
            let read = config::survey(&file, Format::Auto);
            meanwhile();
            read
        }),
        held: HeldListeners::default(),
        files: plan.files,
        inetd: false,
        unfinished: BTreeSet::new(),
        last: Vec::new(),
        is_of_keys: false,
        is_retry: false,
        expected: None,
        cancelled: Arc::default(),
    }
}

fn scene() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_key(&folder.path().join("psk.txt"), KEY);
    let text = "[services.a]\nmode = \"server\"\naccept = \"127.0.0.1:0\"\nconnect = \"127.0.0.1:9\"\n\
                psk-secrets = \"psk.txt\"\n";
    fs::write(folder.path().join("pskgate.toml"), text).unwrap();
    folder
}

fn names(files: &Files) -> Vec<String> {
    let now = files.read_contents();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.changed_in(&now).map(name).collect()
}

#[test]
fn an_edit_between_the_reading_and_the_end_of_a_reload_is_seen_as_a_change() {
    let folder = scene();
    let (keys, file) = (folder.path().join("psk.txt"), folder.path().join("pskgate.toml"));
    let calm = job(folder.path(), || {});
    let (send, _keys) = oneshot::channel();
    let read = calm.run(send);
    assert!(read.result.is_ok(), "{:?}", read.report.diagnostics);
    assert_eq!(names(&read.files), [""; 0], "nothing happened");

    let text = fs::read_to_string(&file).unwrap();
    let job = job(folder.path(), move || {
        write_key(&keys, &format!("{KEY}client2:another key of more than thirty-two bytes\n"));
        fs::write(&file, format!("{text}# another line\n")).unwrap();
    });
    let (send, mut renewed) = oneshot::channel();
    let read = job.run(send);
    // What is in force is what was read first.
    assert_eq!(renewed.try_recv().unwrap().sets()[0].len(), 1);
    let (_, bound) = *read.result.unwrap();
    assert_eq!(bound.services[0].snapshot.secrets().len(), 1, "a file is read once");
    assert_eq!(names(&read.files), ["psk.txt", "pskgate.toml"]);
}

#[test]
fn the_start_notes_what_it_has_parsed() {
    let folder = scene();
    let file = folder.path().join("pskgate.toml");
    let (config, mut report) = config::survey(&file, Format::Auto);
    fs::write(&file, "another text").unwrap();
    let plan = BuiltConfig::build(&config.unwrap(), &mut report).unwrap();
    write_key(
        &folder.path().join("psk.txt"),
        "client1:another key of more than thirty-two bytes\n",
    );
    assert_eq!(names(&plan.files), ["psk.txt", "pskgate.toml"]);
}

#[test]
fn a_configuration_that_somebody_is_writing_is_left_alone_and_its_keys_are_not() {
    let folder = scene();
    let (keys, file) = (folder.path().join("psk.txt"), folder.path().join("pskgate.toml"));
    let mut job = job(folder.path(), || {});
    fs::write(&file, "[servi").unwrap();
    write_key(&keys, "client2:another key of more than thirty-two bytes\n");
    job.unfinished.insert(file.clone());
    let (send, mut renewed) = oneshot::channel();
    let read = job.run(send);
    assert!(matches!(read.result, Err(ReloadRefusal::KeysAlone)));
    assert!(renewed.try_recv().unwrap().sets()[0].find(b"client2").is_some());
    assert_eq!(names(&read.files), ["pskgate.toml"], "it is looked at when it is done");
}

#[test]
fn a_key_that_a_client_end_presents_is_not_taken_by_a_server_end_and_holds_up_no_other() {
    let folder = scene();
    let file = folder.path().join("pskgate.toml");
    let more = "\n[services.b]\nmode = \"client\"\naccept = \"127.0.0.1:0\"\nconnect = \"127.0.0.1:9\"\n\
                psk-identity = \"client9\"\npsk-secrets = \"own.txt\"\n";
    let text = fs::read_to_string(&file).unwrap() + more;
    fs::write(&file, text).unwrap();
    let own = KEY.replace("client1", "client9").replace("0123", "3210");
    write_key(&folder.path().join("own.txt"), &own);
    let job = job(folder.path(), || {});
    write_key(
        &folder.path().join("psk.txt"),
        &format!("client3:one more key of thirty-two bytes or so\n{own}"),
    );
    let renewal = KeyRenewal::read(&job.in_force, &mut KeyFileReader::default(), &[]);
    let set = &renewal.sets()[0];
    assert!(set.find(b"client3").is_some() && set.find(b"client1").is_none());
    assert!(set.find(b"client9").is_none(), "it could be turned against this program");
    assert!(renewal.findings.iter().any(|finding| finding.code == "shared-with-client"));
}

#[test]
fn a_mistake_in_the_files_is_one_that_no_waiting_helps_and_a_busy_address_is_an_obstacle() {
    let folder = scene();
    let file = folder.path().join("pskgate.toml");
    let text = fs::read_to_string(&file).unwrap();
    let outcome = |new: &str| {
        fs::write(&file, &text).unwrap();
        let job = job(folder.path(), || {});
        fs::write(&file, new).unwrap();
        let (send, _keys) = oneshot::channel();
        job.run(send).result.err()
    };
    assert_eq!(outcome(&text), None);
    let mistakes =
        ["not toml at all", &text.replace("mode", "moode"), &text.replace("psk.txt", "no.txt")];
    for mistake in mistakes {
        assert_eq!(outcome(mistake), Some(ReloadRefusal::Mistake), "{mistake}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = text.replace("127.0.0.1:0", &taken.local_addr().unwrap().to_string());
    assert_eq!(outcome(&busy), Some(ReloadRefusal::Obstacle));
}
