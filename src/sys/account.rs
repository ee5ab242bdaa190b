//! Users and groups, and becoming one of them for good.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};

/// The largest buffer, in bytes, for an entry: groups of a directory server can have thousands of members.
const MAX_ENTRY_SIZE: usize = 1 << 20;

/// The number of a user, by name or number, and its own group where it has an entry.
///
/// # Errors
/// There is no such user, or nobody who knows answers.
pub fn find_user(name: &str) -> io::Result<(u32, Option<u32>)> {
    let wanted = c_string(name)?;
    let entry = look_up(|buffer, found| {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        // SAFETY: the name ends in NUL, the buffer is as long as is said, and both pointers are
        // written to during the call alone.
        let error = unsafe {
            libc::getpwnam_r(
                wanted.as_ptr(),
                entry.as_mut_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                found,
            )
        };
        // SAFETY: a pointer that is not null means that the entry was filled in.
        (error, (!found.is_null()).then(|| unsafe { entry.assume_init() }))
    })?;
    match (entry, name.parse()) {
        (Some(entry), _) => Ok((entry.pw_uid, Some(entry.pw_gid))),
        (None, Ok(number)) => Ok((number, primary_group(number)?)),
        (None, Err(_)) => Err(not_found_error("user", name)),
    }
}

fn primary_group(user: u32) -> io::Result<Option<u32>> {
    let entry = look_up(|buffer, found| {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        // SAFETY: as above, but for a number in the name's place.
        let error = unsafe {
            libc::getpwuid_r(
                user,
                entry.as_mut_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                found,
            )
        };
        // SAFETY: a pointer that is not null means that the entry was filled in.
        (error, (!found.is_null()).then(|| unsafe { entry.assume_init() }))
    })?;
    Ok(entry.map(|entry| entry.pw_gid))
}

/// The number of a group, by name or number.
///
/// # Errors
/// There is no such group, or nobody who knows answers.
pub fn find_group(name: &str) -> io::Result<u32> {
    let wanted = c_string(name)?;
    let entry = look_up(|buffer, found| {
        let mut entry = MaybeUninit::<libc::group>::uninit();
        // SAFETY: the name ends in NUL, the buffer is as long as is said, and both pointers are
        // written to during the call alone.
        let error = unsafe {
            libc::getgrnam_r(
                wanted.as_ptr(),
                entry.as_mut_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                found,
            )
        };
        // SAFETY: a pointer that is not null means that the entry was filled in.
        (error, (!found.is_null()).then(|| unsafe { entry.assume_init() }))
    })?;
    match (entry, name.parse()) {
        (Some(entry), _) => Ok(entry.gr_gid),
        (None, Ok(number)) => Ok(number),
        (None, Err(_)) => Err(not_found_error("group", name)),
    }
}

/// The name of a group, if it has an entry.
pub fn group_name(group: u32) -> Option<String> {
    let mut name = None;
    let entry = look_up(|buffer, found| {
        let mut entry = MaybeUninit::<libc::group>::uninit();
        // SAFETY: the buffer is as long as is said, and both pointers are written to during the call alone.
        let error = unsafe {
            libc::getgrgid_r(
                group,
                entry.as_mut_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                found,
            )
        };
        if error != 0 || found.is_null() {
            return (error, None);
        }
        // SAFETY: a pointer that is not null means that the entry was filled in.
        let entry = unsafe { entry.assume_init() };
        // SAFETY: the name is a text that ends in NUL, in the buffer, which lives until the end of this closure.
        let text = unsafe { CStr::from_ptr(entry.gr_name) };
        name = text.to_str().ok().map(str::to_owned);
        (error, Some(entry))
    });
    entry.ok().flatten().and(name)
}

