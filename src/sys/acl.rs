//! Who may read or change a file of Windows: what the mode bits tell on a Unix.
//!
//! Windows hands the list of rights over as bytes (MS-DTYP, 2.4.6). They are read here without `unsafe`, and
//! on every system, so that the tests run where the others do.

/// How far a file is open to people who were not named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BroadAccess {
    /// They may read it.
    Read,
    /// They may change it, its rights or its owner.
    Change,
}

/// A group that anybody of the machine or the network belongs to, and what it may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LooseAccess {
    /// What the group may do.
    pub access: BroadAccess,
    /// Its English name.
    pub group: &'static str,
    /// What icacls takes for it in any language.
    pub account: &'static str,
}

/// The file's data, its extended attributes left aside, or all of it: MS-DTYP, 2.4.3.
const READ_RIGHTS: u32 = 0x1 | GENERIC_ALL | 0x8000_0000;
/// Data written or appended; DELETE is not among them: who may put another file in this one's place is
/// decided by the folder as well. WRITE_DAC and WRITE_OWNER lead to everything.
const CHANGE_RIGHTS: u32 = 0x2 | 0x4 | 0x4_0000 | 0x8_0000 | GENERIC_ALL | 0x4000_0000;
const GENERIC_ALL: u32 = 0x1000_0000;

/// `INHERIT_ONLY_ACE`: for what is made in a folder, not for the folder.
const INHERIT_ONLY: u8 = 0x8;
/// `SE_DACL_PRESENT`
const DACL_PRESENT: u16 = 0x4;

/// The widest right that a group of strangers has by this self-relative security descriptor; `None` if
/// there is none, and an error if the bytes are not a descriptor. Denials are passed over: they could be
/// meant for others, and a file with keys needs none.
///
/// # Errors
/// The bytes break off or contradict themselves.
pub fn find_loose_access(descriptor: &[u8]) -> Result<Option<LooseAccess>, MalformedDescriptor> {
    let control = u16_at(descriptor, 2)?;
    let at = u32_at(descriptor, 16)? as usize;
    if control & DACL_PRESENT == 0 || at == 0 {
        // Without a list, every right is everybody's (MS-DTYP, 2.5.3.2).
        return Ok(Some(LooseAccess {
            access: BroadAccess::Change,
            group: "Everyone",
            account: "*S-1-1-0",
        }));
    }
    let list = descriptor.get(at..).ok_or(MalformedDescriptor)?;
    let mut entries = list.get(8..).ok_or(MalformedDescriptor)?;
    let mut widest: Option<LooseAccess> = None;
    for _ in 0..u16_at(list, 4)? {
        let size = usize::from(u16_at(entries, 2)?);
        let (entry, rest) = entries.split_at_checked(size).ok_or(MalformedDescriptor)?;
        entries = rest;
        let [kind, flags, ..] = *entry else { return Err(MalformedDescriptor) };
        // Where the owner of the rights stands in an entry; of other kinds none grants anything.
        let sid = match kind {
            // ACCESS_ALLOWED, and the same with a condition.
            0x0 | 0x9 => 8,
            // The same for an object: flags say which of two identifiers of 16 bytes come before.
            0x5 | 0xb => 12 + 16 * (u32_at(entry, 8)? & 3).count_ones() as usize,
            _ => continue,
        };
        if flags & INHERIT_ONLY != 0 {
            continue;
        }
        let mask = u32_at(entry, 4)?;
        let open = match mask {
            mask if mask & CHANGE_RIGHTS != 0 => BroadAccess::Change,
            mask if mask & READ_RIGHTS != 0 => BroadAccess::Read,
            _ => continue,
        };
        let sid = entry.get(sid..).ok_or(MalformedDescriptor)?;
        if let Some((group, account)) = find_broad_group(sid)?
            && widest.is_none_or(|widest| widest.access < open)
        {
            widest = Some(LooseAccess { access: open, group, account });
        }
    }
    Ok(widest)
}

