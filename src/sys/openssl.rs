//! Calls of OpenSSL that the `openssl` crate does not bind: TLS 1.3's own PSK callbacks, the
//! sessions they hand over, session tickets, raw ClientHello extensions, and how a stream was shut down.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_uchar, c_uint, c_ulong, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use foreign_types_shared::{ForeignType, ForeignTypeRef};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::ssl::{
    SslCipherRef, SslContextBuilder, SslContextRef, SslOptions, SslRef, SslSession, SslSessionRef,
    SslVersion,
};
use openssl::stack::StackRef;
use openssl_sys as ffi;

/// `OPENSSL_INIT_NO_LOAD_CONFIG` of <openssl/crypto.h>.
const INIT_NO_LOAD_CONFIG: u64 = 0x80;

/// Has OpenSSL read no openssl.cnf. One that is built in would look for it where the machine that
/// built it has such a file, and there, on Windows above all, anybody may be able to put one: it
/// can name a library to load. The first initialisation decides, so this must come before it.
pub fn ignore_config_file() {
    // As the crate would have it: other threads may still be using OpenSSL when the process ends.
    let options = INIT_NO_LOAD_CONFIG | ffi::OPENSSL_INIT_NO_ATEXIT;
    // SAFETY: takes no pointer but null for "no settings", may be called at any time and from any
    // thread. Without memory for its own tables it fails, and so will all that follows.
    unsafe { ffi::OPENSSL_init_ssl(options, ptr::null()) };
}

type UseSessionCallback = unsafe extern "C" fn(
    *mut ffi::SSL,
    *const ffi::EVP_MD,
    *mut *const c_uchar,
    *mut usize,
    *mut *mut ffi::SSL_SESSION,
) -> c_int;

type FindSessionCallback =
    unsafe extern "C" fn(*mut ffi::SSL, *const c_uchar, usize, *mut *mut ffi::SSL_SESSION) -> c_int;

type WritePskCallback =
    unsafe extern "C" fn(*mut ffi::SSL, *const c_char, *mut c_uchar, c_uint) -> c_uint;

type TicketKeyCallback = unsafe extern "C" fn(
    *mut ffi::SSL,
    *mut c_uchar,
    *mut c_uchar,
    *mut ffi::EVP_CIPHER_CTX,
    *mut ffi::EVP_MAC_CTX,
    c_int,
) -> c_int;

type GenerateTicketCallback = unsafe extern "C" fn(*mut ffi::SSL, *mut c_void) -> c_int;

type DecryptTicketCallback = unsafe extern "C" fn(
    *mut ffi::SSL,
    *mut ffi::SSL_SESSION,
    *const c_uchar,
    usize,
    c_int,
    *mut c_void,
) -> c_int;

/// `uint64_t` since OpenSSL 3.0.
type SslOptionsRepr = u64;

