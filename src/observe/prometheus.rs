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
pub enum ExpositionFormat {
    /// OpenMetrics 1.0, for who asks for it.
    OpenMetrics,
    /// Prometheus' own text, version 0.0.4, which everything reads.
    Text,
}

impl ExpositionFormat {
    /// What an `Accept` header asks for.
    pub fn from_accept_header(accept: &str) -> Self {
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
pub fn render(
    status: &Status,
    usage: &ProcessUsage,
    labels: usize,
    format: ExpositionFormat,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(MetricFamilies(collect_families(status, usage, labels))));
    let mut written = String::new();
    match format {
        ExpositionFormat::OpenMetrics => text::encode(&mut written, &registry)?,
        ExpositionFormat::Text => prometheus_text::encode(&mut written, &registry)?,
    }
    Ok(written)
}

/// With more services than this, series of causes and ends begin with their first event: forty series for each
/// of a thousand services would be most of a scrape.
const MAX_SERVICES_FROM_ZERO: usize = 100;

type Labels = Vec<(&'static str, String)>;

/// A sample's value: counts stay exact beyond 2^53.
#[derive(Debug, Clone, Copy, PartialEq)]
enum SampleValue {
    Count(u64),
    Real(f64),
}

/// One metric with all its series.
#[derive(Debug)]
struct MetricFamily {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    series: BTreeMap<Labels, SampleValue>,
}

impl MetricFamily {
    /// `name` without the `_total` of counters, which the encoders add.
    fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: MetricType::Counter, series: BTreeMap::new() }
    }

    fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: MetricType::Gauge, series: BTreeMap::new() }
    }

    fn with_value(mut self, value: impl Into<Option<SampleValue>>) -> Self {
        if let Some(value) = value.into() {
            self.series.insert(Labels::new(), value);
        }
        self
    }

    /// Equal labels are one series: services of a stunnel.conf may share a name, and an identity may
    /// have several names on the wire.
    fn add_sample(&mut self, labels: Labels, count: u64) {
        match self.series.entry(labels).or_insert(SampleValue::Count(0)) {
            SampleValue::Count(sum) => *sum = sum.saturating_add(count),
            SampleValue::Real(sum) => *sum += count as f64,
        }
    }

    /// Keeps the latest moment of equal labels.
    fn keep_latest(&mut self, labels: Labels, second: u64) {
        let kept = self.series.entry(labels).or_insert(SampleValue::Count(second));
        if matches!(kept, SampleValue::Count(known) if *known < second) {
            *kept = SampleValue::Count(second);
        }
    }
}

#[derive(Debug)]
struct MetricFamilies(Vec<MetricFamily>);

impl Collector for MetricFamilies {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in self.0.iter().filter(|family| !family.series.is_empty()) {
            let mut metric =
                encoder.encode_descriptor(family.name, family.help, None, family.kind)?;
            for (labels, value) in &family.series {
                let series = metric.encode_family(labels)?;
                match (family.kind, *value) {
                    (MetricType::Counter, SampleValue::Count(n)) => {
                        ConstCounter::new(n).encode(series)
                    }
                    (MetricType::Counter, SampleValue::Real(n)) => {
                        ConstCounter::new(n).encode(series)
                    }
                    (_, SampleValue::Count(n)) => ConstGauge::new(n).encode(series),
                    (_, SampleValue::Real(n)) => ConstGauge::new(n).encode(series),
                }?;
            }
        }
        Ok(())
    }
}

fn collect_families(status: &Status, usage: &ProcessUsage, labels: usize) -> Vec<MetricFamily> {
    let mut all = program_families(status);
    all.extend(service_families(&status.services));
    all.extend(identity_families(&status.services, labels));
    all.extend(process_families(status, usage));
    all
}

fn program_families(status: &Status) -> Vec<MetricFamily> {
    let mut build =
        MetricFamily::gauge("pskgate_build_info", "The versions of pskgate and of OpenSSL");
    let versions = [("version", &status.version), ("openssl", &status.openssl)];
    build.add_sample(versions.map(|(label, value)| (label, value.clone())).into(), 1);
    let mut reloads = MetricFamily::counter("pskgate_reloads", "Reloads by outcome");
    reloads.add_sample(vec![("outcome", "done".into())], status.reloads.done);
    reloads.add_sample(vec![("outcome", "failed".into())], status.reloads.failed);
    let last = status.reloads.last.as_ref();
    // What was read at the start took effect, else nothing would run.
    let success = last.is_none_or(|last| last.done);
    vec![
        build,
        MetricFamily::gauge("pskgate_start_time_seconds", "When the program started, in Unix time")
            .with_value(parse_unix_time(&status.started).map(SampleValue::Count)),
        MetricFamily::gauge("pskgate_uptime_seconds", "Seconds since the start")
            .with_value(SampleValue::Real(status.uptime)),
        reloads,
        MetricFamily::gauge(
            "pskgate_last_reload_success",
            "Whether the last reload took effect completely: 1 or 0",
        )
        .with_value(SampleValue::Count(success.into())),
        MetricFamily::gauge(
            "pskgate_last_reload_timestamp_seconds",
            "When the last reload ended, in Unix time",
        )
        .with_value(last.and_then(|last| parse_unix_time(&last.time)).map(SampleValue::Count)),
        MetricFamily::gauge(
            "pskgate_unapplied_change_timestamp_seconds",
            "Since when a change on disk has not been applied, in Unix time; 0 if there is none",
        )
        .with_value(SampleValue::Count(
            status.reloads.differs_since.as_deref().and_then(parse_unix_time).unwrap_or(0),
        )),
        MetricFamily::counter("pskgate_log_lines_lost", "Log lines that could not be written")
            .with_value(SampleValue::Count(status.log_lines_lost)),
    ]
}

