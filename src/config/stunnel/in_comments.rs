//! Options of ours in the comments of a stunnel.conf, which stunnel skips: `; pskgate: NAME = VALUE`.

use std::collections::BTreeSet;
use std::ops::Range;

use super::{ConfReader, SourceText, Split, is_space, split, trim};
use crate::config::diagnostic::{Diagnostic, SourceLocation};
use crate::config::model::Dialect;
use crate::config::options::{self, Arity, OptionId, OptionRow, TomlTable, ValueKind};
use crate::config::parsed_file::{ParsedSection, Spanned, Value, Values};
use crate::config::value::{self, ValueError};
use crate::secrets::escape;

/// What the comment of an option begins with.
const MARK: &[u8] = b"pskgate:";
/// What a comment begins with that was probably meant to be one.
const NAME: &[u8] = b"pskgate";
/// The farthest that a mistyped mark is from the right one: two letters exchanged, missing or too many.
const MAX_SLIPS: usize = 2;
/// What comes before an option of the table `[control]`.
const CONTROL: &str = "control.";
/// What comes before the name of an identity.
const IDENTITIES: &str = "identities.";

/// The options that a comment may carry: restrictions and habits which stunnel has no option for.
const LISTED: &[OptionId] = &[
    OptionId::WatchConfiguration,
    OptionId::ControlSocket,
    OptionId::MaxSessions,
    OptionId::MaxPerIdentity,
    OptionId::MaxPerSource,
    OptionId::WhenFull,
    OptionId::AllowFrom,
    OptionId::MaxHandshakes,
    OptionId::RekeyAfter,
    OptionId::SessionLifetime,
    OptionId::OnRevocation,
    OptionId::CipherOrder,
    OptionId::IdentityAllowFrom,
    OptionId::IdentityConnect,
    OptionId::IdentityMaxSessions,
    OptionId::IdentityExpires,
];

/// Whether a comment may carry this option.
pub(in crate::config) fn is_listed(opt: OptionId) -> bool {
    LISTED.contains(&opt)
}

/// What a comment is, with its mark.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::config) enum Comment {
    /// For people.
    Plain,
    /// It begins like an option and is none.
    Unclear,
    /// `; pskgate: NAME = VALUE`
    Option { name: Range<usize>, value: Range<usize> },
}

/// Reads a line that is a comment, or is empty.
pub(in crate::config) fn read(line: &[u8]) -> Comment {
    let all = trim(line, 0..line.len());
    let skipped = |is_skipped: fn(u8) -> bool| {
        let text = line.get(all.clone()).unwrap_or_default();
        all.start + text.iter().take_while(|byte| is_skipped(**byte)).count()
    };
    let bare = skipped(|byte| is_space(byte) || matches!(byte, b';' | b'#'));
    let text = line.get(bare..all.end).unwrap_or_default();
    if !text.get(..NAME.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAME)) {
        return if is_mistyped(text) { Comment::Unclear } else { Comment::Plain };
    }
    // One mark: `;; pskgate: ...` is an option that somebody has taken out, or has mistyped.
    let marks = line.get(all.start..bare).unwrap_or_default();
    let marks = marks.iter().filter(|byte| !is_space(**byte)).count();
    if marks != 1 || !text.starts_with(MARK) {
        return Comment::Unclear;
    }
    let from = bare + MARK.len();
    match split(line.get(from..all.end).unwrap_or_default()) {
        Some(Split::Option { name, value }) if !name.is_empty() => Comment::Option {
            name: from + name.start..from + name.end,
            value: from + value.start..from + value.end,
        },
        _ => Comment::Unclear,
    }
}

/// Whether a comment begins with a mark in which somebody has slipped: a word close to it, with a colon or one of
/// the options behind.
fn is_mistyped(text: &[u8]) -> bool {
    let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'_';
    let end = text.iter().take_while(|byte| is_of_word(byte)).count();
    // Of a comment of any length only a word of about this length is compared.
    let Some(word) = text.get(..end).filter(|word| word.len() <= NAME.len() + MAX_SLIPS) else {
        return false;
    };
    let slips = strsim::generic_damerau_levenshtein(&word.to_ascii_lowercase(), NAME);
    if slips > MAX_SLIPS {
        return false;
    }
    let rest = text.get(end..).unwrap_or_default().trim_ascii_start();
    let end = rest.iter().take_while(|byte| is_of_word(byte) || **byte == b'.').count();
    let option = rest.get(..end).and_then(|name| std::str::from_utf8(name).ok());
    rest.starts_with(b":") || option.is_some_and(|name| row_of(name).is_some())
}

/// Whether a line is the comment of an option of exactly this name.
pub(in crate::config) fn says(line: &str, name: &str) -> bool {
    let is_plain = !line.contains(|letter: char| letter.is_control());
    match read(line.as_bytes()) {
        Comment::Option { name: at, .. } => is_plain && line.get(at) == Some(name),
        _ => false,
    }
}

