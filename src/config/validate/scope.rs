//! Where a value is looked for.

use super::*;
use crate::config::parsed_file::FromValue;
use crate::config::stunnel::in_comments;

pub(super) fn account(scope: &ValueLookup<'_>) -> Account {
    Account { user: scope.said(OptionId::Setuid), group: scope.said(OptionId::Setgid) }
}

/// Who owns a service's Unix sockets: in a stunnel.conf, whom the section names.
pub(super) fn owner(scope: &ValueLookup<'_>) -> Account {
    match scope.dialect {
        Dialect::Stunnel => account(scope),
        Dialect::Native => Account {
            user: scope.said(OptionId::SocketUser),
            group: scope.said(OptionId::SocketGroup),
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

    /// A value that somebody wrote.
    pub(super) fn said<T: FromValue>(&self, opt: OptionId) -> Option<Resolved<T>> {
        let said = self.last(opt)?;
        T::from_value(&said.value).map(|value| Resolved::said(value, said.place.clone()))
    }

    /// The values of a list.
    pub(super) fn list<T: FromValue>(&self, opt: OptionId) -> Vec<Resolved<T>> {
        let said = self.all(opt).into_iter();
        said.filter_map(|said| {
            Some(Resolved::said(T::from_value(&said.value)?, said.place.clone()))
        })
        .collect()
    }

    /// A value that somebody wrote, or the table's default.
    pub(super) fn decide<T: FromValue>(&self, opt: OptionId) -> Option<Resolved<T>> {
        self.said(opt).or_else(|| {
            let row = opt.row();
            let default = value::read(row.kind, self.dialect, row.default(self.dialect)).ok()?;
            T::from_value(&default).map(|value| Resolved::default(value, self.dialect))
        })
    }

    /// A value that somebody wrote, or the table's default; `default` where the table has none for this
    /// dialect.
    pub(super) fn decide_or<T: FromValue>(&self, opt: OptionId, default: T) -> Resolved<T> {
        self.decide(opt).unwrap_or_else(|| Resolved::default(default, self.dialect))
    }
}
