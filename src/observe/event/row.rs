//! The macro that makes [`Event`](super::Event) of its table.

/// Makes the enum of all events of a table with a row an event:
///
/// ```text
/// /// When it happens.
/// Name("name-in-json", Level) {
///     /// What this part is.
///     part: Type,
/// }
/// words("for people, {part}")
/// stunnel(Notice "in stunnel's words, {part}"; Info "a second line")
/// code("wrong-key")
/// fields(part = %part)
/// ```
///
/// Behind the level may stand an expression for the level of this very event. `stunnel` left out means
/// the same words at the same level, and `stunnel()` no line. `stunnel(|line| …)` hands each line, with its
/// level, to `line`. `code` is what `pskgate explain` takes; lines for people end with it. `fields` are `tracing`'s: values are typed, and nothing is rendered that nobody reads.
macro_rules! events {
    (stunnel knows $service:ident; $(
        $(#[$doc:meta])+
        $name:ident($event_name:literal, $level:ident $(, $this:expr)?)
            $({ $( $(#[$part_doc:meta])+ $part:ident: $type:ty, )+ })?
        words($($words:tt)+)
        $(stunnel $stunnel:tt)?
        $(code($explained:expr))?
        $(fields($($fields:tt)+))?
    )+) => {
        /// Something worth a line. Parts that come from a peer are escaped by whoever displays them.
        #[allow(missing_debug_implementations)]
        pub enum Event<'a> { $(
            $(#[$doc])+
            $name $({ $( $(#[$part_doc])+ $part: $type, )+ })?,
        )+ }

        #[allow(unused_variables)]
        impl Event<'_> {
            /// A stable name for whoever reads JSON lines.
            pub fn name(&self) -> &'static str {
                match self { $( Self::$name { .. } => $event_name, )+ }
            }

            /// How important it is.
            pub(super) fn level(&self) -> Level {
                match self { $(
                    Self::$name { $($($part,)+)? } => events!(@level $level $(, $this)?),
                )+ }
            }

            /// The phrases that monitoring greps for are stunnel's, and so are their levels; where stunnel
            /// has no phrase, or hides the cause, the words are ours.
            pub(super) fn stunnel(
                &self,
                $service: &str,
                line: &mut dyn FnMut(Level, fmt::Arguments<'_>),
            ) {
                match self { $(
                    Self::$name { $($($part,)+)? } => {
                        events!(@stunnel self, line $(, $stunnel)?);
                    }
                )+ }
            }

            /// Hands one of its lines to `tracing`, whatever is logged.
            pub(in crate::observe) fn emit_to_tracing(
                &self,
                level: Level,
                context: LogContext<'_>,
                text: fmt::Arguments<'_>,
            ) {
                let LogContext { service, session, .. } = context;
                let (level, id) = (level as u8, session_id::session_word(context));
                let id = id.as_deref();
                match self { $(
                    Self::$name { $($($part,)+)? } => {
                        let code = events!(@code $($explained)?);
                        tracing::event!(
                            name: $event_name,
                            target: TARGET,
                            tracing_level(Level::$level),
                            { level, service, session, id, code, $($($fields)+,)? message = text }
                        );
                    }
                )+ }
            }
        }

        #[allow(unused_variables)]
        impl Display for Event<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(
                    Self::$name { $($($part,)+)? } => write!(f, $($words)+),
                )+ }
            }
        }
    };
    (@code) => { None::<&str> };
    (@code $code:expr) => { Option::<&str>::from($code) };
    (@level $level:ident) => { Level::$level };
    (@level $level:ident, $this:expr) => { $this };
    (@stunnel $event:ident, $line:ident) => { $line($event.level(), format_args!("{}", $event)) };
    (@stunnel $event:ident, $line:ident, ()) => {};
    (@stunnel $event:ident, $line:ident, (|$own:ident| $lines:expr)) => {
        let $own = $line;
        $lines
    };
    (@stunnel $event:ident, $line:ident, ($($level:ident $text:literal $(, $value:expr)*);+)) => {
        $( $line(Level::$level, format_args!($text $(, $value)*)); )+
    };
}

pub(super) use events;
