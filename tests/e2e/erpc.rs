//! One call of eRPC's, so that a try costs a millisecond and not the start of an interpreter: the
//! package's framing (six bytes of header with check sums) and its basic codec.

use std::io::{Error, Read, Result, Write};

/// CRC-16 with the polynomial 0x1021, from the value that the package starts with.
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xEF4A, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
        })
    })
}

fn header_crc(length: u16, body: u16) -> u16 {
    crc(&length.to_le_bytes()).wrapping_add(crc(&body.to_le_bytes()))
}

/// `GetPLCstatus` of tests/e2e/peers/erpc_plc.py, which must be answered as the call of that number.
pub fn status(stream: &mut (impl Read + Write), sequence: u32) -> Result<()> {
    const CALL: u32 = 1 << 24 | 1 << 16 | 2 << 8;
    const REPLY: u32 = CALL | 2;
    let mut body = CALL.to_le_bytes().to_vec();
    body.extend(sequence.to_le_bytes());
    let (length, sum) = (u16::try_from(body.len()).map_err(Error::other)?, crc(&body));
    let mut message = [header_crc(length, sum), length, sum].map(u16::to_le_bytes).concat();
    message.extend(body);
    stream.write_all(&message)?;

    let mut header = [0; 6];
    stream.read_exact(&mut header)?;
    let [head, length, sum] = [0, 2, 4].map(|at| u16::from_le_bytes([header[at], header[at + 1]]));
    let mut body = vec![0; length.into()];
    stream.read_exact(&mut body)?;
    let word = |at: usize| {
        let four = body.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(four))
    };
    let right = head == header_crc(length, sum)
        && sum == crc(&body)
        && word(0) == Some(REPLY)
        && word(4) == Some(sequence);
    if right { Ok(()) } else { Err(Error::other("another answer than the call's")) }
}