// SAFETY: these are the declarations of <openssl/ssl.h> since 3.0, types and arguments alike.
unsafe extern "C" {
    fn SSL_CTX_set_psk_use_session_callback(ctx: *mut ffi::SSL_CTX, cb: Option<UseSessionCallback>);
    fn SSL_CTX_set_psk_find_session_callback(
        ctx: *mut ffi::SSL_CTX,
        cb: Option<FindSessionCallback>,
    );
    fn SSL_CTX_set_psk_server_callback(ctx: *mut ffi::SSL_CTX, cb: Option<WritePskCallback>);
    fn SSL_set_psk_server_callback(ssl: *mut ffi::SSL, cb: Option<WritePskCallback>);
    fn SSL_CIPHER_find(ssl: *mut ffi::SSL, id: *const c_uchar) -> *const ffi::SSL_CIPHER;
    fn SSL_SESSION_new() -> *mut ffi::SSL_SESSION;
    fn SSL_SESSION_set1_master_key(
        session: *mut ffi::SSL_SESSION,
        key: *const c_uchar,
        len: usize,
    ) -> c_int;
    fn SSL_SESSION_set_cipher(
        session: *mut ffi::SSL_SESSION,
        cipher: *const ffi::SSL_CIPHER,
    ) -> c_int;
    fn SSL_SESSION_set_protocol_version(session: *mut ffi::SSL_SESSION, version: c_int) -> c_int;
    fn SSL_SESSION_set1_ticket_appdata(
        session: *mut ffi::SSL_SESSION,
        data: *const c_void,
        len: usize,
    ) -> c_int;
    fn SSL_SESSION_get0_ticket_appdata(
        session: *mut ffi::SSL_SESSION,
        data: *mut *mut c_void,
        len: *mut usize,
    ) -> c_int;
    fn SSL_set_options(ssl: *mut ffi::SSL, options: SslOptionsRepr) -> SslOptionsRepr;
    fn SSL_clear_options(ssl: *mut ffi::SSL, options: SslOptionsRepr) -> SslOptionsRepr;
    fn SSL_get_options(ssl: *const ffi::SSL) -> SslOptionsRepr;
    fn SSL_CTX_get_ciphers(ctx: *const ffi::SSL_CTX) -> *mut ffi::stack_st_SSL_CIPHER;
    fn SSL_CTX_set_tlsext_ticket_key_evp_cb(
        ctx: *mut ffi::SSL_CTX,
        cb: Option<TicketKeyCallback>,
    ) -> c_int;
    fn SSL_CTX_set_session_ticket_cb(
        ctx: *mut ffi::SSL_CTX,
        generate: Option<GenerateTicketCallback>,
        decrypt: Option<DecryptTicketCallback>,
        argument: *mut c_void,
    ) -> c_int;
    fn SSL_new_session_ticket(ssl: *mut ffi::SSL) -> c_int;
    fn SSL_SESSION_set_timeout(session: *mut ffi::SSL_SESSION, seconds: c_long) -> c_long;
    fn SSL_SESSION_get0_cipher(session: *const ffi::SSL_SESSION) -> *const ffi::SSL_CIPHER;
    fn SSL_SESSION_get_ticket_lifetime_hint(session: *const ffi::SSL_SESSION) -> c_ulong;
    fn SSL_SESSION_dup(session: *const ffi::SSL_SESSION) -> *mut ffi::SSL_SESSION;
    fn SSL_SESSION_is_resumable(session: *const ffi::SSL_SESSION) -> c_int;
    fn OSSL_PARAM_construct_utf8_string(
        key: *const c_char,
        text: *mut c_char,
        len: usize,
    ) -> ffi::OSSL_PARAM;
}

/// The client's part of a TLS 1.3 external PSK.
pub trait OfferPsk {
    /// The identity and the session that carries its key. Asked while a ClientHello is built, and
    /// again after a HelloRetryRequest, then with the hash that the server chose; must be pure.
    fn offer(ssl: &mut SslRef, hash: Option<Nid>) -> Option<(&[u8], SslSession)>;
}

/// The server's part of a TLS 1.3 external PSK.
pub trait FindPsk {
    /// The session that carries the key of an identity. Asked for one offered identity after the
    /// other, tickets included, until it gives one; must be pure.
    fn find(ssl: &mut SslRef, identity: &[u8]) -> Option<SslSession>;
}

/// The server's part of a PSK up to TLS 1.2.
pub trait WritePsk {
    /// Writes the key of an identity to the front of `out`, and returns its length; `None` ends the
    /// handshake.
    fn write(ssl: &mut SslRef, identity: &[u8], out: &mut [u8]) -> Option<usize>;
}

/// Has a client context ask `O` for its external PSK.
pub fn set_psk_offer_callback<O: OfferPsk>(context: &mut SslContextBuilder) {
    // SAFETY: the builder owns a live SSL_CTX; the callback is a plain function and needs no state.
    unsafe { SSL_CTX_set_psk_use_session_callback(context.as_ptr(), Some(on_use_session::<O>)) }
}

/// Has a server context ask `F` for the keys of external PSKs.
pub fn set_psk_find_callback<F: FindPsk>(context: &mut SslContextBuilder) {
    // SAFETY: the builder owns a live SSL_CTX; the callback is a plain function and needs no state.
    unsafe { SSL_CTX_set_psk_find_session_callback(context.as_ptr(), Some(on_find_session::<F>)) }
}

/// Has a server context ask `W` for keys up to TLS 1.2.
pub fn set_psk_write_callback<W: WritePsk>(context: &mut SslContextBuilder) {
    // SAFETY: the builder owns a live SSL_CTX; the callback is a plain function and needs no state.
    unsafe { SSL_CTX_set_psk_server_callback(context.as_ptr(), Some(on_write_psk::<W>)) }
}

