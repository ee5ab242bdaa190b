//! Where a service listens when a name has addresses that this machine does not have.

use std::process::Command;

use crate::harness::stage::need_root;
use crate::harness::{
    Backend, Pskgate, PskgateBuilder, WAIT_TIMEOUT, free_port, server_toml, until,
};

/// In a network and under an /etc/hosts of its own, in which `localhost` has both of its addresses.
fn alone(gate: PskgateBuilder, ipv6: bool) -> PskgateBuilder {
    need_root();
    let hosts = gate.folder().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n::1 localhost\n192.0.2.7 elsewhere\n").unwrap();
    let switch = u8::from(!ipv6);
    let inner = format!(
        "mount --bind {} /etc/hosts && sysctl -qw net.ipv6.conf.all.disable_ipv6={switch} && \
         ip link set lo up && exec \"$@\"",
        hosts.display()
    );
    gate.shell(&format!("exec unshare --net --mount sh -c '{inner}' sh \"$@\""))
}

/// Whether somebody in the network of the program reaches this address.
fn is_reached(gate: &Pskgate, address: &str, port: u16) -> bool {
    let mut command = Command::new("nsenter");
    command.args(["--net", "--target", &gate.id().to_string(), "bash", "-c"]);
    command.arg(format!("exec 3<>/dev/tcp/{address}/{port}"));
    command.output().expect("the Debian package util-linux").status.success()
}

#[test]
fn a_name_of_which_one_address_is_not_there_listens_on_the_other() {
    let backend = Backend::echo();
    let port = free_port();
    let toml =
        server_toml(backend.address(), "").replace("127.0.0.1:0", &format!("localhost:{port}"));
    let conf = format!(
        "debug = 5\n[tls]\naccept = localhost:{port}\nconnect = {}\nPSKsecrets = psk.txt\n",
        backend.address()
    );
    for ipv6 in [false, true] {
        for native in [true, false] {
            let gate = match native {
                true => PskgateBuilder::new().toml(&toml),
                false => PskgateBuilder::new().conf("x.conf", &conf, None),
            };
            // Whoever asks for a listener asks in this network, where there is none.
            let gate = alone(gate, ipv6).launch();
            until(&format!("it to listen; it says\n{}", gate.log()), WAIT_TIMEOUT, || {
                is_reached(&gate, "127.0.0.1", port).then_some(())
            });
            assert_eq!(is_reached(&gate, "::1", port), ipv6, "{}", gate.log());
            let notice = format!("does not listen on [::1]:{port}: ");
            match ipv6 {
                true => assert!(!gate.log().contains(&notice), "{}", gate.log()),
                false => drop(gate.wait_logged(&notice)),
            }
        }
    }
}

#[test]
fn a_name_that_has_no_address_of_this_machine_and_an_address_that_is_written_are_errors() {
    let backend = Backend::echo();
    for at in ["elsewhere:3001", "[::1]:3001", "192.0.2.7:3001"] {
        let toml = server_toml(backend.address(), "").replace("127.0.0.1:0", at);
        let mut gate = alone(PskgateBuilder::new().toml(&toml), false).launch();
        assert_ne!(gate.exit_code(WAIT_TIMEOUT), Some(0), "{at}");
        assert!(gate.log().contains("cannot listen"), "{at}: {}", gate.log());
    }
}
