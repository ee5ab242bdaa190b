//! Key files: `identity:key` lines, byte-compatible with stunnel's `PSKsecrets`.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
#[cfg(unix)]
use std::time::Duration;

use zeroize::Zeroizing;

use super::key::{Identity, Key, MAX_IDENTITY_SIZE, MAX_KEY_SIZE, MIN_KEY_SIZE, escape};
use crate::sys::file::open_regular;
use crate::sys::file_digest::FileDigest;
#[cfg(unix)]
use crate::sys::pipe::read_pipe;

use super::problem::{KeyFileProblem, ProblemSeverity, json_file, unreadable_file};
use super::{IdentityRule, KeyEntry, KeyFileRules, KeyFileWriter, KeyRecord, beremiz};

/// The largest key file that is read: room for 100,000 identities with 64-byte keys.
pub(super) const MAX_KEY_FILE_SIZE: u64 = 16 * 1024 * 1024;

/// Keys shorter than this many bytes are remarked on (RFC 9257, 4.2 speaks of 128 bits of entropy,
/// which text rarely has in 16 characters).
pub(super) const ADVISED_KEY_SIZE: usize = 32;

/// The shortest text behind a second colon that is taken for another line's key: 128 bits in base64.
const MIN_JOINED_KEY_SIZE: usize = 22;

/// Whether a text begins as JSON does. As key file its first line could let somebody in: `[["plc1": "…"`
/// is an identity and a key.
pub(super) fn looks_like_json(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    matches!(text.trim_ascii_start().first(), Some(b'[' | b'{'))
}

/// Whether a key looks like the beginning of the one that stood in its place, as if the writing of its
/// file had been broken off. Half of a hex text is read as hex, or as text if its digits are odd; and half
/// of a text may be hex where the whole was none.
pub(super) fn is_truncation_of(key: &Key, old: &Key) -> bool {
    let text = key.expose();
    let odd = text.split_last().and_then(|(_, even)| decode_hex(even));
    old.begins_with(text)
        || odd.is_some_and(|bytes| old.begins_with(&bytes))
        || begins_with_hex_of(old.expose(), text)
}

/// Whether a text begins with the digits of these bytes.
fn begins_with_hex_of(text: &[u8], bytes: &[u8]) -> bool {
    let mut digits =
        text.iter().filter(|byte| **byte != b':').map(|byte| char::from(*byte).to_digit(16));
    let mut digit = || digits.next().flatten();
    bytes
        .iter()
        .all(|byte| digit().zip(digit()) == Some((u32::from(byte >> 4), u32::from(byte & 15))))
}

/// Opens a file once, judges the open descriptor, reads it once and parses it from memory. A file that
/// `in_folder` says was found in a folder of keys may not begin as JSON does.
pub(super) fn read_entries(
    path: &Path,
    in_folder: bool,
    rules: KeyFileRules,
    problems: &mut Vec<KeyFileProblem>,
) -> Vec<KeyEntry> {
    let text = match read_text(path, rules, problems) {
        Ok(text) => text,
        Err(error) => {
            problems.push(unreadable_file(path, &error));
            return Vec::new();
        }
    };
    if in_folder && looks_like_json(&text) {
        problems.push(json_file(path));
        return Vec::new();
    }
    if rules.writer == KeyFileWriter::Ide
        && let Some(problem) = beremiz::keyless_file_problem(&text, path)
    {
        problems.push(problem);
        return Vec::new();
    }
    parse(&text, path, rules, problems)
}

/// Reads an open descriptor's whole text into one buffer that is wiped.
pub(super) fn read_text(
    path: &Path,
    rules: KeyFileRules,
    problems: &mut Vec<KeyFileProblem>,
) -> io::Result<Zeroizing<Vec<u8>>> {
    let text = KeyFileText::read(path)?;
    text.check_permissions(path, rules, problems);
    Ok(text.bytes)
}

/// The text of a key file, and what the open descriptor told of the file. Not `Debug`: it holds keys.
pub(super) struct KeyFileText {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    meta: fs::Metadata,
    #[cfg(windows)]
    loose: Option<crate::sys::acl::LooseAccess>,
    /// Another user whose file it is.
    #[cfg(windows)]
    owner: Option<String>,
}

