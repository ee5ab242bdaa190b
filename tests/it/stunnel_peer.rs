//! Debian's stunnel4 at the other end, in both roles and both versions.

use crate::harness::{
    Backend, OTHER_KEY, PlainClient, PskgateBuilder, Stream, Stunnel, Tls, WAIT_TIMEOUT,
    client_toml, free_port, local, secret, server_toml,
};

/// Sends a megabyte through an echo and compares what comes back.
fn echo_a_megabyte(plain: &PlainClient, seed: u64) {
    const TOTAL: u64 = 1_000_000;
    let stream = Stream::new(seed);
    std::thread::scope(|scope| {
        scope.spawn(|| stream.send(&plain.0, TOTAL).expect("it takes the data"));
        stream.receive(&plain.0, TOTAL);
    });
}

#[test]
fn a_stunnel_client_is_served_byte_for_byte() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), tls.toml())).start();
        let stunnel =
            Stunnel::client(gate.address("tls"), &format!("ciphers = ALL:PSK\n{}", tls.conf()));
        let plain = PlainClient::connect(stunnel.address());
        echo_a_megabyte(&plain, 1);
        gate.expect_session(tls.name(), tls.any_suite());
        plain.shut();
        backend.wait_end(0);
        gate.wait_logged("1000000 bytes up, 1000000 bytes down");
    }
}

#[test]
fn a_stunnel_server_is_reached_byte_for_byte() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let stunnel = Stunnel::server(backend.address(), tls.conf());
        let gate = PskgateBuilder::new().toml(&client_toml(stunnel.address(), tls.toml())).start();
        let plain = PlainClient::connect(gate.address("plain"));
        echo_a_megabyte(&plain, 2);
        gate.expect_session(
            tls.name(),
            if tls == Tls::V12 { "ECDHE-PSK-CHACHA20-POLY1305" } else { "SHA256" },
        );
        plain.shut();
        assert_eq!(plain.rest(), (Vec::new(), crate::harness::ConnectionEnd::Fin));
        gate.wait_logged("1000000 bytes up, 1000000 bytes down");
    }
}

#[test]
fn a_stunnel_client_with_a_wrong_key_is_refused() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), tls.toml())).start();
        let stunnel =
            Stunnel::client_with(gate.address("tls"), &secret("client1", OTHER_KEY), tls.conf());
        let plain = PlainClient::connect(stunnel.address());
        plain.end();
        gate.wait_logged("wrong key for identity \"client1\"");
        assert_eq!(backend.accepted(), 0);
    }
}

/// A client that has a ticket of the server that was here before offers it first and its key second.
#[test]
fn a_stunnel_client_with_a_ticket_of_a_replaced_server_connects_the_first_time() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let port = free_port();
        let before = Stunnel::server_at(port, backend.address(), tls.conf());
        let client = Stunnel::client(local(port), "");
        for _ in 0..2 {
            let plain = PlainClient::connect(client.address());
            plain.echo(b"to the old server");
            plain.shut();
            plain.rest();
        }
        // It has a ticket, and uses it.
        before.wait_for("Decrypted ticket", WAIT_TIMEOUT);
        drop(before);

        let text = server_toml(backend.address(), tls.toml())
            .replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
        let gate = PskgateBuilder::new().toml(&text).start();
        PlainClient::connect(client.address()).echo(b"to the new one");
        gate.expect_session(tls.name(), tls.any_suite());
        assert!(!gate.log().contains("refused"), "the first attempt was refused: {}", gate.log());
    }
}

#[test]
fn a_key_of_hexadecimal_digits_means_the_same_to_both() {
    const HEX: &str = "00ff10ee20dd30cc40bb50aa609970880123456789abcdef";
    let backend = Backend::echo();
    let text = server_toml(backend.address(), "");
    let gate = PskgateBuilder::new().file("psk.txt", &secret("client1", HEX)).toml(&text).start();
    let client = Stunnel::client_with(gate.address("tls"), &secret("client1", HEX), "");
    PlainClient::connect(client.address()).echo(b"the digits were decoded at both ends");
}
