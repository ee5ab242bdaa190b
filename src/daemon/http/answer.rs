//! What is answered: whose question it may be, which paths there are, and the headers of everything.

use std::net::{IpAddr, Ipv6Addr};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::page;
use super::status_cache::{StatusCache, StatusFormat};
use super::traffic_history::TrafficHistory;
use crate::daemon::Pulse;
use crate::observe::prometheus::ExpositionFormat;
use crate::tunnel::LifecyclePhase;

#[cfg(test)]
mod tests;

/// Which way a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestOrigin {
    Tcp,
    /// No page of a browser gets here.
    Unix,
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const SILENT: &str = "the program does not answer\n";

/// Status, type, body.
type TextResponse = (StatusCode, &'static str, Bytes);

/// Answers a request. Its body, if it has one, is nobody's business.
pub(super) async fn answer<B>(
    cache: &StatusCache,
    history: &TrafficHistory,
    request: &Request<B>,
    door: RequestOrigin,
) -> Response<Full<Bytes>> {
    let words = if door == RequestOrigin::Tcp && !is_for_us(request) {
        short(
            StatusCode::MISDIRECTED_REQUEST,
            "this is answered under the names localhost, 127.0.0.1 and [::1] only\n",
        )
    } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
        short(StatusCode::METHOD_NOT_ALLOWED, "there is only something to look at here: GET\n")
    } else {
        at(cache, history, request).await
    };
    dressed(words)
}

async fn at<B>(
    cache: &StatusCache,
    history: &TrafficHistory,
    request: &Request<B>,
) -> TextResponse {
    match request.uri().path() {
        "/" => (StatusCode::OK, HTML, Bytes::from_static(page::PAGE.as_bytes())),
        "/status.json" => whole(cache, StatusFormat::Json, JSON).await,
        "/history.json" => match history.written() {
            Some(text) => (StatusCode::OK, JSON, text.into()),
            None => short(StatusCode::SERVICE_UNAVAILABLE, SILENT),
        },
        "/metrics" => {
            let accept = request.headers().get(header::ACCEPT);
            let format = ExpositionFormat::from_accept_header(
                accept.and_then(|a| a.to_str().ok()).unwrap_or(""),
            );
            whole(cache, StatusFormat::Metrics(format), format.content_type()).await
        }
        "/healthz" => match cache.pulse().await {
            Some(_) => short(StatusCode::OK, "ok\n"),
            None => short(StatusCode::SERVICE_UNAVAILABLE, SILENT),
        },
        "/readyz" => match cache.pulse().await {
            Some(pulse) => readiness(pulse),
            None => short(StatusCode::SERVICE_UNAVAILABLE, SILENT),
        },
        _ => short(
            StatusCode::NOT_FOUND,
            "there are / (a page to look at), /status.json, /history.json, /metrics, /healthz and /readyz\n",
        ),
    }
}

async fn whole(cache: &StatusCache, form: StatusFormat, kind: &'static str) -> TextResponse {
    match cache.written(form).await {
        Some(text) => (StatusCode::OK, kind, text),
        None => short(StatusCode::SERVICE_UNAVAILABLE, SILENT),
    }
}

/// A program that runs listens: without all its addresses it does not start, and a listener is never
/// given up. A service without one is reached through another's.
fn readiness(pulse: Pulse) -> TextResponse {
    match pulse.phase {
        LifecyclePhase::Running if pulse.listens => short(StatusCode::OK, "ready\n"),
        LifecyclePhase::Running => short(StatusCode::SERVICE_UNAVAILABLE, "no service listens\n"),
        LifecyclePhase::Draining => short(
            StatusCode::SERVICE_UNAVAILABLE,
            "draining: open sessions run to their end, and no new ones are taken\n",
        ),
        LifecyclePhase::Stopping => short(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}

fn short(status: StatusCode, words: &'static str) -> TextResponse {
    (status, TEXT, Bytes::from_static(words.as_bytes()))
}

fn dressed((status, kind, body): TextResponse) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::from_str(&page::POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    let isolation = HeaderValue::from_static("same-origin");
    headers.insert("cross-origin-resource-policy", isolation);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// Whether a request names this machine by a name that nobody else can give it. A page from anywhere
/// can have its own name point to 127.0.0.1 (DNS rebinding), and would be same-origin with us.
fn is_for_us<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let named = request.uri().authority().is_none_or(|authority| is_local(authority.as_str()));
    named && host.to_str().is_ok_and(is_local)
}

/// `localhost`, or a loopback address, with or without a port.
fn is_local(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((ip, port)) => {
            let loopback = ip.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback());
            return loopback && is_port(port);
        }
        None => host.find(':').map_or((host, ""), |colon| host.split_at(colon)),
    };
    let loopback = name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    (loopback || name.eq_ignore_ascii_case("localhost")) && is_port(port)
}

/// Nothing, or a colon and a number.
fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}
