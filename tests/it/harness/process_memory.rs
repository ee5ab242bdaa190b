//! What a process has in its memory, for tests that look for what must not be there.

use std::fs;
use std::io::{Read, Seek, SeekFrom};

use super::{WAIT_TIMEOUT, until};

const PAGE: usize = 4096;

/// How often `part` is in a process' memory.
pub fn count(memory: &[Vec<u8>], part: &[u8]) -> usize {
    memory.iter().map(|area| occurrences(area, part)).sum()
}

/// How often `part` is in `area`, by its first byte.
fn occurrences(area: &[u8], part: &[u8]) -> usize {
    let mut rest = area;
    let mut found = 0;
    while let Some(at) = rest.iter().position(|byte| *byte == part[0]) {
        rest = &rest[at..];
        found += usize::from(rest.starts_with(part));
        rest = &rest[1..];
    }
    found
}

/// Everything that a process can write to: heap, stacks, data. All of it or nothing: what was left out
/// could hold the key.
pub fn memory(pid: u32) -> Vec<Vec<u8>> {
    until("a look at memory of which nothing goes meanwhile", WAIT_TIMEOUT, || snapshot(pid))
}

fn snapshot(pid: u32) -> Option<Vec<Vec<u8>>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("its maps, by root");
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).expect("its memory, by root");
    let mut areas = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).unwrap().starts_with("rw")) {
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let address = |hex| u64::from_str_radix(hex, 16).unwrap();
        let length = usize::try_from(address(end) - address(start)).unwrap();
        let mut area = vec![0; length];
        memory.seek(SeekFrom::Start(address(start))).unwrap();
        memory.read_exact(&mut area).ok()?;
        // Most of it was never used. Empty pages part what is searched.
        let used = area.chunks(PAGE).map(|page| page != [0; PAGE]).collect::<Vec<_>>();
        let runs = area.chunks(PAGE).zip(used).collect::<Vec<_>>();
        let runs = runs.split(|(_, used)| !used).filter(|run| !run.is_empty());
        areas.extend(runs.map(|run| run.iter().flat_map(|(page, _)| *page).copied().collect()));
    }
    assert!(areas.len() > 5, "is this all of its memory?");
    Some(areas)
}