/// Every group of a user by number, with the one that it starts in; that one alone where nobody knows the user.
pub fn groups_of_user(name: &str, primary: u32) -> Vec<u32> {
    /// More groups than a process can be in (NGROUPS_MAX).
    const MAX_GROUPS: usize = 65_537;
    let Ok(name) = c_string(name) else { return vec![primary] };
    let mut groups = vec![0; MAX_GROUPS];
    let mut count = libc::c_int::try_from(groups.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the name ends in NUL, and the list has room for as many numbers as `count` says; both are used during the
    // call alone.
    let done =
        unsafe { libc::getgrouplist(name.as_ptr(), primary, groups.as_mut_ptr(), &raw mut count) };
    groups.truncate(usize::try_from(count).unwrap_or(0));
    if done < 0 || groups.is_empty() { vec![primary] } else { groups }
}

/// Asks again with more room until the entry fits. What is returned holds numbers that count and
/// pointers that do not outlive this function: only numbers are read from it.
fn look_up<T>(
    mut ask: impl FnMut(&mut [u8], &mut *mut T) -> (i32, Option<T>),
) -> io::Result<Option<T>> {
    let mut buffer = vec![0; 1024];
    loop {
        let mut found = null_mut();
        match ask(&mut buffer, &mut found) {
            (libc::ERANGE, _) if buffer.len() < MAX_ENTRY_SIZE => {
                buffer.resize(buffer.len() * 4, 0)
            }
            (libc::EINTR, _) => {}
            // Some say "not found" as an error: getpwnam(3), ERRORS.
            (0 | libc::ENOENT | libc::ESRCH, entry) => return Ok(entry),
            (error, _) => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn c_string(name: &str) -> io::Result<CString> {
    CString::new(name).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn not_found_error(kind: &str, name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no {kind} {name}"))
}

/// Gives up this process's rights for those of a user and a group, without supplementary groups and
/// without a way back. Must be called while there is one thread.
///
/// # Errors
/// The system's, or a way back that stayed open.
pub fn drop_privileges(user: Option<u32>, group: Option<u32>) -> io::Result<()> {
    let check = |done: libc::c_int, what: &str| match done {
        0 => Ok(()),
        _ => {
            let error = io::Error::last_os_error();
            Err(io::Error::new(error.kind(), format!("{what}: {error}")))
        }
    };
    // SAFETY: these four take numbers and read nothing else.
    let (was_root, here) = unsafe { (libc::geteuid() == 0, (libc::getuid(), libc::getgid())) };
    if !was_root
        && user.is_none_or(|user| user == here.0)
        && group.is_none_or(|group| group == here.1)
    {
        // Started as that user already, as containers do.
        return Ok(());
    }
    if let Some(group) = group {
        // SAFETY: a number.
        check(unsafe { libc::setgid(group) }, "setgid")?;
    }
    // SAFETY: a list of no elements is never read.
    check(unsafe { libc::setgroups(0, null()) }, "setgroups")?;
    let Some(user) = user else { return Ok(()) };
    // SAFETY: a number.
    check(unsafe { libc::setuid(user) }, "setuid")?;
    // SAFETY: numbers.
    if user != 0 && unsafe { libc::setuid(0) == 0 || libc::seteuid(0) == 0 } {
        return Err(io::Error::other("setuid: the way back to root is still open"));
    }
    Ok(())
}

/// Gives a file (the link itself, if it is one) to a user and a group.
///
/// # Errors
/// The system's.
pub fn set_owner(path: &std::path::Path, user: Option<u32>, group: Option<u32>) -> io::Result<()> {
    std::os::unix::fs::lchown(path, user, group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_0_by_name_and_number_and_nobody_knows_nonsense() {
        assert_eq!(find_user("root").unwrap(), (0, Some(0)));
        assert_eq!(find_user("0").unwrap(), (0, Some(0)));
        assert_eq!(find_group("root").unwrap(), 0);
        assert_eq!(find_user("3999999").unwrap(), (3_999_999, None));
        for nobody in ["no such user", "", "-1", "a\0b"] {
            assert!(find_user(nobody).is_err() && find_group(nobody).is_err(), "{nobody:?}");
        }
    }

    #[test]
    fn root_is_in_its_group_and_a_group_has_its_name() {
        assert!(groups_of_user("root", 0).contains(&0));
        assert_eq!(groups_of_user("no such user", 7), [7]);
        assert_eq!(group_name(0).as_deref(), Some("root"));
        assert_eq!(group_name(3_999_999), None);
    }
}