/// The identifier of the file's owner by this self-relative security descriptor, if the owner is neither
/// `user` (the identifier of the user that this process runs as, as bytes) nor the system nor the group of
/// administrators. An owner may always change the list of rights (MS-DTYP, 2.5.3), so any other one can read
/// and change the file, whatever the list says.
///
/// # Errors
/// The bytes break off, contradict themselves or name no owner.
pub fn find_foreign_owner(
    descriptor: &[u8],
    user: &[u8],
) -> Result<Option<String>, MalformedDescriptor> {
    let at = u32_at(descriptor, 4)? as usize;
    if at == 0 {
        return Err(MalformedDescriptor);
    }
    let owner = Sid::read(descriptor.get(at..).ok_or(MalformedDescriptor)?)?;
    let is_user = Sid::read(user).is_ok_and(|user| user == owner);
    let is_trusted = matches!((owner.authority, &owner.parts[..]), (5, [18] | [32, 544]));
    Ok((!is_user && !is_trusted).then(|| owner.to_string()))
}

/// Bytes that are no security descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedDescriptor;

impl std::fmt::Display for MalformedDescriptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the system told the rights in a form that this program does not know")
    }
}

impl std::error::Error for MalformedDescriptor {}

/// A security identifier (MS-DTYP, 2.4.2.2).
#[derive(Debug, PartialEq, Eq)]
struct Sid {
    authority: u64,
    parts: Vec<u32>,
}

impl Sid {
    /// The one with which these bytes begin.
    fn read(bytes: &[u8]) -> Result<Self, MalformedDescriptor> {
        let [_, count, a, b, c, d, e, f, ..] = *bytes else { return Err(MalformedDescriptor) };
        let parts = (0..usize::from(count)).map(|part| u32_at(bytes, 8 + 4 * part));
        let authority = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        Ok(Self { authority, parts: parts.collect::<Result<_, _>>()? })
    }
}

impl std::fmt::Display for Sid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "S-1-{}", self.authority)?;
        self.parts.iter().try_for_each(|part| write!(f, "-{part}"))
    }
}

