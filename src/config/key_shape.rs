//! Whether a text looks like a pre-shared key, so that it is not shown and not taken for a file's name.

/// How long the text after a colon must be to be taken for a key: the shortest key that is allowed.
pub(super) const MIN_KEY_LENGTH: usize = 16;

/// Whether a text that should name a file of keys holds a key instead. Here the suspicion is wider:
/// the name would be repeated by whoever does not find the file. `./` before a name clears it.
pub(crate) fn looks_like_key_instead_of_file(text: &str) -> bool {
    text.split_once(':').is_some_and(|(identity, key)| {
        !identity.is_empty()
            && !identity.contains(['/', '\\'])
            && !is_drive(identity, key)
            && key.chars().count() >= MIN_KEY_LENGTH
    })
}

/// `C:\keys\psk.txt`
pub(super) fn is_drive(letter: &str, rest: &str) -> bool {
    letter.len() == 1 && rest.starts_with(['/', '\\'])
}

/// Whether a text looks like an identity and its key.
pub(crate) fn looks_like_key_line(text: &str) -> bool {
    text.split_once(':').is_some_and(|(identity, key)| {
        !identity.is_empty()
            && !identity.contains(['/', '\\', '='])
            && key.chars().count() >= MIN_KEY_LENGTH
            && !key.trim_end_matches('=').contains(['=', ':', '.', '\\'])
    })
}
