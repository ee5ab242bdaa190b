//! A plain HTTP client: one request a connection, over TCP or a Unix socket.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::PATIENCE;

/// What came back.
#[derive(Debug)]
pub struct Page {
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Page {
    /// The body, which is JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

/// GET under the name that is right for this address.
pub fn get(at: SocketAddr, path: &str) -> Page {
    request(at, &format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"))
}

/// Sends this text.
pub fn request(at: SocketAddr, text: &str) -> Page {
    let stream = TcpStream::connect(at).unwrap_or_else(|error| panic!("no way to {at}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(stream, text)
}

/// The same over a Unix socket.
pub fn request_unix(path: &Path, text: &str) -> Page {
    let stream = UnixStream::connect(path).expect("the socket is listened on");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(stream, text)
}

fn exchange(mut stream: impl Read + Write, text: &str) -> Page {
    stream.write_all(text.as_bytes()).expect("the request is taken");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer and its end");
    let answer = String::from_utf8(answer).expect("the answer is UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {answer}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": "));
    Page {
        status: status.unwrap_or_else(|| panic!("no status: {head}")),
        headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
        body: body.to_owned(),
    }
}
