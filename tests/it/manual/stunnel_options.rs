//! What docs/stunnel.md says of stunnel's options, from the table of options.

use std::fmt::Write as _;

use pskgate::config::options::OptionId as O;
use pskgate::config::options::{OptionId, OptionRow, StunnelScope, TABLE, TomlTable, Treatment};

/// What an option is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// A tunnel with pre-shared keys.
    Tunnel,
    /// A tunnel with certificates.
    Certificates,
    /// TLS in the middle of another protocol.
    Protocols,
    /// Other platforms, and what is obsolete.
    Obsolete,
    /// Whatever else is useful.
    Other,
}

impl Class {
    /// The headings of the manual, in their order.
    const ALL: [(Self, &'static str); 5] = [
        (Self::Tunnel, "Tunnels with pre-shared keys"),
        (Self::Other, "Also useful"),
        (Self::Certificates, "Certificates"),
        (Self::Protocols, "Protocols that change to TLS"),
        (Self::Obsolete, "Other platforms, and obsolete"),
    ];
}

/// What an option is for.
fn class_of(opt: OptionId) -> Class {
    match opt {
        O::Cert
        | O::Key
        | O::Verify
        | O::VerifyChain
        | O::VerifyPeer
        | O::RequireCert
        | O::CaFile
        | O::CaPath
        | O::CaStore
        | O::CaEngine
        | O::CrlFile
        | O::CrlPath
        | O::CrlCheckChain
        | O::CheckHost
        | O::CheckEmail
        | O::CheckIp
        | O::Redirect
        | O::Ocsp
        | O::OcspAia
        | O::OcspFlag
        | O::OcspNonce
        | O::OcspRequire
        | O::OcspTimeout => Class::Certificates,
        O::Protocol
        | O::Negotiation
        | O::ProtocolAuthentication
        | O::ProtocolDomain
        | O::ProtocolHeader
        | O::ProtocolHost
        | O::ProtocolPassword
        | O::ProtocolUsername => Class::Protocols,
        O::Compression
        | O::Egd
        | O::Engine
        | O::EngineCtrl
        | O::EngineDefault
        | O::EngineId
        | O::EngineNum
        | O::Fips
        | O::IconActive
        | O::IconError
        | O::IconIdle
        | O::Taskbar
        | O::Provider
        | O::ProviderParameter
        | O::RndBytes
        | O::RndFile
        | O::RndOverwrite
        | O::Renegotiation
        | O::Ident
        | O::Libwrap
        | O::Stack
        | O::Transport
        | O::Sessiond => Class::Obsolete,
        O::Chroot
        | O::SetEnv
        | O::SslConfig
        | O::TicketKeySecret
        | O::TicketMacSecret
        | O::Local
        | O::Pty
        | O::LogId
        | O::Transparent => Class::Other,
        _ => Class::Tunnel,
    }
}

/// What is different here, or easily taken for something else.
const NOTES: &[(&[OptionId], &str)] = &[
    (
        &[O::LogOutput],
        "A relative name begins at the directory of the start, also in the background. Lines are written at once, not once a second.",
    ),
    (&[O::Pid], "A relative name begins at the directory of the start, also in the background."),
    (&[O::LogLevel], "A syslog facility is possible only before the first section, as in stunnel."),
    (
        &[O::Accept],
        "A port alone is IPv4 only, as in stunnel in practice. `[v6]:port` is understood as well as `v6:port`. A port beyond 65535 is an error. A section serves without an address that it cannot have, as long as it has another one; in pskgate the missing address is tried again until it can be had, and `pskgate status` shows it.",
    ),
    (
        &[O::Connect],
        "Names are looked up at each connection. If an answer takes longer than a second, or nobody answers, the last good answer is used for up to 24 hours, with a warning in the log. A target that nobody could ever reach is an error.",
    ),
    (&[O::Setuid], "In a section: the owner of its Unix socket."),
    (&[O::Setgid], "In a section: the group of its Unix socket."),
    (&[O::PskSecrets], "See [Key file](key-file.md)."),
    (&[O::PskIdentity], "A server ignores it with a notice."),
    (
        &[O::Ciphers],
        "If the list has no suite with a pre-shared key and encryption, TLS 1.2 is turned off with a warning.",
    ),
    (
        &[O::Ciphersuites],
        "A key has the hash SHA-256: a list with SHA-384 suites only turns TLS 1.3 off with a warning; in stunnel each handshake fails.",
    ),
    (
        &[O::TlsVersion, O::TlsMin, O::TlsMax],
        "TLS 1.0 and 1.1 are used only if the file names them, with a warning. SSLv3 is never used; as a lower bound it means no lower bound, with a warning.",
    ),
    (&[O::SecurityLevel], "Levels 4 and 5 allow only ECDHE suites and TLS 1.3."),
    (
        &[O::HandshakeTimeout],
        "The default is 10 s for the whole handshake; stunnel's is 300 s for each step. Zero is an error.",
    ),
    (&[O::ConnectTimeout, O::IdleTimeout], "Zero is an error, because no connection could work."),
    (
        &[O::CloseTimeout],
        "At a client, the application then sees a reset, so that an incomplete answer does not look complete.",
    ),
    (
        &[O::Reset],
        "If unset: after an error, a client's application gets a reset, and a backend gets a normal close (FIN).",
    ),
    (
        &[O::ServerName],
        "A client that connects to an IP address sends no name (RFC 6066, 3). Each server section accepts its own keys only, also in TLS 1.3.",
    ),
    (
        &[O::Socket],
        "TCP keepalive (15 s, 5 s, 3 times) is on for the TLS connection, unless a line sets it.",
    ),
    (&[O::Delay], "They always are."),
    (
        &[O::SessionResume],
        "A ticket or stored session belongs to one service, identity and key, and is valid only as long as exactly this key is in the key file. In TLS 1.2, a server keeps sessions by ID for clients without tickets, also with `options = NO_TICKET`. In TLS 1.3 `NO_TICKET` turns resumption off; stunnel then issues stateful tickets.",
    ),
    (
        &[O::SessionCacheSize],
        "There is always a limit. When a server's store is full, the identity with most sessions loses its oldest one.",
    ),
    (&[O::SessionCacheTimeout], "It also applies to TLS 1.3, where stunnel's tickets ignore it."),
    (
        &[O::TicketKeySecret, O::TicketMacSecret],
        "Each service derives its ticket keys (AES-256 and HMAC-SHA256) from both secrets. A client ignores them with a notice.",
    ),
    (
        &[O::Protocol],
        "These values work: `proxy` (version 1) in a server, `connect` in a client, `socks` in both (the last two are `protocol` in a TOML file). Others are refused. A `socks` server answers after it has connected; stunnel answers before. It refuses loopback addresses in every form, addresses with a scope, and names with such an address. It connects to other addresses of its machine with a warning; with a TOML file it refuses them unless `socks-allow-own` is set.",
    ),
    (&[O::ProtocolPassword], "It is never logged; stunnel logs it at level 7."),
    (
        &[O::ProtocolHost],
        "It is required at the start; without it, stunnel fails at each connection.",
    ),
    (
        &[O::Transparent],
        "`source` needs root or CAP_NET_ADMIN all the time, so that the sandbox is off.",
    ),
    (
        &[O::SslOptions],
        "Options that would weaken security, or that are always set, have no effect, with a notice.",
    ),
    (
        &[O::Exec],
        "The program inherits no file descriptors of pskgate, and finds the client's identity in `PSKGATE_IDENTITY`.",
    ),
    (
        &[O::SetEnv],
        "It is set only for programs; stunnel also sets it for itself. Its value is never printed.",
    ),
    (
        &[O::Retry],
        "The pause is up to a quarter longer at random, so that many ends do not return at once. A reload does not start a second program while the first still runs.",
    ),
    (
        &[O::Pty],
        "The program has its own terminal with job control. It gets a hangup when the connection ends, and an end of input at the end of the peer's data.",
    ),
    (
        &[O::SslConfig],
        "CipherString, Ciphersuites, MinProtocol, MaxProtocol, Protocol and Options work like the corresponding options, and override them as in stunnel. Groups has no effect, as in stunnel, because `curves` overrides it; nor have signature algorithms and Diffie-Hellman parameters. Other commands are refused.",
    ),
    (&[O::LogId], "JSON lines have it as `id`, in addition to the number of the session."),
    (
        &[O::CaFile, O::CaPath, O::CaStore],
        "With PSKsecrets the file is not read. In stunnel, a server that also checks certificates accepts clients with a certificate and without a key; pskgate refuses them, with a warning at the start.",
    ),
    (
        &[O::Redirect],
        "stunnel redirects a client with the right key too, since it sends no certificate.",
    ),
    (&[O::Transport], "Of stunnel 5.79 and later."),
    (
        &[O::Stack],
        "stunnel 5.76 and later do not start with a stack below 16384 bytes; there is a warning.",
    ),
    (&[O::CrlCheckChain], "Of stunnel 5.80 and later."),
    (
        &[O::Cert, O::Key],
        "With PSKsecrets the file is not read: no certificate is sent, and the pre-shared key is required.",
    ),
    (&[O::Include], "All regular files are read, including hidden ones, in byte order."),
];

/// Empty where nothing is different.
fn note(opt: OptionId) -> &'static str {
    NOTES.iter().find(|(opts, _)| opts.contains(&opt)).map_or("", |(_, note)| note)
}