/// Switches [`WritePsk`] on or off for one handshake. OpenSSL 3 prefers suites with SHA-256 in TLS 1.3 where it
/// is on, and asks it for every identity for which [`FindPsk`] has found nothing.
pub fn enable_psk_write<W: WritePsk>(ssl: &mut SslRef, enable: bool) {
    let callback: Option<WritePskCallback> = if enable { Some(on_write_psk::<W>) } else { None };
    // SAFETY: a live SSL, borrowed alone; the callback is a plain function and needs no state.
    unsafe { SSL_set_psk_server_callback(ssl.as_ptr(), callback) }
}

unsafe extern "C" fn on_write_psk<W: WritePsk>(
    ssl: *mut ffi::SSL,
    identity: *const c_char,
    out: *mut c_uchar,
    out_len: c_uint,
) -> c_uint {
    // SAFETY: OpenSSL passes a live SSL, a C string or null, and room for `out_len` bytes, which it has
    // initialised or not: they are cleared before they are lent. A panic becomes "no key".
    unsafe {
        let ssl = SslRef::from_ptr_mut(ssl);
        let identity = if identity.is_null() { &[] } else { CStr::from_ptr(identity).to_bytes() };
        ptr::write_bytes(out, 0, out_len as usize);
        let room = out_len as usize;
        let out = std::slice::from_raw_parts_mut(out, room);
        let written = catch_unwind(AssertUnwindSafe(|| W::write(ssl, identity, out)));
        written.ok().flatten().filter(|len| *len <= room).map_or(0, |len| len as c_uint)
    }
}

unsafe extern "C" fn on_use_session<O: OfferPsk>(
    ssl: *mut ffi::SSL,
    md: *const ffi::EVP_MD,
    id: *mut *const c_uchar,
    id_len: *mut usize,
    session: *mut *mut ffi::SSL_SESSION,
) -> c_int {
    // SAFETY: OpenSSL passes a live SSL and three places to write to. The identity is borrowed from
    // the SSL, lives as long as it, and is copied as soon as this returns; the session's one
    // reference is given away. A panic may not cross a C frame: it becomes "no PSK".
    unsafe {
        *session = ptr::null_mut();
        let hash = (!md.is_null()).then(|| MessageDigest::from_ptr(md).type_());
        let offer = catch_unwind(AssertUnwindSafe(|| O::offer(SslRef::from_ptr_mut(ssl), hash)));
        if let Ok(Some((identity, offered))) = offer {
            *id = identity.as_ptr();
            *id_len = identity.len();
            *session = offered.as_ptr();
            std::mem::forget(offered);
        }
        1
    }
}

unsafe extern "C" fn on_find_session<F: FindPsk>(
    ssl: *mut ffi::SSL,
    identity: *const c_uchar,
    identity_len: usize,
    session: *mut *mut ffi::SSL_SESSION,
) -> c_int {
    // SAFETY: OpenSSL passes a live SSL, a readable identity of that length (its packet buffer) and
    // a place to write to; the session's one reference is given away. A panic becomes "unknown".
    unsafe {
        *session = ptr::null_mut();
        let ssl = SslRef::from_ptr_mut(ssl);
        let identity = if identity_len == 0 {
            &[]
        } else {
            std::slice::from_raw_parts(identity, identity_len)
        };
        if let Ok(Some(found)) = catch_unwind(AssertUnwindSafe(|| F::find(ssl, identity))) {
            *session = found.as_ptr();
            std::mem::forget(found);
        }
        1
    }
}

/// A TLS 1.3 session that carries an external PSK, bound to the hash of `suite` (its two bytes on
/// the wire). `tag` travels with the session and is read back by [`selected_tag`].
///
/// # Errors
/// The suite is unknown to this library, the key is longer than it takes, or memory is out.
pub fn new_psk_session(
    ssl: &SslRef,
    suite: [u8; 2],
    key: &[u8],
    tag: &[u8],
) -> Result<SslSession, ErrorStack> {
    // SAFETY: the session is created here and owned by the SslSession at once, so that an early
    // return frees it; every pointer is checked or comes from a slice of the length passed.
    unsafe {
        let raw = SSL_SESSION_new();
        if raw.is_null() {
            return Err(ErrorStack::get());
        }
        let session = SslSession::from_ptr(raw);
        let cipher = SSL_CIPHER_find(ssl.as_ptr(), suite.as_ptr());
        let done = !cipher.is_null()
            && SSL_SESSION_set1_master_key(raw, key.as_ptr(), key.len()) == 1
            && SSL_SESSION_set_cipher(raw, cipher) == 1
            && SSL_SESSION_set_protocol_version(raw, ffi::TLS1_3_VERSION) == 1
            && SSL_SESSION_set1_ticket_appdata(raw, tag.as_ptr().cast(), tag.len()) == 1;
        if done { Ok(session) } else { Err(ErrorStack::get()) }
    }
}

