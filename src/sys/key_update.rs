//! TLS 1.3's key updates (RFC 9846, 4.7.3): counting them, and sending one. The `openssl` crate binds
//! neither the message callback nor `SSL_key_update`.

use std::ffi::{c_int, c_long, c_void};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use foreign_types_shared::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{Ssl, SslRef};
use openssl_sys as ffi;

/// `SSL3_RT_HANDSHAKE` and `SSL3_MT_KEY_UPDATE` of <openssl/ssl3.h>.
const HANDSHAKE_CONTENT_TYPE: c_int = 22;
const KEY_UPDATE_MESSAGE: u8 = 24;
/// A message's type and its length of three bytes come before its body.
const MESSAGE_HEADER_SIZE: usize = 4;
/// `request_update`, the body of a KeyUpdate, and the second argument of `SSL_key_update`.
const UPDATE_NOT_REQUESTED: u8 = 0;
const UPDATE_REQUESTED: u8 = 1;

type MessageCallback = unsafe extern "C" fn(
    write: c_int,
    version: c_int,
    content_type: c_int,
    message: *const c_void,
    len: usize,
    ssl: *mut ffi::SSL,
    argument: *mut c_void,
);

// SAFETY: these are the declarations of <openssl/ssl.h> since 1.1.1, types and arguments alike.
unsafe extern "C" {
    fn SSL_set_msg_callback(ssl: *mut ffi::SSL, callback: Option<MessageCallback>);
    fn SSL_key_update(ssl: *mut ffi::SSL, kind: c_int) -> c_int;
}

/// What has passed over one TLS session in each direction since its handshake. Written by the thread that
/// calls OpenSSL for it, and read by others for display.
#[derive(Debug, Default)]
pub struct TlsTraffic {
    /// From the peer.
    pub read: DirectionTraffic,
    /// To the peer.
    pub written: DirectionTraffic,
    /// Handshake messages of the peer's that answer none of ours: its own key updates, and tickets.
    unsolicited_messages: AtomicU32,
    /// Those since the last [`TlsTraffic::begin_turn`].
    messages_in_turn: AtomicU32,
    /// A key update was asked for and has not come.
    is_update_pending: AtomicBool,
    /// More is protected with one key than should be. The layer that counts records says so.
    pub key_overused: AtomicBool,
}

/// What has passed in one direction.
#[derive(Debug, Default)]
pub struct DirectionTraffic {
    /// Records of application data. The layer that reads and writes them counts them.
    pub records: AtomicU64,
    key_updates: AtomicU64,
}

impl DirectionTraffic {
    /// How often the keys of this direction were changed.
    pub fn key_updates(&self) -> u64 {
        self.key_updates.load(Relaxed)
    }
}

impl TlsTraffic {
    /// Handshake messages of the peer's that answer none of ours. Wraps around.
    pub fn unasked(&self) -> u32 {
        self.unsolicited_messages.load(Relaxed)
    }

    /// Whether the peer was asked for a key update that has not come yet.
    pub fn awaits_update(&self) -> bool {
        self.is_update_pending.load(Relaxed)
    }

    /// Resets the number of messages of the turn.
    pub fn begin_turn(&self) {
        self.messages_in_turn.store(0, Relaxed);
    }

    /// Handshake messages of the peer's since the turn began, whatever they answer.
    pub fn in_turn(&self) -> u32 {
        self.messages_in_turn.load(Relaxed)
    }

    fn count_message(&self, written: bool, message: &[u8]) {
        let is_update = message.first() == Some(&KEY_UPDATE_MESSAGE);
        let request = message.get(MESSAGE_HEADER_SIZE).copied().filter(|_| is_update);
        if written {
            if is_update {
                increment(&self.written.key_updates);
            }
            if request == Some(UPDATE_REQUESTED) {
                self.is_update_pending.store(true, Relaxed);
            }
            return;
        }
        self.messages_in_turn.store(self.in_turn().saturating_add(1), Relaxed);
        if is_update {
            increment(&self.read.key_updates);
        }
        // Only an answer asks for no update in return; one that asks has crossed our request on its way.
        if request == Some(UPDATE_NOT_REQUESTED) && self.awaits_update() {
            self.is_update_pending.store(false, Relaxed);
            return;
        }
        self.unsolicited_messages.store(self.unasked().wrapping_add(1), Relaxed);
    }
}

