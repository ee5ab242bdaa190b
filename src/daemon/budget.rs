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
/// The memory of such a connection: 2 kB of ours, and what the kernel keeps of a socket.
const CONNECTION_SIZE: u64 = 4 * 1024;

/// The part of the memory for handshakes, and for connections before.
const MEMORY_PART: u64 = 16;
/// The memory of a handshake: its SSL object (25 kB, measured) and what it is about to send.
const HANDSHAKE_SIZE: u64 = 32 * 1024;
const MIN_HANDSHAKES: usize = 512;
const MAX_HANDSHAKES: usize = 4096;

/// What all services share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Sessions at once, of services without a limit of their own.
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
        let part = memory / MEMORY_PART;
        let fit = |size: u64| usize::try_from(part / size).unwrap_or(usize::MAX);
        let most = fit(CONNECTION_SIZE).clamp(2 * MIN_HANDSHAKES, MAX_CONNECTIONS);
        let connections = (rest / CONNECTIONS_PART).clamp(MIN_CONNECTIONS, most);
        let handshakes =
            fit(HANDSHAKE_SIZE).clamp(MIN_HANDSHAKES, MAX_HANDSHAKES).min(connections / 2);
        let sessions = rest.saturating_sub(connections) / PER_SESSION;
        Self { sessions, connections, handshakes }
    }

    /// The descriptors that so many sessions need, with every connection that may come beside them.
    pub fn needed(sessions: usize) -> usize {
        let of_sessions = sessions.saturating_mul(PER_SESSION);
        let part = of_sessions / (CONNECTIONS_PART - 1) + 1;
        let beside = part.clamp(MIN_CONNECTIONS, MAX_CONNECTIONS);
        of_sessions.saturating_add(RESERVED + beside)
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
            assert!(Budget::of(needed, GIGABYTE).sessions >= sessions);
            assert!(Budget::of(needed - 4, GIGABYTE).sessions < sessions);
        }
        let none = Budget { sessions: 0, connections: MIN_CONNECTIONS, handshakes: 16 };
        assert_eq!(Budget::of(0, GIGABYTE), none);
    }

    #[test]
    fn a_board_with_64_mb_has_room_for_a_flood_and_no_more_memory_in_it_than_it_can_bear() {
        let Budget { connections, handshakes, .. } = Budget::of(1_048_576, 64 << 20);
        assert_eq!((connections, handshakes), (1024, 512));
        let most = connections as u64 * CONNECTION_SIZE + handshakes as u64 * HANDSHAKE_SIZE;
        assert!(most < 24 << 20, "{most}");
    }

    #[test]
    fn descriptors_and_memory_bound_what_strangers_can_have() {
        let rich = Budget::of(1_048_576, 16 * GIGABYTE);
        assert_eq!((rich.connections, rich.handshakes), (MAX_CONNECTIONS, MAX_HANDSHAKES));
        let few = Budget::of(1024, 16 * GIGABYTE);
        assert_eq!(few, Budget { sessions: 345, connections: 230, handshakes: 115 });
    }
}