impl KeyFileText {
    /// Opens a file and reads it whole into one buffer that is wiped.
    ///
    /// # Errors
    /// The system's; a file that is too large, or that grew meanwhile.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let (mut file, meta) = open_regular(path)?;
        if meta.len() > MAX_KEY_FILE_SIZE {
            return Err(io::Error::other(format!(
                "it is larger than {} MiB",
                MAX_KEY_FILE_SIZE >> 20
            )));
        }
        #[cfg(windows)]
        let (loose, owner) = {
            use crate::sys::acl::{
                current_user_sid, find_foreign_owner, find_loose_access, read_descriptor,
            };
            let (bytes, user) = (read_descriptor(&file)?, current_user_sid()?);
            let loose = find_loose_access(&bytes).map_err(io::Error::other)?;
            (loose, find_foreign_owner(&bytes, &user).map_err(io::Error::other)?)
        };
        // One allocation of the final size: a growing vector would leave unwiped copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(meta.len() as usize + 1));
        let capacity = bytes.capacity() as u64;
        (&mut file).take(capacity).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == capacity {
            return Err(io::Error::other("it grew while it was read"));
        }
        Ok(Self {
            bytes,
            meta,
            #[cfg(windows)]
            loose,
            #[cfg(windows)]
            owner,
        })
    }

    /// Reads a pipe until its writer closes it.
    ///
    /// # Errors
    /// The system's; more than a key file may hold; a writer that is not done in time.
    #[cfg(unix)]
    pub(super) fn read_pipe(path: &Path, timeout: Duration) -> io::Result<Self> {
        let (bytes, meta) = read_pipe(path, MAX_KEY_FILE_SIZE, timeout)?;
        Ok(Self { bytes, meta })
    }

    /// The digest of the bytes that were read.
    pub(super) fn digest(&self) -> FileDigest {
        FileDigest::from_bytes(&self.meta, &self.bytes)
    }

    /// Adds what is wrong with the file's permissions to `problems`.
    pub(super) fn check_permissions(
        &self,
        path: &Path,
        rules: KeyFileRules,
        problems: &mut Vec<KeyFileProblem>,
    ) {
        #[cfg(unix)]
        check_mode_and_owner(path, &self.meta, rules, problems);
        #[cfg(windows)]
        {
            problems.extend(self.loose.map(|loose| loose_access_problem(path, loose, rules)));
            problems
                .extend(self.owner.as_ref().map(|owner| foreign_owner_problem(path, owner, rules)));
        }
    }
}

#[cfg(unix)]
fn check_mode_and_owner(
    path: &Path,
    meta: &fs::Metadata,
    rules: KeyFileRules,
    problems: &mut Vec<KeyFileProblem>,
) {
    use std::os::unix::fs::MetadataExt;
    let mode = meta.mode() & 0o777;
    let severity = match rules.writer {
        KeyFileWriter::Runtime | KeyFileWriter::Ide if mode & 0o022 == 0 => {
            ProblemSeverity::Warning
        }
        _ => rules.permissions.severity(),
    };
    if mode & 0o027 != 0 {
        let who = match mode {
            mode if mode & 0o002 != 0 => "every user of this machine may change",
            mode if mode & 0o020 != 0 => "its group may change",
            _ => "every user of this machine may read",
        };
        let message = format!("{who} the key file {} (mode {mode:04o})", path.display());
        let help = match rules.writer {
            KeyFileWriter::Runtime => {
                "start the runtime with `umask 077`, and remove the file once".into()
            }
            _ => format!("chmod 600 {}", path.display()),
        };
        problems.push(KeyFileProblem::new(severity, "loose-permissions", path, message).help(help));
    }
    let severity = rules.permissions.severity();
    let owner = meta.uid();
    let ours = rustix::process::geteuid().as_raw();
    if owner != 0 && owner != ours && Some(owner) != rules.also_owned_by {
        let message = format!("the key file {} belongs to user {owner}", path.display());
        let help = "it should belong to root or to the user that pskgate runs as";
        problems.push(KeyFileProblem::new(severity, "foreign-owner", path, message).help(help));
    }
}

/// What is said of a file of Windows whose owner is another user.
#[cfg(any(windows, test))]
pub(super) fn foreign_owner_problem(
    path: &Path,
    owner: &str,
    rules: KeyFileRules,
) -> KeyFileProblem {
    let file = path.display();
    let message = format!("the key file {file} belongs to {owner}, who can change its rights");
    // To the group of administrators, by its identifier.
    let help = format!("icacls \"{file}\" /setowner *S-1-5-32-544");
    KeyFileProblem::new(rules.permissions.severity(), "foreign-owner", path, message).help(help)
}

