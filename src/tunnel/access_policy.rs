//! Who may come, from where, how often and to which backend: what the configuration says of a service
//! and of single identities.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::fair_share::FairShare;
use crate::config::model::{
    IpRange, OnRevocation, Origin, Resolved, ServiceConfig, Target, WhenFull as When,
};
use crate::net::Dialer;
use crate::secrets::{Identity, SecretSet};
use crate::sys::clock;
use crate::tls::RefusalCause;

/// How long before the end of a key it is warned of.
const EXPIRY_WARNING_TIME: Duration = Duration::from_secs(30 * 86_400);

/// The rules of one service.
#[derive(Debug)]
pub(super) struct AccessPolicies {
    /// By the name on the wire; who is not here has no rules of its own.
    by_wire: HashMap<Identity, Arc<IdentityPolicy>>,
    /// In the order of the file.
    all: Vec<Arc<IdentityPolicy>>,
    allow_from: Vec<IpRange>,
    proxies: Vec<IpRange>,
    per_source: Option<usize>,
    per_identity: Option<usize>,
    pub(super) when_full: When,
    pub(super) on_revocation: OnRevocation,
    /// Whether there can be an objection to anybody who has a key: asked at every handshake.
    pub(super) may_object: bool,
    /// Whether the clock alone can change who may be here.
    pub(super) expires: bool,
}

/// The rules of one identity.
#[derive(Debug)]
struct IdentityPolicy {
    who: Identity,
    said: Origin,
    wire: Vec<Identity>,
    allow_from: Vec<IpRange>,
    dialer: Option<Dialer>,
    max_sessions: Option<usize>,
    expires: Option<Resolved<jiff::Timestamp>>,
}

impl IdentityPolicy {
    fn end(&self) -> Option<jiff::Timestamp> {
        self.expires.as_ref().map(|end| end.value)
    }
}

/// The most sessions at once: of the service if it has a limit of its own, of one source, and of one
/// identity; and how the last slots are shared where an identity has no limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct SessionLimits {
    pub(super) service: Option<usize>,
    pub(super) source: Option<usize>,
    pub(super) identity: Option<usize>,
    pub(super) fair: Option<FairShare>,
    /// How many of the slots that `fair` is about are taken.
    pub(super) taken: usize,
}

/// A moment by this machine's clock; none while it shows a time before this program was built, as a
/// board without a battery does until it has heard of the time. Nothing expires then.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClockReading(Option<jiff::Timestamp>);

impl ClockReading {
    pub(super) fn read() -> Self {
        Self((!clock::is_before_build()).then(jiff::Timestamp::now))
    }

    fn is_after(self, end: Option<jiff::Timestamp>) -> bool {
        matches!((self.0, end), (Some(now), Some(end)) if now >= end)
    }
}

fn allows(ranges: &[IpRange], ip: Option<IpAddr>) -> bool {
    // Who comes over a Unix socket has no address: the socket's mode decides about that one.
    ip.is_none_or(|ip| ranges.is_empty() || ranges.iter().any(|range| range.contains(ip)))
}

impl AccessPolicies {
    pub(super) fn new(config: &ServiceConfig, dialer: impl Fn(Target) -> Dialer) -> Self {
        let number =
            |limit: &Option<Resolved<u32>>| limit.as_ref().map(|limit| limit.value as usize);
        let ranges = |all: &[Resolved<IpRange>]| all.iter().map(|range| range.value).collect();
        let mut by_wire = HashMap::new();
        let mut all: Vec<Arc<IdentityPolicy>> = Vec::new();
        for rules in &config.identities {
            let target = Target::Connect(rules.connect.clone());
            let wire = rules.wire.iter().map(|wire| Identity::new(&wire.value));
            let policy = Arc::new(IdentityPolicy {
                who: Identity::new(&rules.name.value),
                said: rules.name.origin.clone(),
                wire: wire.collect(),
                allow_from: ranges(&rules.allow_from),
                dialer: (!rules.connect.is_empty()).then(|| dialer(target)),
                max_sessions: number(&rules.max_sessions),
                expires: rules.expires.clone(),
            });
            by_wire.extend(policy.wire.iter().map(|wire| (wire.clone(), policy.clone())));
            all.push(policy);
        }
        let expires = all.iter().any(|policy| policy.expires.is_some());
        let placed = all.iter().any(|policy| !policy.allow_from.is_empty());
        Self {
            by_wire,
            all,
            may_object: expires || placed || !config.allow_from.is_empty(),
            expires,
            allow_from: ranges(&config.allow_from),
            proxies: ranges(&config.proxies),
            per_source: number(&config.limits.per_source),
            per_identity: number(&config.limits.per_identity),
            when_full: config.limits.when_full.value,
            on_revocation: config.on_revocation.value,
        }
    }

