//! A session that the server end ends at once: the client end says what the reasons can be.

use crate::harness::process::pskgate;
use crate::harness::{
    Backend, ConnectionEnd, PlainClient, Pskgate, PskgateBuilder, WAIT_TIMEOUT, client_toml,
    free_port, local, server_toml, until,
};

const WORDS: &str = "the server end ended it at once: its backend does not answer";

fn client(server: &Pskgate) -> Pskgate {
    PskgateBuilder::new().toml(&client_toml(server.address("tls"), "")).start()
}

#[test]
fn a_backend_that_is_down_and_a_full_service_are_told_at_the_client_end() {
    let down = PskgateBuilder::new().toml(&server_toml(local(free_port()), "")).start();
    let backend = Backend::echo();
    let full =
        PskgateBuilder::new().toml(&server_toml(backend.address(), "max-sessions = 1")).start();
    let first = client(&full);
    let holder = PlainClient::connect(first.address("plain"));
    holder.echo(b"the only place");
    for server in [&down, &full] {
        let client = client(server);
        assert_eq!(PlainClient::connect(client.address("plain")).end(), ConnectionEnd::Rst);
        let line = client.wait_logged("session closed");
        assert!(line.contains(WORDS) && line.contains(" warning "), "{line}");
        let status = || pskgate(client.folder(), &["status", "pskgate.toml"]).out;
        until("the end in the status", WAIT_TIMEOUT, || {
            status().contains("not-served").then_some(())
        });
        assert!(status().contains(WORDS), "{}", status());
    }
    holder.echo(b"undisturbed");
}
