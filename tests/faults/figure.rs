//! A figure: what was seen beside what must be seen, as one line of JSON in the raw results.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What must be seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bar {
    AtMost(f64),
    AtLeast(f64),
    Exactly(f64),
    /// Nothing is asked of it: it explains another figure.
    Told,
}

/// What was seen: a number, or the words for what is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FigureValue {
    Number(f64),
    Words(String),
}

/// One figure of one fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The requirement that it is about.
    pub id: String,
    /// What was done, and what was looked at.
    pub fault: String,
    pub what: String,
    pub unit: String,
    pub bar: Bar,
    pub pskgate: FigureValue,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stunnel4: Option<FigureValue>,
    pub date: String,
}

/// The first line of a file of results: where they were seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub date: String,
    pub kernel: String,
    pub cores: usize,
    pub openssl: String,
    pub stunnel4: String,
    pub pskgate: String,
}

/// A line of the raw results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    Machine(Machine),
    Figure(Figure),
}

impl Bar {
    pub fn is_met_by(self, seen: &FigureValue) -> bool {
        match (self, seen) {
            (Self::Told, _) => true,
            (_, FigureValue::Words(_)) => false,
            (Self::AtMost(most), FigureValue::Number(seen)) => *seen <= most,
            (Self::AtLeast(least), FigureValue::Number(seen)) => *seen >= least,
            (Self::Exactly(wanted), FigureValue::Number(seen)) => (seen - wanted).abs() < 1e-9,
        }
    }
}

impl Figure {
    pub fn is_met(&self) -> bool {
        self.bar.is_met_by(&self.pskgate)
    }
}

/// A line for a person who watches.
impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.is_met() { "ok  " } else { "MISS" };
        let seen = format!("{} {}", self.pskgate, self.unit);
        let bar = self.bar.to_string();
        write!(f, "{mark} {:<58} {seen:>12}   must be {bar:<10}", self.what)?;
        match &self.stunnel4 {
            Some(theirs) => write!(f, " stunnel4 {theirs}"),
            None => Ok(()),
        }
    }
}

/// Without a fraction where there is none to tell.
fn number(value: f64) -> String {
    if value.fract().abs() < 1e-9 || value.abs() >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(bar) => write!(f, "<= {}", number(*bar)),
            Self::AtLeast(bar) => write!(f, ">= {}", number(*bar)),
            Self::Exactly(bar) => f.write_str(&number(*bar)),
            Self::Told => f.write_str("told"),
        }
    }
}

impl fmt::Display for FigureValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(seen) => f.write_str(&number(*seen)),
            Self::Words(words) => f.write_str(words),
        }
    }
}
