//! How many round trips pass from a connection to its first answer, over a line that takes 40 ms each way.

use std::process::Command;
use std::time::Duration;

use crate::line::{ADDRESSES, Line};
use crate::load::{self, Backend};
use crate::makes::{Make, Pair, Wishes};

/// One way, in milliseconds.
const DELAY: u32 = 40;

/// Round trips until the first answer, of the second connection: what is done once is done then.
pub fn first_answer(make: Make) -> f64 {
    let mut line = Line::new();
    let hosts = line.hosts.clone();
    let here = |host: usize| ["ip", "netns", "exec", hosts[host].as_str()];
    let (near, far) = (here(0), here(1));
    let backend = Backend::start(&far, "127.0.0.1:0");
    let at = format!("{}:3001", ADDRESSES[1]).parse().expect("an address");
    let wishes = Wishes {
        server_at: Some(at),
        through: [&far, &near],
        plain_at: "127.0.0.1:3002".parse().ok(),
        ..Wishes::default()
    };
    let pair = Pair::with(make, backend.address, &wishes);
    line.order(&format!("delay {DELAY}"));
    let own = std::env::current_exe().expect("the bench's own file");
    let asked = Command::new(near[0])
        .args(&near[1..])
        .arg(own)
        .args(["--ask", &pair.plain.to_string()])
        .output()
        .expect("somebody who asks");
    let text = String::from_utf8_lossy(&asked.stdout);
    let took: f64 = text.trim().parse().expect("a time in milliseconds");
    took / f64::from(2 * DELAY)
}

/// What `--ask` does: prints how long the second of two connections waited for its answer.
pub fn ask(to: &str) {
    let to = to.parse().expect("an address");
    let times: Vec<Duration> = (0..2).map(|_| load::first_answer(to)).collect();
    println!("{}", times[1].as_secs_f64() * 1e3);
}
