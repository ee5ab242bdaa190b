#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

/// What a peer says, what that comes to, and what it is answered.
type Case<'a> = (&'a [&'a [u8]], &'a str, &'a [u8]);

/// What a request comes to, and what the peer was answered: first what is sent at once, then the rest.
fn asked(parts: &[&[u8]]) -> (io::Result<SocksRequest>, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (mut us, mut peer) = tokio::io::duplex(1 << 16);
        for part in parts {
            peer.write_all(part).await.unwrap();
        }
        peer.shutdown().await.unwrap();
        let request = read_request(&mut us).await;
        if let Ok(request) = &request {
            request.answer(&mut us, Ok(())).await.unwrap();
        }
        drop(us);
        let mut said = Vec::new();
        peer.read_to_end(&mut said).await.unwrap();
        (request, said)
    })
}

fn shown(parts: &[&[u8]]) -> (String, Vec<u8>) {
    let (request, said) = asked(parts);
    (request.map_or_else(|error| error.to_string(), |request| request.to.to_string()), said)
}

#[test]
fn every_version_is_read_and_answered_in_its_own_form() {
    let four = [4, 1, 0x1f, 0x90, 192, 0, 2, 7];
    let cases: [Case<'_>; 6] = [
        (&[&four, b"user\0"], "192.0.2.7:8080", &[0, 0x5a, 0x1f, 0x90, 192, 0, 2, 7]),
        (
            &[&[4, 1, 0, 80, 0, 0, 0, 9], b"\0plc.example\0"],
            "plc.example:80",
            &[0, 0x5a, 0, 80, 0, 0, 0, 9],
        ),
        (
            &[&[5, 2, 2, 0], &[5, 1, 0, 1, 192, 0, 2, 7, 0, 80]],
            "192.0.2.7:80",
            &[5, 0, 5, 0, 0, 1, 192, 0, 2, 7, 0, 80],
        ),
        (
            &[&[5, 1, 0], &[5, 1, 0, 3, 11], b"plc.example", &[0, 80]],
            "plc.example:80",
            &[5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        ),
        (
            &[&[5, 1, 0], &[5, 1, 0, 4], &[0x20, 1, 0xd, 0xb8], &[0; 11], &[1, 0, 80]],
            "[2001:db8::1]:80",
            &[5, 0, 5, 0, 0, 4, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 80],
        ),
        (
            &[&[5, 1, 0], &[5, 1, 0, 3, 9], b"192.0.2.9", &[0, 80]],
            "192.0.2.9:80",
            &[5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        ),
    ];
    for (parts, to, answer) in cases {
        assert_eq!(shown(parts), (to.to_owned(), answer.to_vec()));
    }
}

#[test]
fn what_is_no_request_for_a_connection_is_refused_and_where_it_can_be_in_its_own_words() {
    let long = [&[4, 1, 0, 80, 1, 2, 3, 4][..], &[b'u'; 300]].concat();
    let cases: [Case<'_>; 9] = [
        (
            &[&[4, 2, 0, 80, 1, 2, 3, 4, 0]],
            "a SOCKS command other than CONNECT",
            &[0, 0x5b, 0, 80, 1, 2, 3, 4],
        ),
        (
            &[&[5, 1, 0], &[5, 2, 0, 1, 1, 2, 3, 4, 0, 80]],
            "a SOCKS command other than CONNECT",
            &[5, 0, 5, 7],
        ),
        (
            &[&[5, 1, 0], &[5, 3, 0, 1, 1, 2, 3, 4, 0, 80]],
            "a SOCKS command other than CONNECT",
            &[5, 0, 5, 7],
        ),
        (&[&[5, 1, 2]], "insists on a password", &[5, 0xff]),
        (&[&[5, 1, 0], &[5, 1, 0, 2, 0, 0]], "unknown kind", &[5, 0, 5, 8]),
        (&[&[5, 1, 0], &[5, 1, 0, 3, 3], b"a\nb", &[0, 80]], "not a host name", &[5, 0, 5, 4]),
        (&[&[6, 1, 0]], "no SOCKS request", &[]),
        (&[&long], "too long", &[]),
        (&[&[5, 1]], "early eof", &[]),
    ];
    for (parts, why, answer) in cases {
        let (said, got) = shown(parts);
        assert!(said.contains(why) && got.starts_with(answer), "{parts:?}: {said}, {got:?}");
    }
}

#[test]
fn a_client_end_asks_as_stunnels_does_and_takes_no_refusal_for_an_answer() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let talk = |to: &str, answer: &[u8]| {
        runtime.block_on(async {
            let (mut us, mut server) = tokio::io::duplex(1 << 10);
            server.write_all(&[5, 0]).await.unwrap();
            server.write_all(answer).await.unwrap();
            let done = ask(&mut us, to.parse().unwrap()).await;
            drop(us);
            let mut said = Vec::new();
            server.read_to_end(&mut said).await.unwrap();
            (done.map_err(|error| error.to_string()), said)
        })
    };
    let good = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let (done, said) = talk("192.0.2.7:80", &good);
    assert_eq!((done, said), (Ok(()), vec![5, 1, 0, 5, 1, 0, 1, 192, 0, 2, 7, 0, 80]));
    let (done, said) = talk("[2001:db8::1]:80", &good);
    assert_eq!((done.is_ok(), said.len(), said[6]), (true, 25, 4));
    let (done, _) = talk("192.0.2.7:80", &[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert!(done.unwrap_err().contains("code 5"));
    assert!(talk("192.0.2.7:80", &[5, 0, 0, 9, 0, 0]).0.is_err());
}