/// The tag of the session that the finished handshake really used.
pub fn selected_tag(ssl: &SslRef) -> Option<&[u8]> {
    session_tag(ssl.session()?)
}

/// What travels with a session: in a ticket too, under its encryption.
pub fn session_tag(session: &SslSessionRef) -> Option<&[u8]> {
    let (mut data, mut len) = (ptr::null_mut(), 0);
    // SAFETY: the session is live, and its borrow bounds the slice; OpenSSL's getter writes a pointer
    // into the session and its length, and changes nothing.
    unsafe {
        if SSL_SESSION_get0_ticket_appdata(session.as_ptr(), &mut data, &mut len) != 1
            || data.is_null()
        {
            return None;
        }
        Some(std::slice::from_raw_parts(data.cast(), len))
    }
}

/// A copy of a session, under the same tag or another. What one connection does to its own is no
/// concern of the others: OpenSSL takes one that ended without close_notify for not resumable.
///
/// # Errors
/// Memory is out.
pub fn copy_session(session: &SslSessionRef, tag: Option<&[u8]>) -> Result<SslSession, ErrorStack> {
    // SAFETY: a live session, which is only read; the copy is owned by the SslSession at once, and nobody
    // else has it while its tag is set. The bytes of the tag are copied.
    unsafe {
        let raw = SSL_SESSION_dup(session.as_ptr());
        if raw.is_null() {
            return Err(ErrorStack::get());
        }
        let copy = SslSession::from_ptr(raw);
        let done = tag.is_none_or(|tag| {
            SSL_SESSION_set1_ticket_appdata(raw, tag.as_ptr().cast(), tag.len()) == 1
        });
        if done { Ok(copy) } else { Err(ErrorStack::get()) }
    }
}

/// The keys of a server's session tickets (RFC 5077, 4), as OpenSSL wants them: AES-256 in CBC mode, then
/// HMAC-SHA256 over all of it.
pub trait TicketKeys {
    /// The name with which a ticket of these keys begins.
    fn name(&self) -> &[u8; 16];
    /// The encryption key.
    fn cipher(&self) -> &[u8; 32];
    /// The authentication key.
    fn mac(&self) -> &[u8; 32];
}

/// The server's part of session tickets.
pub trait TicketHandler {
    /// The keys of one handshake.
    type Keys: TicketKeys;
    /// The keys for a new ticket.
    fn seal(ssl: &mut SslRef) -> Option<Self::Keys>;
    /// The keys of a ticket that begins so, and whether a newer one should take its place; none, and it
    /// is as if it had not been offered.
    fn open(ssl: &mut SslRef, name: &[u8; 16], iv: &[u8; 16]) -> Option<(Self::Keys, bool)>;
    /// What a new ticket carries, and how many seconds it lives; none, and the handshake ends.
    fn issue(ssl: &mut SslRef) -> Option<(Vec<u8>, i32)>;
    /// Whether a session that came out of a ticket may be resumed.
    fn accepts(ssl: &mut SslRef, session: &SslSessionRef) -> bool;
}

/// Has a server context ask `T` about tickets. Without it, or where nobody gives keys, there are none.
///
/// # Errors
/// OpenSSL does not take the callbacks.
pub fn set_ticket_callbacks<T: TicketHandler>(
    context: &mut SslContextBuilder,
) -> Result<(), ErrorStack> {
    // SAFETY: the builder owns a live SSL_CTX; the callbacks are plain functions and need no state.
    let done = unsafe {
        SSL_CTX_set_tlsext_ticket_key_evp_cb(context.as_ptr(), Some(on_ticket_key::<T>)) == 1
            && SSL_CTX_set_session_ticket_cb(
                context.as_ptr(),
                Some(on_generate_ticket::<T>),
                Some(on_decrypt_ticket::<T>),
                ptr::null_mut(),
            ) == 1
    };
    if done { Ok(()) } else { Err(ErrorStack::get()) }
}

