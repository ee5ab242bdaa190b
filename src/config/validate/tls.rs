//! Versions, suites, groups and OpenSSL's switches.

use super::*;

impl Checker<'_> {
    pub(super) fn tls(&mut self, scope: &ValueLookup<'_>, mode: Option<Mode>) -> Option<TlsConfig> {
        let mut min = self.bound(scope, OptionId::TlsMin)?;
        let mut max = self.bound(scope, OptionId::TlsMax)?;
        // One bound alone may contradict the other's default, which then gives way: whoever asks for
        // nothing newer than 1.1 has asked for 1.1.
        if min.value > max.value {
            match (min.place().is_some(), max.place().is_some()) {
                (true, true) | (false, false) => {}
                (true, false) => max.value = min.value,
                (false, true) => min.value = max.value,
            }
        }
        let switches = self.switches(scope, &mut min, &mut max);
        if min.value > max.value {
            self.report.push(
                Diagnostic::error(
                    "version-range",
                    if self.native() {
                        "tls-min is newer than tls-max"
                    } else {
                        "Invalid protocol version range"
                    },
                )
                .at(max.place().or(min.place()).cloned())
                .help("swap the two, or remove one"),
            );
        } else if min.value < TlsVersion::Tls12 {
            self.report.push(
                Diagnostic::warning("old-tls", "TLS 1.0 and 1.1 are obsolete (RFC 8996)")
                    .at(min.place().or(max.place()).cloned())
                    .help("allow them only for a peer that supports nothing newer"),
            );
        }
        // Of a server it says where its connections come from; see `source`.
        let server_name = scope.said(OptionId::ServerName).filter(|_| mode != Some(Mode::Server));
        Some(TlsConfig {
            min,
            max,
            ciphers: self.ciphers(scope)?,
            cipher_order: scope.decide(OptionId::CipherOrder)?,
            ciphersuites: scope.decide(OptionId::Ciphersuites),
            groups: scope.decide(OptionId::Groups)?,
            skips_unknown_groups: !self.native(),
            // The table has the bounds.
            security_level: scope
                .said::<u32>(OptionId::SecurityLevel)
                .map(|level| level.map(|level| u8::try_from(level).unwrap_or(u8::MAX))),
            switches,
            server_name,
            resumption: self.resumption(scope, mode)?,
            rekey_after: scope.decide(OptionId::RekeyAfter)?,
        })
    }

    /// Named sets are this program's own: a stunnel.conf means OpenSSL's words alone.
    fn ciphers(&self, scope: &ValueLookup<'_>) -> Option<Resolved<String>> {
        let mut list = scope.decide::<String>(OptionId::Ciphers)?;
        if self.native() {
            list.value = expand_named_sets(&list.value);
        }
        Some(list)
    }

    fn resumption(&mut self, scope: &ValueLookup<'_>, mode: Option<Mode>) -> Option<Resumption> {
        let mentioned = |opt| scope.mentions(opt);
        let (one, other) = (OptionId::TicketKeySecret, OptionId::TicketMacSecret);
        for (there, missing) in [(one, other), (other, one)] {
            if let Some(said) = scope.last(there).filter(|_| !mentioned(missing)) {
                let (there, missing) = (there.name(self.dialect), missing.name(self.dialect));
                let found = Diagnostic::error(
                    "half-a-ticket-key",
                    format!("`{there}` without `{missing}`: tickets need both or neither"),
                );
                let help = format!("add {missing}, or leave both out for random keys");
                self.report.push(found.at(said.place.clone()).help(help));
            }
        }
        let mut secret =
            scope.said(one).zip(scope.said(other)).map(|(key, mac)| TicketSecret { key, mac });
        let enabled = scope.decide::<bool>(OptionId::SessionResume)?;
        let timeout = scope.decide(OptionId::SessionCacheTimeout)?;
        let useless = match mode {
            Some(Mode::Client) => {
                secret = None;
                Some(Diagnostic::notice(
                    "ticket-key-on-client",
                    "ticket keys have no effect at a client: it is the server that makes tickets",
                ))
            }
            _ if !enabled.value => {
                let name = OptionId::SessionResume.name(self.dialect);
                Some(Diagnostic::notice(
                    "without-effect",
                    format!("ticket keys have no effect: no session is resumed without `{name}`"),
                ))
            }
            _ => None,
        };
        // Among the defaults they are meant for other services of the file.
        let own = [one, other].into_iter().filter_map(|half| scope.own.last(half));
        if let Some(found) = useless {
            for said in own {
                self.report.push(found.clone().at(said.place.clone()));
            }
        }
        let cache_size = scope.decide(OptionId::SessionCacheSize)?;
        Some(Resumption { enabled, cache_size, timeout, secret })
    }

    /// stunnel's `all` leaves the choice to the library, as if nothing had been said: the versions
    /// below 1.2 are there only for whoever names them.
    pub(super) fn bound(
        &self,
        scope: &ValueLookup<'_>,
        opt: OptionId,
    ) -> Option<Resolved<TlsVersion>> {
        let default = || {
            let none = Values::default();
            let nobody = ValueLookup { own: &none, defaults: None, dialect: self.dialect };
            nobody
                .decide::<Option<TlsVersion>>(opt)
                .and_then(|d| Some(Resolved { value: d.value?, origin: d.origin }))
        };
        match scope.said(opt) {
            Some(Resolved { value: Some(value), origin }) => Some(Resolved { value, origin }),
            _ => default(),
        }
    }

    /// OpenSSL's switches: those that forbid a version narrow the range, some can be turned, and the
    /// rest is how it is here anyway or would weaken it. What is turned off is off, also when a later
    /// line turns it on.
    pub(super) fn switches(
        &mut self,
        scope: &ValueLookup<'_>,
        min: &mut Resolved<TlsVersion>,
        max: &mut Resolved<TlsVersion>,
    ) -> Vec<(TlsSwitch, bool)> {
        let mut turned = Vec::new();
        let mut allowed_again = BTreeSet::new();
        let mut forbidden: BTreeMap<TlsVersion, SourceLocation> = BTreeMap::new();
        for said in scope.all(OptionId::SslOptions) {
            let Value::Text(name) = &said.value else {
                continue;
            };
            let (on, name) = match name.strip_prefix('-') {
                Some(name) => (false, name),
                None => (true, name.as_str()),
            };
            if let Some(switch) = switch(name) {
                turned.push((switch, on));
                continue;
            }
            let version = match name.to_ascii_uppercase().replace('_', ".").as_str() {
                "NO.TLSV1" => TlsVersion::Tls10,
                "NO.TLSV1.1" => TlsVersion::Tls11,
                "NO.TLSV1.2" => TlsVersion::Tls12,
                "NO.TLSV1.3" => TlsVersion::Tls13,
                "NO.SSLV2" | "NO.SSLV3" if on => continue,
                "NO.SSL.MASK" if on => {
                    use TlsVersion::{Tls10, Tls11, Tls12, Tls13};
                    for version in [Tls10, Tls11, Tls12, Tls13] {
                        forbidden.insert(version, said.place.clone());
                    }
                    continue;
                }
                _ => {
                    if scope.own.all(OptionId::SslOptions).contains(said) {
                        self.without_effect(said);
                    }
                    continue;
                }
            };
            if on {
                forbidden.insert(version, said.place.clone());
            } else {
                allowed_again.insert(version);
            }
        }
        forbidden.retain(|version, _| !allowed_again.contains(version));
        // Those that turn something off come last.
        turned.sort_by_key(|(_, on)| !on);
        let order = [TlsVersion::Tls10, TlsVersion::Tls11, TlsVersion::Tls12, TlsVersion::Tls13];
        let allowed: Vec<TlsVersion> = order
            .into_iter()
            .filter(|v| (min.value..=max.value).contains(v) && !forbidden.contains_key(v))
            .collect();
        let place = forbidden.into_values().next();
        let (Some(first), Some(last)) = (allowed.first(), allowed.last()) else {
            if let Some(place) = place {
                let found = Diagnostic::error("version-range", "no protocol version is left");
                self.report.push(found.at(place).help("allow one of them"));
            }
            return turned;
        };
        let Some(place) = place else { return turned };
        let width = order.iter().filter(|v| (first..=last).contains(v)).count();
        if width != allowed.len() {
            let found = Diagnostic::error("version-range", "the versions have a gap in the middle");
            self.report.push(found.at(place).help("use sslVersionMin and sslVersionMax"));
            return turned;
        }
        if *first != min.value {
            *min = Resolved::said(*first, place.clone());
        }
        if *last != max.value {
            *max = Resolved::said(*last, place);
        }
        turned
    }

    pub(super) fn without_effect(&mut self, said: &Spanned<Value>) {
        self.report.push(
            Diagnostic::notice(
                "without-effect",
                "this switch has no effect: the protection that it is about is always on",
            )
            .at(said.place.clone()),
        );
    }
}

