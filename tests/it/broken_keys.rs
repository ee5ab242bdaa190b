//! Key files that break while the program runs: whatever comes, those who were in stay in, the log says
//! once what is wrong, and the next good file takes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::harness::{
    Backend, IDENTITY, KEY, OTHER_KEY, PlainClient, Pskgate, PskgateBuilder, WAIT_TIMEOUT,
    client_toml, openssl, replace, secret, server_toml, until, write_private,
};

/// A text, hexadecimal digits and a passphrase.
fn good() -> String {
    secret(IDENTITY, KEY)
        + &secret("client2", &openssl::hex(&OTHER_KEY[..32]))
        + &secret("client3", "correct horse battery staple, thirty-two and more")
}

/// The levels and words of the log's lines, from line `from` on.
fn lines(gate: &Pskgate, from: usize) -> Vec<String> {
    gate.log().lines().skip(from).map(str::to_owned).collect()
}

/// A server end that is never without a session and a client.
struct Watched {
    server: Pskgate,
    client: Pskgate,
    session: PlainClient,
    _backend: Backend,
    reloads: usize,
}

impl Watched {
    fn new() -> Self {
        let backend = Backend::echo();
        let toml = server_toml(backend.address(), "");
        let server = PskgateBuilder::new().file("psk.txt", &good()).toml(&toml).start();
        let client = PskgateBuilder::new().toml(&client_toml(server.address("tls"), "")).start();
        let session = PlainClient::connect(client.address("plain"));
        session.echo(b"before");
        Self { server, client, session, _backend: backend, reloads: 0 }
    }

    fn count(&self, words: &str) -> usize {
        lines(&self.server, 0).iter().filter(|line| line.contains(words)).count()
    }

    /// Breaks the file in some way, waits until that was noticed, and expects one complaint.
    fn survives(&self, what: &str, words: &str, break_it: impl FnOnce(&Path)) {
        let from = lines(&self.server, 0).len();
        let before = self.count("not reloaded");
        break_it(&self.server.folder().join("psk.txt"));
        until(
            &format!("the refusal of {what}; the log is\n{}", self.server.log()),
            WAIT_TIMEOUT,
            || (self.count("not reloaded") > before).then_some(()),
        );
        self.session.echo(b"still here");
        PlainClient::connect(self.client.address("plain")).echo(b"and the old key works");
        let said = lines(&self.server, from);
        // Beside the one that says what comes of it.
        let is_about_file = |line: &&String| line.contains(" error ") && !line.contains("reloaded");
        let errors: Vec<_> = said.iter().filter(is_about_file).collect();
        assert_eq!(errors.len(), 1, "{what}: one clear line: {said:#?}");
        assert!(errors[0].contains(words), "{what}: `{words}` is not in: {}", errors[0]);
        let is_placed = errors[0].contains("psk.txt") || errors[0].contains("pskgate.toml:");
        assert!(is_placed, "{what}: the place is named: {}", errors[0]);
    }

    /// Another good file takes.
    fn recovers(&mut self) {
        self.reloads += 1;
        let newcomer = format!("client-{}", self.reloads);
        replace(
            &self.server.folder().join("psk.txt"),
            &(good() + &secret(&newcomer, &format!("{OTHER_KEY}{}", self.reloads))),
        );
        until(&format!("reload {}", self.reloads), WAIT_TIMEOUT, || {
            (self.count(": reloaded;") >= self.reloads).then_some(())
        });
        self.session.echo(b"still here");
    }
}

/// Cut by a program that moved half a file over the old one, or that writes in place and was stopped.
#[test]
fn a_file_that_is_cut_inside_a_line_changes_nothing_until_a_whole_one_comes() {
    let mut watched = Watched::new();
    let good = good();
    let start = |identity: &str| good.find(&format!("{identity}:")).expect("a line");
    let (second, third) = (start("client2"), start("client3"));
    let cuts = [
        (4, "psk.txt:1"),
        ("client1:".len(), "psk.txt:1"),
        ("client1:".len() + 15, "16 to 512 bytes"),
        ("client1:".len() + 16, "ends within the key of \"client1\""),
        (second - 2, "ends within the key of \"client1\""),
        (second + 3, "psk.txt:2"),
        (second + "client2:".len() + 31, "psk.txt:2"),
        (second + "client2:".len() + 40, "ends within the key of \"client2\""),
        (second + "client2:".len() + 41, "ends within the key of \"client2\""),
        (third + 7, "psk.txt:3"),
        (third + "client3:".len() + 20, "ends within the key of \"client3\""),
        (good.len() - 2, "ends within the key of \"client3\""),
    ];
    for (number, (cut, words)) in cuts.into_iter().enumerate() {
        watched.survives(&format!("a cut at {cut}"), words, |keys| {
            if number % 2 == 0 {
                replace(keys, &good[..cut])
            } else {
                write_private(keys, &good[..cut])
            }
        });
        if number % 4 == 3 {
            watched.recovers();
        }
    }
    assert!(!watched.server.log().contains(KEY), "a key in the log");
}

#[test]
fn what_is_no_key_file_changes_nothing_until_one_comes() {
    let mut watched = Watched::new();
    let remove = |keys: &Path| fs::remove_file(keys).expect("removed");
    watched.survives("bytes that are no text", "UTF-8", |keys| {
        let fresh = keys.with_extension("new");
        write_private(&fresh, "");
        let text = [&b"client1:"[..], KEY.as_bytes(), b"\n\xff\xfe\xc3:", KEY.as_bytes()].concat();
        fs::write(&fresh, text).expect("written");
        fs::rename(&fresh, keys).expect("moved");
    });
    watched.recovers();
    watched.survives("a link to nowhere", "cannot read the key file", |keys| {
        let fresh = keys.with_extension("new");
        symlink("nowhere", &fresh).expect("a link");
        fs::rename(&fresh, keys).expect("moved");
    });
    watched.recovers();
    watched.survives("an empty directory", "not one key in the service's key files", |keys| {
        remove(keys);
        fs::create_dir(keys).expect("a folder");
    });
    fs::remove_dir(watched.server.folder().join("psk.txt")).expect("removed");
    watched.recovers();
    watched.survives("nothing at all", "cannot read the key file", remove);
    watched.recovers();
    watched.survives("an empty file", "holds no key", |keys| replace(keys, ""));
    watched.recovers();
}