    fn of(&self, wire: &Identity) -> Option<&IdentityPolicy> {
        self.by_wire.get(wire).map(|policy| &**policy)
    }

    /// To whom a name on the wire belongs.
    pub(super) fn who(&self, wire: &Identity) -> Identity {
        self.of(wire).map_or_else(|| wire.clone(), |policy| policy.who.clone())
    }

    /// Where that identity's connections go, when not where the others' do.
    pub(super) fn dialer(&self, wire: &Identity) -> Option<&Dialer> {
        self.of(wire).and_then(|policy| policy.dialer.as_ref())
    }

    /// The limits for the owner of that name. `fair` holds where it has no limit of its own.
    pub(super) fn session_limits(
        &self,
        wire: &Identity,
        service: Option<usize>,
        fair: Option<FairShare>,
        taken: usize,
    ) -> SessionLimits {
        let own = self.of(wire).and_then(|policy| policy.max_sessions);
        let identity = own.or(self.per_identity);
        let fair = fair.filter(|_| identity.is_none());
        SessionLimits { service, source: self.per_source, identity, fair, taken }
    }

    /// How many identities the names on the wire belong to.
    pub(super) fn count_owners(&self, secrets: &SecretSet) -> usize {
        if self.by_wire.is_empty() {
            return secrets.len();
        }
        secrets.locations().map(|(wire, ..)| self.who(wire)).collect::<HashSet<_>>().len()
    }

    /// Whether connections from there begin with a PROXY header.
    pub(super) fn is_proxy(&self, ip: Option<IpAddr>) -> bool {
        ip.is_some_and(|ip| self.proxies.iter().any(|range| range.contains(ip)))
    }

    /// Whether connections from there are accepted at all.
    pub(super) fn accepts(&self, ip: Option<IpAddr>) -> bool {
        allows(&self.allow_from, ip)
    }

    /// Why an identity is not taken from there now, if it is not.
    pub(super) fn objection(
        &self,
        wire: &Identity,
        ip: Option<IpAddr>,
        now: ClockReading,
    ) -> Option<fn(Vec<u8>) -> RefusalCause> {
        let own = self.of(wire);
        if !self.accepts(ip) || own.is_some_and(|policy| !allows(&policy.allow_from, ip)) {
            return Some(RefusalCause::NotFromHere);
        }
        now.is_after(own.and_then(IdentityPolicy::end)).then_some(RefusalCause::Expired)
    }

    /// When the key under that name stops to be taken, and whether it has.
    pub(super) fn expiry(
        &self,
        wire: &Identity,
        now: ClockReading,
    ) -> Option<(jiff::Timestamp, bool)> {
        let end = self.of(wire)?.end()?;
        Some((end, now.is_after(Some(end))))
    }

    /// What to say of keys whose time is over or nearly so, and of names that no key file has.
    pub(super) fn warnings(&self, secrets: &SecretSet) -> Vec<PolicyWarning> {
        let now = ClockReading::read();
        let mut all = Vec::new();
        for policy in &self.all {
            let name = &policy.who;
            let mut remark = |code, said: &Origin, message: String, help: &str| {
                all.push(PolicyWarning { code, said: said.clone(), message, help: help.into() });
            };
            if !policy.wire.iter().any(|wire| secrets.find(wire.as_bytes()).is_some()) {
                let message = format!("no key file of this service has the identity {name}");
                let help = "write a key for it with `pskgate keygen`, or remove its rules";
                remark("identity-without-key", &policy.said, message, help);
                continue;
            }
            let Some(Resolved { value: end, origin: said }) = &policy.expires else { continue };
            let Some(today) = now.0 else {
                let message = "the clock of this machine shows a time before this program was built: \
                               no key expires until it is set";
                let help = "set the clock, or have NTP set it";
                remark("clock-before-build", said, message.into(), help);
                continue;
            };
            let left = end.duration_since(today);
            if left.is_negative() || left.is_zero() {
                let message = format!("the keys of {name} have expired: it cannot connect");
                let help = "give it a new key, and change or remove `expires`";
                remark("key-expired", said, message, help);
            } else if left.unsigned_abs() < EXPIRY_WARNING_TIME {
                let days = left.unsigned_abs().as_secs().div_ceil(86_400);
                let days = if days == 1 { "a day".into() } else { format!("{days} days") };
                let message = format!("the keys of {name} expire within {days}");
                let help = "rotate it with `pskgate keys rotate`, and change `expires`";
                remark("key-expires-soon", said, message, help);
            }
        }
        all
    }
}

