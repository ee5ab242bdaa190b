//! What was measured, as one line of JSON in the raw results.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What was measured: a number for each round and way. Rounds go through all the ways in turn, so that
/// what else the machine does meets all of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Trips {
    pub connector: String,
    /// What is counted.
    pub call: String,
    pub unit: String,
    pub direct: Vec<f64>,
    pub pskgate: Vec<f64>,
    pub stunnel4: Vec<f64>,
    pub date: String,
}

pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

impl Trips {
    pub fn medians(&self) -> [f64; 3] {
        [&self.direct, &self.pskgate, &self.stunnel4].map(|values| median(values))
    }

    /// The median of pskgate's to stunnel4's, round by round.
    pub fn against_stunnel(&self) -> f64 {
        let pairs = self.pskgate.iter().zip(&self.stunnel4);
        median(&pairs.map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
    }
}

impl fmt::Display for Trips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [direct, pskgate, stunnel4] = self.medians();
        write!(
            f,
            "{:<52} {} direct {direct:.0}, pskgate {pskgate:.0}, stunnel4 {stunnel4:.0}",
            self.call, self.unit
        )
    }
}