/// The options of stunnel's, in tables by what they are for.
pub fn stunnel_options() -> String {
    let mut out = String::new();
    for (class, heading) in Class::ALL {
        let _ = write!(
            out,
            "### {heading}\n\n| option | here | in a TOML file | notes |\n| --- | --- | --- | --- |\n"
        );
        let of_class = |row: &&OptionRow| !row.stunnel.is_empty() && class_of(row.opt) == class;
        let mut rows: Vec<&OptionRow> = TABLE.iter().filter(of_class).collect();
        rows.sort_by_key(|row| row.stunnel.first().map(|name| name.to_ascii_lowercase()));
        for row in rows {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} |",
                names(row),
                treatment(row.opt, row.treatment),
                native(row),
                notes(row)
            );
        }
        out.push('\n');
    }
    out
}

fn names(row: &OptionRow) -> String {
    let names: Vec<String> = row.stunnel.iter().map(|name| format!("`{name}`")).collect();
    let global = if row.scope == StunnelScope::Global { " (global)" } else { "" };
    format!("{}{global}", names.join(", "))
}

/// Both programs get every file of the corpus.
const CORPUS: &str =
    "differential::stunnel_and_pskgate_make_the_same_of_every_file_but_for_what_is_listed";
/// Both programs get a peer under every option that decides what is negotiated.
const NEGOTIATED: &str =
    "options::what_is_negotiated_under_each_tls_option_is_what_stunnel_negotiates";

