//! What must hold of everything that is sent to the control socket.

use super::*;
use crate::fuzzing::{Canned, assert_plain};
use crate::observe::fuzzing::check;

thread_local! {
    static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap_or_else(|error| panic!("{error}"));
}

/// What a request is answered with here.
const ANSWER: &str = "{\"kicked\":7}";

/// A whole conversation with any bytes in it, in pieces of any size: each line has its answer, in their
/// order, until one breaks a rule; and no answer quotes what was sent.
pub fn control_requests(data: &[u8]) {
    let (first, says) = data.split_first().unwrap_or((&0, &[]));
    let (may_order, piece) = (first & 1 == 1, usize::from(first / 2) * 16 + 1);
    let user = if may_order { 0 } else { u32::MAX - 1 };
    let heard = answers(says, piece, ControlPeer { user: Some(user), process: Some(1) });
    let mut wanted = Vec::new();
    let mut rest = says;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let line = &rest[..end.unwrap_or(rest.len())];
        let Some(end) = end.filter(|end| *end <= MAX_REQUEST_SIZE) else {
            wanted.push("{\"refused\":\"a request ");
            break;
        };
        rest = &rest[end + 1..];
        let Ok(command) = parse_command(line) else {
            wanted.push("{\"refused\":\"");
            break;
        };
        shown(&command);
        let denied = command.right() == Right::Command && !may_order;
        wanted.push(if denied { "{\"denied\":\"" } else { ANSWER });
    }
    let heard: Vec<&str> = heard.split_terminator('\n').collect();
    assert_eq!(heard.len(), wanted.len(), "{heard:?}");
    for (heard, wanted) in heard.iter().zip(wanted) {
        assert!(heard.starts_with(wanted), "{heard} is not {wanted}");
        assert!(heard.is_ascii(), "{heard}");
        assert_plain(heard);
        let read = serde_json::from_str::<Answer>(heard);
        assert!(read.is_ok(), "{heard}: {read:?}");
    }
}

/// A command that was understood is the same when it is written and read again, and can be logged.
fn shown(command: &ControlCommand) {
    let written = serde_json::to_vec(command).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(parse_command(&written).as_ref(), Ok(command));
    let (what, caller) = (CommandLogLine(command), ControlPeer { user: None, process: None });
    assert_plain(&what.to_string());
    check(&Event::Ordered { what: &what, who: &caller }, LogContext::PROGRAM);
}

fn answers(says: &[u8], piece: usize, caller: ControlPeer) -> String {
    let (requests, mut asked) = mpsc::channel(1);
    let (_closing, closes) = watch::channel(false);
    let (_, access) = watch::channel(Access::default());
    let context = ControlContext { requests, access, limiter: Arc::default(), closing: closes };
    let mut peer = Canned { says, piece, heard: Vec::new() };
    let answering = async {
        while let Some(Request::Ask(_, answer)) = asked.recv().await {
            let _ = answer.send(Answer::Kicked(7));
        }
    };
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            tokio::join!(serve_connection(&mut peer, caller, context, Arc::default()), answering)
        })
    });
    String::from_utf8(peer.heard).unwrap_or_else(|error| panic!("{error}"))
}