/// What is said of a file of Windows that a group of strangers may read or change.
#[cfg(any(windows, test))]
pub(super) fn loose_access_problem(
    path: &Path,
    loose: crate::sys::acl::LooseAccess,
    rules: KeyFileRules,
) -> KeyFileProblem {
    let what = match loose.access {
        crate::sys::acl::BroadAccess::Change => "may change",
        crate::sys::acl::BroadAccess::Read => "may read",
    };
    let severity = match (loose.access, rules.writer) {
        (crate::sys::acl::BroadAccess::Read, KeyFileWriter::Runtime | KeyFileWriter::Ide) => {
            ProblemSeverity::Warning
        }
        _ => rules.permissions.severity(),
    };
    let file = path.display();
    let message = format!("the group {} {what} the key file {file}", loose.group);
    // By identifiers, which are the same in every language: the owner, the system, administrators.
    let help = format!(
        "icacls \"{file}\" /inheritance:r /remove:g \"{}\" /grant:r *S-1-3-4:F *S-1-5-18:F \
         *S-1-5-32-544:F",
        loose.account
    );
    KeyFileProblem::new(severity, "loose-permissions", path, message).help(help)
}

/// Parses a key file's text. What is wrong is added to `problems`; the entries are worth something
/// only when none of it [refuses](ProblemSeverity::Error).
pub fn parse(
    text: &[u8],
    path: &Path,
    rules: KeyFileRules,
    problems: &mut Vec<KeyFileProblem>,
) -> Vec<KeyEntry> {
    let entries = parse_lines(text, path, rules, problems);
    if entries.is_empty() && !problems.iter().any(|p| p.severity == ProblemSeverity::Error) {
        problems.push(KeyFileProblem::empty_file(ProblemSeverity::Error, path));
    }
    entries
}

/// Whether a text is UTF-16, and if so whether its high bytes come first: with a mark, or with a
/// NUL beside each of its first characters.
pub(super) fn detect_utf16_order(text: &[u8]) -> Option<bool> {
    let (text, mark) = match text {
        [0xff, 0xfe, rest @ ..] => (rest, Some(false)),
        [0xfe, 0xff, rest @ ..] => (rest, Some(true)),
        _ => (text, None),
    };
    // A mark alone may begin an identity, whose bytes a stunnel.conf does not restrict.
    match (mark, text) {
        (Some(false), [1..=255, 0, ..]) | (None, [1..=255, 0, 1..=255, 0, 1..=255, 0, ..]) => {
            Some(false)
        }
        (Some(true), [0, 1..=255, ..]) | (None, [0, 1..=255, 0, 1..=255, 0, 1..=255, ..]) => {
            Some(true)
        }
        _ => None,
    }
}

/// Parses a key file's text, which may be empty; otherwise as [`parse`].
pub(super) fn parse_lines(
    text: &[u8],
    path: &Path,
    rules: KeyFileRules,
    problems: &mut Vec<KeyFileProblem>,
) -> Vec<KeyEntry> {
    if detect_utf16_order(text).is_some() {
        let message = "the key file is in UTF-16, as Windows PowerShell writes it with `>`";
        let help = "save it as UTF-8, or add its lines with `pskgate keys import`";
        problems
            .push(KeyFileProblem::new(ProblemSeverity::Error, "utf-16", path, message).help(help));
        return Vec::new();
    }
    let file: Arc<Path> = path.into();
    let mut entries = Vec::new();
    let mut lines = text.split(|byte| *byte == b'\n').peekable();
    for number in 1.. {
        let Some(raw) = lines.next() else { break };
        let ended = lines.peek().is_some();
        let mut copy = Zeroizing::default();
        let line = strip_line(raw, &mut copy);
        if line.is_empty() {
            continue;
        }
        let before = problems.len();
        if let Some((identity, key)) = parse_entry(line, number, &file, rules, problems) {
            entries.push(KeyEntry {
                identity,
                key: Arc::new(key),
                file: file.clone(),
                line: number,
                ended,
            });
        }
        for problem in &mut problems[before..] {
            problem.line = Some(number);
        }
    }
    entries
}

/// stunnel drops every CR of a line and ends it at a NUL. `copy` takes the line without its CRs where
/// they do not stand at the end alone; it never grows, which would leave unwiped pieces behind.
fn strip_line<'a>(raw: &'a [u8], copy: &'a mut Zeroizing<Vec<u8>>) -> &'a [u8] {
    let mut line = raw.split(|byte| *byte == 0).next().unwrap_or_default();
    while let [head @ .., b'\r'] = line {
        line = head;
    }
    if line.contains(&b'\r') {
        **copy = Vec::with_capacity(line.len());
        copy.extend(line.iter().filter(|byte| **byte != b'\r'));
        line = copy;
    }
    line
}

