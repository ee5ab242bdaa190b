//! What must hold of every input, for the fuzzers of `fuzz/`: a target each, and nothing of it in the
//! program. The seeds of every target run through it in the unit tests too, so that what a fuzzer once
//! found stays found.

pub use crate::config::fuzzing::{addresses, native_file, stunnel_conf};
pub use crate::daemon::control::fuzzing::control_requests;
pub use crate::net::fuzzing::{preface, proxy_header};
pub use crate::observe::fuzzing::log_lines;
pub use crate::secrets::fuzzing::key_file;
pub use crate::tls::fuzzing::{client_hello, psk_extension, server_flight};

/// Cuts an input into parts: a byte for the length, and so many bytes.
#[derive(Debug)]
pub(crate) struct Parts<'a>(pub(crate) &'a [u8]);

impl<'a> Parts<'a> {
    /// 0 at the end.
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    /// At most 255 bytes; fewer at the end.
    pub(crate) fn part(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (part, rest) = self.0.split_at(length);
        self.0 = rest;
        part
    }

    /// The same as a text, with something else in the place of what is none.
    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.part()).into_owned()
    }
}

/// A text that is shown: nothing in it steers a terminal or begins a line of its own.
#[track_caller]
pub(crate) fn assert_plain(text: &str) {
    let evil = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    assert!(!text.contains(evil), "{text:?}");
}

/// What is in memory is never waited for.
#[track_caller]
pub(crate) fn finished<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(done) => done,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

/// A peer in memory that says what it has to say, in pieces, and takes whatever it is told.
#[derive(Debug)]
pub(crate) struct Canned<'a> {
    pub(crate) says: &'a [u8],
    /// At most so many bytes at once; at least 1.
    pub(crate) piece: usize,
    /// What it was told.
    pub(crate) heard: Vec<u8>,
}

impl tokio::io::AsyncRead for Canned<'_> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let length = self.piece.min(buf.remaining()).min(self.says.len());
        let (piece, rest) = self.says.split_at(length);
        buf.put_slice(piece);
        self.says = rest;
        std::task::Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for Canned<'_> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.heard.extend_from_slice(buf);
        std::task::Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Every target, and folders of the project whose files are seeds too.
    type Target = (&'static str, fn(&[u8]), &'static [&'static str]);

    const TARGETS: [Target; 11] = [
        ("addresses", addresses, &[]),
        ("client_hello", client_hello, &[]),
        ("control_requests", control_requests, &[]),
        ("key_file", key_file, &[]),
        ("log_lines", log_lines, &[]),
        ("native_file", native_file, CASES),
        ("preface", preface, &[]),
        ("proxy_header", proxy_header, &[]),
        ("psk_extension", psk_extension, &[]),
        ("server_flight", server_flight, &[]),
        ("stunnel_conf", stunnel_conf, CASES),
    ];

    const CASES: &[&str] = &["examples", "tests/cases/config/valid", "tests/cases/config/invalid"];

    fn files(folder: &Path) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files: Vec<_> =
            entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        files.sort();
        files
    }

    #[test]
    fn every_seed_of_a_fuzzer_holds_what_must_hold() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut broken = Vec::new();
        for (name, target, more) in TARGETS {
            let own = files(&root.join("fuzz/seeds").join(name));
            assert!(own.len() >= 3, "{name} has only {} seeds", own.len());
            let shared = more.iter().flat_map(|folder| files(&root.join(folder)));
            for file in own.into_iter().chain(shared) {
                let seed =
                    std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
                let held = std::panic::catch_unwind(|| target(&seed));
                if held.is_err() {
                    broken.push(file);
                }
            }
        }
        assert!(broken.is_empty(), "{broken:#?}");
    }

    #[test]
    fn every_target_has_its_program_and_every_program_its_seeds() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let names = |folder: &str| -> Vec<String> {
            let entries = std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
            let name = |path: std::path::PathBuf| {
                path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
            };
            let mut names: Vec<_> = entries.map(|entry| name(entry.path())).collect();
            names.sort();
            names
        };
        let wanted = TARGETS.map(|(name, _, _)| name);
        assert_eq!(names("fuzz/targets"), wanted);
        assert_eq!(names("fuzz/seeds"), wanted);
    }
}