/// There is one writer, so that this needs no lock on the bus.
fn increment(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

fn ex_data_index() -> Result<Index<Ssl, Arc<TlsTraffic>>, ErrorStack> {
    static EX_DATA_INDEX: OnceLock<Index<Ssl, Arc<TlsTraffic>>> = OnceLock::new();
    match EX_DATA_INDEX.get() {
        Some(slot) => Ok(*slot),
        None => {
            let new = Ssl::new_ex_index()?;
            Ok(*EX_DATA_INDEX.get_or_init(|| new))
        }
    }
}

/// Counts handshake messages from now on.
///
/// # Errors
/// Memory is out.
pub fn count_messages(ssl: &mut SslRef, traffic: Arc<TlsTraffic>) -> Result<(), ErrorStack> {
    /// `SSL_CTRL_SET_MSG_CALLBACK_ARG` of <openssl/ssl.h>.
    const SET_MSG_CALLBACK_ARG: c_int = 16;
    let argument = Arc::as_ptr(&traffic).cast_mut().cast::<c_void>();
    ssl.set_ex_data(ex_data_index()?, traffic);
    // SAFETY: a live SSL, borrowed alone. The argument points to what the SSL owns from the line above on, in
    // its ex_data, which nobody replaces and which is dropped with the SSL: it outlives every call.
    unsafe {
        ffi::SSL_ctrl(ssl.as_ptr(), SET_MSG_CALLBACK_ARG, 0 as c_long, argument);
        SSL_set_msg_callback(ssl.as_ptr(), Some(on_message));
    }
    Ok(())
}

/// OpenSSL calls this for the header of every record too: what does not count has to go quickly.
unsafe extern "C" fn on_message(
    write: c_int,
    _version: c_int,
    content_type: c_int,
    message: *const c_void,
    len: usize,
    _ssl: *mut ffi::SSL,
    argument: *mut c_void,
) {
    if content_type != HANDSHAKE_CONTENT_TYPE || message.is_null() || len == 0 {
        return;
    }
    // SAFETY: OpenSSL passes a message of its own and its length, which it changes no more during the call,
    // and the argument that `count_messages` set beside this callback: a Traffic, of which all fields are
    // atomic. Nothing here panics.
    unsafe {
        let message = std::slice::from_raw_parts(message.cast::<u8>(), len);
        (*argument.cast::<TlsTraffic>()).count_message(write != 0, message);
    }
}

/// Has the next write, or the next read, begin with a key update of ours; `request` asks the peer for one of its
/// own. Until it is written OpenSSL refuses another one, and refuses to shut down.
///
/// # Errors
/// OpenSSL's: the session is not one of 1.3, a write waits for being taken up again, or an update that was
/// announced before is not written yet.
pub fn schedule_key_update(ssl: &mut SslRef, request: bool) -> Result<(), ErrorStack> {
    let kind = if request { UPDATE_REQUESTED } else { UPDATE_NOT_REQUESTED };
    // SAFETY: a live SSL, borrowed alone; OpenSSL checks itself whether it is in a state for this.
    let done = unsafe { SSL_key_update(ssl.as_ptr(), kind.into()) };
    if done == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKS: [u8; 5] = [24, 0, 0, 1, 1];
    const DOES_NOT: [u8; 5] = [24, 0, 0, 1, 0];

    fn seen(traffic: &TlsTraffic) -> (u64, u64, u32, bool) {
        let updates = |passed: &DirectionTraffic| passed.key_updates();
        let TlsTraffic { read, written, .. } = traffic;
        (updates(read), updates(written), traffic.unasked(), traffic.awaits_update())
    }

    #[test]
    fn an_update_that_answers_ours_is_not_one_of_the_peers_own() {
        let traffic = TlsTraffic::default();
        traffic.count_message(false, &DOES_NOT);
        traffic.count_message(false, &ASKS);
        assert_eq!(seen(&traffic), (2, 0, 2, false));
        traffic.count_message(true, &DOES_NOT);
        assert_eq!(seen(&traffic), (2, 1, 2, false));
        traffic.count_message(true, &ASKS);
        assert_eq!(seen(&traffic), (2, 2, 2, true));
        // It crossed ours.
        traffic.count_message(false, &ASKS);
        assert_eq!(seen(&traffic), (3, 2, 3, true));
        traffic.count_message(false, &DOES_NOT);
        assert_eq!(seen(&traffic), (4, 2, 3, false));
        traffic.count_message(false, &DOES_NOT);
        assert_eq!(seen(&traffic), (5, 2, 4, false));
    }

    #[test]
    fn other_messages_are_counted_as_unasked_for_and_no_length_of_one_matters() {
        let traffic = TlsTraffic::default();
        for message in [&[4, 0, 0, 0][..], &[24], &[24, 0, 0, 1], &[]] {
            traffic.count_message(false, message);
        }
        assert_eq!(seen(&traffic), (2, 0, 4, false));
        assert_eq!(traffic.in_turn(), 4);
        traffic.begin_turn();
        assert_eq!(traffic.in_turn(), 0);
        traffic.count_message(true, &[4, 0, 0, 0]);
        assert_eq!((seen(&traffic), traffic.in_turn()), ((2, 0, 4, false), 0));
    }
}
