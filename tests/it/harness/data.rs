//! Data that looks random, is the same in every run, and whose every byte is known by its offset.

use std::io::{Read, Write};
use std::time::Duration;

/// Not a divisor of any buffer size, so that a piece that is lost, doubled or moved is noticed.
const PERIOD: usize = 1_000_003;

/// An endless stream of bytes, known by its seed.
#[derive(Clone)]
pub struct Stream {
    /// Two periods, so that a slice may start anywhere in the first.
    bytes: std::sync::Arc<[u8]>,
}

impl Stream {
    pub fn new(seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut period = Vec::with_capacity(PERIOD * 2);
        while period.len() < PERIOD {
            // xorshift64* (Vigna): its high bytes pass every test that matters here.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            period.push(state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_be_bytes()[0]);
        }
        period.extend_from_within(..);
        Self { bytes: period.into() }
    }

    /// `count` bytes from `offset` on; at most a period of them.
    pub fn piece(&self, offset: u64, count: usize) -> &[u8] {
        let start = usize::try_from(offset % PERIOD as u64).unwrap();
        &self.bytes[start..start + count]
    }

    /// Writes the first `total` bytes, in pieces of changing size.
    pub fn send(&self, mut to: impl Write, total: u64) -> std::io::Result<()> {
        self.send_from(&mut to, 0, total)
    }

    /// Writes the bytes from `offset` up to `end`.
    pub fn send_from(&self, mut to: impl Write, mut offset: u64, end: u64) -> std::io::Result<()> {
        const SIZES: [usize; 5] = [65_536, 1, 16_384, 16_385, 40_000];
        let mut turn = 0;
        while offset < end {
            let count =
                SIZES[turn % SIZES.len()].min(usize::try_from(end - offset).unwrap_or(usize::MAX));
            to.write_all(self.piece(offset, count))?;
            offset += count as u64;
            turn += 1;
        }
        Ok(())
    }

    /// Fails when `got` is not what stands at `offset`.
    pub fn check(&self, offset: u64, got: &[u8]) {
        for (index, part) in got.chunks(PERIOD).enumerate() {
            let at = offset + (index * PERIOD) as u64;
            let wanted = self.piece(at, part.len());
            if part != wanted {
                let wrong = part.iter().zip(wanted).position(|(a, b)| a != b).unwrap_or(0);
                panic!("byte {} is not the one that was sent", at + wrong as u64);
            }
        }
    }

    /// Reads `total` bytes and compares every one.
    pub fn receive(&self, from: impl Read, total: u64) {
        self.receive_slowly(from, 0, total, Duration::ZERO);
    }

    /// The same from `offset` on, with a pause after each read.
    pub fn receive_slowly(&self, mut from: impl Read, mut offset: u64, end: u64, pause: Duration) {
        let mut piece = vec![0_u8; 64 * 1024];
        while offset < end {
            let room = piece.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
            let count = match from.read(&mut piece[..room]) {
                Ok(0) => panic!("the stream ended after {offset} of {end} bytes"),
                Ok(count) => count,
                Err(error) => panic!("the stream broke after {offset} of {end} bytes: {error}"),
            };
            self.check(offset, &piece[..count]);
            offset += count as u64;
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
        }
    }
}
