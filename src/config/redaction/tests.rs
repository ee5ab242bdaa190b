use super::*;

#[test]
fn what_looks_like_a_key_is_hidden_and_the_length_stays() {
    let key = "c2VjcmV0c2VjcmV0c2VjcmV0Zm9v";
    for line in [
        format!("client1:{key}"),
        format!("client1:{key}=="),
        format!("  \"client1:{key}==\","),
        format!("PSKsecrets = client1:{key}=="),
        format!("psk-secrets = [\"client1:{key}\"]"),
        format!("connect = client1:{key}"),
        format!("\"client1:{key}\" = 1"),
        format!("psk-secrets = \"client1:{key}"),
        format!("beremiz.psk-secrets = [\"psk.txt\", \"client1:{key}\"] # both"),
        format!("#client1:{key}=="),
        format!("psk-secrets = \"psk.txt\" # client1:{key}"),
        format!("  'client1:{key}', \"client2:{key}\""),
        format!("PSKsecrets = client1:it's \"{key}\""),
        format!("client1:a.pass phrase, with {key}"),
        "client1:\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}".to_owned(),
    ] {
        let shown = presentable(&line);
        assert!(!shown.contains(key) && !shown.contains('\u{e9}'), "{shown}");
        assert!(shown.contains("client1"), "{shown}");
        assert_eq!(shown.len(), line.len());
    }
    for line in [
        "ciphers = ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-AES256-GCM-SHA384",
        "connect = plc.example.org:3001",
        "accept = unix:/run/pskgate/plc.socket",
        "  \"[2001:db8:1234:5678::1]:3001\",",
        "socket = l:SO_KEEPALIVE=1",
        "psk-secrets = \"pskclient1.txt\"",
        "connect = \"127.0.0.1:3000\"           # the runtime: it listens on this machine only",
        "accept = 3001  # the port: everybody in the plant uses it",
        "psk-secrets = \"psk.txt\"   # keys: one line for each identity",
        "# keys: one line for each identity, and no blank behind it",
        "; connect: the address of the PLC and its port",
        "psk-secrets = \"C:\\Users\\me\\my psk.txt\"",
        "psk-secrets = 'C:/Users/me/keys/of/all'",
        "PSKsecrets = C:\\Users\\somebody\\psk.txt",
        "output = C:\\ProgramData\\pskgate\\a.log",
        "connect = \"PYRO://plc-of-the-first-hall:3001\"",
        "connect = \"https://plc-of-the-first-hall\"",
        "# http://example.org/a-rather-long-path",
        "  \"unix:/run/pskgate/somewhere/plc\",",
    ] {
        assert_eq!(presentable(line), line);
    }
}

#[test]
fn the_name_of_a_file_is_no_key() {
    for name in [
        "psk.txt",
        "/a:b/c0123456789abcdef",
        "./a:0123456789abcdef",
        "C:\\keys\\client-keys.txt",
        "a:b",
    ] {
        assert!(!looks_like_key_instead_of_file(name), "{name}");
    }
    for key in
        ["client1:c2VjcmV0c2VjcmV0", "a:correct.horse.battery.staple", "a:b:c=0123456789abcdef"]
    {
        assert!(looks_like_key_instead_of_file(key), "{key}");
    }
}

#[test]
fn the_value_of_a_secret_option_is_hidden_on_each_of_its_lines_and_nothing_else_is() {
    for text in [
        "protocolPassword = hush",
        "SETENV = TOKEN=hush",
        "  protocol-password = \"hush\"",
        "protocol-password = \"\"\"\nhush\nhush\"\"\"",
        "environment = [\"A=hush\", \"B=hush\"]",
        "environment = [\n  \"A=hush\",\n  'B=x]hush',\n  \"hush\" ]",
        "protocol-headers = [\"Authorization: hush\", # and\n \"X: hush\"\n]",
    ] {
        let shown = presentable(&format!("mode = 1\n{text}\nconnect = 2\n[services.a]"));
        assert!(!shown.contains("hush"), "{shown}");
        assert!(shown.starts_with("mode = 1\n"), "{shown}");
        assert!(shown.ends_with("\nconnect = 2\n[services.a]"), "{shown}");
    }
}
