//! What events are about, one value at a time, for those who count and search: JSON lines and the
//! journal carry it beside the words.

use std::fmt::{self, Display};
use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::event::{Event, Terms};

/// A value.
pub(super) enum Value<'a> {
    /// Text, escaped by whoever displays it; identities without their quotes.
    Text(&'a dyn Display),
    /// A number.
    Number(u64),
}

/// The values of an event as the text of one JSON object. Nothing is rendered before it is displayed.
pub(super) struct Fields<'a>(pub(super) &'a Event<'a>);

impl Display for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut object = Map::new();
        self.0.fields(&mut |name, value| {
            let value = match value {
                Value::Text(text) => Json::String(format!("{text:#}")),
                Value::Number(number) => number.into(),
            };
            object.insert(name.to_owned(), value);
        });
        Json::Object(object).fmt(f)
    }
}

fn millis(time: Duration) -> Value<'static> {
    Value::Number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn count(count: usize) -> Value<'static> {
    Value::Number(count as u64)
}

impl Event<'_> {
    /// Hands its values to `field`, each under a name that stays.
    pub(super) fn fields(&self, field: &mut dyn FnMut(&'static str, Value<'_>)) {
        use Value::{Number, Text};
        match self {
            Self::Begun { .. }
            | Self::Configured
            | Self::Accepting
            | Self::LogReopened
            | Self::Spawning
            | Self::Stopped { .. }
            | Self::Finding { .. } => {}
            Self::NotSpawned { program, error } => {
                field("program", Text(program));
                field("error", Text(error));
            }
            Self::Respawning { pause } => field("pause-ms", millis(*pause)),
            Self::Listening { address, .. } => field("address", Text(address)),
            Self::Controlled { path } => field("path", Text(path)),
            Self::Uncontrolled { error, .. } => field("error", Text(error)),
            Self::Ordered { what, who } | Self::Denied { what, who } => {
                field("order", Text(what));
                field("by", Text(who));
            }
            Self::Accepted { peer }
            | Self::Crowded { peer }
            | Self::Probed { peer }
            | Self::NotAllowed { peer } => field("peer", Text(peer)),
            Self::Introduced { peer, proxy } => {
                field("peer", Text(peer));
                field("proxy", Text(proxy));
            }
            Self::NotIntroduced { peer, error } => {
                field("peer", Text(peer));
                field("error", Text(error));
            }
            Self::Secured { who, resumed, version, suite, bits, group, .. } => {
                field("identity", Text(who));
                field("handshake", Text(if *resumed { &"resumed" } else { &"full" }));
                terms(&Terms { version, suite, group: group.map(|(name, _)| name) }, field);
                field("bits", Number(u64::try_from(*bits).unwrap_or(0)));
            }
            Self::Presenting { who, name } => {
                field("identity", Text(who));
                if let Some(name) = name {
                    field("server-name", Text(name));
                }
            }
            Self::ProxyAgreed { proxy, host } => {
                field("proxy", Text(proxy));
                field("target", Text(host));
            }
            Self::Connecting { address } => field("target", Text(address)),
            Self::Connected { address, local } => {
                field("target", Text(address));
                field("local", Text(local));
            }
            Self::ConnectFailed { address, error } => {
                field("target", Text(address));
                field("error", Text(error));
            }
            Self::Unresolved { target, error } => {
                field("target", Text(target));
                field("error", Text(error));
            }
            Self::Opened { peer, who, terms: settled, target } => {
                field("peer", Text(peer));
                field("identity", Text(who));
                terms(settled, field);
                field("target", Text(target));
            }
            Self::KeyOverused { peer, who, version, records } => {
                field("peer", Text(peer));
                field("identity", Text(who));
                field("version", Text(version));
                field("records", Number(*records));
            }
            Self::Closed { peer, who, target, name, up, down, age, .. } => {
                field("peer", Text(peer));
                field("identity", Text(who));
                field("target", Text(target));
                field("end", Text(name));
                field("up", Number(*up));
                field("down", Number(*down));
                field("age-ms", millis(*age));
            }
            Self::Refused { peer, who, name, .. } => {
                field("peer", Text(peer));
                if let Some(who) = who {
                    field("identity", Text(who));
                }
                field("cause", Text(name));
            }
            Self::HandshakeFailed { peer, who, target, name, .. } => {
                field("peer", Text(peer));
                field("identity", Text(who));
                field("target", Text(target));
                field("cause", Text(name));
            }
            Self::Unreachable { peer, error } | Self::Unprepared { peer, error } => {
                field("peer", Text(peer));
                field("error", Text(error));
            }
            Self::ChildStarted { pid } => field("pid", Number((*pid).into())),
            Self::ChildEnded { pid, end } => {
                field("pid", Number((*pid).into()));
                field("status", Text(end));
            }
            Self::Full { peer, who, what: _, most } => {
                field("peer", Text(peer));
                field("identity", Text(who));
                field("limit", count(*most));
            }
            Self::AcceptTrouble { error } | Self::LogNotReopened { error } => {
                field("error", Text(error));
            }
            Self::AcceptRecovered { failures } => field("failures", Number(*failures)),
            Self::Withheld { lines, within } => {
                field("lines", Number(*lines));
                field("within-ms", millis(*within));
            }
            Self::PutOut { count, within } => {
                field("connections", Number(*count));
                field("within-ms", millis(*within));
            }
            Self::KeysChanged { changes } => field("keys", Text(changes)),
            Self::ReloadBegun { who, file, changed } => {
                field("by", Text(who));
                field("file", Text(file));
                if !changed.is_empty() {
                    field("changed", Text(changed));
                }
            }
            Self::Reloaded { who, services } => {
                field("by", Text(who));
                field("services", count(*services));
            }
            Self::ReloadFailed { who, error } => {
                field("by", Text(who));
                field("error", Text(error));
            }
            Self::Listed { who, peer, terms: settled, target, age, up, down } => {
                field("peer", Text(peer));
                field("identity", Text(who));
                terms(settled, field);
                field("target", Text(target));
                field("up", Number(*up));
                field("down", Number(*down));
                field("age-ms", millis(*age));
            }
            Self::ListedAll { count: sessions } => field("sessions", count(*sessions)),
            Self::Draining { signal, limit } => {
                field("by", Text(signal));
                field("limit-ms", millis(*limit));
            }
        }
    }
}

fn terms(terms: &Terms<'_>, field: &mut dyn FnMut(&'static str, Value<'_>)) {
    field("version", Value::Text(&terms.version));
    field("suite", Value::Text(&terms.suite));
    if let Some(group) = &terms.group {
        field("group", Value::Text(group));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::secrets::escape;

    #[test]
    fn identities_stand_without_quotes_and_steer_nothing() {
        let who = escape(b"a\n\x1b\xff\"{");
        let event = Event::Refused {
            peer: &"192.0.2.1:5",
            who: Some(&who),
            cause: &"words",
            name: "wrong-key",
        };
        let text = Fields(&event).to_string();
        let read: Json = serde_json::from_str(&text).unwrap();
        let wanted = serde_json::json!({
            "peer": "192.0.2.1:5", "identity": r#"a\u{a}\u{1b}\xff"{"#, "cause": "wrong-key",
        });
        assert_eq!(read, wanted);
    }
}
