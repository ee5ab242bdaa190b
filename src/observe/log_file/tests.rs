#![allow(clippy::unwrap_used)]

use tempfile::TempDir;

use super::*;

fn put(log: &mut LogFile, line: &str) -> Option<String> {
    let (written, trouble) = log.write_lines(std::iter::once(line.as_bytes()));
    assert_eq!(written, 1);
    trouble
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn two_files_hold_the_last_lines_and_neither_is_larger_than_the_bound() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.log");
    let mut log = LogFile::open(&path, false, Some(100)).unwrap();
    for number in 0..1000 {
        assert_eq!(put(&mut log, &format!("line {number:04}\n")), None);
        let sizes =
            [&path, &rotated_path(&path)].map(|path| fs::metadata(path).map_or(0, |m| m.len()));
        assert!(sizes.iter().all(|size| *size <= 100), "{sizes:?}");
    }
    let both = read(rotated_path(&path)) + &read(path.clone());
    let kept: Vec<&str> = both.lines().collect();
    assert!(kept.len() >= 10, "{both}");
    let last: Vec<String> = (1000 - kept.len()..1000).map(|n| format!("line {n:04}")).collect();
    assert_eq!(kept, last, "none is missing in between");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "one rotated file");
}

#[test]
fn a_line_longer_than_the_bound_has_a_file_of_its_own_and_what_was_there_counts() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.log");
    fs::write(&path, "yesterday\n".repeat(10)).unwrap();
    let mut log = LogFile::open(&path, false, Some(100)).unwrap();
    put(&mut log, "today\n");
    assert_eq!((read(path.clone()).as_str(), read(rotated_path(&path)).len()), ("today\n", 100));
    let long = "x".repeat(300) + "\n";
    put(&mut log, &long);
    assert_eq!((read(path.clone()), read(rotated_path(&path)).as_str()), (long, "today\n"));
    log.set_max_size(None);
    put(&mut log, "more\n");
    assert_eq!(read(path).len(), 306, "without a bound it grows");
}

#[cfg(unix)]
#[test]
fn a_link_stays_and_a_file_that_somebody_has_moved_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let (link, real) = (folder.path().join("link"), folder.path().join("real"));
    fs::write(&real, "").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let mut log = LogFile::open(&link, false, Some(20)).unwrap();
    for word in ["one two three\n", "four five six\n"] {
        assert_eq!(put(&mut log, word), None);
    }
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(
        (read(rotated_path(&real)).as_str(), read(real.clone()).as_str()),
        ("one two three\n", "four five six\n")
    );
    fs::rename(&real, folder.path().join("moved")).unwrap();
    assert_eq!(put(&mut log, "seven eight nine\n"), None);
    assert_eq!(read(rotated_path(&real)), "one two three\n", "it is not overwritten");
    assert_eq!(read(folder.path().join("moved")), "four five six\n");
    assert_eq!(read(real), "seven eight nine\n");
}

#[test]
fn what_cannot_be_moved_aside_is_emptied_and_says_so() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.log");
    // A folder that is not empty takes no file's name.
    fs::create_dir_all(rotated_path(&path).join("full")).unwrap();
    let mut log = LogFile::open(&path, false, Some(30)).unwrap();
    assert_eq!(put(&mut log, "twenty characters ...\n"), None);
    let said = put(&mut log, "and twenty more ....\n").unwrap();
    assert!(said.contains("x.log.1") && said.contains("emptied"), "{said}");
    assert_eq!(read(path), "and twenty more ....\n");
}

/// Takes so many bytes in all, and so many at once.
struct Disk {
    calls: usize,
    left: usize,
    most: usize,
}

impl Write for Disk {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.left == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let n = text.len().min(self.left).min(self.most);
        self.left -= n;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_are_written_at_once_and_those_that_a_full_disk_does_not_take_are_counted() {
    let lines = || std::iter::repeat_n(&b"a line\n"[..], 100);
    let mut disk = Disk { calls: 0, left: usize::MAX, most: usize::MAX };
    assert_eq!((write_lines(&mut disk, lines()), disk.calls), (100, 1));
    let mut slow = Disk { calls: 0, left: usize::MAX, most: 300 };
    assert_eq!((write_lines(&mut slow, lines()), slow.calls), (100, 3));
    for (left, whole) in [(0, 0), (6, 0), (7, 1), (13, 1), (699, 99)] {
        let mut full = Disk { calls: 0, left, most: usize::MAX };
        assert_eq!(write_lines(&mut full, lines()), whole, "{left} bytes are left");
    }
}

#[test]
fn a_bound_that_is_set_later_counts_what_is_there() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.log");
    let mut log = LogFile::open(&path, false, None).unwrap();
    for _ in 0..10 {
        put(&mut log, "ten bytes\n");
    }
    log.set_max_size(Some(100));
    put(&mut log, "one more\n");
    assert_eq!((read(path.clone()).as_str(), read(rotated_path(&path)).len()), ("one more\n", 100));
}
