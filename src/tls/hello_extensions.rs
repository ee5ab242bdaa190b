//! What the extensions and the suites of a ClientHello say.

/// Groups by OpenSSL's names (RFC 8422, 5.1.1).
const GROUPS: [(&str, u16); 6] = [
    ("P-256", 0x0017),
    ("prime256v1", 0x0017),
    ("P-384", 0x0018),
    ("P-521", 0x0019),
    ("X25519", 0x001d),
    ("X448", 0x001e),
];
/// TLS 1.3 in `supported_versions` (RFC 9846, 4.3.1).
const TLS_1_3: [u8; 2] = [3, 4];

/// A list of groups in the order in which a client names them; those that it does not name come last.
pub(super) fn in_clients_order(groups: &str, clients: &[u8]) -> String {
    let place = |name: &str| {
        let (_, code) = GROUPS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        clients.chunks_exact(2).position(|pair| pair == code.to_be_bytes())
    };
    let mut list: Vec<_> = groups.split(':').collect();
    list.sort_by_key(|name| place(name).unwrap_or(usize::MAX));
    list.join(":")
}

/// The name in `server_name` (RFC 6066, 3): a list of a type, 0 for host names, and a text with its
/// length.
pub(super) fn host_name(body: &[u8]) -> Option<&[u8]> {
    let (list, _) = take(body)?;
    let (kind, rest) = list.split_first()?;
    (*kind == 0).then(|| take(rest)).flatten().map(|(name, _)| name)
}

/// Whether 1.3 is in the body of `supported_versions`.
pub(super) fn lists_tls13(body: &[u8]) -> bool {
    body.split_first().is_some_and(|(_, versions)| versions.chunks(2).any(|one| one == TLS_1_3))
}

/// One of a client's offers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Offer<'a> {
    pub(super) identity: &'a [u8],
    pub(super) binder: &'a [u8],
}

/// The body of `OfferedPsks` (RFC 9846, 4.3.11; RFC 8446, 4.2.11): `identities<7..2^16-1>`, each with a ticket age of
/// four bytes, then `binders<33..2^16-1>`, one for each identity, and nothing more.
pub(super) fn offers(body: &[u8]) -> Option<Vec<Offer<'_>>> {
    let (mut identities, rest) = take(body)?;
    let (mut binders, rest) = take(rest)?;
    let mut all = Vec::new();
    while !identities.is_empty() {
        let (identity, tail) = take(identities)?;
        identities = tail.get(4..)?;
        let (len, tail) = binders.split_first()?;
        let (binder, tail) = tail.split_at_checked(usize::from(*len))?;
        binders = tail;
        all.push(Offer { identity, binder });
    }
    (binders.is_empty() && rest.is_empty()).then_some(all)
}

/// A vector with a length of two bytes, and what is behind it.
fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_be_bytes(*len).into())
}

/// Whether a 1.2 ClientHello's suites hold one that takes a PSK (RFC 4279, 4785, 5487, 5489, 6209,
/// 6367, 6655, 7905, 8442), so that a refusal can say whether a key was offered at all.
pub(super) fn offers_psk_suite(suites: &[u8]) -> bool {
    suites.chunks_exact(2).any(|pair| {
        matches!(
            u16::from_be_bytes([pair[0], pair[1]]),
            0x002c..=0x002e | 0x008a..=0x0095 | 0x00a8..=0x00b9 | 0xc033..=0xc03b
                | 0xc064..=0xc069 | 0xc06a..=0xc071 | 0xc08e..=0xc093 | 0xc094..=0xc09b
                | 0xc0a4..=0xc0ab | 0xccab..=0xccae | 0xd001..=0xd005
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(body: &[u8]) -> Vec<u8> {
        [&(body.len() as u16).to_be_bytes(), body].concat()
    }

    #[test]
    fn a_list_of_offers_is_read_and_one_that_is_cut_anywhere_is_none() {
        let identities = [vector(b"ticket"), vec![0; 4], vector(b"client1"), vec![0; 4]].concat();
        let binders = [vec![48], vec![1; 48], vec![32], vec![2; 32]].concat();
        let body = [vector(&identities), vector(&binders)].concat();
        let read = offers(&body).expect("a list");
        let names: Vec<_> = read.iter().map(|o| (o.identity, o.binder.len())).collect();
        assert_eq!(names, [(&b"ticket"[..], 48), (b"client1", 32)]);
        for cut in 0..body.len() {
            assert_eq!(offers(&body[..cut]), None, "cut at {cut}");
        }
        let one_binder = [vec![48], vec![1; 48]].concat();
        assert_eq!(offers(&[vector(&identities), vector(&one_binder)].concat()), None);
        let three = [&binders[..], &[32], &[3; 32]].concat();
        assert_eq!(offers(&[vector(&identities), vector(&three)].concat()), None);
        assert_eq!(offers(&[&body[..], &[0]].concat()), None);
        assert_eq!(offers(&[0xff; 9]), None);
    }

    #[test]
    fn a_server_name_is_read_if_it_is_a_host_name_and_whole() {
        let body = vector(&[&[0][..], &vector(b"plc.example")].concat());
        assert_eq!(host_name(&body), Some(&b"plc.example"[..]));
        for cut in 0..body.len() {
            assert_eq!(host_name(&body[..cut]), None, "cut at {cut}");
        }
        assert_eq!(host_name(&vector(&[&[1][..], &vector(b"plc.example")].concat())), None);
    }

    #[test]
    fn a_list_of_suites_offers_a_key_if_one_of_them_takes_it() {
        for (suites, wanted) in [
            (&[0x00, 0xa8][..], true),
            (&[0x13, 0x01, 0xc0, 0x2f, 0xc0, 0x37], true),
            (&[0x13, 0x01, 0xc0, 0x2f, 0x00, 0xff], false),
            // The bytes of one, across two others.
            (&[0x13, 0x00, 0xa8, 0x01], false),
            (&[], false),
            (&[0x00], false),
        ] {
            assert_eq!(offers_psk_suite(suites), wanted, "{suites:02x?}");
        }
    }

    #[test]
    fn a_clients_order_of_groups_counts_and_what_it_does_not_name_comes_last() {
        let wolf = [0, 0x19, 0, 0x17, 0, 0x1d];
        assert_eq!(in_clients_order("X25519:P-256", &wolf), "P-256:X25519");
        assert_eq!(in_clients_order("X448:X25519:P-521", &wolf), "P-521:X25519:X448");
        assert_eq!(in_clients_order("X25519:P-256", &[]), "X25519:P-256");
        assert_eq!(in_clients_order("X25519:P-256", &[0]), "X25519:P-256");
    }
}
