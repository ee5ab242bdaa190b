//! What Windows does not have: each option that is meant for a Unix is named, with what to do instead.

use super::diagnostic::{Diagnostic, Diagnostics};
use super::model::{Endpoint, Foreground, Transparent};
use super::options::OptionId;
use super::parsed_file::{ParsedFile, Value};

/// What an option comes to there.
enum Fate {
    /// Without it the tunnel would be another one than was asked for.
    Refused(&'static str),
    /// It can be left out without harm.
    Idle(&'static str),
}

use Fate::{Idle, Refused};

/// Judges everything that a file says for Windows.
pub(super) fn judge(parsed: &ParsedFile, report: &mut Diagnostics) {
    let parts = parsed.services.iter().map(|service| &service.values);
    for (opt, said) in
        [&parsed.global, &parsed.defaults].into_iter().chain(parts).flat_map(|v| v.iter())
    {
        let name = opt.row().name(parsed.dialect);
        let found = match fate(opt, &said.value) {
            None => continue,
            Some(Refused(help)) => Diagnostic::error(
                "unix-only",
                format!("`{name}` asks for what Windows does not have"),
            )
            .help(help),
            Some(Idle(help)) => {
                Diagnostic::warning("unix-only", format!("`{name}` does nothing on Windows"))
                    .help(help)
            }
        };
        report.push(found.at(said.place.clone()));
    }
}

fn fate(opt: OptionId, value: &Value) -> Option<Fate> {
    Some(match (opt, value) {
        (_, Value::Endpoint(Endpoint::Unix(_))) => {
            Refused("write an address with a port, such as 127.0.0.1:3000")
        }
        (OptionId::Exec | OptionId::ExecArgs, _) => {
            Refused("start the program by itself, and have `connect` name its port")
        }
        (OptionId::Transparent, Value::Transparent(whose)) if *whose != Transparent::None => {
            Refused("remove it: Linux alone lets a program do so")
        }
        (OptionId::SetEnv, _) => Idle("remove it: it is for programs, and none is started"),
        (OptionId::Setuid | OptionId::Setgid, _) => {
            Refused("remove it; `pskgate service install --account` says whom a service runs as")
        }
        (OptionId::Chroot, _) => Refused("remove it"),
        (OptionId::ControlGroup | OptionId::ControlUsers | OptionId::ControlMode, _) => Refused(
            "remove it: whoever started the program and administrators can reach its control pipe, and nobody else",
        ),
        (OptionId::Pid, _) => Idle("remove it; `pskgate status` tells the number of the process"),
        (OptionId::Foreground, Value::Foreground(Foreground::No)) => {
            Idle("remove it; `pskgate service install` runs it in the background")
        }
        (OptionId::Syslog, Value::Bool(true)) => {
            Idle("remove it; a service without `output` writes to the event log")
        }
        (OptionId::Sandbox, Value::Bool(true)) => {
            Idle("remove it; a service has an account of its own, with few rights")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::config::diagnostic::Severity;
    use crate::config::load::{Format, read};

    fn found(name: &str, text: &str) -> Vec<(Severity, u32, String)> {
        let mut report = Diagnostics::default();
        let name = Path::new(name);
        let parsed =
            read(text.as_bytes(), name, Path::new("/"), Format::Auto, &mut report).unwrap();
        assert!(!report.has_errors(), "{}", report.render(false));
        judge(&parsed, &mut report);
        report.sort();
        let line = |one: &Diagnostic| one.place.as_ref().unwrap().line;
        let of = |one: &Diagnostic| {
            assert!(one.help.as_ref().is_some_and(|help| !help.is_empty()));
            (one.severity, line(one), one.message.split('`').nth(1).unwrap().to_owned())
        };
        report.diagnostics.iter().filter(|one| one.code == "unix-only").map(of).collect()
    }

    #[test]
    fn what_only_a_unix_has_is_refused_by_name_and_place() {
        let text = "user = \"nobody\"\nchroot = \"/jail\"\npid-file = \"x.pid\"\n[control]\nmode = \"0660\"\n\
                    [services.a]\nmode = \"server\"\naccept = [3001, \"unix:/run/a.sock\"]\nexec = \"/bin/cat\"\n\
                    psk-secrets = \"psk.txt\"\n";
        let wanted = [
            (Severity::Error, 1, "user"),
            (Severity::Error, 2, "chroot"),
            (Severity::Warning, 3, "pid-file"),
            (Severity::Error, 5, "mode"),
            (Severity::Error, 8, "accept"),
            (Severity::Error, 9, "exec"),
        ];
        let wanted = wanted.map(|(severity, line, name)| (severity, line, name.to_owned()));
        assert_eq!(found("gate.toml", text), wanted);
    }

    #[test]
    fn a_stunnel_conf_that_is_at_home_anywhere_passes() {
        let text = "client = yes\noutput = stunnel.log\nforeground = yes\n[beremiz]\naccept = 127.0.0.1:3002\n\
                    connect = plc:3001\nPSKidentity = client1\nPSKsecrets = pskclient1.txt\n";
        assert_eq!(found("stunnel.conf", text), []);
        let idle = "syslog = yes\npid = /run/stunnel.pid\nforeground = no\n";
        let lines: Vec<_> = found("stunnel.conf", &(idle.to_owned() + text));
        let wanted = [(1, "syslog"), (2, "pid"), (3, "foreground")];
        assert_eq!(lines, wanted.map(|(line, name)| (Severity::Warning, line, name.to_owned())));
    }
}
