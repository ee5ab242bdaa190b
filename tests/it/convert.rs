//! `convert`: the new file comes to what the old one came to, for every file of the corpus.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pskgate::config::convert::{ConversionRequest, Converted, convert};
use pskgate::config::diagnostic::Diagnostics;
use pskgate::config::effective::describe;
use pskgate::config::model::{Config, Dialect};
use pskgate::config::{Format, load_text, survey_text};
use socket2::SockRef;
use tempfile::TempDir;

use crate::differential::corpus::{self, Case, bytes};
use crate::differential::facts::{self, Certificate, Outcome, Program};
use crate::harness::process::pskgate;
use crate::harness::{
    Backend, ConnectionEnd, IDENTITY, KEY, OTHER_KEY, OpensslClient, PlainClient, Process,
    PskgateBuilder, WAIT_TIMEOUT, client_toml, free_port, local, openssl, root, secret,
    write_private,
};

/// A case's text with numbers for its ports, and its files in the folder.
fn filled(case: &Case, folder: &Path) -> Vec<u8> {
    let dir = folder.to_str().unwrap();
    let fill = |text: &str| {
        let mut text = text.replace("$DIR", dir);
        text = text.replace("$CERTKEY", "/etc/key.pem").replace("$CERT", "/etc/cert.pem");
        for (number, kind) in (1_u32..).zip(["A", "P", "B", "T", "X"]) {
            for digit in 1..10 {
                text = text.replace(
                    &format!("${kind}{digit}"),
                    &(10_000 + number * 100 + digit).to_string(),
                );
            }
        }
        bytes(&text)
    };
    for (name, text) in &case.files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_private(&path, "");
        std::fs::write(path, fill(text)).unwrap();
    }
    fill(&case.whole())
}

fn order(to: Dialect, folder: &Path) -> ConversionRequest<'_> {
    ConversionRequest {
        format: Format::Auto,
        to,
        start: folder,
        home: Some(folder),
        unit_logs: None,
    }
}

/// What a file comes to, in the words of native files, without who decided it and where it stays.
fn comes_to(mut config: Config) -> Vec<String> {
    config.dialect = Dialect::Native;
    describe(&config)
        .lines()
        .skip(1)
        .filter_map(|line| line.split("  # ").next())
        .map(|line| line.trim_end().to_owned())
        .filter(|line| !line.starts_with("  foreground ="))
        .collect()
}

/// The same with keepalive as a native file has it: in a stunnel.conf it is four socket options.
fn with_keepalive(lines: &[String]) -> Vec<String> {
    let text = lines.join("\n");
    let options = |side: &str, on: [&str; 4]| {
        let [alive, idle, interval, count] = on;
        format!(
            "\n  socket = {side}:SO_KEEPALIVE={alive}\n  socket = {side}:TCP_KEEPIDLE={idle}\n  socket = \
             {side}:TCP_KEEPINTVL={interval}\n  socket = {side}:TCP_KEEPCNT={count}"
        )
    };
    let mut text = text;
    for side in ["downstream", "upstream"] {
        text = text.replace(&options(side, ["1", "15", "5", "3"]), "\n(keepalive)");
    }
    // Sockets are listed by side, and keepalive stands above them all.
    let mut blocks: Vec<String> = text.split("\n\n").map(str::to_owned).collect();
    for block in &mut blocks {
        if block.contains("\n(keepalive)") {
            *block = block
                .replace("\n(keepalive)", "")
                .replace("keepalive = off", "keepalive = 15s/5s/3");
        }
    }
    blocks.join("\n\n").lines().map(str::to_owned).collect()
}

fn loaded(text: &[u8], name: &str, folder: &Path) -> Result<Config, Diagnostics> {
    load_text(text, Path::new(name), folder, Format::Auto).map(|(config, _)| config)
}

fn lists(report: &Diagnostics) -> String {
    report.render(false)
}

/// Two sections of one name have two here, and one without a name has one.
fn is_renamed(converted: &Converted) -> bool {
    let mut found = converted.report.diagnostics.iter();
    found.any(|one| one.message.starts_with("this service is called"))
}

