//! Lists of keys that a stranger offers in TLS 1.3: whether the time until they are refused tells which of
//! the names exist.

use std::time::Duration;

use crate::Fault;
use crate::ends::{Dialect, Maker, Order};
use crate::figure::Bar;
use crate::harness::hello::claim_lists;
use crate::harness::timing_leak::measure_timing_leak;
use crate::harness::{Backend, KEY, secret};
use crate::results::{Measure, Size, measure};

pub const FAULTS: &[Fault] = &[Fault {
    id: "S3",
    name: "lists-of-offers",
    about: "a stranger offers lists of keys, with a name in front that exists or does not",
    quick: true,
    stunnel: false,
    run: lists_of_offers,
}];

/// Identities that exist.
const IDENTITIES: usize = 1000;
/// As many offers as are looked at, and as many as a ClientHello has room for.
const LENGTHS: [usize; 2] = [8, 1591];
/// How far the area under the curve may be from a coin's 0.5.
const MAX_DISTANCE: f64 = 0.05;

/// Names of one length: they exist if they are even.
fn name(number: usize) -> String {
    format!("client{number:04}")
}

/// A name, and names behind it that do not exist. OpenSSL tries those of 32 bytes as tickets; a list of
/// 1,591 has room for two bytes each.
fn list(number: usize, length: usize) -> Vec<Vec<u8>> {
    let other = |n: usize| match length > 1000 {
        true => [n / 100, n % 100].map(|digit| b'!' + digit as u8).to_vec(),
        false => format!("nobody-of-this-name-has-a-key-{number:05}-{n:05}").into_bytes(),
    };
    std::iter::once(name(number).into_bytes()).chain((1..length).map(other)).collect()
}

fn lists_of_offers(maker: Maker, size: Size) -> Vec<Measure> {
    let mut figures = Vec::new();
    for stunnel_conf in [false, true] {
        for length in LENGTHS {
            for (at_once, trials) in [(1, size.pick(500, 3000)), (100, size.pick(20, 600))] {
                let seen = area(maker, stunnel_conf, length, at_once, trials);
                // Few trials are no more than a look at whether it runs.
                let bar = match size {
                    Size::Quick => Bar::Told,
                    Size::Full => Bar::AtMost(MAX_DISTANCE),
                };
                let dialect = if stunnel_conf { "stunnel.conf" } else { "native" };
                let what = format!(
                    "{length} offers, {at_once} at once, {dialect}: distance of the AUC from 0.5"
                );
                figures.push(measure(&what, "", bar, (seen - 0.5).abs()));
            }
        }
    }
    figures
}

/// The area under the curve; measured again where chance alone would be one in some hundred runs.
fn area(maker: Maker, stunnel_conf: bool, length: usize, at_once: usize, trials: usize) -> f64 {
    let once = || area_once(maker, stunnel_conf, length, at_once, trials);
    let first = once();
    if (first - 0.5).abs() <= MAX_DISTANCE { first } else { once() }
}

fn area_once(
    maker: Maker,
    stunnel_conf: bool,
    length: usize,
    at_once: usize,
    trials: usize,
) -> f64 {
    let backend = Backend::echo();
    let key = |n: usize| secret(&name(2 * n), &format!("{n:04}{KEY}"));
    let keys: String = (0..IDENTITIES).map(key).collect();
    let mut server = Order::server(maker, backend.address()).secrets(&keys);
    if stunnel_conf {
        server = server.dialect(Dialect::StunnelConf);
    }
    let server = server.start();
    let mut times: [Vec<Duration>; 2] = Default::default();
    for trial in 0..trials + 5 {
        for class in [trial % 2, 1 - trial % 2] {
            let number = |n: usize| 2 * ((trial * at_once + n) % IDENTITIES) + class;
            let lists: Vec<_> = (0..at_once).map(|n| list(number(n), length)).collect();
            let lists: Vec<Vec<&[u8]>> =
                lists.iter().map(|list| list.iter().map(Vec::as_slice).collect()).collect();
            let lists: Vec<&[&[u8]]> = lists.iter().map(Vec::as_slice).collect();
            let (_, time) = claim_lists(server.address(), &lists);
            // The first ones pay for caches.
            if trial >= 5 {
                times[class].push(time);
            }
        }
    }
    assert_eq!(backend.accepted(), 0);
    measure_timing_leak(&times[0], &times[1]).area
}
