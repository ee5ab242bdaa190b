//! Options about certificates in a stunnel.conf: beside PSKsecrets nothing is lost without them, and a
//! section without PSKsecrets stays stunnel's.

use super::*;

/// Why an option about certificates changes nothing in a service with pre-shared keys.
pub(super) const KEY_IS_DEMANDED: &str =
    "every peer must prove the pre-shared key, and no certificate is ever believed";

/// Where stunnel finds the authorities that it believes.
const AUTHORITIES: [OptionId; 3] = [OptionId::CaFile, OptionId::CaPath, OptionId::CaStore];

/// What turns the check of a peer's certificate on.
const CHECKS: [OptionId; 4] =
    [OptionId::VerifyChain, OptionId::VerifyPeer, OptionId::Verify, OptionId::RequireCert];

/// Whether a value of such an option asks for nothing: `verifyChain = no`, `verify = 0`.
pub(super) fn asks_for_nothing(value: &Value) -> bool {
    matches!(value, Value::Bool(false) | Value::Count(0))
}

fn is_about_certificates(opt: OptionId) -> bool {
    matches!(
        opt.row().treatment,
        Treatment::OwnCertificate | Treatment::AboutCertificates | Treatment::NeedsCertificates(_)
    )
}

/// A section of the file, with what it inherits.
struct Section<'a> {
    part: &'a ParsedSection,
    scope: ValueLookup<'a>,
}

impl Section<'_> {
    fn has_psk(&self) -> bool {
        self.scope.mentions(OptionId::PskSecrets)
    }

    fn is_client(&self) -> bool {
        self.scope.last(OptionId::Mode).is_some_and(|said| said.value == Value::Mode(Mode::Client))
    }

    /// Whether it asks for a certificate, or for the check of one.
    fn names_certificates(&self) -> bool {
        let asks = |values: &Values| {
            values
                .iter()
                .any(|(opt, said)| is_about_certificates(opt) && !asks_for_nothing(&said.value))
        };
        asks(self.scope.own) || self.scope.defaults.is_some_and(asks)
    }

    /// Whether stunnel serves it, and with certificates.
    fn is_for_stunnel(&self) -> bool {
        !self.has_psk() && (self.names_certificates() || self.is_client())
    }

    fn shown(&self) -> String {
        format!("[{}]", self.part.name.value)
    }
}