/// Something to say of one identity's rules.
#[derive(Debug)]
pub(super) struct PolicyWarning {
    pub(super) code: &'static str,
    pub(super) said: Origin,
    pub(super) message: String,
    pub(super) help: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> IpRange {
        IpRange::new(text.parse().unwrap())
    }

    #[test]
    fn no_range_is_everywhere_and_no_address_is_nobody_s_business_here() {
        let ip = |text: &str| Some(text.parse().unwrap());
        let plants = [range("10.1.0.0/16"), range("2001:db8::/32")];
        assert!(allows(&[], ip("192.0.2.1")));
        assert!(allows(&plants, ip("10.1.2.3")) && allows(&plants, ip("2001:db8::1")));
        assert!(!allows(&plants, ip("10.2.0.1")) && !allows(&plants, ip("::1")));
        assert!(allows(&plants, None));
    }

    #[test]
    fn nothing_expires_by_a_clock_that_cannot_be_right() {
        let end = "2027-01-31T00:00:00Z".parse().ok();
        let at = |text: &str| ClockReading(text.parse().ok());
        assert!(at("2027-01-31T00:00:00Z").is_after(end));
        assert!(!at("2027-01-30T23:59:59Z").is_after(end));
        assert!(!ClockReading(None).is_after(end) && !at("2030-01-01T00:00:00Z").is_after(None));
    }

    const DAY: i64 = 86_400;

    /// The rules of a service with these lines; each target has a dialer of its own.
    fn policies(lines: &str) -> AccessPolicies {
        use crate::config::{Format, load_text};
        let text = format!(
            "[services.s]\nmode = \"server\"\naccept = \"127.0.0.1:1\"\nconnect = \"127.0.0.1:2\"\n\
             psk-secrets = \"x\"\n{lines}\n"
        );
        let (path, root) = (std::path::Path::new("t.toml"), std::path::Path::new("/"));
        let read = load_text(text.as_bytes(), path, root, Format::Toml);
        let (config, _) = read.unwrap_or_else(|report| panic!("{text}{report:?}"));
        let service = &config.services[0];
        AccessPolicies::new(service, |target| {
            let limit = Duration::from_secs(1);
            Dialer::new(target, service.failover.value, None, limit, None, Vec::new())
        })
    }

