//! A host with names of its own: a hosts file, and a name server that answers or keeps silent.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::two_hosts::{TwoHosts, on_host};
use super::{WAIT_TIMEOUT, until};

/// What the name server says to every question.
#[derive(Debug, Clone, Copy)]
pub enum Reply {
    Nothing,
    Unknown,
    Address(Ipv4Addr),
}

/// Two hosts, of which the first has these names. `ip netns exec` gives whatever it starts there the files of
/// /etc/netns/HOST in the place of those in /etc.
pub struct HostWithNames {
    pub cable: TwoHosts,
    folder: PathBuf,
    reply: Arc<Mutex<Reply>>,
    asked: Arc<Mutex<BTreeSet<Vec<u8>>>>,
}

impl HostWithNames {
    /// With these lines of the hosts file and these `options` of resolv.conf. The server is silent at first.
    pub fn new(hosts: &str, options: &str) -> Self {
        let cable = TwoHosts::new();
        let host = &cable.hosts[0];
        let folder = PathBuf::from(format!("/etc/netns/{host}"));
        std::fs::create_dir_all(&folder).expect("root may write there");
        let resolv = format!("nameserver 127.0.0.1\noptions {options}\n");
        for (name, text) in [
            ("hosts", format!("127.0.0.1 localhost\n{hosts}").as_str()),
            ("resolv.conf", resolv.as_str()),
            ("nsswitch.conf", "hosts: files dns\n"),
        ] {
            // What is to be covered has to be there.
            let covered = std::path::Path::new("/etc").join(name);
            if covered.exists() {
                std::fs::write(folder.join(name), text).expect("root may write there");
            }
        }
        let socket = on_host(host, || UdpSocket::bind("127.0.0.1:53").expect("the port is free"));
        let reply = Arc::new(Mutex::new(Reply::Nothing));
        let asked = Arc::<Mutex<BTreeSet<Vec<u8>>>>::default();
        let (says, notes) = (Arc::clone(&reply), Arc::clone(&asked));
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                let question = &question[..length];
                notes.lock().unwrap().insert(name_of(question).to_vec());
                let reply = *says.lock().unwrap();
                if let Some(answer) = answer(question, reply) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { cable, folder, reply, asked }
    }

    /// The host with the names.
    pub fn host(&self) -> &str {
        &self.cable.hosts[0]
    }

    pub fn reply(&self, with: Reply) {
        *self.reply.lock().unwrap() = with;
    }

    /// How many names the server was asked for.
    pub fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    pub fn wait_asked(&self, count: usize) {
        until("questions to the name server", WAIT_TIMEOUT, || {
            (self.asked() >= count).then_some(())
        });
    }
}

impl Drop for HostWithNames {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The name in a question (RFC 1035, 4.1.2), as it is on the wire.
fn name_of(question: &[u8]) -> &[u8] {
    let name = question.get(12..).unwrap_or_default();
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    &name[..end]
}

fn answer(question: &[u8], reply: Reply) -> Option<Vec<u8>> {
    // Behind the name: its end, type and class.
    let end = 12 + name_of(question).len() + 5;
    let (id, asked) = (question.get(..2)?, question.get(12..end)?);
    let is_ipv4 = question.get(end - 4..end - 2)? == [0, 1];
    let (code, address) = match reply {
        Reply::Nothing => return None,
        Reply::Unknown => (3, None),
        Reply::Address(address) => (0, Some(address).filter(|_| is_ipv4)),
    };
    let count = u8::from(address.is_some());
    let mut all = [id, &[0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0], asked].concat();
    if let Some(address) = address {
        // The name at offset 12, type A, class IN, kept for no time, four bytes.
        all.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        all.extend(address.octets());
    }
    Some(all)
}
