//! Where services listen and whom they connect to, each for itself and all together.

use super::*;

impl Checker<'_> {
    pub(super) fn accept(&mut self, scope: &ValueLookup<'_>, mode: Option<Mode>) -> Vec<Listen> {
        let said = scope.all(OptionId::Accept);
        let mut listens: Vec<Listen> = Vec::new();
        let mut extra = Vec::new();
        for said in said {
            let Value::Endpoint(endpoint) = &said.value else {
                continue;
            };
            let at = |endpoint| Resolved::said(endpoint, said.place.clone());
            let Endpoint::Tcp { host: Host::Unspecified, port } = endpoint else {
                let endpoint = self.anchored(endpoint);
                if !self.native() && listens.iter().any(|l| l.at.value == endpoint) {
                    self.report_address_twice(&said.place);
                    continue;
                }
                listens.push(Listen { at: at(endpoint), optional: false });
                continue;
            };
            let every = |ip: IpAddr| Endpoint::Tcp { host: Host::Ip(ip), port: *port };
            let ipv4 = every(Ipv4Addr::UNSPECIFIED.into());
            if !self.native() && *port != 0 && listens.iter().any(|l| l.at.value == ipv4) {
                self.report_address_twice(&said.place);
                continue;
            }
            listens.push(Listen { at: at(ipv4), optional: false });
            if self.native() {
                extra.push(Listen { at: at(every(Ipv6Addr::UNSPECIFIED.into())), optional: true });
            }
            if mode == Some(Mode::Client) {
                self.report.push(
                    Diagnostic::warning(
                        "open-to-network",
                        "a port alone listens on every interface: any machine that reaches this \
                         one can use the tunnel without a key",
                    )
                    .at(said.place.clone())
                    .help(format!("write 127.0.0.1:{port}, or 0.0.0.0:{port} if it is meant")),
                );
            }
        }
        // Both families bind a random port of their own, which nobody could guess.
        extra.retain(|l| !matches!(l.at.value, Endpoint::Tcp { port: 0, .. }));
        for listen in extra {
            if !listens.iter().any(|l| l.at.value == listen.at.value) {
                listens.push(listen);
            }
        }
        listens
    }

    /// stunnel binds the address once, fails the second time, and goes on.
    pub(super) fn report_address_twice(&mut self, place: &SourceLocation) {
        self.report.push(
            Diagnostic::warning("address-twice", "the service listens on this address already")
                .at(place.clone())
                .help("remove this line, or the global one that says the same"),
        );
    }

    pub(super) fn anchored(&self, endpoint: &Endpoint) -> Endpoint {
        match endpoint {
            Endpoint::Unix(path) => Endpoint::Unix(self.anchor(path)),
            other => other.clone(),
        }
    }

    pub(super) fn connect(&mut self, scope: &ValueLookup<'_>) -> Vec<Resolved<Endpoint>> {
        self.endpoints(scope.all(OptionId::Connect))
    }

    pub(super) fn endpoints(&mut self, all: Vec<&Spanned<Value>>) -> Vec<Resolved<Endpoint>> {
        let mut targets = Vec::new();
        for said in all {
            let Value::Endpoint(endpoint) = &said.value else {
                continue;
            };
            if let Endpoint::Tcp { host: Host::Name(name), .. } = endpoint
                && !name.contains('%')
                && !is_host_name(name)
            {
                // stunnel starts with such a name too, and fails at each connection.
                self.report.push(
                    Diagnostic::warning(
                        "bad-host-name",
                        "this can be neither an address nor a host name",
                    )
                    .at(said.place.clone())
                    .help("write the address or the name of the other end"),
                );
            }
            targets.push(Resolved::said(self.anchored(endpoint), said.place.clone()));
        }
        targets
    }

    /// A service that connects to itself would run out of descriptors with its first connection.
    pub(super) fn report_loops(&mut self, accept: &[Listen], connect: &[Resolved<Endpoint>]) {
        for target in connect {
            if accept.iter().any(|listen| reaches(&target.value, &listen.at.value)) {
                let found =
                    Diagnostic::error("connects-to-itself", "the service connects to itself");
                self.report.push(
                    found
                        .at(target.place().cloned())
                        .help("connect to the port of the program behind it, or accept on another"),
                );
            } else if accept.iter().any(|listen| may_reach(&target.value, &listen.at.value)) {
                let message = format!(
                    "the service may connect to itself: {} can be this machine, and it accepts on \
                     that port",
                    target.value
                );
                let found = Diagnostic::warning("may-connect-to-itself", message);
                self.report.push(found.at(target.place().cloned()).help(
                    "write the address where the program behind it listens, or another port",
                ));
            }
        }
    }

    /// What no two services may share.
    pub(super) fn check_shared_addresses(&mut self, services: &mut [ServiceConfig]) {
        let mut taken: Vec<(Listen, String)> = Vec::new();
        for service in services {
            let ConnectionSource::Listeners(listens) = &mut service.source else { continue };
            let own_name = &service.name.value;
            let (mut free, mut doubled) = (Vec::new(), Vec::new());
            for listen in listens.drain(..) {
                let any_port = matches!(listen.at.value, Endpoint::Tcp { port: 0, .. });
                let same = taken.iter().find(|(l, _)| !any_port && l.at.value == listen.at.value);
                // Of a port alone, the IPv4 half speaks for both.
                match same.filter(|(l, _)| !l.optional && !listen.optional) {
                    Some((_, name)) => doubled.push((listen, name.clone())),
                    None => {
                        taken.push((listen.clone(), own_name.clone()));
                        free.push(listen);
                    }
                }
            }
            // In stunnel, a section that can have one of its addresses does without the others.
            let goes_on = !self.native() && !free.is_empty();
            for (listen, name) in &doubled {
                let message = format!("service `{name}` listens on {} already", listen.at.value);
                let found = if goes_on {
                    Diagnostic::warning("address-in-use", message).help(
                        "the section works without this address: remove it here, or in the \
                               part for all sections",
                    )
                } else {
                    Diagnostic::error("address-in-use", message)
                        .help("give each service an address of its own")
                };
                self.report.push(found.at(listen.at.place().cloned()));
            }
            *listens = free;
        }
    }

    /// A service that is reached by a name needs one that takes its connections.
    pub(super) fn check_server_names(&mut self, services: &[ServiceConfig]) {
        for (place, service) in services.iter().enumerate() {
            let ConnectionSource::ServerName { of, .. } = &service.source else { continue };
            // stunnel knows only the sections that it has read so far.
            let known = if self.native() { services } else { &services[..place] };
            let primary = known.iter().find(|other| other.name.value == of.value);
            let written = self.parsed.services.iter().any(|other| other.name.value == of.value);
            let found = match primary.map(|primary| (primary.mode.value, &primary.source)) {
                Some((Mode::Server, ConnectionSource::Listeners(_))) => continue,
                Some((Mode::Server, _)) => Diagnostic::warning(
                    "server-name",
                    "no connection reaches this service: the service that it names has no \
                     address of its own",
                )
                .help("name the service that listens"),
                Some((Mode::Client, _)) => {
                    Diagnostic::error("server-name", "SNI primary service is a TLS client")
                        .help("name a service that accepts TLS")
                }
                // It is there, and its own mistakes are told.
                None if written && !services.iter().any(|s| s.name.value == of.value) => continue,
                None => Diagnostic::error("server-name", "SNI section name not found").help(
                    if written {
                        "move the section that it names before this one"
                    } else {
                        "write the name of a section before the colon"
                    },
                ),
            };
            self.report.push(found.at(of.place().cloned()));
        }
    }
}

