//! The instruments are tested too: an ending that they mistake would prove nothing.

use super::{
    Backend, ConnectionEnd, FaultProxy, IDENTITY, KEY, OTHER_KEY, OpensslClient, OpensslServer,
    PlainClient, Stream, Stunnel, Tls, WAIT_TIMEOUT, WireEnd, openssl, secret,
};

#[test]
fn a_wire_ends_and_resets_and_spoils_as_it_is_told() {
    let backend = Backend::sink();
    for (number, side) in [(0, WireEnd::Client), (2, WireEnd::Server)] {
        for (number, wanted) in [(number, ConnectionEnd::Fin), (number + 1, ConnectionEnd::Rst)] {
            let wire = FaultProxy::to(backend.address());
            let plain = PlainClient::connect(wire.address());
            plain.send(b"over the wire");
            super::until("it to cross", WAIT_TIMEOUT, || {
                (wire.carried_towards(WireEnd::Server) == 13).then_some(())
            });
            match wanted {
                ConnectionEnd::Fin => wire.finish_towards(side),
                ConnectionEnd::Rst => wire.reset_towards(side),
            }
            let seen = match side {
                WireEnd::Client => plain.end(),
                WireEnd::Server => backend.wait_end(number).1,
            };
            assert_eq!(seen, wanted, "towards the {side:?}");
        }
    }
    let wire = FaultProxy::to(backend.address());
    let plain = PlainClient::connect(wire.address());
    super::until("the wire to be there", WAIT_TIMEOUT, || (backend.accepted() == 5).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(50));
    wire.spoil_towards(WireEnd::Server);
    plain.send(b"abc");
    plain.shut();
    assert_eq!(backend.wait_end(4), (b"abb".to_vec(), ConnectionEnd::Fin));
    plain.reset();
}

#[test]
fn a_wire_sees_how_a_side_ends() {
    let backend = Backend::sink();
    for wanted in [ConnectionEnd::Fin, ConnectionEnd::Rst] {
        let wire = FaultProxy::to(backend.address());
        let plain = PlainClient::connect(wire.address());
        plain.send(b"x");
        super::until("it to cross", WAIT_TIMEOUT, || {
            (wire.carried_towards(WireEnd::Server) == 1).then_some(())
        });
        match wanted {
            ConnectionEnd::Fin => plain.shut(),
            ConnectionEnd::Rst => plain.reset(),
        }
        assert_eq!(wire.wait_end_of(WireEnd::Client), wanted);
    }
}

#[test]
#[should_panic(expected = "byte 1500000 is not the one that was sent")]
fn a_byte_that_was_changed_is_noticed() {
    let stream = Stream::new(1);
    let mut bytes = Vec::new();
    stream.send(&mut bytes, 2_000_000).unwrap();
    bytes[1_500_000] ^= 1;
    stream.receive(&bytes[..], 2_000_000);
}

#[test]
fn the_peers_work_with_each_other() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let server = Stunnel::server(backend.address(), tls.conf());
        let client = Stunnel::client(server.address(), "");
        PlainClient::connect(client.address()).echo(b"stunnel to stunnel");
        let mut client = OpensslClient::start(
            server.address(),
            openssl::psk().into_iter().chain([tls.flag().to_owned()]),
        );
        client.echo("openssl to stunnel");
        let reached = backend.accepted();
        let list = openssl::psk_of(IDENTITY, OTHER_KEY).into_iter().chain([tls.flag().to_owned()]);
        assert!(
            OpensslClient::start(server.address(), list).alert().is_some(),
            "a wrong key is an alert"
        );
        assert_eq!(backend.accepted(), reached);

        let list = openssl::psk().into_iter().chain(["-nocert", tls.flag()].map(str::to_owned));
        let server = OpensslServer::start(&super::root(), list);
        let client = Stunnel::client_with(server.address(), &secret(IDENTITY, KEY), "");
        let plain = PlainClient::connect(client.address());
        plain.send(b"stunnel to openssl\n");
        let mut back = [0; 19];
        std::io::Read::read_exact(&mut &plain.0, &mut back).unwrap();
        assert_eq!(&back, b"lssnepo ot lennuts\n");
    }
}
