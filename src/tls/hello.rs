//! The first bytes of a connection: whether a ClientHello is whole, before anything is built for it.

/// A ClientHello that is read before an SSL object is there. Those of OpenSSL and stunnel have 200 to 600
/// bytes, with a hybrid group 1,700.
const MAX_HELLO_SIZE: usize = 4096;
/// Sizes of a record's header and of a handshake message's (RFC 8446, 5.1 and 4).
const RECORD_HEADER_SIZE: usize = 5;
const MESSAGE_HEADER_SIZE: usize = 4;
/// As much as is read at most before it is known what it is.
pub const MAX_OPENING_SIZE: usize = RECORD_HEADER_SIZE + MESSAGE_HEADER_SIZE + MAX_HELLO_SIZE;

/// Types of a record and of a message (RFC 8446, B.1 and B.3).
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// The first byte of a record's version, in every version since SSL 3.
const VERSION_MAJOR: u8 = 3;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstBytes {
    /// A ClientHello so far.
    Incomplete,
    /// A whole ClientHello.
    Whole,
    /// Something else, or a ClientHello of more than 4 kB: OpenSSL will say what it is.
    Unusual {
        /// The size of the ClientHello that it announces; 0 if it is none.
        announced: usize,
    },
}

/// Looks at all that has come of a connection so far. A message may be spread over several records, and
/// OpenSSL reads a record when it has all of it.
pub fn inspect(bytes: &[u8]) -> FirstBytes {
    const OTHER: FirstBytes = FirstBytes::Unusual { announced: 0 };
    let mut message = MessageHeader::default();
    let mut rest = bytes;
    loop {
        let is_other = |at: usize, wanted: u8| rest.get(at).is_some_and(|byte| *byte != wanted);
        if is_other(0, HANDSHAKE) || is_other(1, VERSION_MAJOR) {
            return OTHER;
        }
        let Some((header, tail)) = rest.split_first_chunk::<RECORD_HEADER_SIZE>() else {
            return wait_for_more(bytes);
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let (body, behind) = tail.split_at_checked(length).unwrap_or((tail, &[]));
        message.add(body);
        if length == 0 || !message.may_be_hello() {
            return OTHER;
        }
        if message.announced() > MAX_HELLO_SIZE {
            return FirstBytes::Unusual { announced: message.announced() };
        }
        if body.len() < length {
            return match length > MESSAGE_HEADER_SIZE + MAX_HELLO_SIZE {
                true => FirstBytes::Unusual { announced: length },
                false => wait_for_more(bytes),
            };
        }
        if message.is_whole() {
            return FirstBytes::Whole;
        }
        rest = behind;
    }
}

/// Unless there is no room for more.
fn wait_for_more(bytes: &[u8]) -> FirstBytes {
    match bytes.len() < MAX_OPENING_SIZE {
        true => FirstBytes::Incomplete,
        false => FirstBytes::Unusual { announced: 0 },
    }
}

/// A handshake message, of which only the header is looked at.
#[derive(Default)]
struct MessageHeader {
    header: [u8; MESSAGE_HEADER_SIZE],
    size: usize,
}

impl MessageHeader {
    fn add(&mut self, bytes: &[u8]) {
        let missing = self.header.iter_mut().skip(self.size);
        missing.zip(bytes).for_each(|(to, from)| *to = *from);
        self.size += bytes.len();
    }

    fn may_be_hello(&self) -> bool {
        self.size == 0 || self.header[0] == CLIENT_HELLO
    }

    /// The size of its body; 0 as long as its header is not whole.
    fn announced(&self) -> usize {
        let [_, high, middle, low] = self.header;
        match self.size < MESSAGE_HEADER_SIZE {
            true => 0,
            false => u32::from_be_bytes([0, high, middle, low]) as usize,
        }
    }

    fn is_whole(&self) -> bool {
        self.size >= MESSAGE_HEADER_SIZE + self.announced()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(body: &[u8]) -> Vec<u8> {
        [&[HANDSHAKE, 3, 1][..], &(body.len() as u16).to_be_bytes(), body].concat()
    }

    fn hello(size: usize) -> Vec<u8> {
        let length = (size as u32).to_be_bytes();
        [&[CLIENT_HELLO][..], &length[1..], &vec![7; size]].concat()
    }

    #[test]
    fn a_hello_is_whole_when_its_last_record_is_and_not_one_byte_before() {
        let message = hello(300);
        let (one, other) = message.split_at(3);
        for bytes in [record(&message), [record(one), record(other)].concat(), record(&hello(0))] {
            for cut in 0..bytes.len() {
                assert_eq!(inspect(&bytes[..cut]), FirstBytes::Incomplete, "cut at {cut}");
            }
            assert_eq!(inspect(&bytes), FirstBytes::Whole);
            assert_eq!(inspect(&[&bytes[..], b"more"].concat()), FirstBytes::Whole);
        }
        // What is behind it in its record belongs to the record.
        let longer = record(&[&message[..], &[0; 9]].concat());
        assert_eq!(inspect(&longer[..longer.len() - 1]), FirstBytes::Incomplete);
        assert_eq!(inspect(&longer), FirstBytes::Whole);
    }

    #[test]
    fn what_is_no_hello_is_known_by_its_first_bytes() {
        for bytes in [
            &b"GET / HTTP/1.0"[..],
            &[0x80, 0x2e, 1, 3, 1],
            &[HANDSHAKE, 2],
            &[HANDSHAKE, 3, 1, 0, 0],
            &[HANDSHAKE, 3, 1, 0, 5, 2],
            &[21, 3, 1, 0, 2, 1, 0],
        ] {
            assert_eq!(inspect(bytes), FirstBytes::Unusual { announced: 0 }, "{bytes:02x?}");
        }
    }

    #[test]
    fn a_hello_that_announces_more_than_is_read_is_told_with_its_size() {
        let most = record(&hello(MAX_HELLO_SIZE));
        assert_eq!(most.len(), MAX_OPENING_SIZE);
        assert_eq!(inspect(&most), FirstBytes::Whole);
        let over = hello(MAX_HELLO_SIZE + 1);
        assert_eq!(inspect(&record(&over[..9])), FirstBytes::Unusual { announced: 4097 });
        let announced = FirstBytes::Unusual { announced: 0x4000 };
        assert_eq!(inspect(&[HANDSHAKE, 3, 1, 0x40, 0]), announced);
        let huge = record(&[CLIENT_HELLO, 0xff, 0xff, 0xff]);
        assert_eq!(inspect(&huge), FirstBytes::Unusual { announced: 0xff_ffff });
        // Records of one byte each fill what is read with headers.
        let crumbs = hello(4000).chunks(1).flat_map(record).collect::<Vec<_>>();
        assert_eq!(inspect(&crumbs[..MAX_OPENING_SIZE - 1]), FirstBytes::Incomplete);
        assert_eq!(inspect(&crumbs[..MAX_OPENING_SIZE]), FirstBytes::Unusual { announced: 0 });
    }
}
