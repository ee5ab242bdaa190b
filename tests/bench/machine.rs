//! The machine that measures: what it is, and whether something else kept it busy meanwhile.

use std::time::Duration;

use crate::harness;

/// How long it is looked at before each round, while nothing of the bench runs.
const LOOK_TIME: Duration = Duration::from_millis(300);
/// Other programs' share of the processors above which figures are doubtful, in percent.
const MAX_OTHERS_PERCENT: f64 = 5.0;
/// The share of processor time that the hypervisor gave to other guests, in percent of the whole run.
const MAX_STEAL_PERCENT: f64 = 1.0;

/// Processor time of all cores since the machine started, in ticks of the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct CpuTime {
    idle: f64,
    steal: f64,
    all: f64,
}

impl CpuTime {
    fn now() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// Of the first line of /proc/stat (proc_stat(5)): user, nice, system, idle, iowait, irq, softirq, steal.
    fn parse(stat: &str) -> Self {
        let first = stat.lines().next().unwrap_or_default();
        let ticks: Vec<f64> =
            first.split_whitespace().skip(1).take(8).filter_map(|n| n.parse().ok()).collect();
        let of = |place: usize| ticks.get(place).copied().unwrap_or_default();
        Self { idle: of(3) + of(4), steal: of(7), all: ticks.iter().sum() }
    }

    /// The percentages since an earlier look: not idle, and stolen.
    fn since(self, earlier: Self) -> (f64, f64) {
        let percent = |part: f64| 100.0 * part / (self.all - earlier.all).max(1.0);
        (100.0 - percent(self.idle - earlier.idle), percent(self.steal - earlier.steal))
    }
}

/// Looks at what else the machine does.
pub struct Watch {
    begin: CpuTime,
    /// The most that other programs used while nothing of the bench ran, in percent.
    others: f64,
}

impl Watch {
    pub fn start() -> Self {
        let mut watch = Self { begin: CpuTime::now(), others: 0.0 };
        watch.look();
        let words = watch.words();
        if !words.is_empty() {
            eprint!("{words}");
        }
        watch
    }

    /// To be called while nothing of the bench runs.
    pub fn look(&mut self) {
        let before = CpuTime::now();
        std::thread::sleep(LOOK_TIME);
        self.others = self.others.max(CpuTime::now().since(before).0);
    }

    /// A warning, or nothing.
    pub fn words(&self) -> String {
        warning(self.others, CpuTime::now().since(self.begin).1)
    }
}

fn warning(others: f64, steal: f64) -> String {
    if others <= MAX_OTHERS_PERCENT && steal <= MAX_STEAL_PERCENT {
        return String::new();
    }
    format!(
        "\n**The machine was busy**: before a round, other programs used up to {others:.0} % of the processors, and the \
         hypervisor\nkept back {steal:.1} % of the processor time. The ratios are less certain than their intervals say.\n"
    )
}

/// Where this ran: nothing that would name the machine or whose it is.
pub fn description() -> String {
    let said = |program: &str, argument: &str, word: &str| {
        let line = harness::machine::version_line(program, argument, word);
        line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
    };
    format!(
        "Measured on {}: kernel {}, {} cores; pskgate {} with {}, {}, {}.\n",
        harness::machine::today(),
        harness::machine::kernel(),
        harness::machine::cores(),
        env!("CARGO_PKG_VERSION"),
        openssl::version::version().split_whitespace().take(2).collect::<Vec<_>>().join(" "),
        said("stunnel4", "-version", "stunnel "),
        said("haproxy", "-v", "HAProxy").trim_end_matches(" version"),
    )
}

/// The bench has no tests of its own: what warns is tried at each start.
pub fn try_warning() {
    let before = CpuTime::parse("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3\n");
    let quiet = CpuTime::parse("cpu  101 0 101 998 0 0 0 0 0 0\n");
    let busy = CpuTime::parse("cpu  150 0 150 880 0 0 0 20 0 0\n");
    let words = |after: CpuTime| {
        let (others, steal) = after.since(before);
        warning(others, steal)
    };
    assert_eq!(words(quiet), "");
    assert!(words(busy).contains("up to 60 %") && words(busy).contains("kept back 10.0 %"));
}
