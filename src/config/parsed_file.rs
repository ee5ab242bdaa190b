//! What a file said: every value with its place, in either dialect, before anything is decided.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::{Endpoint, Host};
use super::location::SourceLocation;
use super::model::{
    CipherOrder, Dialect, Failover, Foreground, IpRange, Keepalive, Level, LogFormat, LogId, Mode,
    NegotiationKind, OnRevocation, ProxyHeader, PskHash, RekeyAfter, SocketOption, TlsVersion,
    Transparent, Variable, WhenFull,
};
use super::options::OptionId;
use crate::secrets::{Password, TicketKey};

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    /// What was said.
    pub value: T,
    /// Where.
    pub place: SourceLocation,
}

/// The socket that an option is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketSide {
    /// The listener.
    Accept,
    /// Who connected to us.
    Downstream,
    /// Whom we connect to.
    Upstream,
}

/// A value as its [`ValueKind`](super::options::ValueKind) understands it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A length of time.
    Duration(Duration),
    /// A number.
    Count(u32),
    /// An amount of bytes.
    Size(u64),
    /// A decision.
    Bool(bool),
    /// A file's name as it was written, not anchored yet.
    Path(PathBuf),
    /// An address; the path of a Unix socket is not anchored yet.
    Endpoint(Endpoint),
    /// Which side wears TLS.
    Mode(Mode),
    /// The order of addresses.
    Failover(Failover),
    /// Bytes that a peer compares.
    Bytes(Vec<u8>),
    /// The hash of a PSK.
    Hash(PskHash),
    /// A protocol version; `None` is stunnel's `all`.
    Version(Option<TlsVersion>),
    /// A log level.
    Level(Level),
    /// How a log line looks.
    LogFormat(LogFormat),
    /// Text.
    Text(String),
    /// TCP keepalive, or none.
    Keepalive(Option<Keepalive>),
    /// A socket option.
    Socket(SocketSide, SocketOption),
    /// Where the process stays.
    Foreground(Foreground),
    /// An address or a name, without a port.
    Host(Host),
    /// Arguments of a program.
    Arguments(Vec<String>),
    /// What is said to a backend before the data.
    Preface(ProxyHeader),
    /// What becomes of a newcomer.
    WhenFull(WhenFull),
    /// Whose order of suites decides.
    CipherOrder(CipherOrder),
    /// What becomes of a session whose key is gone.
    OnRevocation(OnRevocation),
    /// `rekey-after`
    RekeyAfter(RekeyAfter),
    /// Addresses.
    Range(IpRange),
    /// The first moment that is too late.
    Moment(jiff::Timestamp),
    /// A key for session tickets.
    TicketKey(TicketKey),
    /// A variable of the environment.
    Variable(Variable),
    /// A pause, or none and no second time.
    Retry(Option<Duration>),
    /// What tells connections apart.
    LogId(LogId),
    /// What is spoken around TLS.
    Negotiation(NegotiationKind),
    /// A password.
    Password(Password),
    /// Whose addresses are kept.
    Transparent(Transparent),
}

/// What a decided option holds, out of the value that was read for it.
pub(super) trait FromValue: Sized {
    /// None for a value of another kind.
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($value:ident => $type:ty),+ $(,)?) => {$(
        impl FromValue for $type {
            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    Value::$value(what) => Some(what.clone()),
                    _ => None,
                }
            }
        }
    )+};
}

from_value! {
    Duration => Duration,
    Count => u32,
    Size => u64,
    Bool => bool,
    Path => PathBuf,
    Mode => Mode,
    Failover => Failover,
    Bytes => Vec<u8>,
    Hash => PskHash,
    Version => Option<TlsVersion>,
    Level => Level,
    LogFormat => LogFormat,
    Text => String,
    Keepalive => Option<Keepalive>,
    Foreground => Foreground,
    Host => Host,
    Preface => ProxyHeader,
    WhenFull => WhenFull,
    CipherOrder => CipherOrder,
    OnRevocation => OnRevocation,
    RekeyAfter => RekeyAfter,
    Range => IpRange,
    Moment => jiff::Timestamp,
    TicketKey => TicketKey,
    Variable => Variable,
    Retry => Option<Duration>,
    LogId => LogId,
    Negotiation => NegotiationKind,
    Password => Password,
    Transparent => Transparent,
}

