//! Socket options, keepalive, and what is said of addresses: PROXY headers and whom to believe them.

use super::*;
use crate::config::model::{IpRange, ProxyHeader, SocketOption, Sockets};

impl Checker<'_> {
    pub(super) fn preface(
        &mut self,
        scope: &ValueLookup<'_>,
        mode: Option<Mode>,
    ) -> Option<Resolved<ProxyHeader>> {
        let said = scope.said(OptionId::Protocol)?;
        if !self.native()
            && scope.latest(OptionId::Protocol, OptionId::Negotiation) != Some(OptionId::Protocol)
        {
            return None;
        }
        if mode != Some(Mode::Client) {
            return Some(said);
        }
        // Among the native defaults it is meant for the servers of the file.
        if !self.native() || scope.own.last(OptionId::Protocol).is_some() {
            let message = if self.native() {
                "a client has no backend to tell where a connection came from"
            } else {
                "The 'proxy' protocol is not supported in the client mode"
            };
            let found = Diagnostic::error("proxy-header-on-client", message)
                .help("remove it here, and set it at the server end");
            self.report.push(found.at(said.place().cloned()));
        }
        None
    }

    /// Who is believed about addresses is believed about all of them.
    pub(super) fn proxies(&mut self, scope: &ValueLookup<'_>) -> Vec<Resolved<IpRange>> {
        let proxies = scope.list::<IpRange>(OptionId::ProxyProtocolFrom);
        for proxy in proxies.iter().filter(|proxy| proxy.value.is_all()) {
            self.report.push(
                Diagnostic::warning(
                    "trusts-everybody",
                    "any client can then claim to come from any address",
                )
                .at(proxy.place().cloned())
                .help("list the addresses of your proxies only"),
            );
        }
        proxies
    }

    pub(super) fn sockets(
        &mut self,
        scope: &ValueLookup<'_>,
        mode: Option<Mode>,
    ) -> Option<Sockets> {
        let mut lists: [Vec<Resolved<SocketOption>>; 3] = Default::default();
        for said in scope.all(OptionId::Socket) {
            let Value::Socket(side, option) = &said.value else {
                continue;
            };
            let list = match side {
                SocketSide::Accept => &mut lists[0],
                SocketSide::Downstream => &mut lists[1],
                SocketSide::Upstream => &mut lists[2],
            };
            // The last word about an option counts, in the place of the first.
            let decided = Resolved::said(option.clone(), said.place.clone());
            match list.iter_mut().find(|d| discriminant(&d.value) == discriminant(option)) {
                Some(earlier) => *earlier = decided,
                None => list.push(decided),
            }
        }
        let mut keepalive = scope.decide(OptionId::Keepalive)?;
        let [accept, downstream, upstream] = lists;
        let tls_side = match mode {
            Some(Mode::Client) => &upstream,
            _ => &downstream,
        };
        if !self.native()
            && let Some(said) = tls_side.iter().find(|d| speaks_of_keepalive(&d.value))
        {
            keepalive = Resolved { value: None, origin: said.origin.clone() };
        }
        Some(Sockets { keepalive, accept, downstream, upstream })
    }
}

pub(in crate::config) fn speaks_of_keepalive(option: &SocketOption) -> bool {
    matches!(
        option,
        SocketOption::KeepAlive(_)
            | SocketOption::KeepAliveCount(_)
            | SocketOption::KeepAliveIdle(_)
            | SocketOption::KeepAliveInterval(_)
    )
}