fn service_families(services: &[ServiceStatus]) -> Vec<MetricFamily> {
    let mut missing = MetricFamily::gauge(
        "pskgate_listeners_missing",
        "Addresses that a service cannot listen on for now, and does without",
    );
    let mut sessions = MetricFamily::gauge("pskgate_sessions", "Open sessions");
    let mut limit = MetricFamily::gauge("pskgate_sessions_limit", "Maximum number of sessions");
    let mut opened = MetricFamily::counter("pskgate_sessions_opened", "Sessions that were opened");
    let mut ended = MetricFamily::counter("pskgate_sessions_ended", "Ended sessions by reason");
    let mut refused = MetricFamily::counter(
        "pskgate_connections_refused",
        "Connections without a session by cause",
    );
    let mut bytes = MetricFamily::counter(
        "pskgate_bytes",
        "Data bytes: up is from the connecting side to the target, down is back",
    );
    let mut records = MetricFamily::counter("pskgate_records", "TLS records by direction");
    let mut updates = MetricFamily::counter("pskgate_key_updates", "TLS key updates by direction");
    let mut handshakes =
        MetricFamily::gauge("pskgate_handshakes_in_progress", "Handshakes in progress");
    let mut keys = MetricFamily::gauge("pskgate_keys", "Identities with a key");
    for service in services {
        let of = || vec![("service", service.name.clone())];
        let with = |label, value: &str| [of(), vec![(label, value.to_owned())]].concat();
        missing.add_sample(of(), service.missing_listeners.len() as u64);
        sessions.add_sample(of(), service.sessions.len() as u64);
        limit.add_sample(of(), service.max_sessions as u64);
        opened.add_sample(of(), service.opened);
        if services.len() <= MAX_SERVICES_FROM_ZERO {
            // An alert on an increase would miss the first event of a series that begins with it.
            SESSION_ENDS.iter().for_each(|end| ended.add_sample(with("end", end), 0));
            REFUSAL_CAUSES.iter().for_each(|cause| refused.add_sample(with("cause", cause), 0));
        }
        for (kind, count) in &service.ended {
            ended.add_sample(with("end", kind), *count);
        }
        for (cause, count) in &service.refused {
            refused.add_sample(with("cause", cause), *count);
        }
        bytes.add_sample(with("direction", "up"), service.bytes_up);
        bytes.add_sample(with("direction", "down"), service.bytes_down);
        records.add_sample(with("direction", "up"), service.records_up);
        records.add_sample(with("direction", "down"), service.records_down);
        updates.add_sample(with("direction", "up"), service.key_updates_up);
        updates.add_sample(with("direction", "down"), service.key_updates_down);
        handshakes.add_sample(of(), service.handshakes as u64);
        keys.add_sample(of(), service.keys as u64);
    }
    vec![
        missing, sessions, limit, opened, ended, refused, bytes, records, updates, handshakes, keys,
    ]
}

fn identity_families(services: &[ServiceStatus], most: usize) -> Vec<MetricFamily> {
    let mut sessions =
        MetricFamily::gauge("pskgate_identity_sessions", "Open sessions of an identity");
    let mut uses =
        MetricFamily::counter("pskgate_identity_uses", "Successful handshakes of an identity");
    let mut last_use = MetricFamily::gauge(
        "pskgate_identity_last_use_timestamp_seconds",
        "When the last handshake of an identity succeeded, in Unix time",
    );
    let mut expiry = MetricFamily::gauge(
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
            sessions.add_sample(labels(), one.sessions as u64);
            uses.add_sample(labels(), one.uses);
            if !known {
                continue;
            }
            named.insert(name);
            if let Some(time) = one.last_use.as_deref().and_then(parse_unix_time) {
                last_use.keep_latest(labels(), time);
            }
            let end = one.expires.as_deref().and_then(parse_unix_time);
            ends.entry(name).and_modify(|known| *known = known.zip(end).map(later)).or_insert(end);
        }
        for (name, end) in ends {
            if let Some(end) = end {
                let labels = vec![("service", service.name.clone()), ("identity", name.to_owned())];
                expiry.keep_latest(labels, end);
            }
        }
    }
    vec![sessions, uses, last_use, expiry]
}

fn later((one, other): (u64, u64)) -> u64 {
    one.max(other)
}

/// Under the names that every Prometheus client has for them.
fn process_families(status: &Status, usage: &ProcessUsage) -> Vec<MetricFamily> {
    vec![
        MetricFamily::gauge("process_resident_memory_bytes", "Resident memory size in bytes")
            .with_value(usage.resident_bytes.map(SampleValue::Count)),
        MetricFamily::gauge("process_virtual_memory_bytes", "Virtual memory size in bytes")
            .with_value(usage.virtual_bytes.map(SampleValue::Count)),
        MetricFamily::counter("process_cpu_seconds", "Total user and system CPU time in seconds")
            .with_value(usage.cpu_seconds.map(SampleValue::Real)),
        MetricFamily::gauge("process_open_fds", "Number of open file descriptors")
            .with_value(usage.descriptors.map(SampleValue::Count)),
        MetricFamily::gauge("process_max_fds", "Maximum number of open file descriptors")
            .with_value(usage.descriptor_limit.map(SampleValue::Count)),
        MetricFamily::gauge("process_start_time_seconds", "Start time of the process in Unix time")
            .with_value(parse_unix_time(&status.started).map(SampleValue::Count)),
    ]
}

/// The Unix time of a moment in a status.
fn parse_unix_time(time: &str) -> Option<u64> {
    u64::try_from(time.parse::<Timestamp>().ok()?.as_second()).ok()
}