fn parse_entry(
    line: &[u8],
    number: u32,
    path: &Path,
    rules: KeyFileRules,
    problems: &mut Vec<KeyFileProblem>,
) -> Option<(Identity, Key)> {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        let blank = line.iter().all(u8::is_ascii_whitespace);
        let (message, help) = if blank {
            ("a line of blanks in a key file", "remove the blanks: only an empty line is skipped")
        } else if line.starts_with(b"#") || line.starts_with(b";") {
            ("a key file has no comments", "remove the line")
        } else {
            ("no colon in a line of a key file", "a line is `identity:key`")
        };
        problems.push(
            KeyFileProblem::new(ProblemSeverity::Error, "not-identity-key", path, message)
                .help(help),
        );
        return None;
    };
    let (name, text) = (&line[..colon], &line[colon + 1..]);
    let known_before = problems.len();
    check_identity(name, number, path, rules.identities, problems);
    let key = parse_key(text, path, problems);
    let refused =
        problems[known_before..].iter().any(|problem| problem.severity == ProblemSeverity::Error);
    if refused { None } else { Some((Identity::new(name), key?)) }
}

fn check_identity(
    name: &[u8],
    number: u32,
    path: &Path,
    rule: IdentityRule,
    problems: &mut Vec<KeyFileProblem>,
) {
    let mut say = |severity, code, message: String, help: &str| {
        problems.push(KeyFileProblem::new(severity, code, path, message).help(help));
    };
    if name.len() > MAX_IDENTITY_SIZE {
        let message = format!("an identity of {} bytes", name.len());
        say(
            ProblemSeverity::Error,
            "long-identity",
            message,
            "255 bytes are what TLS libraries take",
        );
    }
    let strict = match rule {
        IdentityRule::Utf8 | IdentityRule::Utf8WithControls => ProblemSeverity::Error,
        IdentityRule::Bytes => ProblemSeverity::Warning,
    };
    if name.is_empty() {
        let message = "an empty identity".to_owned();
        say(strict, "empty-identity", message, "write the name of the peer before the colon");
    }
    match std::str::from_utf8(name) {
        Err(_) => {
            let message = format!("the identity {} is not UTF-8", escape(name));
            say(strict, "identity-not-utf8", message, "save the file as UTF-8");
        }
        Ok(text) if text.chars().any(char::is_control) => {
            let message = format!("control characters in the identity {}", escape(name));
            let help = match rule {
                IdentityRule::Utf8 => {
                    "remove them, or allow them with `allow-control-characters = true` if the \
                     peer sends them"
                }
                IdentityRule::Bytes => "remove them if the peer does not send them",
                IdentityRule::Utf8WithControls => return,
            };
            say(strict, "identity-control", message, help);
        }
        Ok(text) if number == 1 && text.starts_with('\u{feff}') => {
            let message = "the file begins with a byte order mark, which is now part of the first \
                           identity";
            say(strict, "byte-order-mark", message.into(), "save the file as UTF-8 without BOM");
        }
        Ok(_) => {}
    }
    if name.starts_with(b"#") || name.starts_with(b";") {
        let message = format!("this line is no comment: it lets {} in", escape(name));
        say(
            ProblemSeverity::Warning,
            "comment-like",
            message,
            "remove the line if it was meant as a comment",
        );
    }
    let padded = |edge: Option<&u8>| edge.is_some_and(u8::is_ascii_whitespace);
    if padded(name.first()) || padded(name.last()) {
        let message = format!("blanks at the edge of the identity {} belong to it", escape(name));
        say(
            ProblemSeverity::Warning,
            "padded-identity",
            message,
            "remove them if the peer has none",
        );
    }
}

