//! What the process does with itself: its log, its rights, and who may look at it from outside.

use super::*;

impl Checker<'_> {
    pub(super) fn process(&mut self) -> Option<ProcessConfig> {
        let parsed = self.parsed;
        let scope = ValueLookup { own: &parsed.global, defaults: None, dialect: self.dialect };
        let foreground = scope.decide_or(OptionId::Foreground, Foreground::Yes);
        let chroot = self.path(&scope, OptionId::Chroot);
        let pid = self.inner_path(&scope, OptionId::Pid);
        let sandbox = scope.decide(OptionId::Sandbox)?;
        let threads = scope.decide(OptionId::Threads)?;
        // stunnel has these for sections too, and they stand among its defaults.
        let scope = ValueLookup { defaults: Some(&parsed.defaults), ..scope };
        Some(ProcessConfig { foreground, pid, chroot, account: account(&scope), sandbox, threads })
    }

    /// The name of a file that is opened once the root directory has changed, if it does.
    fn inner_path(&self, scope: &ValueLookup<'_>, opt: OptionId) -> Option<Resolved<PathBuf>> {
        let jailed =
            matches!(scope.last(OptionId::Chroot), Some(Spanned { value: Value::Path(_), .. }));
        let path = scope.said::<PathBuf>(opt)?;
        Some(path.map(|path| match jailed {
            true => Path::new("/").join(path),
            false => self.anchor(&path),
        }))
    }

    pub(super) fn log(&mut self) -> Option<LogConfig> {
        let parsed = self.parsed;
        let scope = ValueLookup { own: &parsed.global, defaults: None, dialect: self.dialect };
        Some(LogConfig {
            level: scope.decide(OptionId::LogLevel)?,
            format: scope.decide(OptionId::LogFormat)?,
            output: self.inner_path(&scope, OptionId::LogOutput),
            overwrite: scope.decide(OptionId::LogMode)?,
            max_size: self.max_size(&scope),
            syslog: scope.decide(OptionId::Syslog)?,
            facility: scope.decide(OptionId::LogFacility)?,
            ident: ValueLookup { defaults: Some(&parsed.defaults), ..scope }
                .decide(OptionId::ServiceName)?,
        })
    }

    fn max_size(&mut self, scope: &ValueLookup<'_>) -> Option<Resolved<u64>> {
        let said = scope.said::<u64>(OptionId::LogMaxSize)?;
        if !scope.mentions(OptionId::LogOutput) {
            let found = Diagnostic::warning("no-log-file", "there is no file whose size it bounds");
            self.report.push(
                found.at(said.place().cloned()).help("name one with output, or remove max-size"),
            );
        }
        Some(said)
    }

    /// Two defaults make a control socket: it is there, and nobody but its owner reaches it.
    pub(super) fn control(&mut self) -> Option<ControlConfig> {
        let parsed = self.parsed;
        let scope = ValueLookup { own: &parsed.global, defaults: None, dialect: self.dialect };
        Some(ControlConfig {
            enabled: scope.decide(OptionId::Control)?,
            // Bound before the root directory changes: no inner path.
            socket: self.path(&scope, OptionId::ControlSocket),
            mode: scope.decide(OptionId::ControlMode)?,
            group: scope.said(OptionId::ControlGroup),
            users: scope.list(OptionId::ControlUsers),
        })
    }

    /// What is served there is for this machine: nobody is asked for a key.
    pub(super) fn http(&mut self) -> Option<HttpConfig> {
        let parsed = self.parsed;
        let scope = ValueLookup { own: &parsed.global, defaults: None, dialect: self.dialect };
        let mut listen = Vec::new();
        for said in scope.all(OptionId::HttpListen) {
            let Value::Endpoint(endpoint) = &said.value else { continue };
            let local = |ip: IpAddr, port| Endpoint::Tcp { host: Host::Ip(ip), port };
            let endpoint = match endpoint {
                Endpoint::Unix(_) => Some(self.anchored(endpoint)),
                Endpoint::Tcp { host: Host::Unspecified, port } => {
                    Some(local(Ipv4Addr::LOCALHOST.into(), *port))
                }
                Endpoint::Tcp { host: Host::Name(name), port } if name == "localhost" => {
                    Some(local(Ipv4Addr::LOCALHOST.into(), *port))
                }
                Endpoint::Tcp { host: Host::Ip(ip), .. } if ip.is_loopback() => {
                    Some(endpoint.clone())
                }
                Endpoint::Tcp { .. } => None,
            };
            match endpoint {
                Some(endpoint) => listen.push(Resolved::said(endpoint, said.place.clone())),
                None => self.report.push(
                    Diagnostic::error(
                        "http-not-local",
                        "metrics and the status page are served to this machine only: they name \
                         identities and addresses, and ask for no key",
                    )
                    .at(said.place.clone())
                    .help("write 127.0.0.1:PORT, [::1]:PORT or the path of a Unix socket; let a proxy or a tunnel carry it further"),
                ),
            }
        }
        Some(HttpConfig { listen, labels: scope.decide(OptionId::HttpLabels)? })
    }
}
