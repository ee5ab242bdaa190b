//! The two ends of an open session, relayed between and closed as the table of endings says.

use super::{ALERT_LINGER_TIME, BACKEND_CLOSE_TIMEOUT};
use crate::config::model::Mode;
use crate::net::Socket;
use crate::tls;
use crate::tunnel::relay::{RelayOutcome, RelayStream, SideError, TrafficMeter, relay};
use crate::tunnel::session_end::SessionEnd;
use crate::tunnel::snapshot::SessionTimeouts;

impl RelayStream for Socket {
    fn fault(&self) -> Option<std::io::Error> {
        Socket::fault(self)
    }

    fn in_flight(&self) -> bool {
        Socket::in_flight(self)
    }
}

impl RelayStream for tls::Stream<Socket> {
    fn ended_cleanly(&self) -> bool {
        tls::Stream::ended_cleanly(self)
    }

    fn backlog(&self) -> usize {
        tls::Stream::backlog(self)
    }

    /// By its close_notify.
    fn proves_its_end(&self) -> bool {
        true
    }

    fn is_turn_over(&self) -> bool {
        tls::Stream::is_turn_over(self)
    }

    fn spare_room(&self) -> usize {
        tls::SPARE_ROOM
    }

    fn fault(&self) -> Option<std::io::Error> {
        self.socket().and_then(Socket::fault)
    }

    fn in_flight(&self) -> bool {
        self.socket().is_some_and(Socket::in_flight)
    }
}

pub(super) enum Streams {
    Server { downstream: Box<tls::Stream<Socket>>, upstream: Socket },
    Client { downstream: Socket, upstream: Box<tls::Stream<Socket>> },
}

impl Streams {
    pub(super) fn mode(&self) -> Mode {
        match self {
            Self::Server { .. } => Mode::Server,
            Self::Client { .. } => Mode::Client,
        }
    }

    pub(super) async fn relay(
        &mut self,
        timeouts: SessionTimeouts,
        meter: &TrafficMeter,
    ) -> RelayOutcome {
        let SessionTimeouts { idle, close, .. } = timeouts;
        match self {
            Self::Server { downstream, upstream } => {
                relay(&mut **downstream, upstream, idle, close, meter).await
            }
            Self::Client { downstream, upstream } => {
                relay(downstream, &mut **upstream, idle, close, meter).await
            }
        }
    }

    pub(super) async fn close(self, end: &SessionEnd, reset: Option<bool>) {
        let (mode, plain, tls) = match self {
            Self::Server { downstream, upstream } => (Mode::Server, upstream, *downstream),
            Self::Client { downstream, upstream } => (Mode::Client, downstream, *upstream),
        };
        let Some(tls) = tls.into_socket() else { return };
        if matches!(end, SessionEnd::Complete) {
            plain.reset_on_close(false);
            return;
        }
        let (reset_plain, reset_tls) = end.resets(mode, reset);
        tls.reset_on_close(reset_tls);
        let failed = matches!(
            end,
            SessionEnd::Tls(SideError::Failed(_)) | SessionEnd::NotServed(SideError::Failed(_))
        );
        if failed && !reset_tls {
            // OpenSSL has sent an alert, which a reset would overtake.
            tokio::join!(tls.close_gently(ALERT_LINGER_TIME), finish(plain, reset_plain));
        } else {
            drop(tls);
            finish(plain, reset_plain).await;
        }
    }
}

async fn finish(plain: Socket, reset: bool) {
    if reset {
        plain.reset_on_close(true);
    } else {
        plain.close_gently(BACKEND_CLOSE_TIMEOUT).await;
    }
}
