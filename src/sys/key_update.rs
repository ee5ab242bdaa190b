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
const HANDSHAKE: c_int = 22;
const KEY_UPDATE: u8 = 24;
/// A message's type and its length of three bytes come before its body.
const BODY: usize = 4;
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
pub struct Traffic {
    /// From the peer.
    pub read: Passed,
    /// To the peer.
    pub written: Passed,
    /// Handshake messages of the peer's that answer none of ours: its own key updates, and tickets.
    unasked: AtomicU32,
    /// Those of [`Traffic::begin_turn`] and later.
    in_turn: AtomicU32,
    /// A key update was asked for and has not come.
    awaits_update: AtomicBool,
    /// More is protected with one key than should be. The layer that counts records says so.
    pub key_overused: AtomicBool,
}

/// One direction.
#[derive(Debug, Default)]
pub struct Passed {
    /// Records of application data. The layer that reads and writes them counts them.
    pub records: AtomicU64,
    key_updates: AtomicU64,
}

impl Passed {
    /// How often the keys of this direction were changed.
    pub fn key_updates(&self) -> u64 {
        self.key_updates.load(Relaxed)
    }
}

impl Traffic {
    /// Handshake messages of the peer's that answer none of ours. Wraps around.
    pub fn unasked(&self) -> u32 {
        self.unasked.load(Relaxed)
    }

    /// Whether the peer was asked for a key update that has not come yet.
    pub fn awaits_update(&self) -> bool {
        self.awaits_update.load(Relaxed)
    }

    /// From here on [`Traffic::in_turn`] counts anew.
    pub fn begin_turn(&self) {
        self.in_turn.store(0, Relaxed);
    }

    /// Handshake messages of the peer's since the turn began, whatever they answer.
    pub fn in_turn(&self) -> u32 {
        self.in_turn.load(Relaxed)
    }

    fn count(&self, written: bool, message: &[u8]) {
        let is_update = message.first() == Some(&KEY_UPDATE);
        let request = message.get(BODY).copied().filter(|_| is_update);
        if written {
            if is_update {
                increment(&self.written.key_updates);
            }
            if request == Some(UPDATE_REQUESTED) {
                self.awaits_update.store(true, Relaxed);
            }
            return;
        }
        self.in_turn.store(self.in_turn().saturating_add(1), Relaxed);
        if is_update {
            increment(&self.read.key_updates);
        }
        // Only an answer asks for no update in return; one that asks has crossed our request on its way.
        if request == Some(UPDATE_NOT_REQUESTED) && self.awaits_update() {
            self.awaits_update.store(false, Relaxed);
            return;
        }
        self.unasked.store(self.unasked().wrapping_add(1), Relaxed);
    }
}

/// There is one writer, so that this needs no lock on the bus.
fn increment(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

fn slot() -> Result<Index<Ssl, Arc<Traffic>>, ErrorStack> {
    static SLOT: OnceLock<Index<Ssl, Arc<Traffic>>> = OnceLock::new();
    match SLOT.get() {
        Some(slot) => Ok(*slot),
        None => {
            let new = Ssl::new_ex_index()?;
            Ok(*SLOT.get_or_init(|| new))
        }
    }
}

/// Has handshake messages counted from here on.
///
/// # Errors
/// Memory is out.
pub fn count_messages(ssl: &mut SslRef, traffic: Arc<Traffic>) -> Result<(), ErrorStack> {
    /// `SSL_CTRL_SET_MSG_CALLBACK_ARG` of <openssl/ssl.h>.
    const SET_MSG_CALLBACK_ARG: c_int = 16;
    let argument = Arc::as_ptr(&traffic).cast_mut().cast::<c_void>();
    ssl.set_ex_data(slot()?, traffic);
    // SAFETY: a live SSL, borrowed alone. The argument points to what the SSL owns from the line above on, in
    // its ex_data, which nobody replaces and which is dropped with the SSL: it outlives every call.
    unsafe {
        ffi::SSL_ctrl(ssl.as_ptr(), SET_MSG_CALLBACK_ARG, 0 as c_long, argument);
        SSL_set_msg_callback(ssl.as_ptr(), Some(message));
    }
    Ok(())
}

/// OpenSSL calls this for the header of every record too: what does not count has to go quickly.
unsafe extern "C" fn message(
    write: c_int,
    _version: c_int,
    content_type: c_int,
    message: *const c_void,
    len: usize,
    _ssl: *mut ffi::SSL,
    argument: *mut c_void,
) {
    if content_type != HANDSHAKE || message.is_null() || len == 0 {
        return;
    }
    // SAFETY: OpenSSL passes a message of its own and its length, which it changes no more during the call,
    // and the argument that `count_messages` set beside this callback: a Traffic, of which all fields are
    // atomic. Nothing here panics.
    unsafe {
        let message = std::slice::from_raw_parts(message.cast::<u8>(), len);
        (*argument.cast::<Traffic>()).count(write != 0, message);
    }
}

/// Has the next write, or the next read, begin with a key update of ours; `request` asks the peer for one of its
/// own. Until it is written OpenSSL refuses another one, and refuses to shut down.
///
/// # Errors
/// OpenSSL's: the session is not one of 1.3, a write waits for being taken up again, or an update that was
/// announced before is not written yet.
pub fn key_update(ssl: &mut SslRef, request: bool) -> Result<(), ErrorStack> {
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

    fn seen(traffic: &Traffic) -> (u64, u64, u32, bool) {
        let updates = |passed: &Passed| passed.key_updates();
        let Traffic { read, written, .. } = traffic;
        (updates(read), updates(written), traffic.unasked(), traffic.awaits_update())
    }

    #[test]
    fn an_update_that_answers_ours_is_not_one_of_the_peers_own() {
        let traffic = Traffic::default();
        traffic.count(false, &DOES_NOT);
        traffic.count(false, &ASKS);
        assert_eq!(seen(&traffic), (2, 0, 2, false));
        traffic.count(true, &DOES_NOT);
        assert_eq!(seen(&traffic), (2, 1, 2, false));
        traffic.count(true, &ASKS);
        assert_eq!(seen(&traffic), (2, 2, 2, true));
        // It crossed ours.
        traffic.count(false, &ASKS);
        assert_eq!(seen(&traffic), (3, 2, 3, true));
        traffic.count(false, &DOES_NOT);
        assert_eq!(seen(&traffic), (4, 2, 3, false));
        traffic.count(false, &DOES_NOT);
        assert_eq!(seen(&traffic), (5, 2, 4, false));
    }

    #[test]
    fn other_messages_are_counted_as_unasked_for_and_no_length_of_one_matters() {
        let traffic = Traffic::default();
        for message in [&[4, 0, 0, 0][..], &[24], &[24, 0, 0, 1], &[]] {
            traffic.count(false, message);
        }
        assert_eq!(seen(&traffic), (2, 0, 4, false));
        assert_eq!(traffic.in_turn(), 4);
        traffic.begin_turn();
        assert_eq!(traffic.in_turn(), 0);
        traffic.count(true, &[4, 0, 0, 0]);
        assert_eq!((seen(&traffic), traffic.in_turn()), ((2, 0, 4, false), 0));
    }
}
