//! The corpus of `tests/cases/stunnel`: how its files are written.
//!
//! A file holds many cases. `== accept NAME` or `== refuse NAME` begins one and says what stunnel
//! 5.68 makes of it; a name begins with the option it is about and a colon, or with `grammar:` and
//! the like. Lines that begin with `: ` are about the run:
//!
//! | line | meaning |
//! | --- | --- |
//! | `: verbatim` | nothing is put before the text; without it, the program is kept in the foreground |
//! | `: as IDENTITY` | who the peer says it is or, as a server, knows, instead of `client1`; with the escapes below |
//! | `: key HEX` | the peer's key, instead of that of the tests |
//! | `: versions 1.0 1.2` | the newest versions that the peer is tried with, instead of 1.3 and 1.2 |
//! | `: sni` | the name that a client sends is a fact too |
//! | `: ask NAME` | the name that the peer of a server sends |
//! | `: inetd` | standard input and output are the connection |
//! | `: root` | needs root |
//! | `: late` | it may end some time after its first listener |
//!
//! All other lines, up to the next case, are the configuration; `--- NAME` begins one more file of the
//! case's folder. In both, `\xHH`, `\r`, `\0` and `\\` are bytes, `\{COUNT TEXT}` repeats a text, and
//!
//! | word | becomes |
//! | --- | --- |
//! | `$A1` to `$A9` | a port that takes TLS |
//! | `$P1` ... | a port that takes plain connections |
//! | `$B1` ... | the port of a plain backend, on 127.0.0.1 and ::1 |
//! | `$T1` ... | the port of a TLS server that knows the key |
//! | `$X1` ... | a port where nobody listens |
//! | `$DIR` | the case's folder; `$DIR/A1` and so on are Unix sockets of the same meaning |
//! | `$CERT`, `$CERTKEY` | a self-signed certificate and its key |
//! | a line `@server`, `@client` | a section `[s]` from A1 to B1, or from P1 to T1, with `psk.txt` |

use std::path::Path;

use crate::harness::root;

/// One configuration, and how it is run.
#[derive(Debug, Clone, Default)]
pub struct Case {
    pub name: String,
    /// What stunnel 5.68 makes of it.
    pub accepted: bool,
    pub verbatim: bool,
    pub identity: Option<String>,
    pub key: Option<Vec<u8>>,
    pub versions: Vec<String>,
    pub sni: bool,
    pub ask: Option<String>,
    pub inetd: bool,
    pub root: bool,
    pub late: bool,
    /// The configuration, with its placeholders.
    pub text: String,
    /// Other files, likewise.
    pub files: Vec<(String, String)>,
}

impl Case {
    /// The option or rule that it is about.
    pub fn subject(&self) -> &str {
        self.name.split_once(':').map_or(self.name.as_str(), |(subject, _)| subject)
    }

    /// The text that is run, with its placeholders.
    pub fn whole(&self) -> String {
        let mut whole = String::new();
        if !self.verbatim {
            whole.push_str("foreground = yes\nsyslog = no\n");
        }
        for line in self.text.split_inclusive('\n') {
            match line.trim_end() {
                "@server" => whole.push_str(
                    "[s]\naccept = 127.0.0.1:$A1\nconnect = 127.0.0.1:$B1\nPSKsecrets = $DIR/psk.txt\n",
                ),
                "@client" => whole.push_str(
                    "[s]\nclient = yes\naccept = 127.0.0.1:$P1\nconnect = 127.0.0.1:$T1\n\
                     PSKsecrets = $DIR/psk.txt\n",
                ),
                _ => whole.push_str(line),
            }
        }
        whole
    }
}

/// The cases of one file.
pub fn of(file: &str) -> Vec<Case> {
    read(&root().join("tests/cases/stunnel").join(file))
}

/// Every case, in the order of the files and of their lines.
pub fn all() -> Vec<Case> {
    let folder = root().join("tests/cases/stunnel");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "cases"))
        .collect();
    files.sort();
    let cases: Vec<Case> = files.iter().flat_map(|file| read(file)).collect();
    let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    for pair in names.windows(2) {
        assert_ne!(pair[0], pair[1], "two cases have one name");
    }
    cases
}

