//! What the machine and its libraries allow.

use std::time::SystemTime;

use jiff::civil::{Date, date};

use super::findings::Findings;
use crate::config::diagnostic::Diagnostics;
use crate::config::model::Config;
use crate::daemon;
use crate::daemon::budget::Budget;
use crate::sys::cgroup::memory_limit;
use crate::sys::{clock, process};

/// The day on which the OpenSSL project's own support of a line ends
/// (https://openssl-library.org/policies/releasestrat/).
fn end_of_support(major: u32, minor: u32) -> Option<Date> {
    Some(match (major, minor) {
        (3, 0) => date(2026, 9, 7),
        (3, 5) => date(2030, 4, 8),
        (3, 6) => date(2026, 11, 1),
        (4, 0) => date(2027, 5, 14),
        _ => return None,
    })
}

pub(super) fn openssl(findings: &mut Findings) {
    // 0xMNN00PPS, as the headers have it since 3.0.
    let number = u32::try_from(openssl::version::number()).unwrap_or_default();
    let (major, minor) = (number >> 28, number >> 20 & 0xff);
    let line = format!("{major}.{minor}");
    let built = env!("PSKGATE_OPENSSL");
    let text = format!("built with {built}, runs with {}", openssl::version::version());
    let own = cfg!(feature = "vendored");
    let update = if own {
        "build pskgate anew with a newer one"
    } else {
        "keep the system's package up to date: its patches are all there will be"
    };
    if (major, minor) < parse_version_line(built) {
        let help = "a library older than the headers is not what was tested: install the newer one";
        findings.warn("OpenSSL", text.clone(), help);
    }
    match end_of_support(major, minor) {
        None => findings.note("OpenSSL", format!("{text}: when support of {line} ends is unknown")),
        Some(end) if today() >= end => {
            let text = format!("{text}: the project's own support of {line} ended on {end}");
            findings.warn("OpenSSL", text, update);
        }
        Some(end) => findings.ok("OpenSSL", format!("{text}: {line} is supported until {end}")),
    }
}

fn parse_version_line(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

/// By a clock that may never be before the build.
fn today() -> Date {
    let now = SystemTime::now().max(clock::build_time());
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let stamp = i64::try_from(seconds).ok().and_then(|n| jiff::Timestamp::from_second(n).ok());
    stamp.unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC).date()
}

pub(super) fn clock(findings: &mut Findings) {
    if clock::is_before_build() {
        findings.warn(
            "clock",
            "the clock of this machine shows a time before this program was built".into(),
            "set it (NTP); timeouts do not depend on it, but the times in the log are wrong",
        );
    } else {
        findings.ok("clock", "it is later than the day on which this program was built".into());
    }
}

/// `unit`: the limit of the unit that runs the file.
pub(super) fn limits(config: &Config, unit: Option<usize>, findings: &mut Findings) {
    let limit = unit.unwrap_or_else(process::descriptor_limit);
    if limit == usize::MAX {
        return findings.ok("open files", "there is no limit on this system".into());
    }
    let memory = memory_limit();
    let budget = Budget::of(limit, memory);
    let said = config.services.iter().filter_map(|service| service.limits.max_sessions.as_ref());
    let wanted: usize = said.map(|limit| limit.value as usize).sum();
    let needed = Budget::needed(wanted);
    let text = format!(
        "the limit is {limit} here (hard), which is good, with {} MB of memory, for {} sessions and {} connections without one",
        memory >> 20,
        budget.sessions,
        budget.connections
    );
    if wanted > budget.sessions {
        let text = format!("{text}; the file's max-sessions come to {wanted}");
        let help = if Budget::of(limit, u64::MAX).sessions < wanted {
            format!(
                "allow {needed}: LimitNOFILE={needed} in a systemd unit, `ulimit -Hn {needed}` in a script"
            )
        } else {
            let megabytes = Budget::memory_needed(wanted) >> 20;
            format!("write smaller max-sessions, or have {megabytes} MB of memory for them")
        };
        findings.warn("open files", text, &help);
    } else if budget.sessions < 16 {
        findings.warn("open files", text, "raise it: `ulimit -Hn 1024` or LimitNOFILE=1024");
    } else {
        findings.ok("open files", text);
    }
}

