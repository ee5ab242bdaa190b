//! Key files: what keygen makes, and what a service takes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use crate::harness::process::pskgate;
use crate::harness::stage::need_root;
use crate::harness::{
    Backend, IDENTITY, KEY, OpensslClient, PlainClient, PskgateBuilder, Stunnel, Tls, WAIT_TIMEOUT,
    client_toml, free_port, openssl, secret, server_toml, write_private,
};

fn folder() -> TempDir {
    TempDir::new().expect("a folder for the test")
}

/// What keygen writes on its output: exactly one line.
fn keygen(arguments: &[&str]) -> (String, String) {
    let done = pskgate(folder().path(), &[&["keygen"], arguments].concat());
    assert_eq!(done.code, Some(0), "{}", done.err);
    let line = done.out.strip_suffix('\n').expect("a line");
    assert!(!line.contains(['\n', '\r', ' ']), "one line and no blanks: {line:?}");
    let (identity, key) = line.split_once(':').expect("identity:key");
    assert!(!done.err.contains(key), "the key is on stderr too");
    (identity.to_owned(), key.to_owned())
}

#[test]
fn keygen_s_key_is_base64_of_48_bytes_as_in_the_founding_document() {
    let (identity, key) = keygen(&["client1"]);
    assert_eq!(identity, "client1");
    assert_eq!(key.len(), 64, "{key}");
    assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b)), "{key}");
    assert!(!key.bytes().all(|b| b.is_ascii_hexdigit()), "stunnel would decode it: {key}");
    assert_ne!(keygen(&["client1"]).1, key, "every key is another");
}

#[test]
fn keygen_makes_keys_of_other_sizes_and_in_hex() {
    assert_eq!(keygen(&["a", "--bytes", "32"]).1.len(), 44);
    let (_, hex) = keygen(&["a", "--hex", "--bytes", "32"]);
    assert_eq!(hex.len(), 64);
    assert!(hex.bytes().all(|b| b.is_ascii_hexdigit()), "{hex}");
}

#[test]
fn keygen_refuses_what_no_service_would_take() {
    let long = "x".repeat(256);
    for arguments in [
        &["a:b"][..],
        &[""],
        &["new\nline"],
        &["a", "--bytes", "8"],
        &["a", "--bytes", "100000"],
        &[&long],
    ] {
        let done = pskgate(folder().path(), &[&["keygen"], arguments].concat());
        assert!(done.code.is_some_and(|code| code != 0), "{arguments:?} was taken: {}", done.out);
        assert_eq!(done.out, "", "no key for {arguments:?}");
        assert!(!done.err.is_empty(), "a reason for {arguments:?}");
    }
}

#[test]
fn keygen_writes_a_file_for_its_owner_alone_and_never_over_another() {
    let folder = folder();
    let file = folder.path().join("psk.txt");
    let done = pskgate(folder.path(), &["keygen", "client1", "--output", "psk.txt"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let written = std::fs::read_to_string(&file).unwrap();
    let key = written
        .strip_prefix("client1:")
        .and_then(|rest| rest.strip_suffix('\n'))
        .expect("one line");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!done.out.contains(key) && !done.err.contains(key), "the key is in the file only");

    let again = pskgate(folder.path(), &["keygen", "client2", "--output", "psk.txt"]);
    assert!(again.code.is_some_and(|code| code != 0), "it was written over");
    assert!(again.err.contains("psk.txt"), "the file is named: {}", again.err);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), written);
}

#[test]
fn a_key_from_keygen_is_the_same_key_to_stunnel() {
    for form in [&["client1"][..], &["client1", "--hex"], &["client1", "--bytes", "32"]] {
        let (identity, key) = keygen(form);
        let line = secret(&identity, &key);
        let backend = Backend::echo();
        let text = server_toml(backend.address(), "");
        let gate = PskgateBuilder::new().file("psk.txt", &line).toml(&text).start();
        let stunnel = Stunnel::client_with(gate.address("tls"), &line, "");
        PlainClient::connect(stunnel.address()).echo(b"the same key");
    }
}

