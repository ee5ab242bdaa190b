use std::time::Duration;

use super::*;
use crate::config::model::{Keepalive, Level, SocketOption};
use crate::config::options::{TABLE, Treatment};
use crate::config::parsed_file::SocketSide;

fn native(kind: ValueKind, text: &str) -> Result<Value, &'static str> {
    read(kind, Dialect::Native, text).map_err(|w| w.code)
}

fn stunnel(kind: ValueKind, text: &str) -> Result<Value, &'static str> {
    read(kind, Dialect::Stunnel, text).map_err(|w| w.code)
}

#[test]
fn every_default_of_the_table_is_a_value_of_its_kind() {
    let mut checked = 0;
    for row in TABLE.iter().filter(|row| row.treatment == Treatment::Works) {
        for dialect in [Dialect::Native, Dialect::Stunnel] {
            let default = row.default(dialect);
            if !default.is_empty() {
                assert!(read(row.kind, dialect, default).is_ok(), "{:?} {default}", row.opt);
                checked += 1;
            }
        }
    }
    assert!(checked >= 30, "{checked}");
}

#[test]
fn every_word_of_a_kind_is_a_value_of_it() {
    let mut checked = 0;
    for row in TABLE {
        for dialect in [Dialect::Native, Dialect::Stunnel] {
            for word in words(row.kind, dialect) {
                assert!(read(row.kind, dialect, word).is_ok(), "{:?} {word}", row.opt);
                checked += 1;
            }
        }
    }
    assert!(checked > 100, "{checked}");
}

#[test]
fn durations_have_units_that_fall() {
    let d = |text| match native(ValueKind::Duration { zero: true }, text) {
        Ok(Value::Duration(d)) => Ok(d.as_millis()),
        Ok(_) => Err("other"),
        Err(code) => Err(code),
    };
    assert_eq!(d("250ms"), Ok(250));
    assert_eq!(d("10s"), Ok(10_000));
    assert_eq!(d("5m"), Ok(300_000));
    assert_eq!(d("12h"), Ok(43_200_000));
    assert_eq!(d("1h30m"), Ok(5_400_000));
    assert_eq!(d("1h 30m 5s"), Ok(5_405_000));
    assert_eq!(d("0s"), Ok(0));
    assert_eq!(d("10"), Err("unit-missing"));
    for bad in [
        "",
        "s",
        "1x",
        "5s5s",
        "1s1h",
        "-1s",
        "1.5s",
        "1\u{b5}s",
        "1s\u{e9}",
        "99999999999999999999s",
        "200000d",
    ] {
        assert_eq!(d(bad), Err("bad-duration"), "{bad}");
    }
    assert_eq!(native(ValueKind::Duration { zero: false }, "0s"), Err("zero-duration"));
}

#[test]
fn stunnels_seconds_are_strtols_and_negative_ones_never_end() {
    let d = |text| match stunnel(ValueKind::Duration { zero: true }, text) {
        Ok(Value::Duration(d)) => Ok(d.as_secs()),
        Ok(_) => Err("other"),
        Err(code) => Err(code),
    };
    assert_eq!(d("300"), Ok(300));
    assert_eq!(d("+5"), Ok(5));
    assert_eq!(d("0"), Ok(0));
    let for_ever = d("-1").unwrap();
    assert!(for_ever > 1_000_000_000);
    assert_eq!(d("99999999999999999999"), Ok(for_ever));
    assert_eq!(d("5s"), Err("bad-number"));
    assert_eq!(d("0x10"), Err("bad-number"));
    assert_eq!(d(""), Err("bad-number"));
    assert_eq!(d("-"), Err("bad-number"));
}

#[test]
fn a_level_of_stunnels_may_have_a_facility() {
    for text in ["7", "debug", "DEBUG", "daemon.debug", "authpriv.7"] {
        assert_eq!(stunnel(ValueKind::Level, text), Ok(Value::Level(Level::Debug)), "{text}");
    }
    assert_eq!(stunnel(ValueKind::Level, "kitchen.7"), Err("unknown-value"));
    assert_eq!(stunnel(ValueKind::Level, "8"), Err("unknown-value"));
    assert_eq!(native(ValueKind::Level, "daemon.debug"), Err("unknown-value"));
}

