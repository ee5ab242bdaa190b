//! A password that is said to somebody on the way: wiped when nobody holds it any more, never printed.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// A password. Clones share the one text.
#[derive(Clone)]
pub struct Password(Arc<Zeroizing<String>>);

impl Password {
    /// Takes a text over.
    pub fn new(text: String) -> Self {
        Self(Arc::new(Zeroizing::new(text)))
    }

    /// The text, for whoever sends it or writes it into another configuration.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && openssl::memcmp::eq(self.0.as_bytes(), other.0.as_bytes())
    }
}

impl Eq for Password {}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_printed_and_equals_itself_alone() {
        let one = Password::new("hush".into());
        assert_eq!(format!("{one:?} {:?}", Some(&one)), "Password Some(Password)");
        assert!(one == Password::new("hush".into()) && one != Password::new("hash".into()));
        assert_eq!(one.clone().expose(), "hush");
    }
}
