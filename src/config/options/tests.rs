use super::*;
use std::collections::BTreeSet;

#[test]
fn every_option_has_exactly_one_row() {
    for (place, row) in TABLE.iter().enumerate() {
        assert_eq!(row.opt as usize, place);
        assert_eq!(row.opt.row().opt, row.opt);
        assert!(row.native.is_some() || !row.stunnel.is_empty(), "{:?}", row.opt);
        assert!(row.doc.ends_with('.'), "{:?}", row.opt);
    }
}

#[test]
fn no_name_means_two_options() {
    let mut native = BTreeSet::new();
    let mut stunnel = BTreeSet::new();
    for row in TABLE {
        if let Some((table, key)) = row.native {
            assert!(native.insert((format!("{table:?}"), key)), "{key}");
            assert_eq!(key, key.to_ascii_lowercase(), "keys are kebab-case");
            assert!(!key.contains('_'), "keys are kebab-case");
        }
        for name in row.stunnel {
            assert!(stunnel.insert(name.to_ascii_lowercase()), "{name}");
        }
    }
    assert!(native.len() >= 30 && stunnel.len() >= 100, "{} {}", native.len(), stunnel.len());
}

#[test]
fn every_option_of_stunnels_has_a_row() {
    // stunnel 5.75, `stunnel -options` and its manual; `service` and the like count once.
    for name in "chroot compression debug EGD engine engineCtrl engineDefault fips foreground \
        iconActive iconError iconIdle log output pid provider providerParameter RNDbytes RNDfile \
        RNDoverwrite setEnv syslog taskbar accept connect client PSKsecrets PSKidentity ciphers \
        ciphersuites curves curve sslVersion sslVersionMin sslVersionMax securityLevel options \
        config sessionResume sessionCacheSize sessionCacheTimeout session ticketKeySecret \
        ticketMacSecret renegotiation TIMEOUTbusy TIMEOUTclose TIMEOUTconnect TIMEOUTidle \
        TIMEOUTocsp socket local delay failover retry reset exec execArgs pty include service \
        logId setuid setgid sni transparent ident libwrap stack sessiond protocol \
        protocolAuthentication protocolDomain protocolHeader protocolHost protocolPassword \
        protocolUsername cert key CAfile CApath CAstore CAengine CRLfile CRLpath checkHost \
        checkEmail checkIP verify verifyChain verifyPeer requireCert redirect OCSP OCSPaia \
        OCSPflag OCSPnonce OCSPrequire engineId engineNum"
        .split_whitespace()
    {
        assert!(stunnel(name).is_some(), "{name}");
        assert!(stunnel(&name.to_ascii_uppercase()).is_some(), "{name} in capitals");
    }
}

#[test]
fn a_misspelt_name_finds_its_neighbour_and_nonsense_finds_none() {
    let keys = || TABLE.iter().filter_map(|r| r.native.map(|(_, k)| k));
    assert_eq!(nearest("psk-secret", keys()), Some("psk-secrets"));
    assert_eq!(nearest("idle_timeout", keys()), Some("idle-timeout"));
    assert_eq!(nearest("conect", keys()), Some("connect"));
    assert_eq!(nearest("xylophone", keys()), None);
    assert_eq!(nearest("1.4", ["1.2", "1.3"]), None);
    assert_eq!(nearest("8", ["0", "7"]), None);
}