    fn name(text: &str) -> Identity {
        Identity::new(text.as_bytes())
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn each_name_on_the_wire_has_its_identity_s_rules_and_the_others_have_the_service_s() {
        let rules = policies(
            "max-sessions-per-source = 4\nmax-sessions-per-identity = 2\n\
             [services.s.identities]\nalice = { wire = [\"a1\", \"a2\"], max-sessions = 7 }\n\
             bob = { connect = \"127.0.0.1:3\" }",
        );
        for wire in ["a1", "a2"] {
            assert_eq!(rules.who(&name(wire)), name("alice"));
            let SessionLimits { service, source, identity, fair, .. } =
                rules.session_limits(&name(wire), Some(9), FairShare::new(90, 9), 0);
            assert_eq!(fair, None, "it has a limit of its own");
            assert_eq!((service, source, identity), (Some(9), Some(4), Some(7)));
            assert!(rules.dialer(&name(wire)).is_none());
        }
        assert_eq!(rules.who(&name("carol")), name("carol"));
        let SessionLimits { service, source, identity, .. } =
            rules.session_limits(&name("bob"), None, None, 0);
        assert_eq!((service, source, identity), (None, Some(4), Some(2)));
        assert!(rules.dialer(&name("bob")).is_some() && rules.dialer(&name("carol")).is_none());
        assert!(!rules.may_object && !rules.expires);
    }

    #[test]
    fn the_last_seats_are_shared_among_owners_of_names_who_have_no_limit() {
        let rules = policies(
            "[services.s.identities]\nalice = { wire = [\"a1\", \"a2\"] }\n\
             bob = { max-sessions = 5 }",
        );
        let key = b"a key of sixteen bytes or more";
        let keys =
            SecretSet::from_pairs(&[(b"a1", key), (b"a2", key), (b"bob", key), (b"carol", key)]);
        assert_eq!(rules.count_owners(&keys), 3);
        assert_eq!(policies("").count_owners(&keys), 4);
        let fair = FairShare::new(90, 3);
        let of = |who| rules.session_limits(&name(who), None, fair, 7).fair;
        assert_eq!([of("a1"), of("carol"), of("bob")], [fair, fair, None]);
    }

    #[test]
    fn a_range_of_the_service_or_of_the_identity_keeps_out_who_is_outside_of_it() {
        let now = ClockReading(None);
        let not_from_here = |objection: Option<fn(Vec<u8>) -> RefusalCause>| {
            objection.is_some_and(|cause| matches!(cause(Vec::new()), RefusalCause::NotFromHere(_)))
        };
        let rules = policies("allow-from = \"10.0.0.0/8\"");
        assert!(rules.accepts(ip("10.1.1.1")) && !rules.accepts(ip("192.0.2.1")));
        assert!(rules.may_object && !rules.expires);
        assert!(rules.objection(&name("a"), ip("10.1.1.1"), now).is_none());
        assert!(not_from_here(rules.objection(&name("a"), ip("192.0.2.1"), now)));

        let rules = policies("[services.s.identities]\na = { allow-from = \"10.1.0.0/16\" }");
        assert!(rules.may_object && rules.accepts(ip("192.0.2.1")));
        assert!(not_from_here(rules.objection(&name("a"), ip("10.2.1.1"), now)));
        assert!(rules.objection(&name("a"), ip("10.1.1.1"), now).is_none());
        assert!(rules.objection(&name("b"), ip("10.2.1.1"), now).is_none());

        assert!(!rules.is_proxy(ip("10.2.1.1")));
        let rules = policies("proxy-protocol-from = \"10.3.0.0/16\"");
        assert!(rules.is_proxy(ip("10.3.1.1")));
        assert!(!rules.is_proxy(ip("10.2.1.1")) && !rules.is_proxy(None));
    }

    #[test]
    fn a_key_is_objected_to_from_its_end_on_and_warned_of_thirty_days_before() {
        let end = |from_now: i64| {
            let now = jiff::Timestamp::now().as_second();
            jiff::Timestamp::from_second(now + from_now).unwrap()
        };
        let keys = SecretSet::from_pairs(&[(b"a", b"a key of sixteen bytes or more")]);
        for (from_now, over, code, words) in [
            (-DAY, true, Some("key-expired"), "have expired"),
            (DAY / 2, false, Some("key-expires-soon"), "within a day"),
            (DAY + DAY / 2, false, Some("key-expires-soon"), "within 2 days"),
            (29 * DAY + DAY / 2, false, Some("key-expires-soon"), "within 30 days"),
            (30 * DAY + DAY / 2, false, None, ""),
        ] {
            let end = end(from_now);
            let rules =
                policies(&format!("[services.s.identities]\na = {{ expires = \"{end}\" }}"));
            assert!(rules.may_object && rules.expires);
            assert_eq!(rules.expiry(&name("a"), ClockReading::read()), Some((end, over)));
            let objection = rules.objection(&name("a"), None, ClockReading::read());
            let expired =
                objection.map(|cause| matches!(cause(Vec::new()), RefusalCause::Expired(_)));
            assert_eq!(expired, over.then_some(true));
            let warnings = rules.warnings(&keys);
            assert_eq!(warnings.iter().map(|one| one.code).next(), code);
            assert!(warnings.iter().all(|one| one.message.contains(words)), "{warnings:?}");
            assert_eq!(rules.expiry(&name("b"), ClockReading::read()), None);
        }
        let rules = policies("[services.s.identities]\nb = { max-sessions = 1 }");
        let warnings = rules.warnings(&keys);
        assert_eq!(
            warnings.iter().map(|one| one.code).collect::<Vec<_>>(),
            ["identity-without-key"]
        );
        let rules = policies("[services.s.identities]\na = { max-sessions = 1 }");
        assert!(
            rules.warnings(&keys).is_empty()
                && rules.expiry(&name("a"), ClockReading::read()).is_none()
        );
    }
}
