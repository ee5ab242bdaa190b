//! What a service cannot do without, and what it has twice.

use super::*;

/// What a native service must say, and how.
const REQUIRED: [(OptionId, &str); 4] = [
    (
        OptionId::Mode,
        "add mode = \"client\" (accepts plain, connects TLS) or mode = \"server\" (accepts TLS, connects plain)",
    ),
    (OptionId::Accept, "add accept, such as accept = \"127.0.0.1:3002\""),
    (OptionId::Connect, "add connect, such as connect = \"plc.example:3001\""),
    (OptionId::PskSecrets, "add psk-secrets = \"FILE\", a file of identity:key lines"),
];

impl Checker<'_> {
    pub(super) fn report_missing(
        &mut self,
        service: &ParsedSection,
        scope: &ValueLookup<'_>,
        mode: Option<Mode>,
    ) {
        if self.parsed.has_unplaced {
            // A line that could not be read may have been the one; the next run will tell.
            return;
        }
        if self.native() {
            self.report_exclusive_options(service, scope, mode);
            self.report_missing_native(service, scope, mode);
            return;
        }
        let said = |opt| scope.mentions(opt);
        let told = usize::from(self.says_target_elsewhere(scope, mode).is_some());
        let targets =
            told + [OptionId::Connect, OptionId::Exec].into_iter().filter(|o| said(*o)).count();
        if self.is_inetd() {
            self.report_missing_inetd(scope, targets);
        } else {
            self.report_missing_endpoints(service, scope, mode, (told, targets));
        }
        if !said(OptionId::PskSecrets) {
            self.report.push(
                Diagnostic::error("missing-option", "the service has no PSKsecrets")
                    .at(service.name.place.clone())
                    .help("add PSKsecrets = FILE, a file of identity:key lines; certificates are not supported"),
            );
        }
    }

    /// Two options of a native service that exclude each other.
    fn report_exclusive_options(
        &mut self,
        service: &ParsedSection,
        scope: &ValueLookup<'_>,
        mode: Option<Mode>,
    ) {
        let own = scope.own;
        let mut pairs = Vec::new();
        if let Some((opt, said)) = self.says_target_elsewhere(scope, mode) {
            let others = [OptionId::Connect, OptionId::Exec];
            let other = others.into_iter().find(|other| own.mentions(*other));
            let help = "remove one of them: both say where connections go";
            pairs.extend(other.map(|other| (opt, other, said, help)));
        }
        let help = "remove one of them: each says what this end does";
        if own.mentions(OptionId::Connect)
            && !self.is_from_program(scope, mode)
            && let Some(said) = own.last(OptionId::Exec)
        {
            pairs.push((OptionId::Connect, OptionId::Exec, said, help));
        }
        if own.mentions(OptionId::Accept)
            && mode == Some(Mode::Server)
            && let Some(said) = own.last(OptionId::ServerName)
        {
            pairs.push((OptionId::Accept, OptionId::ServerName, said, help));
        }
        for (one, other, said, help) in pairs {
            let (one, other) = (one.name(self.dialect), other.name(self.dialect));
            let message =
                format!("service `{}` has both `{one}` and `{other}`", service.name.value);
            let found = Diagnostic::error("two-of-a-kind", message).help(help);
            self.report.push(found.at(said.place.clone()));
        }
    }

    fn report_missing_native(
        &mut self,
        service: &ParsedSection,
        scope: &ValueLookup<'_>,
        mode: Option<Mode>,
    ) {
        let said = |opt| scope.mentions(opt);
        let by_name = said(OptionId::ServerName) && mode != Some(Mode::Client);
        for (opt, help) in REQUIRED {
            let elsewhere = match opt {
                OptionId::Accept => by_name || self.is_from_program(scope, mode),
                OptionId::PskSecrets => said(OptionId::BeremizProject),
                OptionId::Connect => {
                    said(OptionId::Exec) || self.says_target_elsewhere(scope, mode).is_some()
                }
                _ => false,
            };
            if said(opt) || elsewhere {
                continue;
            }
            let (shown, name) = (&service.name.value, opt.name(self.dialect));
            let message = format!("service `{shown}` has no `{name}`");
            let found = Diagnostic::error("missing-option", message);
            self.report.push(found.at(service.name.place.clone()).help(help));
        }
    }

    /// A stunnel.conf without a section has its connection, and lacks or has too much of a target.
    fn report_missing_inetd(&mut self, scope: &ValueLookup<'_>, targets: usize) {
        let found = if let Some(said) = scope.last(OptionId::Accept) {
            Diagnostic::error(
                "accept-without-section",
                "Inetd mode: 'accept' option is only allowed in a [section]",
            )
            .at(said.place.clone())
            .help("put a [section] line with a name before accept and connect")
        } else {
            Diagnostic::error("missing-option", "Inetd mode: Inetd mode must define one endpoint")
                .help("write either connect = HOST:PORT or exec = PROGRAM")
        };
        if scope.mentions(OptionId::Accept) || targets != 1 {
            self.report.push(found);
        }
    }

    /// A section of a stunnel.conf: where its connections come from, and where they go.
    fn report_missing_endpoints(
        &mut self,
        service: &ParsedSection,
        scope: &ValueLookup<'_>,
        mode: Option<Mode>,
        (told, targets): (usize, usize),
    ) {
        let by_name = scope.mentions(OptionId::ServerName) && mode != Some(Mode::Client);
        let sources = usize::from(scope.mentions(OptionId::Accept)) + usize::from(by_name);
        if matches!((sources, targets, told), (1, 1, _) | (0, 2, 0)) {
            return;
        }
        let help = match (sources, targets) {
            (0, _) => "add accept = PORT",
            (_, 0) => "add connect = HOST:PORT",
            _ if told > 0 => {
                "leave out connect and exec: protocol or transparent says where connections go"
            }
            (_, 2) => "write either connect or exec",
            _ => {
                "write either accept or sni: a section with sni gets its connections from another \
                 section"
            }
        };
        let found = Diagnostic::error("missing-option", "Each service must define two endpoints");
        self.report.push(found.at(service.name.place.clone()).help(help));
    }
}