/// Whether a connection to `target` may arrive at `listener`, although that is not certain: by a name of
/// loopback, or by loopback's address where the listener has every address of the other family. The name or
/// the address of another machine with the same port is what most clients have, and no reason to doubt.
fn may_reach(target: &Endpoint, listener: &Endpoint) -> bool {
    let (Endpoint::Tcp { host: to, port: a }, Endpoint::Tcp { host: at, port: b }) =
        (target, listener)
    else {
        return false;
    };
    let is_loopback = |host: &Host| match host {
        Host::Name(name) => is_loopback_name(name),
        Host::Ip(ip) => ip.is_loopback() || ip.is_unspecified(),
        Host::Unspecified => true,
    };
    let is_name = |host: &Host| matches!(host, Host::Name(_));
    let has_every_address = |host: &Host| matches!(host, Host::Ip(ip) if ip.is_unspecified());
    a == b
        && *a != 0
        && is_loopback(to)
        && is_loopback(at)
        // Two addresses that differ are two addresses.
        && (is_name(to) || is_name(at) || has_every_address(at))
}

/// Names that resolve to loopback everywhere (RFC 6761), and those of Debian's hosts file.
fn is_loopback_name(name: &str) -> bool {
    const NAMES: [&str; 3] = ["localhost", "ip6-localhost", "ip6-loopback"];
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    NAMES.contains(&name.as_str()) || name.ends_with(".localhost")
}

/// Whether a connection to `target` certainly arrives at `listener`. Names are not asked.
pub(super) fn reaches(target: &Endpoint, listener: &Endpoint) -> bool {
    match (target, listener) {
        (Endpoint::Unix(a), Endpoint::Unix(b)) => a == b,
        (Endpoint::Tcp { host: to, port: a }, Endpoint::Tcp { host: at, port: b }) => {
            if a != b || *a == 0 {
                return false;
            }
            match (to, at) {
                (Host::Ip(to), Host::Ip(at)) => {
                    to == at
                        || (at.is_unspecified()
                            && (to.is_loopback() || to.is_unspecified())
                            && to.is_ipv4() == at.is_ipv4())
                }
                (Host::Unspecified, Host::Ip(at)) => at.is_unspecified() || at.is_loopback(),
                (Host::Name(to), Host::Name(at)) => to == at,
                _ => false,
            }
        }
        _ => false,
    }
}
