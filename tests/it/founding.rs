//! The founding document's two files, as they stand but for the ports and `[PLC]`.

use crate::harness::{
    Backend, IDENTITY, KEY, PlainClient, Pskgate, PskgateBuilder, Stunnel, Tls, free_port, secret,
    suite_13,
};

const SUITE_12: &str = "ECDHE-PSK-CHACHA20-POLY1305";

/// The PLC's file, with lines before its first and after its last.
fn plc(before: &str, accept: u16, connect: u16, after: &str) -> String {
    format!(
        "{before}output = stunnel-server.log\n\n[beremiz]\naccept = {accept}\nconnect = 127.0.0.1:{connect}\n\
         PSKsecrets = psk.txt\n{after}"
    )
}

/// The IDE's file, likewise.
fn ide(before: &str, accept: u16, plc: u16, after: &str) -> String {
    format!(
        "{before}output = stunnel-client.log\nclient = yes\n\n[beremiz]\naccept = {accept}\nconnect = 127.0.0.1:{plc}\n\
         PSKidentity = client1\nPSKsecrets = pskclient1.txt\n{after}"
    )
}

fn start_plc(before: &str, port: u16, backend: &Backend, after: &str) -> Pskgate {
    let text = plc(before, port, backend.address().port(), after);
    PskgateBuilder::new().conf("stunnel-server.conf", &text, Some("stunnel-server.log")).start()
}

fn start_ide(before: &str, port: u16, plc: u16, after: &str) -> Pskgate {
    PskgateBuilder::new()
        .file("pskclient1.txt", &secret(IDENTITY, KEY))
        .conf("stunnel-client.conf", &ide(before, port, plc, after), Some("stunnel-client.log"))
        .start()
}

fn suite(tls: Tls) -> &'static str {
    match tls {
        Tls::V12 => SUITE_12,
        Tls::V13 => suite_13(),
    }
}

/// stunnel's own level says nothing of sessions.
const LOUD: &str = "debug = info\n";

#[test]
fn the_two_files_work_as_they_stand() {
    let backend = Backend::echo();
    let (at_plc, at_ide) = (free_port(), free_port());
    let plc = start_plc("", at_plc, &backend, "");
    let ide = start_ide("", at_ide, at_plc, "");
    PlainClient::connect(ide.address("beremiz")).echo(b"PYRO://127.0.0.1:3002");
    assert!(
        plc.folder().join("stunnel-server.log").exists(),
        "`output` is in the folder it was started in"
    );
    assert!(
        ide.folder().join("stunnel-client.log").exists(),
        "`output` is in the folder it was started in"
    );
}

#[test]
fn the_two_files_negotiate_the_same_as_stunnel_in_either_version() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let (at_plc, at_ide) = (free_port(), free_port());
        let plc = start_plc(LOUD, at_plc, &backend, "");
        let ide = start_ide(LOUD, at_ide, at_plc, tls.conf());
        PlainClient::connect(ide.address("beremiz")).echo(b"GetPLCstatus");
        plc.expect_session(tls.name(), suite(tls));
        ide.expect_session(tls.name(), suite(tls));
    }
}

#[test]
fn the_plc_s_file_serves_an_ide_that_still_has_stunnel() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let port = free_port();
        let plc = start_plc(LOUD, port, &backend, "");
        let ide = Stunnel::client(
            plc.address("beremiz"),
            &format!("PSKidentity = {IDENTITY}\n{}", tls.conf()),
        );
        PlainClient::connect(ide.address()).echo(b"GetPLCstatus");
        // stunnel's own order puts AES first, also where the processor has no instructions for it.
        let suite = if tls == Tls::V12 { SUITE_12 } else { "SHA256" };
        plc.expect_session(tls.name(), suite);
    }
}

#[test]
fn the_ide_s_file_reaches_a_plc_that_still_has_stunnel() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let plc = Stunnel::server(backend.address(), tls.conf());
        let ide = start_ide(LOUD, free_port(), plc.address().port(), "");
        PlainClient::connect(ide.address("beremiz")).echo(b"GetPLCstatus");
        ide.expect_session(tls.name(), suite(tls));
    }
}

#[test]
fn the_ide_s_own_client_meets_the_section_that_beremiz_writes_for_it() {
    use crate::harness::{OpensslClient, openssl};
    let backend = Backend::echo();
    let port = free_port();
    let text = format!(
        "{LOUD}[ERPCPSK]\naccept = {port}\nconnect = {}\nciphers = PSK\nsslVersion = TLSv1.2\nPSKsecrets = psk.txt\n",
        backend.address()
    );
    let plc = PskgateBuilder::new().conf("stunnel.conf", &text, None).start();
    // Python's ssl with set_ciphers("PSK"), without SNI, and TLS 1.2 alone.
    let mut ide = OpensslClient::start(
        plc.address("ERPCPSK"),
        openssl::psk()
            .into_iter()
            .chain(["-tls1_2", "-cipher", "PSK", "-noservername"].map(str::to_owned)),
    );
    ide.echo("GetPLCstatus");
    plc.expect_session("TLSv1.2", "PSK");
}