/// What was read of such comments so far.
#[derive(Debug, Default)]
pub(super) struct InComments {
    /// How many sections had begun, the identity and the option.
    said: BTreeSet<(usize, Option<String>, OptionId)>,
    /// Where they stand, but for what restricts nothing.
    restrictions: Vec<SourceLocation>,
}

impl ConfReader<'_> {
    /// Reads the option of a comment. Returns true for a comment for people, which belongs to the next option.
    pub(super) fn comment(&mut self, line: &super::ConfLine, source: &SourceText) -> bool {
        let whole = source.place(line.span(0..line.bytes.len()));
        let (name, value) = match read(&line.bytes) {
            Comment::Plain => return true,
            Comment::Unclear => {
                let found = Diagnostic::warning(
                    "comment-option",
                    "this comment begins like an option of pskgate and is not read as one",
                );
                self.report.push(found.at(whole).help(
                    "write `; pskgate: NAME = VALUE`, or begin the comment with another word",
                ));
                return true;
            }
            Comment::Option { name, value } => (name, value),
        };
        let at = |range: Range<usize>| match range.is_empty() {
            true => whole.clone(),
            false => source.place(line.span(range)),
        };
        let (name_at, value_at) = (at(name.clone()), at(value.clone()));
        let name = line.bytes.get(name).unwrap_or_default();
        let Ok(name) = std::str::from_utf8(name) else {
            let message =
                format!("the name of an option in a comment is not UTF-8: {}", escape(name));
            let found = Diagnostic::error("identity-not-utf8", message).at(name_at);
            self.report.push(found.help(
                "save this line as UTF-8; an identity of other bytes can have no rules of its own: give it another \
                 name, also in the key files and at its peer",
            ));
            return false;
        };
        let bytes = line.bytes.get(value).unwrap_or_default();
        self.commented_option(name, name_at, bytes, &value_at);
        false
    }

    fn commented_option(
        &mut self,
        name: &str,
        name_at: SourceLocation,
        bytes: &[u8],
        at: &SourceLocation,
    ) {
        let (identity, _, key) = parts(name);
        let Some(row) = row_of(name) else {
            let names = LISTED.iter().filter_map(|opt| opt.row().native);
            let near = options::nearest(key, names.map(|(_, name)| name));
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => "docs/stunnel.md lists the options that a comment may carry".to_owned(),
            };
            let found = Diagnostic::error("unknown-option", "there is no such option in a comment");
            self.report.push(found.at(name_at).label("unknown option").help(help));
            return;
        };
        if !is_listed(row.opt) {
            let message = match row.stunnel.first() {
                Some(there) => format!("`{key}` does not stand in a comment: it is `{there}` here"),
                None => format!("`{key}` cannot stand in a comment of a stunnel.conf"),
            };
            let found = Diagnostic::error("not-in-comments", message).at(name_at);
            self.report.push(found.help("`pskgate convert` writes a native file, which has it"));
            return;
        }
        let section = self.parsed.services.len();
        // Behind an include it would restrict the last section of the last file, whatever was meant.
        let began = self.parsed.services.last().map(|section| &section.name.place);
        if let Some(began) = began.filter(|began| began.file != name_at.file) {
            let message = "the section to which this belongs began in another file";
            let found = Diagnostic::error("misplaced-option", message).at(name_at);
            let help = format!(
                "move it below the [section] line that it is for, or before the first include; now it would be \
                 for the section of {}:{}",
                began.file.display(),
                began.line
            );
            self.report.push(found.help(help));
            return;
        }
        if is_of_whole_file(row.opt) && section > 0 {
            let found = Diagnostic::error("misplaced-option", "this is about the whole file");
            self.report.push(found.at(name_at).help("move it before the first [section]"));
            return;
        }
        if !self.in_comments.said.insert((section, identity.map(str::to_owned), row.opt)) {
            let message = format!("`{name}` stands in a comment of this section already");
            let found = Diagnostic::error("comment-option-twice", message).at(name_at);
            self.report.push(found.help("leave one of them; a list has its values in one line"));
            return;
        }
        match values(row, bytes) {
            Err(wrong) => {
                let found = Diagnostic::error(wrong.code, wrong.message).at(at.clone());
                self.report.push(found.help(wrong.help));
            }
            Ok(read) => {
                if !is_of_whole_file(row.opt) {
                    self.in_comments.restrictions.push(name_at.clone());
                }
                let remarks = std::mem::take(&mut self.remarks);
                let own = self.values(row);
                let own = match identity {
                    Some(identity) => identity_of(own, identity, name_at),
                    None => own,
                };
                own.remark(remarks);
                for value in read {
                    own.push(row.opt, Spanned { value, place: at.clone() });
                }
            }
        }
    }

    /// Says how much of the file stunnel does not read.
    pub(super) fn count_in_comments(&mut self) {
        let restrictions = &self.in_comments.restrictions;
        self.parsed.in_comments = restrictions.len();
        if let Some(first) = restrictions.first() {
            let found = Diagnostic::notice("options-in-comments", words(restrictions.len()));
            self.report.push(found.at(first.clone()));
        }
    }
}