unsafe extern "C" fn on_ticket_key<T: TicketHandler>(
    ssl: *mut ffi::SSL,
    name: *mut c_uchar,
    iv: *mut c_uchar,
    cipher: *mut ffi::EVP_CIPHER_CTX,
    mac: *mut ffi::EVP_MAC_CTX,
    encrypt: c_int,
) -> c_int {
    /// SSL_CTX_set_tlsext_ticket_key_evp_cb(3).
    const FAILED: c_int = -1;
    const UNKNOWN: c_int = 0;
    const GOOD: c_int = 1;
    const RENEW: c_int = 2;
    // SAFETY: OpenSSL passes a live SSL, 16 bytes of name, an IV of EVP_MAX_IV_LENGTH, which is 16 too,
    // and two live contexts of its own; it writes name and IV of a new ticket into its buffers, and reads
    // them from there for an old one. A panic may not cross a C frame: it becomes "unknown" or "failed".
    unsafe {
        let ssl = SslRef::from_ptr_mut(ssl);
        if encrypt == 1 {
            let Ok(Some(keys)) = catch_unwind(AssertUnwindSafe(|| T::seal(ssl))) else {
                return FAILED;
            };
            ptr::copy_nonoverlapping(keys.name().as_ptr(), name, keys.name().len());
            let fresh = ffi::RAND_bytes(iv, 16) == 1
                && ffi::EVP_EncryptInit_ex(
                    cipher,
                    ffi::EVP_aes_256_cbc(),
                    ptr::null_mut(),
                    keys.cipher().as_ptr(),
                    iv,
                ) == 1;
            return if fresh && set_mac_key(mac, keys.mac()) { GOOD } else { FAILED };
        }
        let (name, iv) = (&*name.cast::<[u8; 16]>(), &*iv.cast::<[u8; 16]>());
        let Ok(Some((keys, renew))) = catch_unwind(AssertUnwindSafe(|| T::open(ssl, name, iv)))
        else {
            return UNKNOWN;
        };
        let ready = ffi::EVP_DecryptInit_ex(
            cipher,
            ffi::EVP_aes_256_cbc(),
            ptr::null_mut(),
            keys.cipher().as_ptr(),
            iv.as_ptr(),
        ) == 1;
        match ready && set_mac_key(mac, keys.mac()) {
            true if renew => RENEW,
            true => GOOD,
            false => FAILED,
        }
    }
}

/// Makes HMAC-SHA256 with that key of a context.
///
/// # Safety
/// The context is a live one for HMAC.
unsafe fn set_mac_key(mac: *mut ffi::EVP_MAC_CTX, key: &[u8; 32]) -> bool {
    const KEY: &CStr = c"key";
    const DIGEST: &CStr = c"digest";
    const SHA256: &CStr = c"SHA256";
    // SAFETY: the parameters point to the key and to constants, which outlive the call; it copies what it
    // needs, and changes nothing of them.
    unsafe {
        let parameters = [
            ffi::OSSL_PARAM_construct_octet_string(
                KEY.as_ptr(),
                key.as_ptr().cast_mut().cast(),
                key.len(),
            ),
            OSSL_PARAM_construct_utf8_string(DIGEST.as_ptr(), SHA256.as_ptr().cast_mut(), 0),
            ffi::OSSL_PARAM_construct_end(),
        ];
        ffi::EVP_MAC_CTX_set_params(mac, parameters.as_ptr()) == 1
    }
}

unsafe extern "C" fn on_generate_ticket<T: TicketHandler>(
    ssl: *mut ffi::SSL,
    _: *mut c_void,
) -> c_int {
    // SAFETY: OpenSSL passes a live SSL, whose session is the one that the ticket will hold: of its own
    // if other connections share the first. A panic ends the handshake.
    unsafe {
        let ssl = SslRef::from_ptr_mut(ssl);
        let Ok(Some((tag, seconds))) = catch_unwind(AssertUnwindSafe(|| T::issue(ssl))) else {
            return 0;
        };
        let Some(session) = ssl.session() else { return 0 };
        SSL_SESSION_set_timeout(session.as_ptr(), c_long::from(seconds));
        SSL_SESSION_set1_ticket_appdata(session.as_ptr(), tag.as_ptr().cast(), tag.len())
    }
}