#[test]
fn identities_and_keys_of_every_legal_size_work_in_both_versions() {
    let sizes = [(1, 16), (127, 64), (128, 256), (255, 512)];
    let pairs =
        sizes.map(|(identity, key)| ("i".repeat(identity), format!("{:k<key$}", "not hex ")));
    let lines: String = pairs.iter().map(|(identity, key)| secret(identity, key)).collect();
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let gate = PskgateBuilder::new()
            .file("psk.txt", &lines)
            .toml(&server_toml(backend.address(), ""))
            .start();
        for (identity, key) in &pairs {
            let text = client_toml(gate.address("tls"), tls.toml()).replace(IDENTITY, identity);
            let client =
                PskgateBuilder::new().file("psk.txt", &secret(identity, key)).toml(&text).start();
            PlainClient::connect(client.address("plain")).echo(b"it fits");
            let list = openssl::psk_of(identity, key).into_iter().chain([tls.flag().to_owned()]);
            OpensslClient::start(gate.address("tls"), list).echo("it fits OpenSSL too");
        }
    }
}

/// `check` on a server service with this secrets file: what it said, which must be a refusal.
fn refusal(secrets: &str) -> String {
    let gate = PskgateBuilder::new().file("psk.txt", secrets).toml(&server_toml("127.0.0.1:9", ""));
    let done = pskgate(gate.folder(), &["check", "pskgate.toml"]);
    assert!(done.code.is_some_and(|code| code != 0), "it was taken: {secrets:?}");
    format!("{}{}", done.out, done.err)
}

#[test]
fn a_bad_line_is_named_by_its_number_and_no_key_is_shown() {
    let good = secret("good", KEY);
    for (bad, line) in [
        (format!("{good}no colon in this line\n"), 2),
        (format!("{good}\n{}", secret("", KEY)), 3),
        (format!("{good}{}", secret(&"i".repeat(256), KEY)), 2),
        (format!("{good}short:0123456789abcde\n"), 2),
        (format!("{good}long:{}\n", "k".repeat(513)), 2),
        (format!("{good}{good}"), 2),
    ] {
        let said = refusal(&bad);
        let place = format!("psk.txt:{line}");
        assert!(
            said.contains(&place) || said.contains(&format!("line {line}")),
            "line {line} is not named in: {said}"
        );
        assert!(!said.contains(KEY), "the key is shown: {said}");
        assert!(!said.contains("0123456789abcde"), "the short key is shown: {said}");
    }
    for empty in ["", "\n\n"] {
        assert!(refusal(empty).contains("psk.txt"), "an empty file opens no service");
    }
}

