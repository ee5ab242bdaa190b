//! What the limit of descriptors and the memory leave for sessions, and for connections that have none
//! yet.

/// Descriptors that are not connections': standard streams, listeners, the runtime, the log, keys that
/// are being read, and sockets of connections that were put out and are about to be closed.
const RESERVED: usize = 104;
/// Descriptors of one session.
const PER_SESSION: usize = 2;

/// The part of all descriptors that is for connections without a session: a board with 4,096 of them
/// bears a flood of a thousand connections a second, and has room for 1,500 sessions.
const CONNECTIONS_PART: usize = 4;
const MIN_CONNECTIONS: usize = 32;
const MAX_CONNECTIONS: usize = 16_384;
/// The memory of such a connection: 2.6 kB of ours (measured with 800 silent ones), and what the kernel keeps of a
/// socket.
const MEMORY_PER_CONNECTION: u64 = 4 * 1024;

/// The part of the memory for handshakes, and for connections before.
const MEMORY_PART: u64 = 16;
const MIN_CONNECTIONS_BY_MEMORY: usize = 1024;
/// The memory of a handshake that waits for its peer: OpenSSL's state in TLS 1.2, with its buffer for messages,
/// and the connection's own (57 kB, measured with 512 of them).
const MEMORY_PER_HANDSHAKE: u64 = 56 * 1024;
/// With 256 of them, a thousand sessions and the program itself, 64 MB are nearly full.
const MIN_HANDSHAKES: usize = 256;
const MAX_HANDSHAKES: usize = 4096;

/// The part of the memory for sessions without a limit of their own: who has one key must not be able to have
/// the program killed for want of memory.
const SESSIONS_PART: u64 = 2;
/// The memory of an idle session: 17 kB of ours, and what the kernel keeps of two sockets (measured).
const MEMORY_PER_SESSION: u64 = 24 * 1024;

/// What all services share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Sessions at once, of all services without a limit of their own together.
    pub sessions: usize,
    /// Connections at once that have no session yet.
    pub connections: usize,
    /// Of them, those in a handshake at once, of services without a limit of their own.
    pub handshakes: usize,
}

impl Budget {
    /// What so many descriptors and so many bytes are good for.
    pub fn of(descriptors: usize, memory: u64) -> Self {
        let rest = descriptors.saturating_sub(RESERVED);
        let fit =
            |part: u64, size: u64| usize::try_from(memory / part / size).unwrap_or(usize::MAX);
        let most = fit(MEMORY_PART, MEMORY_PER_CONNECTION);
        let most = most.clamp(MIN_CONNECTIONS_BY_MEMORY, MAX_CONNECTIONS);
        let connections = (rest / CONNECTIONS_PART).clamp(MIN_CONNECTIONS, most);
        let handshakes = fit(MEMORY_PART, MEMORY_PER_HANDSHAKE);
        let handshakes = handshakes.clamp(MIN_HANDSHAKES, MAX_HANDSHAKES).min(connections / 2);
        let sessions = rest.saturating_sub(connections) / PER_SESSION;
        let sessions = sessions.min(fit(SESSIONS_PART, MEMORY_PER_SESSION));
        Self { sessions, connections, handshakes }
    }

    /// The descriptors that so many sessions need, with every connection that may come beside them.
    pub fn needed(sessions: usize) -> usize {
        let of_sessions = sessions.saturating_mul(PER_SESSION);
        let part = of_sessions / (CONNECTIONS_PART - 1) + 1;
        let beside = part.clamp(MIN_CONNECTIONS, MAX_CONNECTIONS);
        of_sessions.saturating_add(RESERVED + beside)
    }

    /// The memory, in bytes, whose part for sessions holds so many.
    pub fn memory_needed(sessions: usize) -> u64 {
        (sessions as u64).saturating_mul(MEMORY_PER_SESSION * SESSIONS_PART)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIGABYTE: u64 = 1 << 30;

    #[test]
    fn what_is_needed_is_enough_and_not_too_much() {
        for sessions in [400, 1000, 100_000] {
            let needed = Budget::needed(sessions);
            assert!(Budget::of(needed, 16 * GIGABYTE).sessions >= sessions);
            assert!(Budget::of(needed - 4, 16 * GIGABYTE).sessions < sessions);
            let memory = Budget::memory_needed(sessions);
            assert_eq!(Budget::of(needed, memory).sessions, sessions);
        }
        let none = Budget { sessions: 0, connections: MIN_CONNECTIONS, handshakes: 16 };
        assert_eq!(Budget::of(0, GIGABYTE), none);
    }

    #[test]
    fn a_board_with_64_mb_has_room_for_a_flood_beside_a_thousand_sessions() {
        let Budget { sessions, connections, handshakes } = Budget::of(1_048_576, 64 << 20);
        assert_eq!((sessions, connections, handshakes), (1365, 1024, 256));
        let strangers =
            connections as u64 * MEMORY_PER_CONNECTION + handshakes as u64 * MEMORY_PER_HANDSHAKE;
        // 12 MB are the program's own.
        assert!(strangers + 1000 * MEMORY_PER_SESSION < 52 << 20, "{strangers}");
    }

    #[test]
    fn descriptors_and_memory_bound_what_strangers_and_holders_of_keys_can_have() {
        let rich = Budget::of(1_048_576, 16 * GIGABYTE);
        assert_eq!((rich.connections, rich.handshakes), (MAX_CONNECTIONS, MAX_HANDSHAKES));
        let few = Budget::of(1024, 16 * GIGABYTE);
        assert_eq!(few, Budget { sessions: 345, connections: 230, handshakes: 115 });
        assert_eq!(Budget::of(1_048_576, GIGABYTE).sessions, 21_845);
    }
}
