//! What a stranger learns from times: how well they tell two classes of names apart.

use std::time::Duration;

/// How far from a coin a guess may be.
const BOUNDS: std::ops::RangeInclusive<f64> = 0.45..=0.55;

/// What a stranger learns from the times of both classes.
#[derive(Debug)]
pub struct TimingLeak {
    /// The share of pairs in which the unknown one took longer: the area under the curve.
    pub area: f64,
    /// How often the best limit between short and long is right, with times that it has seen.
    pub threshold: f64,
}

impl TimingLeak {
    pub fn is_a_coin(&self) -> bool {
        BOUNDS.contains(&self.area) && BOUNDS.contains(&self.threshold)
    }
}

pub fn measure_timing_leak(known: &[Duration], unknown: &[Duration]) -> TimingLeak {
    let mut all: Vec<_> = known.iter().map(|time| (time, false)).collect();
    all.extend(unknown.iter().map(|time| (time, true)));
    all.sort_unstable();
    let (mut below, mut pairs, mut best) = (0_usize, 0_usize, 0_usize);
    for (place, (_, is_unknown)) in all.iter().enumerate() {
        if *is_unknown {
            pairs += below;
        } else {
            below += 1;
        }
        // Everything so far is called known, the rest unknown; or the other way round.
        let right = below + unknown.len() - (place + 1 - below);
        best = best.max(right.max(all.len() - right));
    }
    TimingLeak {
        area: pairs as f64 / (known.len() * unknown.len()) as f64,
        threshold: best as f64 / all.len() as f64,
    }
}
