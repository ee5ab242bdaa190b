//! Metrics for Prometheus: which there are, made from a [`Status`] at every scrape, and their text.
//!
//! Labels hold names of the configuration and of the key files only. Of a service's identities the
//! first `labels` have series of their own; the others are summed in one with an empty `identity`,
//! which no identity can have.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::metrics::{REFUSAL_CAUSES, SESSION_ENDS};
use super::status::{ServiceStatus, Status};
use crate::sys::usage::ProcessUsage;

#[cfg(test)]
mod tests;

/// The two forms that Prometheus reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0, for who asks for it.
    OpenMetrics,
    /// Prometheus' own text, version 0.0.4, which everything reads.
    Text,
}

impl Format {
    /// What an `Accept` header asks for.
    pub fn accepted(accept: &str) -> Self {
        let named = |part: &str| {
            part.split(';').next().is_some_and(|kind| kind.trim() == "application/openmetrics-text")
        };
        if accept.split(',').any(named) { Self::OpenMetrics } else { Self::Text }
    }

    /// Its `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// Everything as one text. At most `labels` identities of each service get series of their own.
///
/// # Errors
/// The encoder's; text in memory knows none.
pub fn text(
    status: &Status,
    usage: &ProcessUsage,
    labels: usize,
    format: Format,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families(status, usage, labels))));
    let mut written = String::new();
    match format {
        Format::OpenMetrics => text::encode(&mut written, &registry)?,
        Format::Text => prometheus_text::encode(&mut written, &registry)?,
    }
    Ok(written)
}

/// With more services than this, series of causes and ends begin with their first event: forty series for each
/// of a thousand services would be most of a scrape.
const MAX_SERVICES_FROM_ZERO: usize = 100;

type Labels = Vec<(&'static str, String)>;

/// A sample's value: counts stay exact beyond 2^53.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    Count(u64),
    Real(f64),
}

/// One metric with all its series.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    series: BTreeMap<Labels, Value>,
}

impl Family {
    /// `name` without the `_total` of counters, which the encoders add.
    fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: MetricType::Counter, series: BTreeMap::new() }
    }

    fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: MetricType::Gauge, series: BTreeMap::new() }
    }

    fn is(mut self, value: impl Into<Option<Value>>) -> Self {
        if let Some(value) = value.into() {
            self.series.insert(Labels::new(), value);
        }
        self
    }

    /// Equal labels are one series: services of a stunnel.conf may share a name, and an identity may
    /// have several names on the wire.
    fn add(&mut self, labels: Labels, count: u64) {
        match self.series.entry(labels).or_insert(Value::Count(0)) {
            Value::Count(sum) => *sum = sum.saturating_add(count),
            Value::Real(sum) => *sum += count as f64,
        }
    }

    /// Keeps the latest moment of equal labels.
    fn latest(&mut self, labels: Labels, second: u64) {
        let kept = self.series.entry(labels).or_insert(Value::Count(second));
        if matches!(kept, Value::Count(known) if *known < second) {
            *kept = Value::Count(second);
        }
    }
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in self.0.iter().filter(|family| !family.series.is_empty()) {
            let mut metric =
                encoder.encode_descriptor(family.name, family.help, None, family.kind)?;
            for (labels, value) in &family.series {
                let series = metric.encode_family(labels)?;
                match (family.kind, *value) {
                    (MetricType::Counter, Value::Count(n)) => ConstCounter::new(n).encode(series),
                    (MetricType::Counter, Value::Real(n)) => ConstCounter::new(n).encode(series),
                    (_, Value::Count(n)) => ConstGauge::new(n).encode(series),
                    (_, Value::Real(n)) => ConstGauge::new(n).encode(series),
                }?;
            }
        }
        Ok(())
    }
}

fn families(status: &Status, usage: &ProcessUsage, labels: usize) -> Vec<Family> {
    let mut all = program(status);
    all.extend(services(&status.services));
    all.extend(identities(&status.services, labels));
    all.extend(process(status, usage));
    all
}

fn program(status: &Status) -> Vec<Family> {
    let mut build = Family::gauge("pskgate_build_info", "The versions of pskgate and of OpenSSL");
    let versions = [("version", &status.version), ("openssl", &status.openssl)];
    build.add(versions.map(|(label, value)| (label, value.clone())).into(), 1);
    let mut reloads = Family::counter("pskgate_reloads", "Reloads by outcome");
    reloads.add(vec![("outcome", "done".into())], status.reloads.done);
    reloads.add(vec![("outcome", "failed".into())], status.reloads.failed);
    let last = status.reloads.last.as_ref();
    // What was read at the start took effect, else nothing would run.
    let success = last.is_none_or(|last| last.done);
    vec![
        build,
        Family::gauge("pskgate_start_time_seconds", "When the program started, in Unix time")
            .is(second(&status.started).map(Value::Count)),
        Family::gauge("pskgate_uptime_seconds", "Seconds since the start")
            .is(Value::Real(status.uptime)),
        reloads,
        Family::gauge(
            "pskgate_last_reload_success",
            "Whether the last reload took effect completely: 1 or 0",
        )
        .is(Value::Count(success.into())),
        Family::gauge(
            "pskgate_last_reload_timestamp_seconds",
            "When the last reload ended, in Unix time",
        )
        .is(last.and_then(|last| second(&last.time)).map(Value::Count)),
        Family::gauge(
            "pskgate_unapplied_change_timestamp_seconds",
            "Since when a change on disk has not been applied, in Unix time; 0 if there is none",
        )
        .is(Value::Count(status.reloads.differs_since.as_deref().and_then(second).unwrap_or(0))),
        Family::counter("pskgate_log_lines_lost", "Log lines that could not be written")
            .is(Value::Count(status.log_lines_lost)),
    ]
}