unsafe extern "C" fn on_decrypt_ticket<T: TicketHandler>(
    ssl: *mut ffi::SSL,
    session: *mut ffi::SSL_SESSION,
    _name: *const c_uchar,
    _name_len: usize,
    status: c_int,
    _: *mut c_void,
) -> c_int {
    /// `SSL_TICKET_EMPTY` and so on of <openssl/ssl.h>.
    const EMPTY: c_int = 3;
    const SUCCESS: c_int = 5;
    const SUCCESS_RENEW: c_int = 6;
    /// `SSL_TICKET_RETURN_IGNORE` and so on. What is ignored is no error: the next offer is looked at,
    /// and in 1.2 the client gets a new ticket.
    const IGNORE: c_int = 1;
    const IGNORE_RENEW: c_int = 2;
    const USE: c_int = 3;
    const USE_RENEW: c_int = 4;
    // SAFETY: OpenSSL passes a live SSL, and with a successful status a live session that is its own. A
    // panic becomes "no ticket".
    unsafe {
        let ssl = SslRef::from_ptr_mut(ssl);
        let tls13 = is_tls13(ssl);
        if status == EMPTY && tls13 {
            // An identity of no bytes; the next one counts.
            return IGNORE;
        }
        if !matches!(status, SUCCESS | SUCCESS_RENEW) || session.is_null() {
            return IGNORE_RENEW;
        }
        let session = SslSessionRef::from_ptr(session);
        let accepts = catch_unwind(AssertUnwindSafe(|| T::accepts(ssl, session)));
        match accepts {
            // RFC 9846 (8446), C.4: a client should use a ticket of 1.3 once.
            Ok(true) if tls13 || status == SUCCESS_RENEW => USE_RENEW,
            Ok(true) => USE,
            Ok(false) | Err(_) => IGNORE_RENEW,
        }
    }
}

/// Has a server's next write begin with a ticket of 1.3. Where OpenSSL cannot make one now, there is none.
pub fn announce_ticket(ssl: &mut SslRef) {
    // SAFETY: a live SSL, borrowed alone; OpenSSL checks itself whether it is in a state for this.
    unsafe { SSL_new_session_ticket(ssl.as_ptr()) };
}

/// The cipher suite of a session.
pub fn session_suite(session: &SslSessionRef) -> Option<&SslCipherRef> {
    // SAFETY: a getter of a live session; suites are constants of the library.
    unsafe {
        let suite = SSL_SESSION_get0_cipher(session.as_ptr());
        (!suite.is_null()).then(|| SslCipherRef::from_ptr(suite.cast_mut()))
    }
}

/// For how many seconds the server said that its ticket is good; 0 if it did not say.
pub fn ticket_lifetime(session: &SslSessionRef) -> u64 {
    // SAFETY: a getter of a live session.
    let seconds = unsafe { SSL_SESSION_get_ticket_lifetime_hint(session.as_ptr()) };
    // Of 32 bits on some systems.
    #[allow(clippy::useless_conversion)]
    seconds.into()
}

/// Whether a session is one of 1.3.
pub fn is_tls13_session(session: &SslSessionRef) -> bool {
    session.protocol_version() == SslVersion::TLS1_3
}

/// Whether a session can be resumed at all.
pub fn is_resumable(session: &SslSessionRef) -> bool {
    // SAFETY: a getter of a live session.
    unsafe { SSL_SESSION_is_resumable(session.as_ptr()) == 1 }
}

/// Has a client offer to resume a session, beside its key. The session may come of another context than
/// the SSL's, an earlier one for the same peer: OpenSSL looks itself whether version and suite are still
/// allowed.
///
/// # Errors
/// OpenSSL does not take it.
pub fn offer_resumption(ssl: &mut SslRef, session: &SslSessionRef) -> Result<(), ErrorStack> {
    // SAFETY: both are live; the SSL takes a reference of its own. The demand for the same context is the
    // crate's, for the sake of internal caches, which are off here.
    unsafe { ssl.set_session(session) }
}

/// The body of an extension of the ClientHello at hand; to be called in a ClientHello callback only.
pub fn client_hello_extension(ssl: &SslRef, kind: u16) -> Option<&[u8]> {
    let (mut data, mut len) = (ptr::null(), 0);
    // SAFETY: outside a ClientHello callback this returns 0; inside, the body lies in a buffer that
    // the SSL keeps until the callback returns, and the borrow cannot outlive that.
    unsafe {
        if ffi::SSL_client_hello_get0_ext(ssl.as_ptr(), kind.into(), &mut data, &mut len) != 1 {
            return None;
        }
        Some(if len == 0 { &[] } else { std::slice::from_raw_parts(data, len) })
    }
}