/// A value in the order of the file, with the comments and empty lines above it: for who writes the
/// file anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Each with its mark; an empty line is empty.
    pub remarks: Vec<String>,
    /// The option.
    pub opt: OptionId,
    /// Which of the option's values in this table or section.
    pub index: usize,
}

/// What one table or section said: in the order in which it was written, for each option.
#[derive(Debug, Clone, Default)]
pub struct Values {
    said: BTreeMap<OptionId, Vec<Spanned<Value>>>,
    tried: BTreeSet<OptionId>,
    order: Vec<Statement>,
    remarks: Vec<String>,
    /// Tables within the table: the rules for single identities.
    pub identities: Vec<ParsedSection>,
}

impl Values {
    /// Adds one value.
    pub fn push(&mut self, opt: OptionId, value: Spanned<Value>) {
        let values = self.said.entry(opt).or_default();
        let (remarks, index) = (std::mem::take(&mut self.remarks), values.len());
        self.order.push(Statement { remarks, opt, index });
        values.push(value);
    }

    /// Adds what stands above the next value.
    pub fn remark(&mut self, lines: Vec<String>) {
        self.remarks.extend(lines);
    }

    /// Everything in the order of the file.
    pub fn statements(&self) -> impl Iterator<Item = (&Statement, &Spanned<Value>)> {
        self.order.iter().filter_map(|one| Some((one, self.all(one.opt).get(one.index)?)))
    }

    /// All that was said about an option, first to last.
    pub fn all(&self, opt: OptionId) -> &[Spanned<Value>] {
        self.said.get(&opt).map_or(&[], Vec::as_slice)
    }

    /// The last that was said about an option: for a single value, the one that counts.
    pub fn last(&self, opt: OptionId) -> Option<&Spanned<Value>> {
        self.all(opt).last()
    }

    /// Everything, in the table's order.
    pub fn iter(&self) -> impl Iterator<Item = (OptionId, &Spanned<Value>)> {
        self.said.iter().flat_map(|(opt, values)| values.iter().map(|value| (*opt, value)))
    }

    /// Notes that something was said about an option that could not be read: it is wrong then, but
    /// not missing.
    pub fn tried(&mut self, opt: OptionId) {
        self.tried.insert(opt);
    }

    /// Whether an option was mentioned, legibly or not.
    pub fn mentions(&self, opt: OptionId) -> bool {
        self.said.contains_key(&opt) || self.tried.contains(&opt)
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.said.is_empty() && self.tried.is_empty() && self.identities.is_empty()
    }
}

/// One service, or one identity of a service, as it was written.
#[derive(Debug, Clone)]
pub struct ParsedSection {
    /// Its name, and the place of its head.
    pub name: Spanned<String>,
    /// The comments and empty lines above its head.
    pub remarks: Vec<String>,
    /// What it says itself, without what it inherits.
    pub values: Values,
}

/// What a file said.
#[derive(Debug, Clone)]
pub struct ParsedFile {
    /// The language it was written in.
    pub dialect: Dialect,
    /// The file as its reader named it.
    pub file: Arc<Path>,
    /// What relative names are relative to.
    pub base: PathBuf,
    /// What is said once for all.
    pub global: Values,
    /// What is said for every service that says nothing else.
    pub defaults: Values,
    /// In the order of the file. A stunnel.conf without any is in inetd mode, and its `defaults` are
    /// the one service.
    pub services: Vec<ParsedSection>,
    /// The comments at its top, up to an empty line: they are about all of it.
    pub preamble: Vec<String>,
    /// The comments at its end.
    pub remarks: Vec<String>,
    /// How many restrictions stand in comments.
    pub in_comments: usize,
    /// Whether something was so broken that nobody knows to what it belonged: what is missing then
    /// may well have been there.
    pub has_unplaced: bool,
}

impl ParsedFile {
    /// A file of which nothing has been read yet.
    pub(super) fn new(dialect: Dialect, file: Arc<Path>, base: &Path) -> Self {
        Self {
            dialect,
            file,
            base: base.to_path_buf(),
            global: Values::default(),
            defaults: Values::default(),
            services: Vec::new(),
            preamble: Vec::new(),
            remarks: Vec::new(),
            in_comments: 0,
            has_unplaced: false,
        }
    }
}
