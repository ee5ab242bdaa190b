//! Returns memory to the system that the process does not need now.

/// Returns free heap memory. glibc keeps the memory of ended sessions until the highest block is free:
/// 55 to 100 % of it, measured; this takes under 5 ms for 150 MB.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn release_free_heap() {
    // SAFETY: takes no pointer, may be called at any time and from any thread; glibc locks its own arenas.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators do it by themselves, or not at all.
#[cfg(all(target_os = "linux", not(target_env = "gnu")))]
fn release_free_heap() {}

/// Gives back what is free, and has the kernel take back code that is not in use: after the start readers of
/// files and options, and OpenSSL's tables of names; after many sessions have ended, what they needed. What is needed
/// again is read from its file. Pages that other processes have mapped as well stay, and so does everything
/// if the file belongs to another user (Linux 5.18 and later): then the kernel takes it when memory is short.
#[cfg(target_os = "linux")]
pub fn release_unused_memory() {
    release_free_heap();
    let Ok(maps) = std::fs::read_to_string("/proc/self/smaps") else { return };
    page_out(&find_unmodified_mappings(&maps));
}

/// Has the kernel take back the pages of these ranges that it can read in again.
#[cfg(target_os = "linux")]
fn page_out(ranges: &[(usize, usize)]) {
    for (start, end) in ranges {
        // SAFETY: both pieces of advice keep the contents of memory, whatever is mapped there by now: a
        // library may be loaded or unloaded in between, and its loader writes to what was a file's. A page
        // that was written to is kept or goes to swap space. MADV_DONTNEED would discard it.
        // In pages of their own: one of 2 MB would bring all of it back at the first touch.
        unsafe {
            let (start, length) = (*start as *mut libc::c_void, end - start);
            libc::madvise(start, length, libc::MADV_NOHUGEPAGE);
            libc::madvise(start, length, libc::MADV_PAGEOUT);
        }
    }
}

/// Not done on other systems.
#[cfg(not(target_os = "linux"))]
pub fn release_unused_memory() {}

/// Where files are mapped, read-only and privately, of which no page has been changed: only those are worth
/// reading in again. Relocated tables are read-only too by now, and are the process's own.
#[cfg(target_os = "linux")]
fn find_unmodified_mappings(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        match first.strip_suffix(':') {
            Some("Anonymous" | "Private_Dirty" | "Shared_Dirty" | "Swap") => {
                if words.next() != Some("0") {
                    candidate = None;
                }
            }
            // The last of each mapping's lines.
            Some("VmFlags") => found.extend(candidate.take()),
            Some(_) => {}
            None => {
                let rights = words.next().unwrap_or_default();
                let file = words.nth(3).is_some_and(|name| name.starts_with('/'));
                let range = first.split_once('-').and_then(|(start, end)| {
                    let number = |text| usize::from_str_radix(text, 16).ok();
                    Some((number(start)?, number(end)?))
                });
                candidate = range.filter(|_| file && matches!(rights, "r-xp" | "r--p"));
            }
        }
    }
    found
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MAPS: &str = "\
00400000-00500000 r-xp 00000000 fe:00 12 /usr/bin/pskgate
Rss: 100 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00500000-00510000 r--p 00100000 fe:00 12 /usr/bin/pskgate
Private_Dirty:        40 kB
Anonymous:            40 kB
VmFlags: rd mr mw me ac
00510000-00520000 rw-p 00110000 fe:00 12 /usr/bin/pskgate
Private_Dirty:         0 kB
Anonymous:             0 kB
VmFlags: rd wr mr mw me ac
00520000-00530000 r--p 00000000 00:00 0
Private_Dirty:         0 kB
Anonymous:             0 kB
VmFlags: rd mr
00530000-00540000 r--s 00000000 fe:00 13 /var/cache/shared
Private_Dirty:         0 kB
Anonymous:             0 kB
VmFlags: rd mr
";

    #[test]
    fn only_what_is_still_the_file_s_is_let_go() {
        assert_eq!(find_unmodified_mappings(MAPS), [(0x40_0000, 0x50_0000)]);
    }

    #[test]
    fn a_process_goes_on_without_its_start() {
        let before = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        assert!(!find_unmodified_mappings(&before).is_empty());
        release_unused_memory();
        assert_eq!(find_unmodified_mappings(MAPS).len(), 1);
    }

    /// As the loader of a library does, which maps a file and then writes its relocations there.
    #[test]
    fn what_was_written_after_the_look_at_the_mappings_stays() {
        use std::io::Write;
        use std::os::fd::AsRawFd;

        const LENGTH: usize = 4096;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[b'f'; LENGTH]).unwrap();
        // SAFETY: a new mapping of a file that is as long, which nobody else has; it is read and written to
        // within its length, and neither after it was unmapped.
        unsafe {
            let at = libc::mmap(
                std::ptr::null_mut(),
                LENGTH,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            );
            assert_ne!(at, libc::MAP_FAILED);
            let bytes = at.cast::<u8>();
            assert_eq!(bytes.read_volatile(), b'f');
            let ranges = [(at as usize, at as usize + LENGTH)];
            assert_eq!(libc::mprotect(at, LENGTH, libc::PROT_READ | libc::PROT_WRITE), 0);
            bytes.write_volatile(b'r');
            page_out(&ranges);
            assert_eq!(bytes.read_volatile(), b'r');
            assert_eq!(bytes.add(1).read_volatile(), b'f');
            libc::munmap(at, LENGTH);
        }
    }
}