fn read(file: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(file).expect("the corpus can be read");
    let shown = file.file_stem().unwrap().to_string_lossy().into_owned();
    let mut cases: Vec<Case> = Vec::new();
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end_matches('\n');
        if let Some(head) = bare.strip_prefix("== ") {
            let (verdict, name) = head.split_once(' ').expect("a verdict and a name");
            let accepted = match verdict {
                "accept" => true,
                "refuse" => false,
                other => panic!("{shown}: `{other}` is no verdict"),
            };
            cases.push(Case {
                name: name.to_owned(),
                accepted,
                versions: vec!["1.3".to_owned(), "1.2".to_owned()],
                ..Case::default()
            });
            continue;
        }
        let Some(case) = cases.last_mut() else {
            continue;
        };
        if let Some(tag) = bare.strip_prefix(": ") {
            let (word, rest) = tag.split_once(' ').unwrap_or((tag, ""));
            match word {
                "verbatim" => case.verbatim = true,
                "as" => {
                    let name = String::from_utf8(bytes(rest));
                    case.identity = Some(name.expect("an identity in UTF-8"));
                }
                "key" => {
                    let hex = data_encoding::HEXLOWER_PERMISSIVE.decode(rest.as_bytes());
                    case.key = Some(hex.expect("a key in hexadecimal digits"));
                }
                "versions" => {
                    case.versions = rest.split_whitespace().map(str::to_owned).collect();
                }
                "sni" => case.sni = true,
                "ask" => case.ask = Some(rest.to_owned()),
                "inetd" => case.inetd = true,
                "root" => case.root = true,
                "late" => case.late = true,
                other => panic!("{shown}: {}: `{other}` is no tag", case.name),
            }
        } else if let Some(name) = bare.strip_prefix("--- ") {
            case.files.push((name.to_owned(), String::new()));
        } else {
            let text = case.files.last_mut().map_or(&mut case.text, |(_, text)| text);
            text.push_str(line);
        }
    }
    // A blank line before the next head is for the reader.
    for case in &mut cases {
        for text in [&mut case.text].into_iter().chain(case.files.iter_mut().map(|(_, t)| t)) {
            if text.ends_with("\n\n") {
                text.pop();
            }
        }
    }
    cases
}

/// The bytes that a text with escapes means.
pub fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let kind = rest.chars().next().expect("an escape");
        rest = &rest[kind.len_utf8()..];
        match kind {
            'x' => {
                out.push(u8::from_str_radix(&rest[..2], 16).expect("two hexadecimal digits"));
                rest = &rest[2..];
            }
            'r' => out.push(b'\r'),
            'n' => out.push(b'\n'),
            '0' => out.push(0),
            '\\' => out.push(b'\\'),
            // No line feed here: for a file whose last line has none.
            '\n' => {}
            '{' => {
                let (repeat, after) = rest.split_once('}').expect("a closing brace");
                let (count, what) = repeat.split_once(' ').expect("a count and a text");
                out.extend(what.repeat(count.parse().expect("a count")).into_bytes());
                rest = after;
            }
            other => panic!("`\\{other}` is no escape"),
        }
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// What is meant to be different, and why.
#[derive(Debug, Clone)]
pub struct Difference {
    /// What pskgate does with these: `refuses`, `accepts`, or `differs` in what comes of it.
    pub kind: String,
    /// One sentence or two.
    pub why: String,
    /// The names of the cases.
    pub cases: Vec<String>,
}

/// `tests/cases/stunnel/differences.txt`: `== KIND`, the reason on lines that begin with `: `, and
/// the names of cases, one a line.
pub fn differences() -> Vec<Difference> {
    let file = root().join("tests/cases/stunnel/differences.txt");
    let text = std::fs::read_to_string(file).expect("the list of differences");
    let mut all: Vec<Difference> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        if let Some(kind) = line.strip_prefix("== ") {
            assert!(["refuses", "accepts", "differs"].contains(&kind), "`{kind}` is no kind");
            all.push(Difference { kind: kind.into(), why: String::new(), cases: Vec::new() });
            continue;
        }
        let last = all.last_mut().expect("a kind comes first");
        if let Some(why) = line.strip_prefix(": ") {
            if !last.why.is_empty() {
                last.why.push(' ');
            }
            last.why.push_str(why.trim());
        } else {
            last.cases.push(line.trim().to_owned());
        }
    }
    for one in &all {
        assert!(one.why.len() > 30 && one.why.ends_with('.'), "no reason is given: {one:?}");
        assert!(!one.cases.is_empty(), "no case: {one:?}");
    }
    all
}
