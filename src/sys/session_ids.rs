//! Resumption by session ID (RFC 5246, 7.3) from a store of the program's own, and the context that ties a
//! session to a service. The `openssl` crate's callback for the former is unsafe, because OpenSSL's internal
//! caches demand more than a store of copies does; the rest it does not bind.

use std::ffi::{c_int, c_long, c_uchar, c_uint};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use foreign_types_shared::{ForeignType, ForeignTypeRef};
use openssl::error::ErrorStack;
use openssl::ssl::{SslContextBuilder, SslRef, SslSession, SslSessionCacheMode, SslSessionRef};
use openssl_sys as ffi;

use super::openssl::copy_session;

/// What OpenSSL's documentation calls a session ID context (SSL_CTX_set_session_id_context(3)): a session is
/// resumed only under the one that it was made under.
pub type IdContext = [u8; 32];

type IsNotResumable = unsafe extern "C" fn(ssl: *mut ffi::SSL, forward_secure: c_int) -> c_int;

// SAFETY: these are the declarations of <openssl/ssl.h> since 1.1.0, types and arguments alike.
unsafe extern "C" {
    fn SSL_CTX_set_not_resumable_session_callback(
        ctx: *mut ffi::SSL_CTX,
        callback: Option<IsNotResumable>,
    );
    fn SSL_set_session_id_context(
        ssl: *mut ffi::SSL,
        context: *const c_uchar,
        len: c_uint,
    ) -> c_int;
    fn SSL_SESSION_get0_id_context(
        session: *const ffi::SSL_SESSION,
        len: *mut c_uint,
    ) -> *const c_uchar;
    fn SSL_SESSION_set1_id(
        session: *mut ffi::SSL_SESSION,
        id: *const c_uchar,
        len: c_uint,
    ) -> c_int;
    fn SSL_SESSION_set_timeout(session: *mut ffi::SSL_SESSION, seconds: c_long) -> c_long;
}

/// A server's store of sessions.
pub trait SessionLookup {
    /// The session that a client resumes by this ID, as a copy that no other connection has. OpenSSL then
    /// compares version, context, age and extended master secret, and has the client prove the session's
    /// secret. Asked up to TLS 1.2; in 1.3, of every offered PSK of 32 bytes, where tickets are off.
    fn find(ssl: &mut SslRef, id: &[u8]) -> Option<SslSession>;
    /// Whether the session of this handshake can be resumed at all; if not, it gets no ID.
    fn is_resumable(ssl: &mut SslRef) -> bool;
}

/// Has a server context look sessions up in `S`. OpenSSL itself keeps none.
pub fn set_session_lookup_callbacks<S: SessionLookup>(context: &mut SslContextBuilder) {
    // Without SERVER no session has an ID, and the store is not asked.
    context.set_session_cache_mode(
        SslSessionCacheMode::SERVER
            | SslSessionCacheMode::NO_INTERNAL
            | SslSessionCacheMode::NO_AUTO_CLEAR,
    );
    // SAFETY: the builder owns a live SSL_CTX; the callbacks are plain functions and need no state.
    unsafe {
        ffi::SSL_CTX_sess_set_get_cb(context.as_ptr(), Some(get_session::<S>));
        SSL_CTX_set_not_resumable_session_callback(context.as_ptr(), Some(is_not_resumable::<S>));
    }
}

unsafe extern "C" fn get_session<S: SessionLookup>(
    ssl: *mut ffi::SSL,
    id: *const c_uchar,
    len: c_int,
    copy: *mut c_int,
) -> *mut ffi::SSL_SESSION {
    // SAFETY: OpenSSL passes a live SSL, a readable ID of that length and a place to write to, where 0 says
    // that the session's one reference is given away. A panic may not cross a C frame: it becomes "unknown".
    unsafe {
        *copy = 0;
        let ssl = SslRef::from_ptr_mut(ssl);
        let id = match usize::try_from(len) {
            Ok(len) if len > 0 => std::slice::from_raw_parts(id, len),
            _ => return ptr::null_mut(),
        };
        let Ok(Some(found)) = catch_unwind(AssertUnwindSafe(|| S::find(ssl, id))) else {
            return ptr::null_mut();
        };
        let raw = found.as_ptr();
        std::mem::forget(found);
        raw
    }
}

unsafe extern "C" fn is_not_resumable<S: SessionLookup>(ssl: *mut ffi::SSL, _: c_int) -> c_int {
    // SAFETY: OpenSSL passes a live SSL, whose session is a new one that nobody else has: its ID is taken away
    // before the ServerHello is made, which OpenSSL 3.0 would send all the same. No byte of the ID is read. A
    // panic becomes "not resumable".
    unsafe {
        let resumable =
            catch_unwind(AssertUnwindSafe(|| S::is_resumable(SslRef::from_ptr_mut(ssl))));
        if let Ok(true) = resumable {
            return 0;
        }
        let session = ffi::SSL_get_session(ssl);
        if !session.is_null() {
            SSL_SESSION_set1_id(session, [0].as_ptr(), 0);
        }
        1
    }
}

/// Sets the context of one handshake's sessions. `SSL_set_SSL_CTX` does not move one that was set so.
///
/// # Errors
/// OpenSSL does not take it.
pub fn set_id_context(ssl: &mut SslRef, context: &IdContext) -> Result<(), ErrorStack> {
    // SAFETY: a live SSL, borrowed alone; the bytes are copied, and 32 is the most that it takes.
    let done = unsafe {
        SSL_set_session_id_context(ssl.as_ptr(), context.as_ptr(), context.len() as c_uint)
    };
    if done == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

/// Whether a session was made under that context.
pub fn has_id_context(session: &SslSessionRef, context: &IdContext) -> bool {
    let mut len = 0;
    // SAFETY: the session is live, and its borrow bounds the slice; OpenSSL's getter returns a pointer into
    // the session, with the length that it writes, and changes nothing.
    let made_under = unsafe {
        let bytes = SSL_SESSION_get0_id_context(session.as_ptr(), &mut len);
        match usize::try_from(len) {
            Ok(len) if len > 0 && !bytes.is_null() => std::slice::from_raw_parts(bytes, len),
            _ => &[],
        }
    };
    made_under == context
}

/// A copy of a session for a store: under a tag, and good for so many seconds since it was made.
///
/// # Errors
/// Memory is out.
pub fn stored_copy(
    session: &SslSessionRef,
    tag: &[u8],
    seconds: i32,
) -> Result<SslSession, ErrorStack> {
    let copy = copy_session(session, Some(tag))?;
    // SAFETY: a live session, which nobody else has yet.
    unsafe { SSL_SESSION_set_timeout(copy.as_ptr(), c_long::from(seconds)) };
    Ok(copy)
}