/// The bytes that a key's text stands for: decoded when it is hex throughout, otherwise as they are.
fn parse_key(text: &[u8], path: &Path, problems: &mut Vec<KeyFileProblem>) -> Option<Key> {
    let mut say = |severity, code, message: String, help: &str| {
        problems.push(KeyFileProblem::new(severity, code, path, message).help(help));
    };
    let decoded = decode_hex(text);
    let hex = decoded.is_some();
    let bytes = decoded.unwrap_or_else(|| Zeroizing::new(text.into()));
    let len = bytes.len();
    if len < MIN_KEY_SIZE {
        let message = if hex && text.len() >= MIN_KEY_SIZE {
            format!(
                "a key of {len} bytes: its {} characters are hex digits and count half",
                text.len()
            )
        } else {
            format!("a key of {len} bytes")
        };
        let help = "a key is 16 to 512 bytes; `pskgate keygen NAME` makes a good one";
        say(ProblemSeverity::Error, "short-key", message, help);
        return None;
    }
    if len > MAX_KEY_SIZE {
        let help = "a key is 16 to 512 bytes; `pskgate keygen NAME` makes a good one";
        say(ProblemSeverity::Error, "long-key", format!("a key of {len} bytes"), help);
        return None;
    }
    if text.first().is_some_and(u8::is_ascii_whitespace)
        || text.last().is_some_and(u8::is_ascii_whitespace)
    {
        let message = "blanks at the edge of the key belong to it".to_owned();
        say(
            ProblemSeverity::Warning,
            "padded-key",
            message,
            "remove them if the peer's key has none",
        );
    }
    if !hex && is_nearly_hex(text) {
        let message = "the key looks like hex but is not, so its characters themselves are the key";
        let help = "compare it with the peer's: a digit may be missing, or one too many";
        say(ProblemSeverity::Warning, "nearly-hex", message.into(), help);
    }
    if !hex && is_joined(text) {
        let message = "this line may be two lines: the line ending between them is missing";
        let help =
            "start a new line before the second identity; `pskgate keys import` adds keys safely";
        say(ProblemSeverity::Warning, "joined-lines", message.into(), help);
    }
    if !hex && len < ADVISED_KEY_SIZE {
        let message = format!("a key of {len} characters");
        say(
            ProblemSeverity::Note,
            "weak-key",
            message,
            "32 or more are advised; `pskgate keygen NAME`",
        );
    }
    Some(Key::new(bytes))
}

/// As `OPENSSL_hexstr2buf`: pairs of digits, colons between bytes.
fn decode_hex(text: &[u8]) -> Option<Zeroizing<Box<[u8]>>> {
    let digits = text.iter().filter(|byte| **byte != b':').count();
    if digits % 2 != 0 || text.is_empty() {
        return None;
    }
    let mut bytes = Zeroizing::new(vec![0u8; digits / 2].into_boxed_slice());
    let mut rest = text;
    let mut at = 0;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b':' {
            continue;
        }
        let [second, tail @ ..] = rest else {
            return None;
        };
        rest = tail;
        *bytes.get_mut(at)? = digit_value(*first)? << 4 | digit_value(*second)?;
        at += 1;
    }
    Some(bytes)
}

/// `char::to_digit` takes three times as long, and a large key file has millions of digits.
fn digit_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Odd in number, or one wrong character among many right ones: a slip, and no passphrase.
fn is_nearly_hex(text: &[u8]) -> bool {
    let wrong = text.iter().filter(|byte| !byte.is_ascii_hexdigit() && **byte != b':').count();
    text.len() > 16 && wrong <= 1
}

/// Whether a key's text looks like a key, an identity, a colon and another key, as `cat new.txt >> keys.txt`
/// makes of a file whose last line has no ending.
fn is_joined(text: &[u8]) -> bool {
    let Some(colon) = text.iter().rposition(|byte| *byte == b':') else { return false };
    let (head, tail) = (&text[..colon], &text[colon + 1..]);
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=-_".contains(byte);
    head.len() > MIN_KEY_SIZE && tail.len() >= MIN_JOINED_KEY_SIZE && tail.iter().all(is_digit)
}

/// One key under two identities: whoever holds it can be either (RFC 9257, 4).
pub(super) fn find_shared_keys(known: &HashMap<Identity, KeyRecord>) -> Vec<KeyFileProblem> {
    // Hashed with this process' random state: no table of key bytes in the clear is kept.
    let mut seen: HashMap<&[u8], &Identity> = HashMap::with_capacity(known.len());
    let mut problems = Vec::new();
    // Bringing 100,000 in order takes longer than reading them, and is hardly ever needed.
    if known.iter().all(|(identity, entry)| seen.insert(entry.key.expose(), identity).is_none()) {
        return problems;
    }
    seen.clear();
    let mut in_order: Vec<_> = known.iter().collect();
    in_order.sort_by_key(|(_, entry)| (&entry.file, entry.line));
    for (identity, entry) in in_order {
        if let Some(other) = seen.insert(entry.key.expose(), identity) {
            let message = format!("the identities {other} and {identity} have the same key");
            let help = "give each its own: with one key, one can pass for the other";
            problems.push(
                KeyFileProblem::new(ProblemSeverity::Warning, "shared-key", &entry.file, message)
                    .line(entry.line)
                    .help(help),
            );
        }
    }
    problems
}