/// Replaces the list of groups of one handshake.
///
/// # Errors
/// OpenSSL does not take the list.
pub fn set_groups(ssl: &mut SslRef, list: &str) -> Result<(), ErrorStack> {
    /// `SSL_CTRL_SET_GROUPS_LIST` of <openssl/ssl.h>.
    const SET_GROUPS_LIST: c_int = 92;
    let Ok(list) = CString::new(list) else {
        return Err(ErrorStack::get());
    };
    // SAFETY: the SSL is live and borrowed alone; the list is a C string that OpenSSL only reads.
    let done =
        unsafe { ffi::SSL_ctrl(ssl.as_ptr(), SET_GROUPS_LIST, 0, list.as_ptr().cast_mut().cast()) };
    if done == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

/// Replaces all `SSL_OP_` switches of one handshake.
pub fn replace_options(ssl: &mut SslRef, options: SslOptions) {
    // SAFETY: a live SSL, borrowed alone; a set of bits is cleared, another is set.
    unsafe {
        SSL_clear_options(ssl.as_ptr(), !options.bits());
        SSL_set_options(ssl.as_ptr(), options.bits());
    }
}

/// Switches tickets off or on for one handshake; off, what looks like one is not even tried.
pub fn set_tickets_allowed(ssl: &mut SslRef, allow: bool) {
    let bit = SslOptions::NO_TICKET.bits();
    // SAFETY: a live SSL, borrowed alone; one bit of its options is cleared or set.
    unsafe {
        match allow {
            true => SSL_clear_options(ssl.as_ptr(), bit),
            false => SSL_set_options(ssl.as_ptr(), bit),
        }
    };
}

/// Whether this handshake may still end as one of 1.3, as far as this end goes.
pub fn allows_tls13(ssl: &SslRef) -> bool {
    // SAFETY: a getter of a live SSL.
    let options = unsafe { SSL_get_options(ssl.as_ptr()) };
    // SAFETY: as above, by a control command that changes nothing. 0 is "no limit".
    let newest = unsafe { ffi::SSL_get_max_proto_version(ssl.as_ptr()) };
    options & SslOptions::NO_TLSV1_3.bits() == 0 && matches!(newest, 0 | ffi::TLS1_3_VERSION)
}

/// Whether the peer ended its direction with close_notify. A FIN without one reads as an end of
/// stream too, and must not pass for it (RFC 8446, 6.1).
pub fn received_close_notify(ssl: &SslRef) -> bool {
    // SAFETY: reads a flag of a live SSL.
    unsafe { ffi::SSL_get_shutdown(ssl.as_ptr()) & ffi::SSL_RECEIVED_SHUTDOWN != 0 }
}

/// Whether a part of a record that was decrypted has not been read yet.
pub fn has_pending(ssl: &SslRef) -> bool {
    // SAFETY: a getter of a live SSL.
    unsafe { ffi::SSL_pending(ssl.as_ptr()) > 0 }
}

/// The version of the handshake so far, readable inside callbacks.
pub fn is_tls13(ssl: &SslRef) -> bool {
    ssl.version2() == Some(SslVersion::TLS1_3)
}

/// The suites that a context's lists expand to, before a handshake narrows them.
pub fn context_suites(context: &SslContextRef) -> Vec<&SslCipherRef> {
    // SAFETY: the stack belongs to the context and lives as long as it; null is checked.
    unsafe {
        let stack = SSL_CTX_get_ciphers(context.as_ptr());
        if stack.is_null() {
            return Vec::new();
        }
        StackRef::<openssl::ssl::SslCipher>::from_ptr(stack).iter().collect()
    }
}

/// The SSL object of a stream that the caller holds alone, to change what is attached to it.
pub fn ssl_mut<S>(stream: &mut tokio_openssl::SslStream<S>) -> &mut SslRef
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite,
{
    // SAFETY: the exclusive borrow of the stream, which owns the SSL, is the borrow that is handed
    // out; tokio-openssl merely offers no such accessor.
    unsafe { SslRef::from_ptr_mut(stream.ssl().as_ptr()) }
}
