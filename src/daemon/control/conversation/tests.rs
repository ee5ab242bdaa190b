use tokio::io::DuplexStream;

use super::*;

/// A conversation with somebody who may look, and whoever answers.
fn begin() -> (DuplexStream, mpsc::Receiver<Request>, watch::Sender<bool>) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (requests, asked) = mpsc::channel(4);
    let (closing, closes) = watch::channel(false);
    let (_, access) = watch::channel(Access::default());
    let context = ControlContext { requests, access, limiter: Arc::default(), closing: closes };
    let stranger = ControlPeer { user: Some(u32::MAX - 1), process: Some(1) };
    tokio::spawn(serve_connection(theirs, stranger, context, Arc::default()));
    (ours, asked, closing)
}

async fn rest(mut stream: DuplexStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test(start_paused = true)]
async fn what_breaks_a_rule_is_refused_in_words_that_never_quote_it() {
    let long = vec![b'x'; MAX_REQUEST_SIZE + 1];
    for sent in [
        &b"\n"[..],
        b"status\n",
        b"{\"command\":\"stop-everything\"}\n",
        b"\x1b[31mstop-everything\xff\n",
        b"{\"command\":",
        &long,
    ] {
        let (mut stream, _asked, _closing) = begin();
        stream.write_all(sent).await.unwrap();
        stream.shutdown().await.unwrap();
        let said = rest(stream).await;
        assert!(said.starts_with("{\"refused\":\"") && said.ends_with("\"}\n"), "{said}");
        assert!(!said.contains("stop-everything") && said.is_ascii(), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_begun_has_ten_seconds_and_silence_has_no_end() {
    let (mut stream, _asked, _closing) = begin();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let start = Instant::now();
    stream.write_all(b"{").await.unwrap();
    assert!(rest(stream).await.contains("10 s"));
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn two_requests_in_one_piece_have_an_answer_each_in_their_order() {
    let (mut stream, mut asked, closing) = begin();
    stream.write_all(b"{\"command\":\"reload\"}\n{\"command\":\"status\"}\n").await.unwrap();
    let Some(Request::Ask(ControlCommand::Status, answer)) = asked.recv().await else {
        panic!("the order of somebody who may only look came through");
    };
    answer.send(Answer::Kicked(7)).unwrap();
    let mut lines = LineReader::default();
    let mut next = async || String::from_utf8(lines.next(&mut stream).await.ok()??).ok();
    assert!(next().await.unwrap().starts_with("{\"denied\":"));
    assert_eq!(next().await.as_deref(), Some("{\"kicked\":7}"));
    closing.send_replace(true);
    assert_eq!(next().await, None, "no further request is taken");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_take_the_answer_is_cut() {
    let (ours, theirs) = tokio::io::duplex(16);
    let (requests, mut asked) = mpsc::channel(4);
    let (_closing, closes) = watch::channel(false);
    let (_, access) = watch::channel(Access::default());
    let context = ControlContext { requests, access, limiter: Arc::default(), closing: closes };
    let peer = ControlPeer { user: None, process: None };
    let task = tokio::spawn(serve_connection(theirs, peer, context, Arc::default()));
    let (_kept, mut to) = tokio::io::split(ours);
    let begun = tokio::spawn(async move { to.write_all(b"{\"command\":\"status\"}\n").await });
    let Some(Request::Ask(_, answer)) = asked.recv().await else { panic!("nothing came") };
    begun.await.unwrap().unwrap();
    answer.send(Answer::Refused("longer than what fits in between".into())).unwrap();
    task.await.unwrap();
}