#[test]
fn every_file_of_the_corpus_comes_to_the_same_in_the_other_language_and_back() {
    let (mut kept, mut refused, mut wrong) = (0, 0, Vec::new());
    for case in corpus::all() {
        let folder = TempDir::new().unwrap();
        let folder = folder.path();
        let text = filled(&case, folder);
        let name = Path::new("case.conf");
        let (config, report) = survey_text(&text, name, folder, Format::Auto);
        let converted = convert(&text, name, &order(Dialect::Native, folder));
        let original = config.filter(|_| !report.has_errors());
        let mut complain =
            |what: &str, text: &str| wrong.push(format!("== {}\n{what}\n{text}", case.name));
        match (original, converted) {
            (None, Err(said)) => {
                refused += 1;
                assert!(said.has_errors(), "{}", case.name);
            }
            (None, Ok(converted)) => {
                refused += 1;
                // The line that was refused there is refused here.
                if !converted.report.has_errors() {
                    complain("no error for a file that is refused", &converted.text);
                }
                if loaded(converted.text.as_bytes(), "case.toml", folder).is_ok() {
                    complain("refused there, and not here", &converted.text);
                }
            }
            (Some(config), Err(said)) => {
                if !config.is_inetd() {
                    complain("is not converted", &lists(&said));
                }
            }
            (Some(config), Ok(converted)) => {
                let ours = match loaded(converted.text.as_bytes(), "case.toml", folder) {
                    Ok(ours) => ours,
                    Err(_) if converted.report.has_errors() => {
                        refused += 1;
                        continue;
                    }
                    Err(said) => {
                        complain(&lists(&said), &converted.text);
                        continue;
                    }
                };
                let (there, here) = (comes_to(config), comes_to(ours));
                if there != here && !is_renamed(&converted) {
                    complain(&difference(&there, &here), &converted.text);
                    continue;
                }
                kept += 1;
                let back = convert(
                    converted.text.as_bytes(),
                    &folder.join("case.toml"),
                    &order(Dialect::Stunnel, folder),
                );
                let back = match back {
                    Ok(back) => back,
                    Err(said) => {
                        complain(&format!("no way back: {}", lists(&said)), &converted.text);
                        continue;
                    }
                };
                match loaded(back.text.as_bytes(), "case.conf", folder) {
                    Err(said) => complain(&format!("back: {}", lists(&said)), &back.text),
                    Ok(back_again) => {
                        let there = with_keepalive(&comes_to(back_again));
                        if there != here {
                            complain(&format!("back: {}", difference(&here, &there)), &back.text);
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases are wrong\n{}", wrong.len(), wrong.join("\n"));
    assert!(kept > 350 && refused > 150, "{kept} kept, {refused} refused");
}

fn difference(one: &[String], other: &[String]) -> String {
    let lines = |all: &[String], sign: char, without: &[String]| {
        let lines = all.iter().filter(|line| !without.contains(line));
        lines.map(|line| format!("{sign} {line}\n")).collect::<String>()
    };
    lines(one, '-', other) + &lines(other, '+', one)
}

/// At least so many are run.
const RUN: usize = 70;

/// The first case of each option that is accepted, and every caller's file.
fn representative() -> Vec<Case> {
    let is_root = rustix::process::geteuid().is_root();
    let mut seen = BTreeSet::new();
    let callers = ["founding", "Beremiz", "Buildroot", "VolSync", "Konveyor", "xapi"];
    let mut cases: Vec<Case> =
        corpus::all().into_iter().filter(|case| is_root || !case.root).collect();
    cases.retain(|case| {
        let folder = TempDir::new().unwrap();
        let text = filled(case, folder.path());
        let name = Path::new("case.conf");
        let kept = convert(&text, name, &order(Dialect::Native, folder.path()))
            .is_ok_and(|converted| !converted.report.has_errors());
        let wanted = callers.contains(&case.subject()) || !seen.contains(case.subject());
        if kept && wanted {
            seen.insert(case.subject().to_owned());
        }
        kept && wanted && !case.inetd
    });
    cases
}

#[test]
fn listeners_suites_and_backends_are_the_same_when_a_converted_file_runs() {
    let cases = representative();
    assert!(cases.len() >= RUN, "only {} cases", cases.len());
    let folder = TempDir::new().unwrap();
    openssl::certificate(folder.path());
    let certificate =
        Certificate { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    let accepted = AtomicUsize::new(0);
    let differ = |case: &Case| {
        let (there, first) = facts::run(case, Program::Pskgate, &certificate);
        let (here, second) = facts::run(case, Program::Converted, &certificate);
        if there != Outcome::Refused {
            accepted.fetch_add(1, Ordering::Relaxed);
        }
        (there != here).then(|| format!("== {}\n{there:?}\n{first}\n{here:?}\n{second}", case.name))
    };
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // A neighbour may have taken a port: what differs is looked at again.
                    if let Some(text) = differ(case).and_then(|_| differ(case)) {
                        wrong.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
    let accepted = accepted.into_inner();
    assert!(accepted >= RUN, "only {accepted} were accepted");
}

/// How a client's application sees the end of an answer that breaks off.
fn ending(gate: PskgateBuilder, entry: u16) -> ConnectionEnd {
    let _gate = gate.start();
    let plain = PlainClient::connect(local(entry));
    plain.send(b"question");
    let mut half = [0; 12];
    (&plain.0).read_exact(&mut half).unwrap();
    plain.shut();
    plain.end()
}

#[test]
fn connections_end_alike() {
    let (mut seen, mut runs) = (BTreeSet::new(), 0);
    // The idle time of one end only: of two that run out together, either is the first.
    for (options, of_the_far_end, dies) in [
        ("", "", true),
        ("reset = no", "", true),
        ("TIMEOUTclose = 1", "", false),
        ("", "TIMEOUTidle = 1", false),
    ] {
        let backend = Backend::new(move |mut stream| {
            stream.read_exact(&mut [0; 8]).ok()?;
            stream.write_all(b"half of it, ").ok()?;
            stream.read_exact(&mut [0; 1]).err()?;
            if dies {
                SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
            } else {
                std::thread::sleep(Duration::from_secs(60));
            }
            None
        });
        let (entry, middle) = (free_port(), free_port());
        let text = format!(
            "foreground = yes\nsyslog = no\nPSKsecrets = psk.txt\n{options}\n\
             [in]\nclient = yes\naccept = 127.0.0.1:{entry}\nconnect = 127.0.0.1:{middle}\n\
             [out]\naccept = 127.0.0.1:{middle}\nconnect = {}\n{of_the_far_end}\n",
            backend.address()
        );
        let there = ending(PskgateBuilder::new().conf("x.conf", &text, None), entry);
        let gate = PskgateBuilder::new().file("x.conf", &text);
        let done = pskgate(gate.folder(), &["convert", "x.conf", "-o", "pskgate.toml"]);
        assert_eq!(done.code, Some(0), "{}", done.err);
        let toml = std::fs::read_to_string(gate.folder().join("pskgate.toml")).unwrap();
        // The harness waits for lines of a native file's own level and form.
        let toml = toml.replace("level = \"notice\"", "level = \"info\"");
        let toml = toml.replace("format = \"stunnel\"", "format = \"human\"");
        let here = ending(gate.toml(&toml), entry);
        assert_eq!(there, here, "{options} {of_the_far_end}");
        seen.insert(format!("{there:?}"));
        runs += 1;
    }
    assert_eq!((seen.len(), runs), (2, 4), "both ways to end were seen: {seen:?}");
}

fn expected(name: &str, said: &str) {
    let path = root().join("tests/cases/convert").join(name);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, said).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        said == expected,
        "{name}: UPDATE_EXPECTED=1 writes it\n{said}\n--- expected\n{expected}"
    );
}

#[test]
fn comments_and_order_stay_and_what_cannot_be_kept_is_told_in_its_place() {
    let folder = root().join("tests/cases/convert");
    for (old, to, new) in [
        ("plant.conf", Dialect::Native, "plant.toml"),
        ("lossy.conf", Dialect::Native, "lossy.toml"),
        ("fleet.toml", Dialect::Stunnel, "fleet.conf"),
    ] {
        let text = std::fs::read(folder.join(old)).unwrap();
        let start = Path::new("/srv/stunnel");
        let order =
            ConversionRequest { format: Format::Auto, to, start, home: None, unit_logs: None };
        let converted = convert(&text, Path::new(old), &order).unwrap_or_else(|report| {
            panic!("{}", report.render(false));
        });
        expected(new, &converted.text);
        expected(&format!("{new}.report"), &converted.report.render(false));
        // Every comment is there, in the order of the file.
        let mut rest = converted.text.as_str();
        for line in String::from_utf8(text).unwrap().lines() {
            let Some((_, words)) = line.split_once("note: ") else { continue };
            let at =
                rest.find(words).unwrap_or_else(|| panic!("{new}: `{words}` is lost or moved"));
            // Sections that are reached by a name come last in a stunnel.conf.
            if to == Dialect::Native {
                rest = &rest[at..];
            }
        }
    }
}

#[test]
fn a_file_is_never_overwritten_without_saying() {
    let conf = "foreground = yes\nsyslog = no\n[s]\naccept = 127.0.0.1:3001\nconnect = 3000\nPSKsecrets = psk.txt\n";
    let gate = PskgateBuilder::new().file("x.conf", conf);
    let folder = gate.folder();
    std::fs::set_permissions(folder.join("x.conf"), PermissionsExt::from_mode(0o640)).unwrap();
    let to = |arguments: &[&str]| pskgate(folder, &[&["convert", "x.conf"], arguments].concat());
    let printed = to(&[]);
    assert_eq!(printed.code, Some(0), "{}", printed.err);
    let key = format!("psk-secrets = \"{}/psk.txt\"", folder.display());
    assert!(printed.out.contains(&key), "nobody knows where it will be: {}", printed.out);
    let written = to(&["-o", "new.toml"]);
    assert_eq!((written.code, written.out.as_str()), (Some(0), ""), "{}", written.err);
    assert!(written.err.contains("wrote new.toml"), "{}", written.err);
    let text = || std::fs::read_to_string(folder.join("new.toml")).unwrap();
    assert!(text().contains("psk-secrets = \"psk.txt\""), "{}", text());
    let mode = std::fs::metadata(folder.join("new.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640, "who could read the old file can read the new one");
    assert_eq!(pskgate(folder, &["check", "new.toml"]).code, Some(0));
    std::fs::write(folder.join("new.toml"), "mine").unwrap();
    let refused = to(&["-o", "new.toml"]);
    assert_eq!((refused.code, text().as_str()), (Some(73), "mine"));
    assert!(refused.err.contains("--force"), "{}", refused.err);
    let forced = to(&["-o", "new.toml", "--force"]);
    assert_eq!(forced.code, Some(0));
    assert!(forced.err.contains("replaced new.toml") && text().contains("[services.s]"));
    let elsewhere = to(&["--start-directory", "/srv"]);
    assert!(elsewhere.out.contains("psk-secrets = \"/srv/psk.txt\""), "{}", elsewhere.out);
    let odd = to(&["-o", "new.conf"]);
    assert!(odd.err.contains("--format toml"), "{}", odd.err);
}

#[test]
fn the_exit_code_tells_whether_all_was_kept() {
    let with = |global: &str, section: &str| {
        format!(
            "syslog = no\n{global}\n[s]\naccept = 127.0.0.1:1\nconnect = 2\nPSKsecrets = psk.txt\n{section}\n"
        )
    };
    for (conf, code, said) in [
        (with("foreground = yes", ""), 0, ""),
        (with("foreground = yes", "delay = yes"), 0, "notice[without-effect]"),
        (with("", ""), 1, "warning[different-meaning]"),
        (with("foreground = yes", "redirect = 80"), 1, "error[needs-certificates]"),
        (with("foreground = yes", "PSKsecrets = twice.txt"), 1, "duplicate-identity"),
        (with("foreground = maybe", ""), 78, "nothing was written"),
        ("connect = 2\nPSKsecrets = psk.txt\n".into(), 78, "error[no-counterpart]"),
    ] {
        let twice = secret(IDENTITY, KEY) + &secret(IDENTITY, OTHER_KEY);
        let gate = PskgateBuilder::new().file("x.conf", &conf).file("twice.txt", &twice);
        let done = pskgate(gate.folder(), &["convert", "x.conf", "-o", "x.toml"]);
        assert_eq!(done.code, Some(code), "{conf}\n{}", done.err);
        assert!(done.err.contains(said), "{conf}\n{}", done.err);
        assert_eq!(gate.folder().join("x.toml").exists(), code != 78, "{conf}");
    }
    let gate = PskgateBuilder::new().toml(&client_toml("127.0.0.1:1", ""));
    let same = pskgate(gate.folder(), &["convert", "pskgate.toml"]);
    assert_eq!(same.code, Some(78));
    assert!(same.err.contains("--to stunnel"), "{}", same.err);
    assert_eq!(pskgate(gate.folder(), &["convert", "nowhere.conf"]).code, Some(66));
}

/// What a section says against the file's defaults is said there too, even if it is stunnel's default.
#[test]
fn a_section_that_is_stricter_than_the_defaults_stays_so_in_a_stunnel_conf() {
    let toml = "[defaults]\nwhen-full = \"take-over\"\non-revocation = \"keep\"\n[services.a]\n\
                mode = \"server\"\naccept = 3001\nconnect = 3000\npsk-secrets = \"psk.txt\"\n\
                max-sessions = 1\nwhen-full = \"refuse\"\non-revocation = \"cut\"\n";
    let gate = PskgateBuilder::new().toml(toml);
    pskgate(gate.folder(), &["convert", "--to", "stunnel", "pskgate.toml", "-o", "x.conf"]);
    for file in ["pskgate.toml", "x.conf"] {
        let said = pskgate(gate.folder(), &["check", "--effective", file]).out;
        assert!(said.contains("when-full = refuse"), "{file}: {said}");
        assert!(said.contains("on-revocation = cut"), "{file}: {said}");
    }
}

#[test]
fn stunnel_itself_runs_what_is_written_for_it() {
    let (backend, port) = (Backend::echo(), free_port());
    let toml = format!(
        "[services.plc]\nmode = \"server\"\naccept = {port}\nconnect = \"{}\"\npsk-secrets = \"psk.txt\"\n",
        backend.address()
    );
    let gate = PskgateBuilder::new().toml(&toml);
    let done =
        pskgate(gate.folder(), &["convert", "--to", "stunnel", "pskgate.toml", "-o", "x.conf"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let start = |file: &str| {
        let mut command = std::process::Command::new("stunnel4");
        command.arg(file).current_dir(gate.folder());
        Process::spawn("stunnel4", "the Debian package stunnel4", &mut command)
    };
    let _stunnel = start("x.conf");
    for host in ["127.0.0.1", "[::1]"] {
        let to = format!("{host}:{port}").parse().unwrap();
        crate::harness::until("stunnel's port", WAIT_TIMEOUT, || {
            std::net::TcpStream::connect(to).ok()
        });
        let mut client = OpensslClient::start(to, openssl::psk());
        client.echo("through stunnel");
    }
    // Who may come from where only is not let in from everywhere by a way back.
    let narrow = toml.replace("mode =", "proxy-protocol-from = \"10.0.0.0/8\"\nmode =");
    write_private(&gate.folder().join("narrow.toml"), &narrow);
    let narrow = ["convert", "--to", "stunnel", "narrow.toml", "-o", "narrow.conf"];
    let done = pskgate(gate.folder(), &narrow);
    assert_eq!(done.code, Some(1), "{}", done.err);
    assert!(done.err.contains("nothing like `proxy-protocol-from`"), "{}", done.err);
    let mut refused = start("narrow.conf");
    assert!(!refused.wait(WAIT_TIMEOUT).success(), "{}", refused.text());
    assert!(refused.text().contains("proxy-protocol-from"), "{}", refused.text());
}

#[test]
fn what_is_secret_in_a_file_is_told_nowhere() {
    let folder = TempDir::new().unwrap();
    let secrets =
        ["hunter2", "00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100"];
    let [password, ticket, mac] = secrets;
    let text = format!(
        "foreground = yes\n[a]\nclient = yes\naccept = 127.0.0.1:1\nconnect = 127.0.0.1:2\n\
         PSKsecrets = psk.txt\nPSKidentity = client1\nprotocolPassword = {password}\n\
         ticketKeySecret = {ticket}\nTICKETMACSECRET = {mac}\n"
    );
    write_private(&folder.path().join("a.conf"), &text);
    write_private(&folder.path().join("psk.txt"), &secret(IDENTITY, KEY));
    for words in
        [["convert", "a.conf"].as_slice(), &["check", "a.conf"], &["check", "--json", "a.conf"]]
    {
        let done = pskgate(folder.path(), words);
        let said = format!("{}{}", done.out, done.err);
        assert!(said.contains("protocolPassword"), "{words:?}: it has nothing to say\n{said}");
        for secret in secrets {
            assert!(!said.contains(secret), "{words:?}\n{said}");
        }
    }
}

#[test]
fn the_only_original_is_not_replaced_by_what_comes_of_it() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("p.conf");
    let text = "[a]\naccept = 127.0.0.1:1\nconnect = 127.0.0.1:2\nPSKsecrets = psk.txt\n";
    write_private(&file, text);
    write_private(&folder.path().join("psk.txt"), &secret(IDENTITY, KEY));
    let done = pskgate(folder.path(), &["convert", "p.conf", "-o", "p.conf", "--force"]);
    assert!(done.code == Some(73) && done.err.contains("name another"), "{}", done.err);
    assert_eq!(std::fs::read_to_string(file).unwrap(), text);
}