/// The group of strangers whose identifier this begins with (MS-DTYP, 2.4.2.4): its name, and the same for
/// icacls.
fn find_broad_group(
    sid: &[u8],
) -> Result<Option<(&'static str, &'static str)>, MalformedDescriptor> {
    let Sid { authority, parts } = Sid::read(sid)?;
    Ok(match (authority, &parts[..]) {
        (1, [0]) => Some(("Everyone", "*S-1-1-0")),
        (2, [0]) => Some(("LOCAL", "*S-1-2-0")),
        (5, [2]) => Some(("Network", "*S-1-5-2")),
        (5, [4]) => Some(("Interactive", "*S-1-5-4")),
        (5, [7]) => Some(("Anonymous Logon", "*S-1-5-7")),
        (5, [11]) => Some(("Authenticated Users", "*S-1-5-11")),
        (5, [15]) => Some(("This Organization", "*S-1-5-15")),
        (5, [32, 545]) => Some(("Users", "*S-1-5-32-545")),
        (5, [32, 546]) => Some(("Guests", "*S-1-5-32-546")),
        (5, [21, .., 513]) => Some(("Domain Users", "Domain Users")),
        (5, [21, .., 514]) => Some(("Domain Guests", "Domain Guests")),
        _ => None,
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, MalformedDescriptor> {
    let two = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(MalformedDescriptor)?;
    Ok(u16::from_le_bytes(*two))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, MalformedDescriptor> {
    let four = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(MalformedDescriptor)?;
    Ok(u32::from_le_bytes(*four))
}

#[cfg(windows)]
pub use windows::{create_private, current_user_sid, read_descriptor, set_descriptor};

#[cfg(windows)]
mod windows {
    use std::fs::File;
    use std::io;
    use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
    use std::path::Path;
    use std::ptr::null_mut;

    use windows_sys::Win32::Foundation::{
        ERROR_INSUFFICIENT_BUFFER, GENERIC_WRITE, INVALID_HANDLE_VALUE, LocalFree,
    };
    use windows_sys::Win32::Security::Authorization::{
        ConvertStringSecurityDescriptorToSecurityDescriptorW, SDDL_REVISION_1,
    };
    use windows_sys::Win32::Security::{
        DACL_SECURITY_INFORMATION, GetKernelObjectSecurity, GetTokenInformation,
        OWNER_SECURITY_INFORMATION, PROTECTED_DACL_SECURITY_INFORMATION, SECURITY_ATTRIBUTES,
        SetKernelObjectSecurity, TOKEN_QUERY, TOKEN_USER, TokenUser,
    };
    use windows_sys::Win32::Storage::FileSystem::{
        CREATE_NEW, CreateFileW, FILE_ATTRIBUTE_NORMAL, FILE_SHARE_DELETE, FILE_SHARE_READ,
        READ_CONTROL, WRITE_DAC,
    };
    use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

    /// The owner, the system and administrators may do everything, and nobody else anything; what the
    /// folder would hand down does not count.
    const PRIVATE_SDDL: &str = "D:P(A;;FA;;;OW)(A;;FA;;;SY)(A;;FA;;;BA)\0";

    /// The owner of an open file and the rights to it, as [`super::find_loose_access`] and [`super::find_foreign_owner`] read
    /// them.
    ///
    /// # Errors
    /// The system's, and of file systems that know no rights.
    pub fn read_descriptor(file: &File) -> io::Result<Vec<u8>> {
        // Room for a list of ordinary length, so that mostly one call does.
        let mut buffer = vec![0u8; 1024];
        loop {
            let mut needed = 0;
            let room = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
            // SAFETY: the handle is open as long as the borrow, and the buffer as long as is said; the
            // bytes that come hold offsets and no pointers.
            let done = unsafe {
                GetKernelObjectSecurity(
                    file.as_raw_handle(),
                    DACL_SECURITY_INFORMATION | OWNER_SECURITY_INFORMATION,
                    buffer.as_mut_ptr().cast(),
                    room,
                    &raw mut needed,
                )
            };
            if done != 0 {
                return Ok(buffer);
            }
            let error = io::Error::last_os_error();
            let short = error.raw_os_error() == Some(ERROR_INSUFFICIENT_BUFFER.cast_signed());
            match usize::try_from(needed) {
                Ok(needed) if short && needed > buffer.len() => buffer.resize(needed, 0),
                _ => return Err(error),
            }
        }
    }

    /// The identifier of the user that this process runs as, as [`super::find_foreign_owner`] takes it.
    ///
    /// # Errors
    /// The system's.
    pub fn current_user_sid() -> io::Result<Vec<u8>> {
        // What is said of the user: a pointer, attributes, and an identifier, which has at most 68 bytes.
        // Of 64-bit numbers, so that the pointer is where a pointer may be.
        let mut buffer = [0u64; 16];
        let mut token = null_mut();
        // SAFETY: the pseudo-handle of this process is always open; a place for a handle is written to.
        let done = unsafe { OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &raw mut token) };
        if done == 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a handle that was just opened, and that nobody else has.
        let token = unsafe { OwnedHandle::from_raw_handle(token) };
        let mut written = 0;
        // SAFETY: the handle is open, and the buffer is as long as is said.
        let done = unsafe {
            GetTokenInformation(
                token.as_raw_handle(),
                TokenUser,
                buffer.as_mut_ptr().cast(),
                size_of_val(&buffer) as u32,
                &raw mut written,
            )
        };
        if done == 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above wrote a TOKEN_USER to the beginning of the buffer, which is aligned for it.
        let sid = unsafe { (*buffer.as_ptr().cast::<TOKEN_USER>()).User.Sid } as usize;
        let start = buffer.as_ptr() as usize;
        let bytes: Vec<u8> = buffer.iter().flat_map(|number| number.to_ne_bytes()).collect();
        // The pointer leads into the buffer itself. `Sid::read` sees where the identifier ends.
        let inside = sid.checked_sub(start).and_then(|at| bytes.get(at..));
        inside.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Gives a file, which [`create_private`] has made, the rights that another one has.
    ///
    /// # Errors
    /// The system's.
    pub fn set_descriptor(file: &File, descriptor: &[u8]) -> io::Result<()> {
        let what = DACL_SECURITY_INFORMATION | PROTECTED_DACL_SECURITY_INFORMATION;
        // SAFETY: the handle is open as long as the borrow; the bytes come from `read_descriptor`, and are
        // only read.
        let done = unsafe {
            SetKernelObjectSecurity(
                file.as_raw_handle(),
                what,
                descriptor.as_ptr().cast_mut().cast(),
            )
        };
        if done != 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Creates a file that is its owner's and administrators' alone from the first moment on.
    ///
    /// # Errors
    /// The system's, and `AlreadyExists` for a name that is taken.
    pub fn create_private(path: &Path) -> io::Result<File> {
        use std::os::windows::ffi::OsStrExt;
        let name: Vec<u16> = path.as_os_str().encode_wide().chain([0]).collect();
        if name[..name.len() - 1].contains(&0) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let rights: Vec<u16> = PRIVATE_SDDL.encode_utf16().collect();
        let mut descriptor = null_mut();
        // SAFETY: a text that ends in NUL is read; a place for a pointer is written to.
        let done = unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                rights.as_ptr(),
                SDDL_REVISION_1,
                &raw mut descriptor,
                null_mut(),
            )
        };
        if done == 0 {
            return Err(io::Error::last_os_error());
        }
        let attributes = SECURITY_ATTRIBUTES {
            nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
            lpSecurityDescriptor: descriptor,
            bInheritHandle: 0,
        };
        // SAFETY: the name ends in NUL; attributes and descriptor live until after the call.
        let handle = unsafe {
            CreateFileW(
                name.as_ptr(),
                // The rest is for `set_descriptor`.
                GENERIC_WRITE | READ_CONTROL | WRITE_DAC,
                // It is moved to its place while it is open.
                FILE_SHARE_READ | FILE_SHARE_DELETE,
                &raw const attributes,
                CREATE_NEW,
                FILE_ATTRIBUTE_NORMAL,
                null_mut(),
            )
        };
        let error = io::Error::last_os_error();
        // SAFETY: the call above allocated it, and nothing points to it any more.
        unsafe { LocalFree(descriptor) };
        if handle == INVALID_HANDLE_VALUE {
            return Err(error);
        }
        // SAFETY: a handle that was just opened, and that nobody else has.
        Ok(File::from(unsafe { OwnedHandle::from_raw_handle(handle) }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FULL: u32 = 0x1f_01ff;
    const READ_AND_RUN: u32 = 0x12_00a9;
    const SYSTEM: &[u32] = &[5, 18];
    const ADMINISTRATORS: &[u32] = &[5, 32, 544];
    const SOMEBODY: &[u32] = &[5, 21, 1, 2, 3, 1001];
    const EVERYONE: &[u32] = &[1, 0];
    const USERS: &[u32] = &[5, 32, 545];

    fn sid(who: &[u32]) -> Vec<u8> {
        let mut sid = vec![1, (who.len() - 1) as u8, 0, 0, 0, 0, 0, who[0] as u8];
        who[1..].iter().for_each(|part| sid.extend(part.to_le_bytes()));
        sid
    }

    /// An entry: kind, flags, rights, and to whom: the authority and what follows it.
    fn entry(kind: u8, flags: u8, mask: u32, who: &[u32]) -> Vec<u8> {
        let sid = sid(who);
        let mut bytes = vec![kind, flags];
        bytes.extend((8 + sid.len() as u16).to_le_bytes());
        bytes.extend(mask.to_le_bytes());
        bytes.extend(sid);
        bytes
    }

    fn build_descriptor(entries: &[Vec<u8>]) -> Vec<u8> {
        let body: Vec<u8> = entries.concat();
        // Revision 1, a list that is present, self-relative; no owner, group and audit list.
        let mut bytes = vec![1, 0, 4, 0x80];
        bytes.extend([0; 12]);
        bytes.extend(20_u32.to_le_bytes());
        bytes.extend([2, 0]);
        bytes.extend((8 + body.len() as u16).to_le_bytes());
        bytes.extend((entries.len() as u16).to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(body);
        bytes
    }

    fn seen(entries: &[Vec<u8>]) -> Option<(BroadAccess, &'static str)> {
        find_loose_access(&build_descriptor(entries))
            .unwrap()
            .map(|loose| (loose.access, loose.group))
    }

    #[test]
    fn those_who_were_named_may_have_it_all() {
        let named =
            [SYSTEM, ADMINISTRATORS, SOMEBODY].map(|who| entry(0, 0x10, FULL, who)).to_vec();
        assert_eq!(seen(&named), None);
        assert_eq!(seen(&[]), None, "an empty list lets nobody in");
    }

    #[test]
    fn a_group_of_strangers_is_named_with_the_widest_of_its_rights() {
        let read = |who| entry(0, 0x10, READ_AND_RUN, who);
        let of = |open, group| Some((open, group));
        assert_eq!(seen(&[read(SYSTEM), read(USERS)]), of(BroadAccess::Read, "Users"));
        assert_eq!(
            seen(&[read(USERS), entry(0, 0, FULL, EVERYONE)]),
            of(BroadAccess::Change, "Everyone")
        );
        for (who, group) in [
            (&[5, 11][..], "Authenticated Users"),
            (&[5, 4], "Interactive"),
            (&[5, 32, 546], "Guests"),
            (&[2, 0], "LOCAL"),
            (&[5, 15], "This Organization"),
            (&[5, 21, 9, 8, 7, 513], "Domain Users"),
        ] {
            assert_eq!(seen(&[read(who)]), of(BroadAccess::Read, group));
            // With a condition, or for an object with both of its identifiers.
            assert_eq!(seen(&[entry(9, 0, READ_AND_RUN, who)]), of(BroadAccess::Read, group));
        }
        for generic in [0x1000_0000, 0x4000_0000, 0x4_0000, 0x8_0000, 0x4] {
            assert_eq!(seen(&[entry(0, 0, generic, USERS)]), of(BroadAccess::Change, "Users"));
        }
        assert_eq!(seen(&[entry(0, 0, 0x8000_0000, USERS)]), of(BroadAccess::Read, "Users"));
    }

    #[test]
    fn an_owner_who_is_neither_the_user_nor_an_administrator_is_named() {
        let owned_by = |owner: &[u32]| {
            let mut bytes = build_descriptor(&[entry(0, 0, FULL, SYSTEM)]);
            let at = bytes.len() as u32;
            bytes[4..8].copy_from_slice(&at.to_le_bytes());
            bytes.extend(sid(owner));
            bytes
        };
        // What the system says of a user goes on behind the identifier.
        let user = [sid(SOMEBODY), vec![0; 12]].concat();
        for owner in [SYSTEM, ADMINISTRATORS, SOMEBODY] {
            assert_eq!(find_foreign_owner(&owned_by(owner), &user), Ok(None), "{owner:?}");
        }
        for (owner, name) in [
            (&[5, 21, 1, 2, 3, 1002][..], "S-1-5-21-1-2-3-1002"),
            (&[5, 21, 1, 2, 3], "S-1-5-21-1-2-3"),
            (USERS, "S-1-5-32-545"),
            (EVERYONE, "S-1-1-0"),
        ] {
            let bytes = owned_by(owner);
            assert_eq!(find_foreign_owner(&bytes, &user), Ok(Some(name.into())));
            assert_eq!(find_loose_access(&bytes), Ok(None), "its list of rights is sound");
            for length in 0..bytes.len() {
                assert_eq!(
                    find_foreign_owner(&bytes[..length], &user),
                    Err(MalformedDescriptor),
                    "{length} bytes"
                );
            }
        }
        assert_eq!(
            find_foreign_owner(&owned_by(SOMEBODY), &[]).map(|owner| owner.is_some()),
            Ok(true)
        );
        assert_eq!(
            find_foreign_owner(&build_descriptor(&[]), &user),
            Err(MalformedDescriptor),
            "no owner"
        );
    }

    #[test]
    fn an_entry_for_an_object_has_its_group_further_on() {
        let mut one = entry(5, 0, READ_AND_RUN, USERS);
        // One identifier of two, which the flags say.
        one.splice(8..8, [1, 0, 0, 0].into_iter().chain([0xee; 16]));
        let size = (one.len() as u16).to_le_bytes();
        one[2..4].copy_from_slice(&size);
        assert_eq!(seen(&[one]), Some((BroadAccess::Read, "Users")));
    }

    #[test]
    fn what_lets_nobody_read_is_passed_over() {
        let attributes_only = entry(0, 0, 0x12_0088, USERS);
        let for_children_only = entry(0, INHERIT_ONLY, FULL, USERS);
        let denied = entry(1, 0, FULL, EVERYONE);
        assert_eq!(seen(&[attributes_only, for_children_only, denied]), None);
    }

    #[test]
    fn without_a_list_everybody_may_do_everything() {
        let wide = Some(LooseAccess {
            access: BroadAccess::Change,
            group: "Everyone",
            account: "*S-1-1-0",
        });
        let mut absent = build_descriptor(&[]);
        absent[2] = 0;
        assert_eq!(find_loose_access(&absent), Ok(wide));
        let mut null = build_descriptor(&[]);
        null[16..20].fill(0);
        assert_eq!(find_loose_access(&null), Ok(wide));
    }

    #[test]
    fn bytes_that_break_off_are_an_error_and_never_a_clean_bill() {
        let whole =
            build_descriptor(&[entry(0, 0, FULL, SYSTEM), entry(0, 0, READ_AND_RUN, USERS)]);
        for length in 0..whole.len() {
            assert_eq!(
                find_loose_access(&whole[..length]),
                Err(MalformedDescriptor),
                "{length} bytes"
            );
        }
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 0xff;
            // Whatever it says, it says without a panic.
            let _ = find_loose_access(&bad);
        }
    }
}
