//! What the limit of descriptors leaves for sessions and for handshakes.

/// Descriptors that are not sessions': standard streams, listeners, the runtime, the log, keys that
/// are being read.
const RESERVED: usize = 72;
/// Descriptors of one session.
const PER_SESSION: usize = 2;
/// Handshakes at once when nothing was said. A silent one keeps 25 kB, and a ClientHello that is
/// announced as long as it may be has OpenSSL reserve 131 kB: 20 MB at the worst (measured).
const HANDSHAKES: usize = 128;

/// What services without limits of their own share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Sessions at once.
    pub sessions: usize,
    /// Handshakes at once.
    pub handshakes: usize,
}

impl Budget {
    /// What so many descriptors are good for.
    pub fn of(descriptors: usize) -> Self {
        let rest = descriptors.saturating_sub(RESERVED);
        let handshakes = HANDSHAKES.min(rest / 4);
        Self { sessions: (rest - handshakes) / PER_SESSION, handshakes }
    }

    /// The descriptors that so many sessions need, with every handshake that may come beside them.
    pub fn needed(sessions: usize) -> usize {
        sessions.saturating_mul(PER_SESSION).saturating_add(RESERVED + HANDSHAKES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_enough_and_not_too_much() {
        for sessions in [400, 1000, 100_000] {
            let needed = Budget::needed(sessions);
            assert_eq!(Budget::of(needed), Budget { sessions, handshakes: HANDSHAKES });
            assert!(Budget::of(needed - 1).sessions < sessions);
        }
        assert_eq!(Budget::of(0), Budget { sessions: 0, handshakes: 0 });
    }
}
