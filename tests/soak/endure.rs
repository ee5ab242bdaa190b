//! Half an hour of everything at once, at a pace that lasts: what grows then is a leak.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{LONG, RequestCounters, Site, State, WAIT_TIMEOUT, connect, keep_asking, revoke, size};
use crate::figure::Bar;
use crate::harness::{self, until};
use crate::results::{Measure, measure};

/// Between two connections of one of those who come and go.
const PACE: Duration = Duration::from_millis(20);

/// How one of those who come and go ends its connection.
#[derive(Clone, Copy)]
enum Leaves {
    Closing,
    /// It ends its own direction, and reads the answer behind that.
    HalfClosed,
    /// With a reset, before or behind the answer.
    Resetting,
}

/// What the ends' sizes were in one second: memory in kB, and descriptors.
struct Sample {
    minute: u64,
    sizes: [(u64, usize); 2],
}

pub(crate) fn endure(site: &Site, book: &RequestCounters, minutes: u64) -> Vec<Measure> {
    let door = site.member;
    let (mut reloads, mut samples) = (0, Vec::new());
    let mut cut = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..LONG {
            scope.spawn(|| keep_asking(book, door));
        }
        for leaves in [Leaves::Closing, Leaves::HalfClosed, Leaves::Resetting].repeat(3) {
            scope.spawn(move || come_and_go(book, door, leaves));
        }
        until("the load", WAIT_TIMEOUT, || {
            (book.asked.load(Ordering::Relaxed) > 500).then_some(())
        });
        let watched = scope.spawn(|| watch(site, book));
        let mut state = State { guest: false, more: false, extra: false };
        let start = Instant::now();
        for n in 0.. {
            if start.elapsed() > Duration::from_secs(minutes * 60) {
                break;
            }
            if n % 10 == 9 {
                cut = revoke(site, 1);
                state = State { guest: false, more: false, extra: false };
            } else {
                state.more = !state.more;
                if n % 3 == 0 {
                    state.extra = !state.extra;
                }
                site.write(state);
                site.server.signal(Signal::HUP);
                site.wait(state, 1);
                reloads += 1;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        book.done.store(true, Ordering::Release);
        samples = watched.join().expect("whoever watches");
    });
    let mut seen = vec![
        measure("minutes", "", Bar::Told, minutes as f64),
        measure("reloads, each seen to have taken effect", "", Bar::Told, f64::from(reloads)),
    ];
    seen.extend(cut.into_iter().filter(|one| one.unit == "ms"));
    seen.extend(growth(&samples, minutes));
    seen
}

fn come_and_go(book: &RequestCounters, door: SocketAddr, leaves: Leaves) {
    let mut round: u64 = 0;
    while !book.is_done() {
        match connect(door) {
            Ok(mut stream) => match leaves {
                Leaves::Closing => drop(book.ask(&mut stream, round)),
                Leaves::Resetting if round % 2 == 0 => {
                    if stream.write_all(&[7; 512]).is_ok() {
                        harness::backend::reset(stream);
                    }
                }
                Leaves::Resetting => {
                    if book.ask(&mut stream, round) {
                        harness::backend::reset(stream);
                    }
                }
                Leaves::HalfClosed => {
                    let question = vec![round as u8; 3000];
                    let mut answer = Vec::new();
                    let asked = stream
                        .write_all(&question)
                        .and_then(|()| stream.shutdown(Shutdown::Write))
                        .and_then(|()| stream.read_to_end(&mut answer));
                    match asked {
                        Ok(_) if answer == question => {
                            book.asked.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(_) => {
                            book.wrong.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => book.failed(&error),
                    }
                }
            },
            Err(error) => book.failed(&error),
        }
        round += 1;
        std::thread::sleep(PACE);
    }
}

fn watch(site: &Site, book: &RequestCounters) -> Vec<Sample> {
    let (start, mut samples) = (Instant::now(), Vec::new());
    while !book.is_done() {
        let minute = start.elapsed().as_secs() / 60;
        samples.push(Sample { minute, sizes: [&site.server, &site.clients[0]].map(size) });
        std::thread::sleep(Duration::from_secs(1));
    }
    samples
}

/// The last whole minute against the fifth: what allocators keep of the beginning is theirs.
fn growth(samples: &[Sample], minutes: u64) -> Vec<Measure> {
    let (first, last) = (4.min(minutes.saturating_sub(2)), minutes.saturating_sub(1));
    let mean = |minute: u64, of: &dyn Fn(&Sample) -> f64| {
        let all: Vec<f64> = samples.iter().filter(|one| one.minute == minute).map(of).collect();
        all.iter().sum::<f64>() / all.len() as f64
    };
    let mut seen = Vec::new();
    for (end, name) in ["server", "client"].into_iter().enumerate() {
        let memory = |one: &Sample| one.sizes[end].0 as f64;
        let descriptors = |one: &Sample| one.sizes[end].1 as f64;
        let mut figure = |what: &str, unit, of: &dyn Fn(&Sample) -> f64| {
            let (then, now) = (mean(first, of), mean(last, of));
            let at = format!("{name} end: {what} in minute {}", first + 1);
            seen.push(measure(&at, unit, Bar::Told, then));
            let more = (now - then) / then * 100.0;
            let what = format!("{name} end: {what} more in minute {}", last + 1);
            seen.push(measure(&what, "%", Bar::AtMost(5.0), more));
        };
        figure("memory", "kB", &memory);
        figure("descriptors", "", &descriptors);
    }
    seen
}
