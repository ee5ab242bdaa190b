use super::*;
use crate::config::diagnostic::Severity;

const KEYS: &str = "accept = 127.0.0.1:1\nconnect = 127.0.0.1:2\nPSKsecrets = k\n";

/// Every line that an option about certificates may have beside pre-shared keys.
const ABOUT_CERTIFICATES: [&str; 18] = [
    "CAfile = a",
    "CApath = a",
    "CAstore = a",
    "CRLfile = a",
    "CRLpath = a",
    "CRLcheckChain = yes",
    "verify = 2",
    "verifyChain = yes",
    "verifyPeer = yes",
    "requireCert = yes",
    "checkHost = a",
    "checkEmail = a@b",
    "checkIP = 127.0.0.1",
    "OCSP = http://a/",
    "OCSPaia = yes",
    "OCSPflag = NOCERTS",
    "OCSPnonce = yes",
    "verifyChain = no",
];

fn found(text: &str) -> Vec<crate::config::diagnostic::Diagnostic> {
    match load(text, "x.conf") {
        Ok((_, report)) | Err(report) => report.diagnostics,
    }
}

#[test]
fn each_option_about_certificates_beside_keys_is_one_notice_wherever_it_stands() {
    for line in ABOUT_CERTIFICATES {
        for text in [
            format!("[s]\n{KEYS}{line}\n"),
            format!(
                "{line}\n[s]\n{KEYS}[t]\n\
            accept = 127.0.0.1:3\nconnect = 127.0.0.1:2\nPSKsecrets = k\n"
            ),
        ] {
            let (config, codes) = good(&text, "x.conf");
            assert_eq!(codes, ["without-effect"], "{text}");
            assert!(!config.services.is_empty());
        }
    }
    for wrong in ["verify = 5", "verifyChain = maybe", "OCSPflag = NONE", "CRLcheckChain = maybe"] {
        assert_eq!(codes(&format!("[s]\n{KEYS}{wrong}\n"), "x.conf").len(), 1, "{wrong}");
    }
}

#[test]
fn a_server_that_also_means_certificates_is_warned_about_and_nobody_else_is() {
    let warned = |lines: &str| {
        let all = found(&format!("[s]\n{KEYS}{lines}"));
        assert!(all.iter().all(|d| d.severity != Severity::Error), "{all:?}");
        all.iter().filter(|d| d.code == "certificate-clients").count()
    };
    assert_eq!(warned("CAfile = a\nverifyChain = yes\n"), 1);
    assert_eq!(warned("CApath = a\nverify = 2\n"), 1);
    assert_eq!(warned("CAfile = a\nCApath = a\nverifyPeer = yes\nrequireCert = yes\n"), 1);
    assert_eq!(warned("CAfile = a\nverifyChain = no\n"), 0);
    assert_eq!(warned("CAfile = a\nverify = 0\n"), 0);
    assert_eq!(warned("CAfile = a\n"), 0);
    assert_eq!(warned("verifyChain = yes\n"), 0);
    assert_eq!(warned("client = yes\nCAfile = a\nverifyChain = yes\n"), 0);
}

#[test]
fn a_section_without_keys_is_one_finding_that_says_who_goes_where() {
    let text = format!(
        "CAfile = a\n[plc]\n{KEYS}[web]\naccept = 443\nconnect = 80\ncert = c\nkey = c\n\
         verifyChain = yes\n[mail]\nclient = yes\naccept = 127.0.0.1:25\nconnect = mail.example:465\nprotocol = smtp\nlibwrap = yes\n\
         [ide]\nclient = yes\naccept = 127.0.0.1:3\nconnect = 127.0.0.1:2\nPSKsecrets = k\n"
    );
    let errors: Vec<_> =
        found(&text).into_iter().filter(|d| d.severity == Severity::Error).collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    for (error, line) in errors.iter().zip([6, 12]) {
        assert_eq!(error.code, "needs-certificates");
        assert_eq!(error.place.as_ref().unwrap().line, line);
        let help = error.help.as_deref().unwrap();
        assert!(help.contains("move [web] and [mail] with the global options"), "{help}");
        assert!(help.contains("`pid` and `output`"), "{help}");
        assert!(help.contains("pskgate serves [plc] and [ide]"), "{help}");
        assert!(!help.contains("share"), "{help}");
    }
    assert_eq!(codes("[s]\nclient = yes\naccept = 1\nconnect = 2\n", "x.conf"), ["missing-option"]);
    assert_eq!(codes("[s]\naccept = 1\nconnect = 2\n", "x.conf"), ["missing-option"]);
    let alone = found("[s]\naccept = 1\nconnect = 2\ncert = x\n");
    assert_eq!(alone.len(), 1, "{alone:?}");
    assert!(alone[0].help.as_deref().unwrap().contains("keep stunnel for this file"));
}

#[test]
fn sections_that_cannot_be_parted_name_both_lines() {
    let help = |text: &str| found(text)[0].help.clone().unwrap_or_default();
    let same = format!("[web]\naccept = 127.0.0.1:1\nconnect = 80\ncert = c\n[plc]\n{KEYS}");
    let same = help(&same);
    assert!(same.contains("[web] (line 2) and [plc] (line 6) share `accept`"), "{same}");
    let below = format!("[plc]\n{KEYS}[web]\nsni = plc:*.example\nconnect = 80\ncert = c\n");
    let below = help(&below);
    assert!(below.contains("[web] (line 6) and [plc] (line 1) share `sni`"), "{below}");
    let above = "[web]\naccept = 443\nconnect = 80\ncert = c\n[plc]\nsni = web:plc.example\nconnect = 2\n\
         PSKsecrets = k\n";
    let above = help(above);
    assert!(above.contains("[web] (line 1) and [plc] (line 6) share `sni`"), "{above}");
}

#[test]
fn redirect_is_refused_beside_keys_for_its_own_reason() {
    let all = found(&format!("[s]\n{KEYS}redirect = 127.0.0.1:3\nverifyChain = yes\nCAfile = a\n"));
    let error = all.iter().find(|d| d.severity == Severity::Error).unwrap();
    assert!(error.message.contains("one with the right key too"), "{}", error.message);
}

#[test]
fn what_a_file_without_sections_lacks_is_told_at_its_last_line() {
    let all = found("client = yes\nconnect = 127.0.0.1:2\n# end\n");
    assert_eq!((all[0].code, all[0].place.as_ref().unwrap().line), ("missing-option", 3));
}