/// How many restrictions stand in comments.
pub fn words(count: usize) -> String {
    match count {
        1 => "1 restriction stands in a comment, and stunnel ignores it".to_owned(),
        _ => format!("{count} restrictions stand in comments, and stunnel ignores them"),
    }
}

/// An identity, the table of the native file, and the option: `identities.plc-02.expires`. The name of an
/// identity may have dots.
fn parts(name: &str) -> (Option<&str>, TomlTable, &str) {
    if let Some(key) = name.strip_prefix(CONTROL) {
        return (None, TomlTable::Control, key);
    }
    let rest = name.strip_prefix(IDENTITIES).and_then(|rest| rest.rsplit_once('.'));
    match rest {
        Some((identity, key)) if !identity.is_empty() => (Some(identity), TomlTable::Identity, key),
        _ => (None, TomlTable::Service, name),
    }
}

fn row_of(name: &str) -> Option<&'static OptionRow> {
    let (_, table, key) = parts(name);
    options::native(table, key).or_else(|| top(table, key))
}

/// Options that are no restriction, and stand before the first section.
fn is_of_whole_file(opt: OptionId) -> bool {
    matches!(opt, OptionId::WatchConfiguration | OptionId::ControlSocket)
}

fn top(table: TomlTable, key: &str) -> Option<&'static OptionRow> {
    options::native(TomlTable::Top, key).filter(|_| table == TomlTable::Service)
}

/// The values of an option, with commas between those of a list.
fn values(row: &OptionRow, bytes: &[u8]) -> Result<Vec<Value>, ValueError> {
    let one = |text: &[u8]| {
        let read = value::read_bytes(row.kind, text);
        match (row.kind, &read, std::str::from_utf8(text)) {
            // stunnel has whole seconds; `8h` is easier to read.
            (ValueKind::Duration { .. }, Err(_), Ok(text)) => {
                value::read(row.kind, Dialect::Native, text).or(read)
            }
            _ => read,
        }
    };
    match row.arity {
        Arity::One => one(bytes).map(|value| vec![value]),
        Arity::List => bytes
            .split(|byte| *byte == b',')
            .map(|item| one(item.get(trim(item, 0..item.len())).unwrap_or_default()))
            .collect(),
    }
}

fn identity_of<'v>(values: &'v mut Values, name: &str, place: SourceLocation) -> &'v mut Values {
    let known = values.identities.iter().position(|part| part.name.value == name);
    let at = known.unwrap_or_else(|| {
        let name = Spanned { value: name.to_owned(), place };
        let (remarks, own) = (Vec::new(), Values::default());
        values.identities.push(ParsedSection { name, remarks, values: own });
        values.identities.len() - 1
    });
    &mut values.identities[at].values
}

#[cfg(test)]
mod tests {
    use crate::config::diagnostic::Diagnostics;
    use crate::config::load::{Format, load_text};
    use crate::config::model::{Config, WhenFull};

    fn load(text: &str) -> Result<(Config, Diagnostics), Diagnostics> {
        let path = std::path::Path::new;
        load_text(text.as_bytes(), path("x.conf"), path("/base"), Format::Auto)
    }