impl Checker<'_> {
    fn sections(&self) -> Vec<Section<'_>> {
        let section = |part| Section { part, scope: self.section_scope(part) };
        self.parsed.services.iter().map(section).collect()
    }

    /// Whether some section has pre-shared keys, its own or those that hold for all.
    pub(super) fn has_psk_somewhere(&self) -> bool {
        !self.parsed.defaults.all(OptionId::PskSecrets).is_empty()
            || self.sections().iter().any(Section::has_psk)
    }

    /// Tells of a section without PSKsecrets, in one finding. Whether there is such a finding: nothing
    /// else that the section says matters here then.
    pub(super) fn needs_certificates(&mut self, part: &ParsedSection) -> bool {
        let section = Section { part, scope: self.section_scope(part) };
        if self.native() || section.has_psk() || self.parsed.has_unplaced {
            return false;
        }
        let with_certificates = section.names_certificates();
        if !with_certificates && !section.is_client() {
            return false;
        }
        let mut help = vec!["add PSKsecrets = FILE, a file of identity:key lines".to_owned()];
        if self.is_inetd() {
            help.push("or keep stunnel for this file".to_owned());
        } else {
            help.push(format!("or {}", self.where_to_move(&section)));
        }
        let found = if with_certificates {
            let message = "a tunnel with certificates: there is no PSKsecrets, and only pre-shared keys are supported";
            Diagnostic::error("needs-certificates", message)
        } else {
            Diagnostic::error("missing-option", "the service has no PSKsecrets")
        };
        let found = found.at(part.name.place.clone()).help(help.join("; "));
        self.withdraw_refusals(part);
        self.report.push(found);
        true
    }

    /// Takes back what the reader has said of options in a section that only stunnel runs.
    fn withdraw_refusals(&mut self, part: &ParsedSection) {
        let head = &part.name.place;
        let later = self.parsed.services.iter().map(|other| &other.name.place);
        let end = later.filter(|place| place.file == head.file && place.line > head.line);
        let end = end.map(|place| place.line).min().unwrap_or(u32::MAX);
        let is_own = |place: &SourceLocation| {
            place.file == head.file && (head.line..end).contains(&place.line)
        };
        self.report.diagnostics.retain(|found| {
            !(matches!(found.code, "not-supported-yet" | "never-supported")
                && found.place.as_ref().is_some_and(is_own))
        });
    }

    /// What to do with a file that has services of both kinds.
    fn where_to_move(&self, section: &Section<'_>) -> String {
        let all = self.sections();
        let names = |of: &dyn Fn(&&Section<'_>) -> bool| -> Vec<String> {
            all.iter().filter(of).map(Section::shown).collect()
        };
        let (here, there) = (names(&|s| s.has_psk()), names(&|s| s.is_for_stunnel()));
        if here.is_empty() {
            return "keep stunnel for this file: no service in it has pre-shared keys".to_owned();
        }
        let mut advice = format!(
            "move {} with the global options to a file of {} own for stunnel, with `pid` and `output` \
             of its own; pskgate serves {} from this file",
            listed(&there),
            if there.len() == 1 { "its" } else { "their" },
            listed(&here),
        );
        for other in all.iter().filter(|other| other.has_psk()) {
            for (mine, theirs) in shared(section, other) {
                let (opt, a, b) = (mine.0.name(self.dialect), mine.1.line, theirs.line);
                advice.push_str(&format!(
                    "; {} (line {a}) and {} (line {b}) share `{opt}`: give one of them an address of its own",
                    section.shown(),
                    other.shown(),
                ));
            }
        }
        advice
    }

    /// stunnel lets a client in that has a key or a certificate: the second kind is turned away here.
    pub(super) fn key_or_certificate(&mut self, part: &ParsedSection, mode: Option<Mode>) {
        let scope = self.section_scope(part);
        let said = |opt: &OptionId| scope.last(*opt).filter(|said| !asks_for_nothing(&said.value));
        let (Some(_), Some(check)) =
            (AUTHORITIES.iter().find_map(said), CHECKS.iter().find_map(said))
        else {
            return;
        };
        if mode == Some(Mode::Client) {
            return;
        }
        let message = format!(
            "a client with a certificate and without a key is turned away, whatever line {} says",
            check.place.line
        );
        let found = Diagnostic::warning("certificate-clients", message).at(part.name.place.clone());
        self.report.push(found.help(
            "give each client a line in PSKsecrets, or leave clients with certificates to a stunnel on \
             another port",
        ));
    }
}

/// Where two sections share an address, or one gets the other's connections: the line of each.
fn shared(
    one: &Section<'_>,
    other: &Section<'_>,
) -> Vec<((OptionId, SourceLocation), SourceLocation)> {
    let mut lines = Vec::new();
    for mine in one.scope.all(OptionId::Accept) {
        let same = |said: &&Spanned<Value>| said.value == mine.value;
        if let Some(theirs) = other.scope.all(OptionId::Accept).into_iter().find(same) {
            lines.push(((OptionId::Accept, mine.place.clone()), theirs.place.clone()));
        }
    }
    let goes_to = |from: &Section<'_>, to: &Section<'_>| {
        let said = from.scope.own.last(OptionId::ServerName).filter(|_| !from.is_client())?;
        let Value::Text(text) = &said.value else { return None };
        let (primary, _) = text.split_once(':')?;
        (primary == to.part.name.value).then(|| said.place.clone())
    };
    if let Some(place) = goes_to(one, other) {
        lines.push(((OptionId::ServerName, place), other.part.name.place.clone()));
    }
    if let Some(place) = goes_to(other, one) {
        lines.push(((OptionId::ServerName, one.part.name.place.clone()), place));
    }
    lines
}

/// `[a]`, `[a] and [b]`, `[a], [b] and [c]`
fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
