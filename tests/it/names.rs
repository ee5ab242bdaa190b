//! Names that are never answered, and what goes on beside them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::harness::names::{HostWithNames, Reply};
use crate::harness::two_hosts::{ADDRESSES, echo_on};
use crate::harness::{IDENTITY, Pskgate, PskgateBuilder, Stopwatch, WAIT_TIMEOUT, until};

/// A server end on a host with names of its own, an echo at port 8080 of that host, and a client end before it.
struct Plant {
    names: HostWithNames,
    server: Pskgate,
    client: Pskgate,
}

impl Plant {
    /// The server's services: `socks`, and `named` with this target.
    fn new(names: HostWithNames, target: &str) -> Self {
        let host = names.host().to_owned();
        echo_on(&host, ADDRESSES[0]);
        let server = format!(
            "[defaults]\nmode = \"server\"\naccept = \"127.0.0.1:0\"\npsk-secrets = \"psk.txt\"\n\
             connect-timeout = \"60s\"\n\
             [services.socks]\nprotocol = \"socks\"\n[services.named]\nconnect = \"{target}\"\n"
        );
        let server = PskgateBuilder::new().toml(&server).on(&host).start();
        let end = |name: &str| {
            format!(
                "[services.{name}]\naccept = \"unix:{name}.sock\"\nconnect = \"{}\"\n",
                server.address(name)
            )
        };
        let client = format!(
            "[defaults]\nmode = \"client\"\npsk-secrets = \"psk.txt\"\npsk-identity = \"{IDENTITY}\"\n{}{}",
            end("socks"),
            end("named")
        );
        let client = PskgateBuilder::new().toml(&client).on(&host).start();
        Self { names, server, client }
    }

    fn connect(&self, service: &str) -> UnixStream {
        let path = self.client.folder().join(format!("{service}.sock"));
        let stream = UnixStream::connect(path).expect("a client end");
        stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        stream
    }

    /// Whether an echo comes back over the service with a name.
    fn echoes(&self) -> bool {
        let mut stream = self.connect("named");
        let mut back = [0; 14];
        stream.write_all(b"there and back").is_ok()
            && stream.read_exact(&mut back).is_ok()
            && &back == b"there and back"
    }

    /// An echo, which does not wait for a name.
    fn echo(&self) {
        let time = Stopwatch::start();
        assert!(self.echoes(), "{}", self.server.log());
        time.expect_within(PROMPT);
    }

    /// A SOCKS user who asks for a name.
    fn ask_for(&self, name: &str) -> UnixStream {
        let mut stream = self.connect("socks");
        stream.write_all(&[5, 1, 0]).unwrap();
        stream.read_exact(&mut [0; 2]).unwrap();
        let request = [&[5, 1, 0, 3, name.len() as u8], name.as_bytes(), &[0, 80]].concat();
        stream.write_all(&request).unwrap();
        stream
    }
}

/// Each name holds its look-up for half a minute.
const STUCK: &str = "timeout:30 attempts:1";

/// Short beside that, and longer than what waits for a new answer before it takes the last one.
const PROMPT: Duration = Duration::from_secs(5);

#[test]
fn names_that_peers_ask_for_keep_no_name_of_the_configuration_waiting() {
    let names = HostWithNames::new(&format!("{} backend.plant\n", ADDRESSES[0]), STUCK);
    let plant = Plant::new(names, "backend.plant:8080");
    plant.echo();
    let stuck: Vec<_> =
        (0..150).map(|number| plant.ask_for(&format!("slow-{number}.example"))).collect();
    plant.names.wait_asked(2);
    for _ in 0..5 {
        plant.echo();
    }
    assert_eq!(plant.names.asked(), 2, "the identity has two look-ups at a time");
    drop(stuck);
}

#[test]
fn a_dead_name_of_the_configuration_keeps_no_other_service_waiting() {
    let names = HostWithNames::new(&format!("{} backend.plant\n", ADDRESSES[0]), STUCK);
    let dead = Plant::new(names, "dead.example:8080");
    // More than there are threads for calls that block.
    let stuck: Vec<_> = (0..60)
        .map(|_| {
            let mut stream = dead.connect("named");
            stream.write_all(b"hello?").unwrap();
            stream
        })
        .collect();
    dead.names.wait_asked(1);
    // The name of the hosts file, over SOCKS: it needs the resolver as well.
    let time = Stopwatch::start();
    let mut asks = dead.ask_for("backend.plant");
    let mut answer = [0; 10];
    asks.read_exact(&mut answer).unwrap();
    time.expect_within(PROMPT);
    assert_eq!(answer[1], 2, "it was looked up, and is this machine's own");
    drop(stuck);
}

#[test]
fn the_last_good_answer_is_used_while_the_name_server_is_silent() {
    let names = HostWithNames::new("", "timeout:2 attempts:1");
    names.reply(Reply::Address(ADDRESSES[0].parse().unwrap()));
    let plant = Plant::new(names, "moving.example:8080");
    plant.echo();
    plant.names.reply(Reply::Nothing);
    for _ in 0..5 {
        plant.echo();
    }
    plant.server.wait_logged("cannot look up moving.example");
    // That the name is gone is an answer.
    plant.names.reply(Reply::Unknown);
    until("the name to be forgotten", WAIT_TIMEOUT, || (!plant.echoes()).then_some(()));
    plant.names.reply(Reply::Address(ADDRESSES[0].parse().unwrap()));
    until("the name to be back", WAIT_TIMEOUT, || plant.echoes().then_some(()));
}