fn services(services: &[ServiceStatus]) -> Vec<Family> {
    let mut sessions = Family::gauge("pskgate_sessions", "Open sessions");
    let mut limit = Family::gauge("pskgate_sessions_limit", "Maximum number of sessions");
    let mut opened = Family::counter("pskgate_sessions_opened", "Sessions that were opened");
    let mut ended = Family::counter("pskgate_sessions_ended", "Ended sessions by reason");
    let mut refused =
        Family::counter("pskgate_connections_refused", "Connections without a session by cause");
    let mut bytes = Family::counter(
        "pskgate_bytes",
        "Data bytes: up is from the connecting side to the target, down is back",
    );
    let mut records = Family::counter("pskgate_records", "TLS records by direction");
    let mut updates = Family::counter("pskgate_key_updates", "TLS key updates by direction");
    let mut handshakes = Family::gauge("pskgate_handshakes_in_progress", "Handshakes in progress");
    let mut keys = Family::gauge("pskgate_keys", "Identities with a key");
    for service in services {
        let of = || vec![("service", service.name.clone())];
        let with = |label, value: &str| [of(), vec![(label, value.to_owned())]].concat();
        sessions.add(of(), service.sessions.len() as u64);
        limit.add(of(), service.max_sessions as u64);
        opened.add(of(), service.opened);
        if services.len() <= MAX_SERVICES_FROM_ZERO {
            // An alert on an increase would miss the first event of a series that begins with it.
            SESSION_ENDS.iter().for_each(|end| ended.add(with("end", end), 0));
            REFUSAL_CAUSES.iter().for_each(|cause| refused.add(with("cause", cause), 0));
        }
        for (kind, count) in &service.ended {
            ended.add(with("end", kind), *count);
        }
        for (cause, count) in &service.refused {
            refused.add(with("cause", cause), *count);
        }
        bytes.add(with("direction", "up"), service.bytes_up);
        bytes.add(with("direction", "down"), service.bytes_down);
        records.add(with("direction", "up"), service.records_up);
        records.add(with("direction", "down"), service.records_down);
        updates.add(with("direction", "up"), service.key_updates_up);
        updates.add(with("direction", "down"), service.key_updates_down);
        handshakes.add(of(), service.handshakes as u64);
        keys.add(of(), service.keys as u64);
    }
    vec![sessions, limit, opened, ended, refused, bytes, records, updates, handshakes, keys]
}

fn identities(services: &[ServiceStatus], most: usize) -> Vec<Family> {
    let mut sessions = Family::gauge("pskgate_identity_sessions", "Open sessions of an identity");
    let mut uses = Family::counter("pskgate_identity_uses", "Successful handshakes of an identity");
    let mut last_use = Family::gauge(
        "pskgate_identity_last_use_timestamp_seconds",
        "When the last handshake of an identity succeeded, in Unix time",
    );
    let mut expiry = Family::gauge(
        "pskgate_key_expiry_timestamp_seconds",
        "When the last key of an identity expires, in Unix time",
    );
    for service in services {
        let mut named = BTreeSet::new();
        // None is a key without an end.
        let mut ends: BTreeMap<&str, Option<u64>> = BTreeMap::new();
        for one in &service.identities {
            let known = named.len() < most || named.contains(one.identity.as_str());
            let name = if known { one.identity.as_str() } else { "" };
            let labels = || vec![("service", service.name.clone()), ("identity", name.to_owned())];
            sessions.add(labels(), one.sessions as u64);
            uses.add(labels(), one.uses);
            if !known {
                continue;
            }
            named.insert(name);
            if let Some(time) = one.last_use.as_deref().and_then(second) {
                last_use.latest(labels(), time);
            }
            let end = one.expires.as_deref().and_then(second);
            ends.entry(name).and_modify(|known| *known = known.zip(end).map(later)).or_insert(end);
        }
        for (name, end) in ends {
            if let Some(end) = end {
                let labels = vec![("service", service.name.clone()), ("identity", name.to_owned())];
                expiry.latest(labels, end);
            }
        }
    }
    vec![sessions, uses, last_use, expiry]
}

fn later((one, other): (u64, u64)) -> u64 {
    one.max(other)
}

/// Under the names that every Prometheus client has for them.
fn process(status: &Status, usage: &ProcessUsage) -> Vec<Family> {
    vec![
        Family::gauge("process_resident_memory_bytes", "Resident memory size in bytes")
            .is(usage.resident_bytes.map(Value::Count)),
        Family::gauge("process_virtual_memory_bytes", "Virtual memory size in bytes")
            .is(usage.virtual_bytes.map(Value::Count)),
        Family::counter("process_cpu_seconds", "Total user and system CPU time in seconds")
            .is(usage.cpu_seconds.map(Value::Real)),
        Family::gauge("process_open_fds", "Number of open file descriptors")
            .is(usage.descriptors.map(Value::Count)),
        Family::gauge("process_max_fds", "Maximum number of open file descriptors")
            .is(usage.descriptor_limit.map(Value::Count)),
        Family::gauge("process_start_time_seconds", "Start time of the process in Unix time")
            .is(second(&status.started).map(Value::Count)),
    ]
}

/// The Unix time of a moment in a status.
fn second(time: &str) -> Option<u64> {
    u64::try_from(time.parse::<Timestamp>().ok()?.as_second()).ok()
}
