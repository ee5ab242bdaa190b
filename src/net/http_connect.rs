//! Asking an HTTP proxy for the way to a server: CONNECT (RFC 9110, 9.3.6).

use std::io;

use data_encoding::BASE64;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use crate::config::model::HttpConnect;

/// The most bytes that are read until the final answer has come, with interim answers before it. Proxies add a
/// few headers, and none of them is of use here.
const MAX_ANSWER_SIZE: usize = 16 * 1024;

/// Asks for a way to the server, and reads the answer to its last byte: what comes then is the
/// server's. The caller keeps the time.
///
/// # Errors
/// The connection's, and every answer but a good one.
pub async fn http_connect<S>(proxy: &mut S, ask: &HttpConnect) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    proxy.write_all(&request(ask)).await?;
    proxy.flush().await?;
    let said = |text: String| Err(io::Error::other(text));
    match read_status(proxy).await? {
        Some(200..=299) => Ok(()),
        Some(407) => {
            said("the proxy demands a user name and a password (407), or rejects these".into())
        }
        Some(code) => said(format!("the proxy answers with HTTP status {code}")),
        None => said("the program there is not an HTTP proxy".into()),
    }
}

/// Wiped, as it may hold a password.
fn request(ask: &HttpConnect) -> Zeroizing<Vec<u8>> {
    let host = ask.host.as_str();
    let headers: usize = ask.headers.iter().map(|header| header.len() + 2).sum();
    let credentials = ask.credentials.as_ref().map_or(0, |(user, password)| {
        BASE64.encode_len(user.len() + 1 + password.expose().len()) + 64
    });
    // Room for all of it: a text that grew would leave its beginning behind, unwiped.
    let room = 64 + 2 * host.len() + credentials + headers;
    let mut text = Zeroizing::new(Vec::with_capacity(room));
    text.extend_from_slice(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n").as_bytes());
    if let Some((user, password)) = &ask.credentials {
        let room = user.len() + 1 + password.expose().len();
        let mut plain = Zeroizing::new(Vec::with_capacity(room));
        plain.extend_from_slice(user.as_bytes());
        plain.push(b':');
        plain.extend_from_slice(password.expose().as_bytes());
        let mut line = Zeroizing::new(vec![0; BASE64.encode_len(plain.len())]);
        BASE64.encode_mut(&plain, &mut line);
        text.extend_from_slice(b"Proxy-Authorization: Basic ");
        text.extend_from_slice(&line);
        text.extend_from_slice(b"\r\n");
    }
    for header in &ask.headers {
        text.extend_from_slice(header.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    debug_assert!(text.len() <= room);
    text
}

/// The status of the final answer; none if what answers is no HTTP. A client reads past interim answers
/// (RFC 9110, 15.2). A server that is reached through a proxy speaks TLS and waits to be spoken to, so nothing
/// may follow a good answer.
async fn read_status<S: AsyncRead + Unpin>(proxy: &mut S) -> io::Result<Option<u16>> {
    let mut answer = Vec::with_capacity(512);
    let mut start = 0;
    // What was looked through already: one that comes byte by byte costs no more than one that does not.
    let mut seen = 0;
    loop {
        let head = answer.get(start..).unwrap_or_default();
        if let Some(end) = end_of_head(head, seen) {
            match status(head) {
                // 101 is final: this end has not asked for another protocol.
                Some(100 | 102..=199) => {
                    (start, seen) = (start + end, 0);
                    continue;
                }
                Some(200..=299) if end < head.len() => {
                    return Err(io::Error::other("the proxy sends data behind its answer"));
                }
                status => return Ok(status),
            }
        }
        if answer.len() >= MAX_ANSWER_SIZE {
            let words = format!("the proxy's answer has more than {MAX_ANSWER_SIZE} bytes");
            return Err(io::Error::other(words));
        }
        seen = head.len();
        if proxy.read_buf(&mut answer).await? == 0 {
            let kind = io::ErrorKind::UnexpectedEof;
            return Err(io::Error::new(kind, "the proxy closes the connection without an answer"));
        }
    }
}

/// Where a head ends, if it does not end within its first `seen` bytes.
fn end_of_head(head: &[u8], seen: usize) -> Option<usize> {
    let from = seen.saturating_sub(3);
    let rest = head.get(from..)?;
    let ends = |mark: &[u8]| {
        rest.windows(mark.len()).position(|part| part == mark).map(|at| from + at + mark.len())
    };
    ends(b"\r\n\r\n").or_else(|| ends(b"\n\n"))
}

/// `HTTP/1.1 200 ...`
fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?.get(1..)?.strip_prefix(b" ")?;
    let (code, rest) = rest.split_at_checked(3)?;
    let ends = rest.first().is_none_or(u8::is_ascii_whitespace);
    std::str::from_utf8(code).ok().filter(|_| ends)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::secrets::Password;

    fn ask() -> HttpConnect {
        HttpConnect {
            host: "plc.example:3001".into(),
            credentials: Some(("user".into(), Password::new("pass word".into()))),
            headers: vec!["X-A: b".into()],
        }
    }

    /// What comes of an answer that arrives in these parts.
    fn answered(parts: &[&[u8]]) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut us, mut proxy) = tokio::io::duplex(1 << 20);
            for part in parts {
                proxy.write_all(part).await.unwrap();
            }
            proxy.shutdown().await.unwrap();
            http_connect(&mut us, &ask()).await
        })
    }

    #[test]
    fn the_request_is_stunnels() {
        assert_eq!(
            String::from_utf8_lossy(&request(&ask())),
            "CONNECT plc.example:3001 HTTP/1.1\r\nHost: plc.example:3001\r\n\
             Proxy-Authorization: Basic dXNlcjpwYXNzIHdvcmQ=\r\nX-A: b\r\n\r\n"
        );
    }

    #[test]
    fn a_good_answer_is_one_of_2xx_and_all_others_say_why() {
        for good in ["HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 204\r\nA: b\r\n\r\n", "HTTP/1.1 200\n\n"]
        {
            assert!(answered(&[good.as_bytes()]).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("HTTP/1.1 407 Auth\r\n\r\n", "407"),
            ("HTTP/1.1 503 No\r\n\r\n", "503"),
            ("HTTP/1.1 2000 No\r\n\r\n", "not an HTTP proxy"),
            ("SSH-2.0-x\r\n\r\n", "not an HTTP proxy"),
            ("\r\n\r\n", "not an HTTP proxy"),
            ("HTTP/1.1 200 OK\r\n", "without an answer"),
            ("", "without an answer"),
            ("HTTP/1.1 200 OK\r\n\r\n\x16\x03", "behind its answer"),
            ("HTTP/1.1 503 No\r\n\r\nsorry", "503"),
            ("HTTP/1.1 101 Switching\r\n\r\n", "101"),
            ("HTTP/1.1 100 Continue\r\n\r\n", "without an answer"),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\n\r\n", "503"),
            ("HTTP/1.1 100 Continue\r\n\r\nSSH-2.0-x\r\n\r\n", "not an HTTP proxy"),
        ] {
            let said = answered(&[bad.as_bytes()]).unwrap_err().to_string();
            assert!(said.contains(why), "{bad:?}: {said}");
        }
    }

    #[test]
    fn an_end_is_found_wherever_the_answer_is_cut() {
        for head in ["HTTP/1.1 200 OK\r\nA: b\r\n\r\n", "HTTP/1.1 200 OK\nA: b\n\n"] {
            for seen in 0..head.len() {
                assert_eq!(end_of_head(&head.as_bytes()[..seen], 0), None, "{head:?} to {seen}");
                assert_eq!(
                    end_of_head(head.as_bytes(), seen),
                    Some(head.len()),
                    "{head:?}, {seen}"
                );
            }
        }
    }

    #[test]
    fn an_interim_answer_is_no_refusal_and_the_final_one_is_read_on_to() {
        let whole = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        answered(&[whole]).unwrap();
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        answered(&bytes).unwrap();
        let said = answered(&[&whole[..], b"x"]).unwrap_err().to_string();
        assert!(said.contains("behind its answer"), "{said}");
        let endless = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
        let said = answered(&[&endless]).unwrap_err().to_string();
        assert!(said.contains("16384 bytes"), "{said}");
    }

    #[test]
    fn an_answer_without_end_is_read_to_a_limit() {
        let long = vec![b'a'; 100_000];
        let said = answered(&[b"HTTP/1.1 200 OK\r\nX: ", &long]).unwrap_err().to_string();
        assert!(said.contains("16384 bytes"), "{said}");
    }
}