#[cfg(target_os = "linux")]
pub(super) fn watching(
    config: &Config,
    report: &Diagnostics,
    user: Option<u32>,
    findings: &mut Findings,
) {
    use crate::daemon::privileges;
    use crate::sys::inotify;

    let poll = daemon::watcher::POLL.as_secs();
    let without = format!("changed files would be seen by the look every {poll} s only");
    let named = privileges::numbers(&config.process.account).ok().and_then(|(user, _)| user);
    let user = user.or(named).unwrap_or_else(|| rustix::process::geteuid().as_raw());
    let folders = daemon::watched(config, report) as u64;
    let Some(seen) = inotify::read_user_usage(user) else {
        let help = "let the kernel have inotify, or wait that long after a change";
        return findings.warn("inotify", format!("there is none: {without}"), help);
    };
    let text = format!(
        "folders to watch {folders}; user {user} has {} of {} instances and {} of {} watches in use",
        seen.instances, seen.max_instances, seen.watches, seen.max_watches
    );
    if seen.instances >= seen.max_instances {
        let help = "raise it: sysctl fs.inotify.max_user_instances=512";
        findings.warn("inotify", format!("{text}: {without}"), help);
    } else if seen.watches + folders > seen.max_watches {
        let help = "raise it: sysctl fs.inotify.max_user_watches=65536";
        findings.warn("inotify", format!("{text}: {without}"), help);
    } else {
        findings.ok("inotify", text);
    }
}

/// Other systems have other means, and no such limits.
#[cfg(not(target_os = "linux"))]
pub(super) fn watching(
    config: &Config,
    report: &Diagnostics,
    _: Option<u32>,
    findings: &mut Findings,
) {
    let folders = daemon::watched(config, report);
    findings.note("file watch", format!("folders to watch {folders}; no limits are known here"));
}

/// What the process will have given up once it serves.
#[cfg(target_os = "linux")]
pub(super) fn sandbox(config: &Config, findings: &mut Findings) {
    use crate::daemon::sandbox::{NoSandboxReason, why_open, words};
    use crate::sys::sandbox::{SandboxStatus, probe_sandbox};

    match why_open(config) {
        Some(NoSandboxReason::Said(_)) => {
            return findings.note("sandbox", "there is none, as the file says".into());
        }
        Some(NoSandboxReason::Exec(service, program)) => {
            let text = format!(
                "there is none, because the service {} starts {}",
                service.name.value,
                program.path.value.display()
            );
            return findings.note("sandbox", text);
        }
        Some(NoSandboxReason::Transparent(service)) => {
            let text = format!(
                "there is none, because the service {} connects from its peers' addresses",
                service.name.value
            );
            return findings.note("sandbox", text);
        }
        None => {}
    }
    match probe_sandbox() {
        Ok(walls @ (SandboxStatus::Full | SandboxStatus::Partial)) => {
            findings.ok("sandbox", words(walls).into())
        }
        Ok(walls @ SandboxStatus::Missing) => findings.note("sandbox", words(walls).into()),
        Err(error) => findings.note("sandbox", format!("writing is not limited: {error}")),
    }
}

/// Other systems have other means.
#[cfg(not(target_os = "linux"))]
pub(super) fn sandbox(_: &Config, findings: &mut Findings) {
    findings.note("sandbox", "there is none on this system".into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_nobody_knows_has_no_end_and_a_known_one_has() {
        assert_eq!(end_of_support(3, 0), Some(date(2026, 9, 7)));
        assert_eq!(end_of_support(3, 4), None);
        assert!(
            parse_version_line("3.0.20") < parse_version_line("3.5.1")
                && parse_version_line("4.0.3") > parse_version_line("3.10.0")
        );
        assert!(today() > date(2025, 1, 1));
    }
}
