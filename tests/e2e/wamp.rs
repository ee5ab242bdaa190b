//! WAMP: runtime and IDE are both clients of a router, so both sit behind client ends, and the router
//! behind a server end.

use rustix::process::Signal;

use crate::Connector;
use crate::ends::{End, Maker, Order};
use crate::harness::{WAIT_TIMEOUT, until};
use crate::peers::{Peer, Router};
use crate::rates::calls_of;
use crate::results::Size;
use crate::trips::Trips;
use crate::ways::{WAYS, Way};

pub const CONNECTORS: &[Connector] = &[
    Connector {
        name: "wamp",
        about: "WAMP:// through crossbar: runtime and IDE behind client ends, the router behind a server end",
        run: wamp,
    },
    Connector {
        name: "wamp-cra",
        about: "the same with a login at the router (WAMP-CRA), as newer versions of Beremiz do for WAMP://",
        run: wamp_cra,
    },
];

/// The ID of `WAMP://127.0.0.1:8888#Automation#2534667845`, one for each way.
fn id(way: usize) -> String {
    format!("253466784{way}")
}

struct Set {
    server: Option<End>,
    _clients: Vec<End>,
    runtime: Peer,
    ide: Peer,
}

fn set(way: usize, router: &Router) -> Set {
    let (server, clients) = match WAYS[way] {
        Way::Direct => (None, Vec::new()),
        Way::Through(maker) => {
            let server = Order::server(maker, router.address).start();
            // One on the PLC, one beside the IDE.
            let clients = [0, 1].map(|_| Order::client(maker, server.address()).start()).into();
            (Some(server), clients)
        }
    };
    let at = |which: usize| clients.get(which).map_or(router.address, End::address);
    let connect = |which: usize, role: &str| {
        let arguments = [role, &at(which).port().to_string(), &id(way)].map(str::to_owned);
        Peer::start("wamp.py", &arguments)
    };
    let mut runtime = connect(0, "runtime");
    runtime.process().wait_for("JOINED", WAIT_TIMEOUT);
    let mut ide = connect(1, "ide");
    ide.process().wait_for("READY", WAIT_TIMEOUT);
    ide.ask("status");
    Set { server, _clients: clients, runtime, ide }
}

/// The login at the router has keys of its own: the tunnel's say which machine it is, and no more.
fn wamp_cra(size: Size) -> Vec<Trips> {
    let (plc, ide) = (("PLC1", "a secret of the PLC"), ("anna", "a secret of the engineer"));
    let router = Router::with_members(&[plc, ide]);
    let folder = tempfile::TempDir::new().expect("a folder for secrets");
    let file = |name: &str, (who, secret): (&str, &str)| {
        let file = folder.path().join(name);
        std::fs::write(&file, format!("{who}:{secret}")).expect("written");
        file.to_str().expect("a name").to_owned()
    };
    let server = Order::server(Maker::Pskgate, router.address).start();
    let clients = [0, 1].map(|_| Order::client(Maker::Pskgate, server.address()).start());
    let connect = |client: usize, role: &str, secret: &[String]| {
        let port = clients[client].address().port().to_string();
        let arguments = [&[role.to_owned(), port, id(0)], secret].concat();
        Peer::start("wamp.py", &arguments)
    };
    let mut runtime = connect(0, "runtime", &[file("plc", plc)]);
    runtime.process().wait_for("JOINED", WAIT_TIMEOUT);
    let mut engineer = connect(1, "ide", &[file("anna", ide)]);
    engineer.ask("status");
    engineer.ask(&format!("upload {}", size.pick(500_000, 3_000_000)));
    engineer.ask(&format!("watch {}", size.pick(10, 100)));
    // The tunnel's key alone is no login.
    for secret in [vec![file("wrong", ("anna", "another secret"))], Vec::new()] {
        connect(1, "ide", &secret).process().wait_for("LEFT wamp.error.", WAIT_TIMEOUT);
    }
    engineer.ask("status");
    Vec::new()
}

fn joined(runtime: &mut Peer) -> usize {
    runtime.process().out().matches("JOINED").count()
}

fn wamp(size: Size) -> Vec<Trips> {
    let router = Router::start();
    let mut sets = [0, 1, 2].map(|way| set(way, &router));
    let through = &mut sets[1];
    through.ide.ask(&format!("upload {}", size.pick(500_000, 3_000_000)));
    through.ide.ask(&format!("watch {}", size.pick(10, 100)));

    // The router's end is started anew: runtime and IDE come back by themselves.
    for _ in 0..size.pick(1, 5) {
        let before = joined(&mut through.runtime);
        let mut old = through.server.take().expect("a server end");
        let address = old.address();
        old.signal(Signal::TERM);
        assert!(old.wait(WAIT_TIMEOUT).success(), "it drains and ends well: {}", old.text());
        through.server =
            Some(Order::server(Maker::Pskgate, router.address).accept(address).start());
        until("the runtime to join again", WAIT_TIMEOUT, || {
            (joined(&mut through.runtime) > before).then_some(())
        });
        through.ide.ask("status");
        through.ide.ask("watch 5");
    }
    let mut clients = sets.map(|set| (set.ide, set.runtime, set.server, set._clients));
    // The servers stay up behind the clients that are asked.
    let [a, b, c] = &mut clients;
    let mut ides = [&mut a.0, &mut b.0, &mut c.0];
    vec![calls_of("wamp", "GetPLCstatus through the router", &mut ides, size)]
}