#[test]
fn identities_have_1_to_255_bytes() {
    for (length, good) in [(1, true), (127, true), (128, true), (255, true), (256, false)] {
        let text = "x".repeat(length);
        assert_eq!(native(ValueKind::Identity, &text).is_ok(), good, "{length}");
        assert_eq!(stunnel(ValueKind::Identity, &text).is_ok(), good, "{length}");
    }
    assert_eq!(native(ValueKind::Identity, ""), Err("bad-identity"));
    assert_eq!(native(ValueKind::Identity, "a\nb"), Err("bad-identity"));
    assert_eq!(native(ValueKind::Identity, "a\0"), Err("bad-identity"));
    assert_eq!(native(ValueKind::Identity, "a:b"), Err("bad-identity"));
    assert!(stunnel(ValueKind::Identity, "a\u{1b}").is_ok());
}

#[test]
fn socket_options_have_a_side_a_name_and_a_value() {
    let s = |text| stunnel(ValueKind::Socket, text);
    let is = |side, option| Ok(Value::Socket(side, option));
    assert_eq!(s("a:SO_REUSEADDR=no"), is(SocketSide::Accept, SocketOption::ReuseAddress(false)));
    assert_eq!(s("l:TCP_NODELAY=1"), is(SocketSide::Downstream, SocketOption::NoDelay(true)));
    assert_eq!(s("r:SO_LINGER=1:60"), is(SocketSide::Upstream, SocketOption::Linger(Some(60))));
    assert_eq!(s("r:SO_LINGER=0"), is(SocketSide::Upstream, SocketOption::Linger(None)));
    assert_eq!(
        s("r:SO_RCVTIMEO=1:500000"),
        is(SocketSide::Upstream, SocketOption::ReceiveTimeout(Duration::from_millis(1_500)))
    );
    assert_eq!(
        s("a:SO_BINDTODEVICE=lo"),
        is(SocketSide::Accept, SocketOption::BindToDevice("lo".into()))
    );
    for bad in [
        "",
        "l",
        "l:",
        "l:SO_KEEPALIVE",
        "L:SO_KEEPALIVE=1",
        "l:SO_KEEPALIVE=2",
        "l:IP_TTL=256",
        "x:TCP_NODELAY=1",
    ] {
        assert!(s(bad).is_err(), "{bad}");
    }
    assert_eq!(
        native(ValueKind::Socket, "downstream:IP_TOS=0x10"),
        is(SocketSide::Downstream, SocketOption::TypeOfService(16))
    );
    assert!(native(ValueKind::Socket, "l:TCP_NODELAY=1").is_err());
}

#[test]
fn keepalive_is_three_numbers_or_off() {
    let good =
        Keepalive { idle: Duration::from_secs(15), interval: Duration::from_secs(5), count: 3 };
    assert_eq!(native(ValueKind::Keepalive, "15s/5s/3"), Ok(Value::Keepalive(Some(good))));
    assert_eq!(native(ValueKind::Keepalive, "off"), Ok(Value::Keepalive(None)));
    for bad in ["", "15s", "15s/5s", "15s/5s/0", "15s/5s/3/1", "15ms/5s/3", "10h/5s/3", "0s/5s/3"] {
        assert!(native(ValueKind::Keepalive, bad).is_err(), "{bad}");
    }
}

#[test]
fn a_key_in_the_wrong_place_is_never_repeated() {
    let text = "client1:c2VjcmV0c2VjcmV0c2VjcmV0";
    for row in TABLE.iter().filter(|row| row.treatment == Treatment::Works) {
        for dialect in [Dialect::Native, Dialect::Stunnel] {
            if let Err(wrong) = read(row.kind, dialect, text) {
                assert!(!format!("{wrong:?}").contains("c2VjcmV0"), "{:?} {wrong:?}", row.opt);
            }
        }
    }
}
