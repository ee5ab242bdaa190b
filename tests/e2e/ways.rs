//! Directly, through pskgate, and through stunnel4.

use std::net::SocketAddr;

use crate::ends::{End, Maker, Order};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Direct,
    Through(Maker),
}

pub const WAYS: [Way; 3] =
    [Way::Direct, Way::Through(Maker::Pskgate), Way::Through(Maker::Stunnel)];

/// A tunnel to something, or none.
pub struct Tunnel {
    /// Where a client is to connect to.
    pub address: SocketAddr,
    /// The server end before the client end.
    pub ends: Vec<End>,
}

impl Way {
    /// Both ends before a backend. Only one session is let in where `one` is true.
    pub fn pair(self, backend: SocketAddr, one: bool) -> Tunnel {
        let Self::Through(maker) = self else {
            return Tunnel { address: backend, ends: Vec::new() };
        };
        let server = server(maker, backend, one).start();
        let client = Order::client(maker, server.address()).start();
        Tunnel { address: client.address(), ends: vec![server, client] }
    }
}

/// A server end; for a runtime that bears one connection, as docs/beremiz.md has it.
pub fn server(maker: Maker, backend: SocketAddr, one: bool) -> Order {
    let order = Order::server(maker, backend);
    match one {
        true => order.lines("max-sessions = 1\nwhen-full = \"take-over-own\"", ""),
        false => order,
    }
}