    fn codes(text: &str) -> Vec<&'static str> {
        match load(text) {
            Ok((_, report)) | Err(report) => report.diagnostics.iter().map(|d| d.code).collect(),
        }
    }

    const SECTION: &str = "[s]\naccept = 127.0.0.1:1\nconnect = 2\nPSKsecrets = k\n";

    #[test]
    fn options_in_comments_decide_what_they_would_in_a_native_file() {
        let (config, report) = load(&format!(
            "; pskgate: watch-configuration = yes\n; pskgate: control.socket = other.sock\n# pskgate: max-sessions = 7\n\
             ;pskgate:allow-from=10.0.0.0/8\n{SECTION}  ;  pskgate:  when-full = take-over  \n\
             ; pskgate: allow-from = 10.1.0.0/16, 10.2.0.1\n; pskgate: session-lifetime = 60\n\
             ; pskgate: rekey-after = 8000000 records, 100GB\n\
             # pskgate: identities.plc.02.expires = 2027-12-31\n\
             # pskgate: identities.plc.02.connect = 127.0.0.1:3, 127.0.0.1:4\n\
             # pskgate: identities.b.max-sessions = 1\n"
        ))
        .unwrap_or_else(|report| panic!("{}", report.render(false)));
        assert!(config.watch_configuration.value);
        let socket = config.control.socket.as_ref().map(|path| path.value.as_path());
        assert_eq!(socket, Some(std::path::Path::new("/base/other.sock")));
        let service = &config.services[0];
        assert_eq!(service.limits.max_sessions.as_ref().map(|n| n.value), Some(7));
        assert_eq!(service.limits.when_full.value, WhenFull::TakeOver);
        let from: Vec<_> = service.allow_from.iter().map(|r| r.value.to_string()).collect();
        assert_eq!(from, ["10.1.0.0/16", "10.2.0.1"], "a section's list takes the place of all's");
        assert_eq!(service.timeouts.lifetime.as_ref().map(|t| t.value.as_secs()), Some(60));
        let plc = &service.identities[0];
        assert_eq!(plc.name.value, b"plc.02");
        assert!(plc.expires.is_some() && plc.connect.len() == 2);
        assert_eq!(service.identities[1].max_sessions.as_ref().map(|n| n.value), Some(1));
        assert_eq!(config.in_comments, 9);
        let notice = &report.diagnostics[0];
        assert_eq!((notice.code, report.diagnostics.len()), ("options-in-comments", 1));
        assert!(notice.message.starts_with("9 restrictions"), "{}", notice.message);
    }

    #[test]
    fn an_option_behind_an_include_is_refused_and_not_given_to_its_last_section() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("conf.d")).unwrap();
        let other = SECTION.replace("[s]", "[t]").replace("127.0.0.1:1", "127.0.0.1:5");
        std::fs::write(folder.path().join("conf.d/a.conf"), format!("{SECTION}{other}")).unwrap();
        let line = "; pskgate: allow-from = 10.0.0.0/8\n";
        let include = format!("include = {}\n", folder.path().join("conf.d").display());
        assert_eq!(codes(&format!("{include}{line}")), ["misplaced-option"]);
        assert_eq!(codes(&format!("{line}{include}")), ["options-in-comments"]);
    }

    #[test]
    fn what_is_not_of_the_form_is_a_warning_and_a_mistake_in_it_an_error() {
        assert_eq!(
            codes(&format!(
                "{SECTION}# plain\n; about pskgate\n;;\n#\n; private: 1\n; psgate is no mark\n; PSKsecrets = k\n"
            )),
            [""; 0]
        );
        for line in [
            "# pskgate",
            "# PSKGate: max-sessions = 1",
            "; pskgate max-sessions = 1",
            ";; pskgate: max-sessions = 1",
            "; pskgate: max-sessions",
            "; pskgate: = 1",
            "; pskgate : max-sessions = 1",
            "; pskgat: max-sessions = 1",
            "; psk-gate : max-sessions = 1",
            "# PKSgate max-sessions = 1",
            "; pskgat identities.a.expires = 2027-12-31",
        ] {
            assert_eq!(codes(&format!("{SECTION}{line}\n")), ["comment-option"], "{line}");
        }
        for (line, code) in [
            ("max-sesions = 1", "unknown-option"),
            ("max-sessions = many", "bad-number"),
            ("idle-timeout = 5", "not-in-comments"),
            ("threads = 5", "not-in-comments"),
            ("watch-configuration = yes", "misplaced-option"),
            ("control.socket = /run/a.sock", "misplaced-option"),
            ("control.enabled = no", "not-in-comments"),
            ("identities.a.wire = b", "not-in-comments"),
            ("identities.a.expire = 2027-12-31", "unknown-option"),
        ] {
            assert_eq!(codes(&format!("{SECTION}; pskgate: {line}\n")), [code], "{line}");
        }
        let bytes =
            [SECTION.as_bytes(), b"; pskgate: identities.\xe9.expires = 2027-12-31\n"].concat();
        let path = std::path::Path::new;
        let refused = load_text(&bytes, path("x.conf"), path("/base"), Format::Auto).unwrap_err();
        let found = &refused.diagnostics[0];
        assert_eq!(found.code, "identity-not-utf8");
        assert!(found.message.contains(r"identities.\xe9.expires"), "{}", found.message);
        let near = load(&format!("{SECTION}; pskgate: max-sesions = 1\n")).unwrap_err();
        assert_eq!(near.diagnostics[0].help.as_deref(), Some("did you mean `max-sessions`?"));
        let line = "; pskgate: allow-from = 10.0.0.1\n";
        let twice = format!("{SECTION}{line}{line}");
        assert!(codes(&twice).contains(&"comment-option-twice"), "{twice}");
        let each = format!(
            "{line}{SECTION}{line}[t]\naccept = 127.0.0.1:5\nconnect = 2\nPSKsecrets = k\n{line}"
        );
        assert_eq!(codes(&each), ["options-in-comments"]);
    }
}