/// How options compare with stunnel's, and the test that shows it.
const COMPARED: &[(&[OptionId], &str, &str)] = &[
    (
        &[O::SessionResume],
        "better",
        "resumption::a_stunnel_client_resumes_over_reloads_and_over_restarts_under_given_keys",
    ),
    (
        &[O::SessionCacheSize],
        "better",
        "session_ids::no_more_sessions_are_kept_than_was_said_and_for_no_longer",
    ),
    (
        &[O::SessionCacheTimeout],
        "better",
        "resumption::a_session_is_over_when_its_time_is_at_either_end",
    ),
    (
        &[O::TicketKeySecret, O::TicketMacSecret],
        "better",
        "safer::who_was_removed_from_the_key_file_does_not_come_back_with_a_ticket",
    ),
    (&[O::Accept, O::Mode, O::Include, O::PskIdentity], "same", CORPUS),
    (
        &[
            O::Ciphers,
            O::Ciphersuites,
            O::Groups,
            O::SecurityLevel,
            O::SslConfig,
            O::SslOptions,
            O::TlsVersion,
            O::TlsMin,
            O::TlsMax,
        ],
        "same",
        NEGOTIATED,
    ),
    (
        &[O::Connect, O::Delay],
        "better",
        "options::a_name_is_looked_up_at_each_connection_as_by_stunnel_with_delay",
    ),
    (&[O::LogLevel], "same", "options::a_section_s_debug_is_its_own"),
    (&[O::Failover], "same", "options::failover_prefers_the_first_or_takes_turns_as_in_stunnel"),
    (&[O::Foreground], "same", "daemon::foreground_logs_to_standard_error_too_and_quiet_does_not"),
    (&[O::LogMode], "same", "daemon::a_restart_appends_to_the_log_and_overwrite_begins_it_anew"),
    (&[O::LogOutput], "better", "daemon::no_line_is_lost_when_the_log_is_rotated"),
    (
        &[O::Syslog, O::ServiceName],
        "same",
        "daemon::syslog_gets_the_lines_with_facility_level_and_name",
    ),
    (&[O::Pid], "same", "dropin::debians_init_script_starts_hangs_up_rotates_and_stops_it"),
    (
        &[O::Setuid, O::Setgid],
        "better",
        "daemon::after_the_drop_there_are_no_groups_and_no_way_back_to_root",
    ),
    (&[O::Chroot], "same", "daemon::in_a_chroot_it_logs_reloads_and_cleans_up_inside"),
    (
        &[O::PskSecrets],
        "better",
        "revocation::stunnel_and_openssl_lose_what_they_had_and_an_ide_at_work_does_not_notice",
    ),
    (&[O::Reset], "better", "safer::a_backend_that_dies_with_a_reset_is_not_an_orderly_end"),
    (
        &[O::ServerName],
        "better",
        "sni::the_primary_s_identities_open_the_secondary_s_backend_in_stunnel_and_not_here",
    ),
    (&[O::Socket], "same", "options::every_socket_option_is_set_on_every_side"),
    (
        &[O::HandshakeTimeout],
        "better",
        "hostile::a_peer_that_drips_its_hello_is_cut_at_the_handshake_timeout_all_the_same",
    ),
    (
        &[O::CloseTimeout],
        "better",
        "safer::half_an_answer_that_the_close_timeout_cut_off_does_not_look_whole",
    ),
    (
        &[O::ConnectTimeout],
        "same",
        "relay::the_connect_timeout_gives_up_a_target_that_does_not_answer",
    ),
    (&[O::IdleTimeout], "same", "relay::the_idle_timeout_cuts_a_silent_session_at_either_end"),
    (&[O::Local], "same", "options::local_is_where_connections_come_from"),
    (
        &[O::Exec],
        "same",
        "exec::a_program_that_connects_is_carried_and_started_again_as_by_stunnel",
    ),
    (
        &[O::ExecArgs],
        "same",
        "exec::a_program_is_told_who_is_there_as_by_stunnel_and_the_identity_besides",
    ),
    (
        &[O::Retry],
        "better",
        "exec::a_reload_leaves_a_program_that_runs_alone_and_starts_another_in_place_of_one_that_changed",
    ),
    (&[O::Pty], "better", "exec::a_program_with_a_terminal_has_one_of_its_own"),
    (
        &[O::SetEnv],
        "same",
        "exec::set_variables_are_in_a_program_s_environment_and_their_values_nowhere_else",
    ),
    (&[O::LogId], "same", "options::a_line_has_the_word_for_its_connection_that_log_id_asks_for"),
    (&[O::Transparent], "same", "protocols::a_backend_sees_the_peer_s_own_address"),
    (
        &[O::Protocol],
        "better",
        "protocols::a_server_connects_where_its_peer_asks_and_answers_as_stunnel_does",
    ),
    (
        &[O::ProtocolHost, O::ProtocolUsername, O::ProtocolHeader],
        "same",
        "protocols::a_client_asks_a_proxy_for_the_way_as_stunnel_does",
    ),
    (
        &[O::ProtocolPassword],
        "better",
        "protocols::a_client_asks_a_proxy_for_the_way_as_stunnel_does",
    ),
];

