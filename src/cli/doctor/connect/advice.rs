//! From the causes of failed handshakes to what somebody should do about it.

use crate::tls::RefusalCause;

/// What is best done after all of these failed. The first was with the settings that were asked for.
pub(super) fn choose_advice(causes: &[RefusalCause]) -> &'static str {
    let alerted = |names: &[&str]| {
        causes.iter().any(|cause| alert(cause).is_some_and(|a| names.contains(&a)))
    };
    let any = |is: fn(&RefusalCause) -> bool| causes.iter().any(is);
    if any(|cause| matches!(cause, RefusalCause::ServerKeyDiffers(_))) {
        return DIFFERENT_KEY;
    }
    if alerted(&["unknown psk identity"]) {
        return "compare the identity first, byte by byte (most servers say this of an unknown name, pskgate \
                of a wrong key too), then the key; then reload the server's key file";
    }
    if alerted(&WRONG_KEY) {
        return "compare the key first, the whole line at both ends, also for blanks at its edges and for hex \
                that only one end decodes (pskgate says the same of an unknown identity); then reload the \
                server's key file";
    }
    if any(|cause| matches!(cause, RefusalCause::NotProven)) {
        return "the peer shows a certificate and no proof of the key: it has no pre-shared keys, does not know \
                this identity, has another key, or is somebody else in its place; find out who listens there \
                before you change anything else";
    }
    if causes.iter().all(|cause| matches!(cause, RefusalCause::NoCommonVersion { .. })) {
        return "the peer accepts none of TLS 1.0 to 1.3: look at what it is";
    }
    "the peer has no suite, version or group in common with anything that was tried, does not know the \
     identity, or has no pre-shared keys at all: its own log says which"
}

const DIFFERENT_KEY: &str = "the server knows the identity but has another key for it: compare the whole line \
                             at both ends, also for blanks at its edges and for hex that only one end decodes";

/// What servers say of a key that does not fit: OpenSSL's in TLS 1.3 and 1.2, and others.
const WRONG_KEY: [&str; 3] = ["illegal parameter", "bad record mac", "decrypt error"];

fn alert(cause: &RefusalCause) -> Option<&'static str> {
    match cause {
        RefusalCause::Alert(alert) | RefusalCause::Refused { alert, .. } => Some(alert),
        _ => None,
    }
}

/// Whether other settings could change anything: not where it is about the name or the key.
pub(super) fn is_about_settings(cause: &RefusalCause) -> bool {
    let about_key = alert(cause)
        .is_some_and(|alert| WRONG_KEY.contains(&alert) || alert == "unknown psk identity");
    !about_key && !matches!(cause, RefusalCause::ServerKeyDiffers(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(alert: &'static str) -> RefusalCause {
        RefusalCause::Refused { identity: b"client1".to_vec(), alert }
    }

    #[test]
    fn the_clearest_of_several_answers_counts() {
        let unclear = || refused("handshake failure");
        assert!(choose_advice(&[unclear()]).contains("its own log"));
        assert!(
            choose_advice(&[unclear(), refused("unknown psk identity")]).contains("identity first")
        );
        assert!(choose_advice(&[unclear(), refused("bad record mac")]).contains("key first"));
        assert!(choose_advice(&[RefusalCause::NotProven, unclear()]).contains("certificate"));
        let no_version = || RefusalCause::NoCommonVersion { client: None, ours: None };
        assert!(choose_advice(&[no_version(), no_version()]).contains("TLS 1.0"));
    }

    #[test]
    fn other_settings_are_tried_unless_it_is_about_the_key() {
        assert!(is_about_settings(&refused("handshake failure")));
        let no_version = RefusalCause::NoCommonVersion { client: None, ours: None };
        assert!(is_about_settings(&no_version) && is_about_settings(&RefusalCause::NotProven));
        assert!(!is_about_settings(&refused("illegal parameter")));
        assert!(!is_about_settings(&RefusalCause::ServerKeyDiffers(b"a".to_vec())));
    }
}
