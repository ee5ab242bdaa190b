//! A name server that is silent.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::Fault;
use crate::ends::{Maker, Order, Tls, echo, tls, tls_as};
use crate::figure::Bar;
use crate::harness::names::{HostWithNames, Reply};
use crate::harness::two_hosts::{ADDRESSES, echo_on, on_host};
use crate::harness::{IDENTITY, KEY, OTHER_KEY, free_port, local, secret};
use crate::results::{Measure, Size, measure};

pub const FAULTS: &[Fault] = &[Fault {
    id: "S6",
    name: "silent-name-server",
    about: "the name server is silent, and SOCKS users have 150 names looked up (two each)",
    quick: true,
    stunnel: false,
    run: silent,
}];

const NAMES: usize = 150;

/// A SOCKS user who has a name looked up.
fn ask_for(name: &str, who: &str, to: SocketAddr) -> std::io::Result<Tls> {
    let mut stream = tls_as(who, OTHER_KEY, to, Ipv4Addr::LOCALHOST)?;
    stream.write_all(&[5, 1, 0])?;
    stream.read_exact(&mut [0; 2])?;
    let request = [&[5, 1, 0, 3, name.len() as u8], name.as_bytes(), &[0, 80]].concat();
    stream.write_all(&request)?;
    Ok(stream)
}

/// The slowest of so many connections and their echoes, in milliseconds, and how many failed.
fn slowest(count: usize, to: SocketAddr) -> (f64, usize) {
    let (mut slowest, mut failed) = (Duration::ZERO, 0);
    for _ in 0..count {
        let start = Instant::now();
        match tls(to, Ipv4Addr::LOCALHOST).and_then(|mut stream| echo(&mut stream)) {
            Ok(()) => slowest = slowest.max(start.elapsed()),
            Err(_) => failed += 1,
        }
    }
    (slowest.as_secs_f64() * 1000.0, failed)
}

fn silent(maker: Maker, size: Size) -> Vec<Measure> {
    let names =
        HostWithNames::new(&format!("{} backend.plant\n", ADDRESSES[0]), "timeout:30 attempts:1");
    names.reply(Reply::Address(ADDRESSES[0].parse().expect("an address")));
    let host = names.host().to_owned();
    echo_on(&host, ADDRESSES[0]);
    let users: Vec<String> = (0..NAMES / 2).map(|number| format!("user-{number}")).collect();
    let keys = users.iter().fold(secret(IDENTITY, KEY), |all, who| all + &secret(who, OTHER_KEY));
    let [socks, dns] = [free_port(), free_port()];
    let more = format!(
        "[services.socks]\nmode = \"server\"\naccept = \"127.0.0.1:{socks}\"\nprotocol = \"socks\"\n\
         psk-secrets = \"psk.txt\"\nconnect-timeout = \"60s\"\n\
         [services.dns]\nmode = \"server\"\naccept = \"127.0.0.1:{dns}\"\n\
         connect = \"moving.example:8080\"\npsk-secrets = \"psk.txt\""
    );
    let server = Order::server(maker, "backend.plant:8080")
        .secrets(&keys)
        .lines(&more, "")
        .through(&["ip", "netns", "exec", &host])
        .start();
    let rounds = size.pick(10, 50);
    let of_the_hosts_file = server.address();
    on_host(&host, || {
        let (alone, _) = slowest(rounds, of_the_hosts_file);
        let (with_answer, _) = slowest(1, local(dns));
        names.reply(Reply::Nothing);
        let asked_before = names.asked();
        let stuck: Vec<_> = (0..NAMES)
            .map(|number| {
                ask_for(&format!("slow-{number}.example"), &users[number / 2], local(socks))
            })
            .collect();
        names.wait_asked(asked_before + 2);
        let (beside, failed) = slowest(rounds, of_the_hosts_file);
        let (last_good, failed_dns) = slowest(rounds, local(dns));
        let stuck = stuck.iter().filter(|one| one.is_ok()).count();
        vec![
            measure(
                "names that SOCKS users wait for",
                "",
                Bar::Exactly(NAMES as f64),
                stuck as f64,
            ),
            measure(
                "of them asked of the name server",
                "",
                Bar::AtMost(16.0),
                // The name of the other service is asked for once more, and is not a new one.
                names.asked().saturating_sub(asked_before) as f64,
            ),
            measure("a name of the hosts file alone, the slowest", "ms", Bar::Told, alone),
            measure("the same beside them: connect and answer", "ms", Bar::AtMost(1000.0), beside),
            measure("of these connections failed", "", Bar::Exactly(0.0), failed as f64),
            measure("a name that the server had answered, then", "ms", Bar::Told, with_answer),
            measure(
                "the same by its last good answer, the slowest",
                "ms",
                // One of those who come while a look-up is under way waits a second for its answer.
                Bar::AtMost(2000.0),
                last_good,
            ),
            measure("of these connections failed, too", "", Bar::Exactly(0.0), failed_dns as f64),
        ]
    })
}