fn compared(opt: OptionId) -> Option<(&'static str, &'static str)> {
    let row = COMPARED.iter().find(|(opts, ..)| opts.contains(&opt));
    row.map(|(_, verdict, test)| (*verdict, *test))
}

/// The table of tests at the end of the page: which options each of them shows.
pub fn stunnel_tests() -> String {
    let mut out = "| test | options |\n| --- | --- |\n".to_owned();
    let mut tests = tests_named();
    tests.sort_unstable();
    tests.dedup();
    for test in tests {
        let shown = TABLE.iter().filter(|row| compared(row.opt).is_some_and(|(_, by)| by == test));
        let names: Vec<String> =
            shown.flat_map(|row| row.stunnel).map(|name| format!("`{name}`")).collect();
        let _ = writeln!(out, "| `{test}` | {} |", names.join(", "));
    }
    out
}

/// The tests that [`stunnel_tests`] lists, as FILE::TEST below `tests/it`.
pub fn tests_named() -> Vec<&'static str> {
    TABLE.iter().filter_map(|row| compared(row.opt)).map(|(_, test)| test).collect()
}

fn treatment(opt: OptionId, treatment: Treatment) -> String {
    let does = match treatment {
        Treatment::Harmless(why) => format!("no effect: {why}"),
        _ => "works".into(),
    };
    if let Some((verdict, _)) = compared(opt) {
        return format!("{does}, {verdict}");
    }
    let but = |fine: &[&str]| {
        let fine: Vec<String> =
            fine.iter().filter(|word| !word.is_empty()).map(|word| format!("`{word}`")).collect();
        if fine.is_empty() { String::new() } else { format!("; {} is fine", fine.join(" or ")) }
    };
    match treatment {
        Treatment::Works => "works".into(),
        Treatment::Harmless(why) => format!("no effect: {why}"),
        Treatment::NeedsCertificates(fine) => {
            format!("refused: needs certificates{}", but(fine))
        }
        Treatment::Later(fine) => format!("refused: not supported yet{}", but(fine)),
        Treatment::Never(fine, why) => format!("refused: {why}{}", but(fine)),
        Treatment::OwnCertificate | Treatment::AboutCertificates => {
            "no effect beside PSKsecrets, refused without".into()
        }
    }
}

fn native(row: &OptionRow) -> String {
    match row.native {
        None if row.opt == OptionId::TlsVersion => "`tls-min` and `tls-max`".into(),
        None => "-".into(),
        Some((TomlTable::Log, key)) => format!("`[log] {key}`"),
        Some((TomlTable::Control, key)) => format!("`[control] {key}`"),
        Some((TomlTable::Http, key)) => format!("`[http] {key}`"),
        Some((TomlTable::Top | TomlTable::Service | TomlTable::Identity, key)) => {
            format!("`{key}`")
        }
    }
}

fn notes(row: &OptionRow) -> String {
    let mut notes = vec![row.doc.to_owned()];
    if !row.stunnel_default.is_empty() && row.treatment == Treatment::Works {
        notes.push(format!("Default `{}`.", row.stunnel_default));
    }
    notes.extend(Some(note(row.opt)).filter(|note| !note.is_empty()).map(str::to_owned));
    notes.join(" ").replace('|', "\\|")
}
