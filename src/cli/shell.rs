//! Commands in messages, as a shell takes them.

use std::path::Path;

/// A command of this program that can be copied from a message and run: each word quoted where a shell
/// would take it for something else. `None` if a word has control characters, which cannot be typed.
pub(super) fn command_line<'a>(words: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut line = String::from("pskgate");
    for word in words {
        if word.chars().any(char::is_control) {
            return None;
        }
        line.push(' ');
        line.push_str(&quote(word));
    }
    Some(line)
}

/// A path of a command line; lossy where it is no text.
pub(super) fn path(path: &Path) -> String {
    quote(&path.display().to_string())
}

/// A word of a command line.
pub(super) fn word(word: &str) -> String {
    quote(word)
}

/// Characters that no shell gives a meaning to, wherever they stand in a word.
fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || "-_./:@%+,=".contains(c)
}

fn quote(word: &str) -> String {
    // A tilde means a home directory at the beginning of a word alone.
    let is_plain = |(at, c): (usize, char)| {
        is_plain(c) || (c == '~' && at > 0) || (cfg!(windows) && c == '\\')
    };
    if !word.is_empty() && word.char_indices().all(is_plain) {
        return word.to_owned();
    }
    match cfg!(windows) {
        true => format!("\"{word}\""),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_shell_reads_back_every_word_of_a_command() {
        let words = [
            "plain",
            "plc-01~2",
            "~root",
            "hall 3/plc",
            "it's \"quoted\"",
            "$HOME `id` \\ * ? [a] {b,c} #d ; & | < > ( ) !",
            "",
            "-n",
            "Zoë=ä",
        ];
        let line = command_line(words).unwrap();
        let script =
            format!("pskgate() {{ for word; do printf '%s\\n' \"$word\"; done; }}\n{line}");
        let done = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let read = String::from_utf8(done.stdout).unwrap();
        assert_eq!(read.lines().collect::<Vec<_>>(), words, "{line}");
        assert_eq!(command_line(["a\nb"]), None);
        assert!(line.starts_with("pskgate plain plc-01~2 '~root'"), "{line}");
    }
}
