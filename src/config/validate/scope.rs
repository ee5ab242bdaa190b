//! Where a value is looked for, and the kinds of values there are.

use super::*;
use crate::config::stunnel::in_comments;

pub(super) fn duration(value: &Value) -> Option<std::time::Duration> {
    match value {
        Value::Duration(d) => Some(*d),
        _ => None,
    }
}

pub(super) fn count(value: &Value) -> Option<u32> {
    match value {
        Value::Count(n) => Some(*n),
        _ => None,
    }
}

pub(super) fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        _ => None,
    }
}

pub(super) fn level(value: &Value) -> Option<Level> {
    match value {
        Value::Level(level) => Some(*level),
        _ => None,
    }
}

pub(super) fn cipher_order(value: &Value) -> Option<CipherOrder> {
    match value {
        Value::CipherOrder(order) => Some(*order),
        _ => None,
    }
}

pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::Text(t) => Some(t.clone()),
        _ => None,
    }
}

pub(super) fn version(value: &Value) -> Option<Option<TlsVersion>> {
    match value {
        Value::Version(v) => Some(*v),
        _ => None,
    }
}

pub(super) fn ranges(scope: &ValueLookup<'_>, opt: OptionId) -> Vec<Resolved<IpRange>> {
    let said = scope.all(opt).into_iter();
    said.filter_map(|said| match &said.value {
        Value::Range(range) => Some(Resolved::said(*range, said.place.clone())),
        _ => None,
    })
    .collect()
}

pub(super) fn account(scope: &ValueLookup<'_>) -> Account {
    Account { user: scope.said(OptionId::Setuid, text), group: scope.said(OptionId::Setgid, text) }
}

/// Who owns a service's Unix sockets: in a stunnel.conf, whom the section names.
pub(super) fn owner(scope: &ValueLookup<'_>) -> Account {
    match scope.dialect {
        Dialect::Stunnel => account(scope),
        Dialect::Native => Account {
            user: scope.said(OptionId::SocketUser, text),
            group: scope.said(OptionId::SocketGroup, text),
        },
    }
}

/// Lists of which a section's lines replace the global ones in stunnel 5.76 and later; up to 5.75 they
/// were added to them.
pub(super) const REPLACED: [OptionId; 3] =
    [OptionId::Accept, OptionId::Connect, OptionId::ProtocolHeader];

/// Whether what a section of a stunnel.conf says of a list takes the place of what holds for all. What
/// stands in a comment is ours, and means what it means in a native file.
pub(in crate::config) fn replaces_inherited(opt: OptionId) -> bool {
    REPLACED.contains(&opt) || in_comments::is_listed(opt)
}

/// Where a value is looked for.
#[derive(Clone, Copy)]
pub(super) struct ValueLookup<'a> {
    pub(super) own: &'a Values,
    pub(super) defaults: Option<&'a Values>,
    pub(super) dialect: Dialect,
}

impl<'a> ValueLookup<'a> {
    /// A single value that somebody wrote.
    pub(super) fn last(&self, opt: OptionId) -> Option<&'a Spanned<Value>> {
        self.own.last(opt).or_else(|| self.defaults.and_then(|d| d.last(opt)))
    }

    /// Which of two options was said last, where one takes the other's place.
    pub(super) fn latest(&self, one: OptionId, other: OptionId) -> Option<OptionId> {
        let last = |values: &Values| {
            let both = values.statements().map(|(statement, _)| statement.opt);
            both.filter(|opt| *opt == one || *opt == other).last()
        };
        last(self.own).or_else(|| self.defaults.and_then(last))
    }

    /// A list. What a section says replaces what holds for all, in a native file also with nothing; of a
    /// stunnel.conf's lists of switches each line adds one.
    pub(super) fn all(&self, opt: OptionId) -> Vec<&'a Spanned<Value>> {
        let own = self.own.all(opt);
        let defaults = self.defaults.map_or(&[][..], |d| d.all(opt));
        match self.dialect {
            Dialect::Native if self.own.mentions(opt) => own.iter().collect(),
            Dialect::Stunnel if replaces_inherited(opt) && self.own.mentions(opt) => {
                own.iter().collect()
            }
            _ => defaults.iter().chain(own).collect(),
        }
    }

    /// Whether an option was mentioned, legibly or not.
    pub(super) fn mentions(&self, opt: OptionId) -> bool {
        self.own.mentions(opt) || self.defaults.is_some_and(|d| d.mentions(opt))
    }

    pub(super) fn said<T>(
        &self,
        opt: OptionId,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<Resolved<T>> {
        let said = self.last(opt)?;
        read(&said.value).map(|value| Resolved::said(value, said.place.clone()))
    }

    /// A value that somebody wrote, or the table's default.
    pub(super) fn decide<T>(
        &self,
        opt: OptionId,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<Resolved<T>> {
        self.said(opt, &read).or_else(|| {
            let row = opt.row();
            let default = value::read(row.kind, self.dialect, row.default(self.dialect)).ok()?;
            read(&default).map(|value| Resolved::default(value, self.dialect))
        })
    }
}
