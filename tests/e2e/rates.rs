//! Round trips per second, the same call through each way in turn.

use crate::harness::machine::today;
use crate::peers::Peer;
use crate::results::Size;
use crate::trips::Trips;
use crate::ways::WAYS;

/// Asks for the rate of each way, over and over; ways are numbered as [`WAYS`] has them.
fn rounds(
    connector: &str,
    call: &str,
    unit: &str,
    count: usize,
    mut rate: impl FnMut(usize) -> f64,
) -> Trips {
    let mut seen = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..count {
        for step in 0..WAYS.len() {
            let way = (round + step) % WAYS.len();
            seen[way].push(rate(way));
        }
    }
    let [direct, pskgate, stunnel4] = seen;
    assert!(pskgate.iter().all(|rate| *rate > 0.0), "nothing came through: {pskgate:?}");
    Trips {
        connector: connector.to_owned(),
        call: call.to_owned(),
        unit: unit.to_owned(),
        direct,
        pskgate,
        stunnel4,
        date: today(),
    }
}

/// Calls one after the other.
pub fn calls(connector: &str, call: &str, clients: &mut [Peer; 3], size: Size) -> Trips {
    calls_of(connector, call, &mut clients.each_mut(), size)
}

/// The same with clients that belong to somebody else.
pub fn calls_of(connector: &str, call: &str, clients: &mut [&mut Peer; 3], size: Size) -> Trips {
    let (count, seconds) = size.pick((3, 0.3), (9, 0.5));
    rounds(connector, call, "1/s", count, |way| {
        let answer = clients[way].ask(&format!("trips {seconds}"));
        let number = |name: &str| answer[name].as_f64().expect("a number");
        number("count") / number("seconds")
    })
}

/// Uploads of a program.
pub fn uploads(connector: &str, clients: &mut [Peer; 3], bytes: usize, size: Size) -> Trips {
    rounds(connector, "upload in chunks of 4096 bytes", "kB/s", size.pick(1, 3), |way| {
        let answer = clients[way].ask(&format!("upload {bytes}"));
        let number = |name: &str| answer[name].as_f64().expect("a number");
        number("bytes") / number("seconds") / 1000.0
    })
}
