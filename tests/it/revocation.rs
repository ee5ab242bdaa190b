//! Keys that are taken away from peers of other makes, while the IDE of somebody else is at work.

use std::time::Duration;

use crate::harness::openssl::psk_of;
use crate::harness::{
    Backend, ConnectionEnd, IDENTITY, KEY, OTHER_KEY, OpensslClient, PlainClient, Process, Pskgate,
    PskgateBuilder, Stopwatch, Stunnel, Tls, WAIT_TIMEOUT, client_toml, local, plc, replace,
    secret, server_toml, until,
};

/// A second good key, for a second peer.
const THIRD_KEY: &str = "dGhlIGtleSBvZiBhIHBlZXIgb2YgYW5vdGhlciBtYWtlLCBhcyBnb29kIGFzIGl0";

/// Who is known.
fn keys(more: &[(&str, &str)]) -> String {
    let more = more.iter().map(|(who, key)| secret(who, key));
    [secret(IDENTITY, KEY)].into_iter().chain(more).collect()
}

/// An IDE of Pyro's that polls its PLC, over a service of its own and the same key file.
struct Ide {
    _daemon: Process,
    _client: Pskgate,
    caller: Process,
}

impl Ide {
    fn new(server: &Pskgate, daemon: Process) -> Self {
        let client = PskgateBuilder::new().toml(&client_toml(server.address("plc"), "")).start();
        let port = client.address("plain").port().to_string();
        let caller = plc(&["5", "watch", &port]);
        caller.wait_for("WATCHING", WAIT_TIMEOUT);
        Self { _daemon: daemon, _client: client, caller }
    }

    fn undisturbed(mut self) {
        self.caller.end_input();
        assert!(self.caller.wait(WAIT_TIMEOUT).success(), "{}", self.caller.text());
        let said = self.caller.wait_for("POLLS ", WAIT_TIMEOUT);
        let polls: u32 = said.trim_start_matches("POLLS ").trim().parse().expect("a number");
        assert!(polls > 20, "{polls} polls in all");
    }
}

#[test]
fn stunnel_and_openssl_lose_what_they_had_and_an_ide_at_work_does_not_notice() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let daemon = plc(&["5", "serve"]);
        let line = daemon.wait_for("READY ", WAIT_TIMEOUT);
        let port = line.trim_start_matches("READY ").trim().parse().expect("a port");
        let other = server_toml(local(port), "").replace("[services.tls]", "[services.plc]");
        let toml = server_toml(backend.address(), tls.toml()) + &other;
        let (of_stunnel, of_openssl) = (("stunnel", OTHER_KEY), ("openssl", THIRD_KEY));
        let everybody = keys(&[of_stunnel, of_openssl]);
        let server = PskgateBuilder::new().file("psk.txt", &everybody).toml(&toml).start();
        let ide = Ide::new(&server, daemon);

        let extra = format!("PSKidentity = stunnel\n{}", tls.conf());
        let stunnel =
            Stunnel::client_with(server.address("tls"), &secret("stunnel", OTHER_KEY), &extra);
        let session = PlainClient::connect(stunnel.address());
        session.echo(b"before");
        let arguments = || [tls.flag().to_owned()].into_iter().chain(psk_of("openssl", THIRD_KEY));
        let mut openssl = OpensslClient::start(server.address("tls"), arguments());
        openssl.echo("before");

        let file = server.folder().join("psk.txt");
        replace(&file, &keys(&[of_openssl]));
        let watch = Stopwatch::start();
        // stunnel says FIN after any end.
        assert!(matches!(session.end(), ConnectionEnd::Fin | ConnectionEnd::Rst));
        // 300 ms until the change is taken, a second from then on.
        watch.expect_within(Duration::from_millis(1_800));
        let again = PlainClient::connect(stunnel.address());
        again.send(b"let me in");
        assert_eq!(again.rest().0, b"", "stunnel is in again, {tls:?}");
        openssl.echo("still here");

        // Another key under the same name is an end as well.
        replace(&file, &keys(&[("openssl", OTHER_KEY)]));
        let watch = Stopwatch::start();
        until("the end of s_client", WAIT_TIMEOUT, || openssl.ended());
        watch.expect_within(Duration::from_millis(1_800));
        let refused = OpensslClient::start(server.address("tls"), arguments()).alert();
        assert!(refused.is_some(), "openssl is in again, {tls:?}");
        ide.undisturbed();
    }
}
