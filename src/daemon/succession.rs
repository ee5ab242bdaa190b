//! Which service of a new configuration takes the place of which service at work, and so keeps its
//! sessions.

use std::collections::BTreeSet;

use crate::config::model::{ConnectionSource, Endpoint, ServiceConfig};

/// For each service of `after`, in its order, the one of `before` that it succeeds: the one of its name, or
/// else, of those that are left, the one of the same end at the same addresses. A stunnel.conf may have two
/// sections of one name: the first succeeds the first.
pub(super) fn find(before: &[&ServiceConfig], after: &[&ServiceConfig]) -> Vec<Option<usize>> {
    let mut left: BTreeSet<usize> = (0..before.len()).collect();
    let mut found: Vec<Option<usize>> = vec![None; after.len()];
    let rules: [fn(&ServiceConfig, &ServiceConfig) -> bool; 2] = [
        |old, new| old.name.value == new.name.value,
        |old, new| old.mode.value == new.mode.value && is_at_same_place(old, new),
    ];
    for rule in rules {
        for (new, place) in after.iter().zip(&mut found) {
            if place.is_some() {
                continue;
            }
            *place =
                left.iter().copied().find(|at| before.get(*at).is_some_and(|old| rule(old, new)));
            place.map(|at| left.remove(&at));
        }
    }
    found
}

/// Whether both get their connections from the same addresses, or by the same server name.
fn is_at_same_place(one: &ServiceConfig, other: &ServiceConfig) -> bool {
    match (&one.source, &other.source) {
        (ConnectionSource::Listeners(_), ConnectionSource::Listeners(_)) => {
            let places = |service: &ServiceConfig| -> Option<BTreeSet<String>> {
                let listens = service.accept().iter().map(|listen| &listen.at.value);
                // A port that the system chooses is another one each time.
                let place = |at: &Endpoint| match at {
                    Endpoint::Tcp { port: 0, .. } => None,
                    at => Some(at.to_string()),
                };
                listens.map(place).collect()
            };
            places(one).is_some_and(|all| !all.is_empty() && places(other) == Some(all))
        }
        (
            ConnectionSource::ServerName { of, pattern },
            ConnectionSource::ServerName { of: other_of, pattern: other_pattern },
        ) => of.value == other_of.value && pattern == other_pattern,
        _ => false,
    }
}
