//! What stands in a line in place of a session's number, for services that ask for another word.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use super::log_context::LogContext;
use crate::config::model::LogId;

/// The word for the session that a line is about; none where its number is the word.
pub(super) fn session_word(context: LogContext<'_>) -> Option<String> {
    let session = context.session?;
    match context.id {
        LogId::Sequential => None,
        LogId::Unique => Some(unique_id(session)),
        LogId::Thread => Some(thread()),
        LogId::Process => Some(std::process::id().to_string()),
    }
}

#[cfg(target_os = "linux")]
fn thread() -> String {
    rustix::thread::gettid().as_raw_nonzero().to_string()
}

#[cfg(not(target_os = "linux"))]
fn thread() -> String {
    let shown = format!("{:?}", std::thread::current().id());
    shown.chars().filter(char::is_ascii_digit).collect()
}

/// 128 bits, as letters and digits. Every line of a session has the same, so it is made of the session's
/// number and of keys that this process drew by lot: nothing has to be kept for each session.
fn unique_id(session: u64) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    /// 62 to this power is more than 2 to the power of 128.
    const ID_LENGTH: usize = 22;
    static KEYS: OnceLock<[RandomState; 2]> = OnceLock::new();
    let keys = KEYS.get_or_init(|| [RandomState::new(), RandomState::new()]);
    let [high, low] = keys.each_ref().map(|key| u128::from(key.hash_one(session)));
    let mut rest = (high << 64) | low;
    let mut word = String::with_capacity(ID_LENGTH);
    for _ in 0..ID_LENGTH {
        let digit = usize::try_from(rest % 62).unwrap_or_default();
        word.push(char::from(ALPHABET.get(digit).copied().unwrap_or(b'0')));
        rest /= 62;
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unique_word_is_the_sessions_in_every_line_and_nobody_elses() {
        let words: std::collections::BTreeSet<_> = (0..1000).map(unique_id).collect();
        assert_eq!(words.len(), 1000);
        assert!(
            words.iter().all(|w| w.len() == 22 && w.bytes().all(|b| b.is_ascii_alphanumeric()))
        );
        assert!(words.contains(&unique_id(7)));
    }
}