fn set_mode(file: &Path, mode: u32) {
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_key_file_that_others_can_read_is_refused_natively_and_warned_about_in_a_stunnel_conf() {
    for (mode, fine) in [
        (0o600, true),
        (0o640, true),
        (0o440, true),
        (0o644, false),
        (0o660, false),
        (0o602, false),
    ] {
        let conf = format!("[tls]\naccept = {}\nconnect = 9\nPSKsecrets = psk.txt\n", free_port());
        let gate =
            PskgateBuilder::new().toml(&server_toml("127.0.0.1:9", "")).file("stunnel.conf", &conf);
        set_mode(&gate.folder().join("psk.txt"), mode);

        let native = pskgate(gate.folder(), &["check", "pskgate.toml"]);
        assert_eq!(native.code == Some(0), fine, "{mode:o}: {}{}", native.out, native.err);
        if !fine {
            let said = format!("{}{}", native.out, native.err);
            assert!(said.contains("psk.txt") && said.contains("chmod"), "file and remedy: {said}");
        }

        let drop_in = pskgate(gate.folder(), &["check", "stunnel.conf"]);
        assert_eq!(drop_in.code, Some(0), "{mode:o}: {}{}", drop_in.out, drop_in.err);
        if mode == 0o644 {
            let said = format!("{}{}", drop_in.out, drop_in.err);
            assert!(said.contains("warning") && said.contains("psk.txt"), "a warning: {said}");
        }
    }
}

#[test]
fn a_key_file_that_others_can_read_is_taken_natively_where_that_is_allowed_by_name() {
    let backend = Backend::echo();
    let text = server_toml(backend.address(), "allow-loose-permissions = true");
    let gate = PskgateBuilder::new().toml(&text);
    set_mode(&gate.folder().join("psk.txt"), 0o644);
    let gate = gate.start();
    OpensslClient::start(gate.address("tls"), openssl::psk()).echo("as you say");
}

#[test]
fn several_files_and_a_folder_of_files_open_one_service() {
    let gate = PskgateBuilder::new();
    let drawer = gate.folder().join("psk.d");
    std::fs::create_dir(&drawer).unwrap();
    crate::harness::write_private(&drawer.join("bob.txt"), &secret("bob", KEY));
    let backend = Backend::echo();
    let text =
        server_toml(backend.address(), "").replace("\"psk.txt\"", "[\"psk.txt\", \"psk.d\"]");
    let gate = gate.toml(&text).start();
    for identity in [IDENTITY, "bob"] {
        OpensslClient::start(gate.address("tls"), openssl::psk_of(identity, KEY)).echo("come in");
        gate.wait_logged(&format!("identity \"{identity}\""));
    }
}

/// What a Beremiz project keeps of its PLCs: a line of it would be an identity and its key.
const MANAGEMENT: &str =
    "[[\"plc1\", \"ERPC://192.168.0.7:3000#and so on, for long enough to be a key\"]]\n";

#[test]
fn a_folder_of_keys_is_read_without_what_other_programs_leave_there_and_no_json_is_a_key() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new();
    let folder = gate.folder().join("psk.d");
    std::fs::create_dir(&folder).unwrap();
    set_mode(&folder, 0o755);
    write_private(&folder.join("good"), &secret(IDENTITY, KEY));
    for name in ["management.json", "#psk.txt#", ".psk.txt.swp", "psk.rpmnew", "README"] {
        write_private(&folder.join(name), &secret("stranger", KEY));
    }
    let text = server_toml(backend.address(), "").replace("\"psk.txt\"", "\"psk.d\"");
    let gate = gate.toml(&text);
    let done = pskgate(gate.folder(), &["check", "pskgate.toml"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(done.err.matches("passed-over").count(), 5, "{}", done.err);
    let gate = gate.start();
    OpensslClient::start(gate.address("tls"), openssl::psk()).echo("come in");
    assert!(
        OpensslClient::start(gate.address("tls"), openssl::psk_of("stranger", KEY))
            .alert()
            .is_some()
    );

    // What vim does before it writes is no change that counts.
    let (vims, lines) = (folder.join("4913"), gate.log().lines().count());
    write_private(&vims, "");
    std::fs::remove_file(&vims).unwrap();
    // One that is, refused with its name.
    write_private(&folder.join("plcs"), MANAGEMENT);
    gate.wait_logged("not reloaded");
    let log = gate.log();
    let told: Vec<_> = log.lines().skip(lines).filter(|line| line.contains(" error ")).collect();
    assert!(told.len() == 2 && told[0].contains("psk.d/plcs is JSON"), "{told:?}");
    OpensslClient::start(gate.address("tls"), openssl::psk()).echo("still in");
    assert!(
        OpensslClient::start(gate.address("tls"), openssl::psk_of("[[\"plc1\", \"ERPC", KEY))
            .alert()
            .is_some()
    );
}

/// Kubernetes mounts secrets with mode 1777, and read-only.
#[test]
fn a_folder_of_keys_that_all_may_write_to_is_refused_unless_nobody_can() {
    need_root();
    let backend = Backend::echo();
    let text = server_toml(backend.address(), "").replace("\"psk.txt\"", "\"psk.d\"");
    let conf = format!(
        "[tls]\naccept = {}\nconnect = {}\nPSKsecrets = psk.d\n",
        free_port(),
        backend.address()
    );
    let make = |gate: PskgateBuilder| {
        let folder = gate.folder().join("psk.d");
        std::fs::create_dir(&folder).unwrap();
        set_mode(&folder, 0o777);
        write_private(&folder.join("good"), &secret(IDENTITY, KEY));
        gate
    };
    let mut refused = make(PskgateBuilder::new().toml(&text)).launch();
    assert_eq!(refused.exit_code(WAIT_TIMEOUT), Some(78), "{}", refused.log());
    assert!(refused.log().contains("loose-folder"), "{}", refused.log());
    let warned = make(PskgateBuilder::new().conf("x.conf", &conf, None)).start();
    warned.wait_logged("place and remove files");

    let mounted = "mount -t tmpfs -o mode=1777 tmpfs psk.d && (umask 077; cp psk.txt psk.d/good) && \
                   mount -o remount,ro,mode=1777 psk.d && exec \"$@\"";
    let gate = make(PskgateBuilder::new().toml(&text))
        .shell(&format!("exec unshare --mount sh -c '{mounted}' sh \"$@\""))
        .start();
    OpensslClient::start(gate.address("tls"), openssl::psk()).echo("come in");
}

/// What Beremiz 1.2 wrote: 256 characters of BinHex' alphabet, no newline, readable by all.
#[test]
fn the_key_file_of_an_old_beremiz_works_as_it_stands() {
    const ALPHABET: &str = "!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr";
    let key: String = ALPHABET.chars().chain(ALPHABET.chars().rev()).cycle().take(256).collect();
    let backend = Backend::echo();
    let port = free_port();
    let text =
        format!("[plc]\naccept = {port}\nconnect = {}\nPSKsecrets = psk.txt\n", backend.address());
    let gate = PskgateBuilder::new().file("psk.txt", &format!("plc-1:{key}")).conf(
        "stunnel.conf",
        &text,
        None,
    );
    set_mode(&gate.folder().join("psk.txt"), 0o644);
    let gate = gate.start();
    OpensslClient::start(gate.address("plc"), openssl::psk_of("plc-1", &key)).echo("as it stands");
}

/// Bareos' identities have a record separator in them.
#[test]
fn a_converted_file_with_control_characters_in_its_identities_runs() {
    let backend = Backend::echo();
    let keys = secret("R_CONSOLE\u{1e}name", KEY);
    let port = free_port();
    let ends = [
        format!(
            "foreground = yes\n[s]\naccept = 127.0.0.1:{port}\nconnect = {}\nPSKsecrets = psk.txt\n",
            backend.address()
        ),
        format!(
            "foreground = yes\n[c]\nclient = yes\naccept = 127.0.0.1:{}\nconnect = 127.0.0.1:{port}\n\
             PSKidentity = R_CONSOLE\u{1e}name\nPSKsecrets = psk.txt\n",
            free_port()
        ),
    ];
    let gates = ends.map(|text| {
        let gate = PskgateBuilder::new().file("psk.txt", &keys).conf("x.conf", &text, None);
        let arguments = ["convert", "x.conf", "--output", "pskgate.toml"];
        let done = pskgate(gate.folder(), &arguments);
        assert_eq!(done.code, Some(0), "{}", done.err);
        let toml = std::fs::read_to_string(gate.folder().join("pskgate.toml")).unwrap();
        assert!(toml.contains("allow-control-characters = true"), "{toml}");
        let done = pskgate(gate.folder(), &["check", "pskgate.toml"]);
        assert_eq!(done.code, Some(0), "{}", done.err);
        let strict = toml.replace("allow-control-characters = true", "");
        write_private(&gate.folder().join("strict.toml"), &strict);
        let done = pskgate(gate.folder(), &["check", "strict.toml"]);
        assert_eq!(done.code, Some(78), "{}", done.err);
        assert!(done.err.contains("allow-control-characters = true"), "{}", done.err);
        // The harness waits for lines of a native file's own level and form.
        let toml = toml.replace("level = \"notice\"", "level = \"info\"");
        let toml = toml.replace("format = \"stunnel\"", "format = \"human\"");
        PskgateBuilder::new().file("psk.txt", &keys).toml(&toml)
    });
    let [server, client] = gates.map(PskgateBuilder::start);
    let session = PlainClient::connect(client.address("c"));
    session.echo(b"as R_CONSOLE");
    server.wait_logged("R_CONSOLE\\u{1e}name");
}
