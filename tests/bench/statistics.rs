//! Medians, spread, and ratios pair by pair with their interval.

use crate::figures::{FIGURES, Figure, Goal, Value};
use crate::makes::Make;

/// What a make's rounds saw of a figure.
#[derive(Debug, Clone)]
pub struct FigureSummary {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    /// In the order of the rounds.
    pub all: Vec<f64>,
}

/// An estimate and its 95 % interval.
#[derive(Debug, Clone, Copy)]
pub struct Interval {
    pub middle: f64,
    pub low: f64,
    pub high: f64,
}

/// Whether a goal is met, judged by the worse end of the interval.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Such as `>= 2 x stunnel4`.
    pub goal: String,
    pub interval: Interval,
    pub met: bool,
}

pub fn seen(values: &[Value], figure: &str, make: Make) -> Option<FigureSummary> {
    let mut of: Vec<&Value> =
        values.iter().filter(|value| value.figure == figure && value.make == make).collect();
    of.sort_by_key(|value| value.round);
    let all: Vec<f64> = of.iter().map(|value| value.value).collect();
    let mut sorted = all.clone();
    sorted.sort_by(f64::total_cmp);
    let (least, most) = (*sorted.first()?, *sorted.last()?);
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    Some(FigureSummary { median: f64::midpoint(low, high), least, most, all })
}

/// Student's t for 95 % on both sides, by degrees of freedom.
fn t(freedom: usize) -> f64 {
    const T: [f64; 20] = [
        12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13,
        2.12, 2.11, 2.10, 2.09, 2.09,
    ];
    freedom.checked_sub(1).map_or(f64::INFINITY, |at| T.get(at).copied().unwrap_or(2.09))
}

fn mean_interval(values: &[f64]) -> Interval {
    let n = values.len() as f64;
    let middle = values.iter().sum::<f64>() / n;
    let square = values.iter().map(|value| (value - middle).powi(2)).sum::<f64>();
    let half = match values.len() {
        0 | 1 => 0.0,
        len => t(len - 1) * (square / (n - 1.0) / n).sqrt(),
    };
    Interval { middle, low: middle - half, high: middle + half }
}

/// Of the ratios in rounds that both took part in: their geometric mean.
pub fn ratio(ours: &FigureSummary, theirs: &FigureSummary) -> Interval {
    let logs: Vec<f64> =
        ours.all.iter().zip(&theirs.all).map(|(ours, theirs)| (ours / theirs).ln()).collect();
    let Interval { middle, low, high } = mean_interval(&logs);
    Interval { middle: middle.exp(), low: low.exp(), high: high.exp() }
}

/// Of one of pskgate's columns.
pub fn verdicts(values: &[Value], figure: &Figure, own_make: Make) -> Vec<Verdict> {
    let Some(ours) = seen(values, figure.name, own_make) else { return Vec::new() };
    let own = mean_interval(&ours.all);
    let beside = |pairs: &[(Make, f64)], above: bool| {
        let judged = pairs.iter().filter_map(|&(make, factor)| {
            let interval = ratio(&ours, &seen(values, figure.name, make)?);
            let (sign, met) = match above {
                true => (">=", interval.low >= factor),
                false => ("<=", interval.high <= factor),
            };
            Some(Verdict { goal: format!("{sign} {factor} x {}", make.name()), interval, met })
        });
        judged.collect()
    };
    match figure.goal(own_make) {
        Goal::Above(pairs) => beside(pairs, true),
        Goal::Below(pairs) => beside(pairs, false),
        Goal::AtMost(most) => {
            vec![Verdict { goal: format!("<= {most}"), interval: own, met: own.high <= most }]
        }
        Goal::AtLeast(least) => {
            vec![Verdict { goal: format!(">= {least}"), interval: own, met: own.low >= least }]
        }
        Goal::Told => Vec::new(),
    }
}

/// Three digits that count.
pub fn short(value: f64) -> String {
    match value.abs() {
        x if x >= 100.0 || x.fract() == 0.0 => format!("{value:.0}"),
        x if x >= 10.0 => format!("{value:.1}"),
        x if x >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

pub fn print(values: &[Value]) {
    for figure in FIGURES {
        let of = |make| seen(values, figure.name, make);
        if !Make::OWN.iter().any(|make| of(*make).is_some()) {
            continue;
        }
        println!("{} ({})", figure.title, figure.unit);
        for make in Make::all() {
            if let Some(FigureSummary { median, least, most, all }) = of(make) {
                let (median, least, most) = (short(median), short(least), short(most));
                println!(
                    "  {:<12} {median:>8}   {least} to {most}, {} rounds",
                    make.name(),
                    all.len()
                );
            }
        }
        for make in Make::OWN {
            for Verdict { goal, interval, met } in verdicts(values, figure, make) {
                let Interval { middle, low, high } = interval;
                let mark = if met { "met   " } else { "MISSED" };
                let (middle, low, high) = (short(middle), short(low), short(high));
                println!("  {mark} {:<12} {goal:<22} {middle} [{low}, {high}]", make.name());
            }
        }
    }
}