/// The switches that can be turned.
pub(in crate::config) fn switch(name: &str) -> Option<TlsSwitch> {
    Some(match name.to_ascii_uppercase().as_str() {
        "ALL" => TlsSwitch::All,
        // The second name is that of later versions of OpenSSL.
        "CIPHER_SERVER_PREFERENCE" | "SERVER_PREFERENCE" => TlsSwitch::CipherServerPreference,
        "PRIORITIZE_CHACHA" => TlsSwitch::PrioritizeChacha,
        "ENABLE_MIDDLEBOX_COMPAT" => TlsSwitch::MiddleboxCompat,
        "NO_ENCRYPT_THEN_MAC" => TlsSwitch::NoEncryptThenMac,
        "NO_EXTENDED_MASTER_SECRET" => TlsSwitch::NoExtendedMasterSecret,
        "DONT_INSERT_EMPTY_FRAGMENTS" => TlsSwitch::DontInsertEmptyFragments,
        "TLSEXT_PADDING" => TlsSwitch::Padding,
        "CLEANSE_PLAINTEXT" => TlsSwitch::CleansePlaintext,
        "TLS_ROLLBACK_BUG" => TlsSwitch::RollbackBug,
        "LEGACY_SERVER_CONNECT" => TlsSwitch::LegacyServerConnect,
        "NO_TICKET" => TlsSwitch::NoTicket,
        _ => return None,
    })
}
