//! The status page, in a browser.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::harness::web::get;
use crate::harness::{
    Backend, Browser, IDENTITY, KEY, OTHER_KEY, OpensslClient, PlainClient, Pskgate,
    PskgateBuilder, client_toml, free_port, local, openssl, replace, secret, server_toml, until,
};

/// What a page of ours may need on a machine whose processors are busy.
const SLOWLY: Duration = Duration::from_secs(180);
const WIDE: (u32, u32) = (1280, 1000);

/// A server end with a window, and a client end.
fn ends(backend: &Backend, name: &str) -> (Pskgate, SocketAddr, Pskgate) {
    let at = local(free_port());
    let toml = format!("[http]\nlisten = \"{at}\"\n\n{}", server_toml(backend.address(), ""));
    let server = PskgateBuilder::new().file("psk.txt", &secret(name, KEY)).toml(&toml).start();
    let toml = client_toml(server.address("tls"), "")
        .replace(&format!("\"{IDENTITY}\""), &format!("'{name}'"));
    let client = PskgateBuilder::new().file("psk.txt", &secret(name, KEY)).toml(&toml).start();
    (server, at, client)
}

/// Something that goes back and forth until this is dropped.
struct Traffic {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    fn through(client: &Pskgate) -> Self {
        let session = PlainClient::connect(client.address("plain"));
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Acquire) {
                session.echo(&[7; 1000]);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Waits until an element's text satisfies `wanted`.
fn wait_text(browser: &mut Browser, selector: &str, wanted: impl Fn(&str) -> bool) -> String {
    let mut last = String::new();
    until(&format!("{selector} to change; {:?}", browser.complaints()), SLOWLY, || {
        last = browser.text(selector);
        wanted(&last).then(|| last.clone())
    })
}

/// The row of the first session.
const ROW: &str = "#services tbody tr";

#[test]
fn the_page_shows_live_sessions_and_the_browser_complains_of_nothing() {
    let backend = Backend::echo();
    let (server, at, client) = ends(&backend, IDENTITY);
    let traffic = Traffic::through(&client);
    let mut browser = Browser::open(&format!("http://{at}/"), WIDE);
    wait_text(&mut browser, "#phase", |text| text.contains("running"));
    wait_text(&mut browser, "#f-sessions", |text| text == "1");
    let first = wait_text(&mut browser, ROW, |text| text.contains(IDENTITY));
    assert!(first.contains("TLSv1.3") && first.contains("127.0.0.1:"), "{first}");
    let later = wait_text(&mut browser, ROW, |text| text != first);
    assert!(later.contains(IDENTITY), "{later}");
    let path = "document.getElementById('line-up').getAttribute('d') ?? ''";
    let drawn = until("a line in the chart", SLOWLY, || {
        let drawn = browser.value(path).as_str()?.to_owned();
        drawn.contains('L').then_some(drawn)
    });
    assert!(drawn.starts_with('M'), "{drawn}");
    let moved = until("the line to move on", SLOWLY, || {
        let moved = browser.value(path).as_str()?.to_owned();
        (moved != drawn).then_some(moved)
    });
    assert!(moved.starts_with('M'), "{moved}");
    until("a line that is not flat", SLOWLY, || {
        let drawn = browser.value(path).as_str()?.to_owned();
        let heights: BTreeSet<&str> = drawn
            .split(['M', 'L'])
            .filter_map(|point| Some(point.trim().split_once(' ')?.1))
            .collect();
        (heights.len() > 1).then_some(())
    });
    wait_text(&mut browser, "#f-up", |text| !text.is_empty() && !text.starts_with("0 "));
    drop(traffic);
    wait_text(&mut browser, "#f-sessions", |text| text == "0");
    assert_eq!(browser.complaints(), Vec::<String>::new());
    let stranger = openssl::psk_of("nobody", OTHER_KEY);
    assert!(OpensslClient::start(server.address("tls"), &stranger).alert().is_some());
    wait_text(&mut browser, "#services", |text| {
        text.contains("unknown identity") && text.contains("unknown-identity")
    });
    let summary = wait_text(&mut browser, ".recent summary", |text| text.contains("unknown"));
    assert!(summary.contains("127.0.0.1:"), "{summary}");
    browser.value("document.querySelector('.recent').open = true");
    let row = wait_text(&mut browser, ".recent tbody tr", |text| text.contains("127.0.0.1:"));
    assert!(row.contains("unknown identity") && !row.contains("nobody"), "{row}");
    // Which of several machines this is.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let on = format!("on {}", host.trim());
    wait_text(&mut browser, "#host", |text| text == on);
    let title = browser.value("document.title").as_str().unwrap_or_default().to_owned();
    assert!(title.contains(&format!("pskgate {on}")), "{title}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
    // The policy is in force: what is not of the page does not run.
    let foreign = "(() => { const s = document.createElement('script'); \
                   s.textContent = 'window.foreign = 1'; document.body.append(s); \
                   return window.foreign ?? 0 })()";
    assert_eq!(browser.value(foreign), 0);
    assert!(!browser.complaints().is_empty(), "complaints are heard");
}

#[test]
fn a_client_end_says_in_words_what_its_application_saw_as_a_reset() {
    let at = local(free_port());
    let nobody = local(free_port());
    let toml = format!("[http]\nlisten = \"{at}\"\n\n{}", client_toml(nobody, ""));
    let client = PskgateBuilder::new().toml(&toml).start();
    drop(PlainClient::connect(client.address("plain")).rest());
    let mut browser = Browser::open(&format!("http://{at}/"), WIDE);
    let words = wait_text(&mut browser, ".failure", |text| !text.is_empty());
    assert!(words.contains("refused") && words.contains(&nobody.to_string()), "{words}");
}

#[test]
fn the_chart_is_there_when_the_page_opens() {
    let backend = Backend::echo();
    let (_server, at, client) = ends(&backend, IDENTITY);
    let _traffic = Traffic::through(&client);
    // Nobody has looked meanwhile.
    let kept = until("samples of ten seconds", SLOWLY, || {
        let kept = get(at, "/history.json").json();
        let carried = |sample: &serde_json::Value| sample["services"]["tls"][0].as_u64();
        let samples = kept.as_array()?;
        (samples.len() >= 3 && carried(samples.last()?)? > carried(&samples[0])?).then_some(kept)
    });
    assert!(kept[0]["age"].as_f64() > kept[2]["age"].as_f64(), "{kept}");
    let mut browser = Browser::open(&format!("http://{at}/"), WIDE);
    wait_text(&mut browser, "#f-sessions", |text| text == "1");
    // What the line spans, less how long this page has been there.
    let before = "(() => { const of = name => document.getElementById(name), \
                  d = of('line-up').getAttribute('d') ?? '', \
                  xs = [...d.matchAll(/[ML]([0-9.]+)/g)].map(m => +m[1]), \
                  width = of('chart').viewBox.baseVal.width - 74; \
                  return xs.length < 2 ? 0 : \
                  (xs.at(-1) - xs[0]) / width * 600 - performance.now() / 1000 })()";
    until("a line that began before the page was opened", SLOWLY, || {
        (browser.value(before).as_f64()? > 0.0).then_some(())
    });
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_key_that_expires_soon_is_in_sight_and_one_that_does_not_is_not() {
    let backend = Backend::echo();
    let at = local(free_port());
    let end = |days: i64| {
        let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
        now.saturating_add(jiff::Span::new().days(days)).date()
    };
    let rules =
        format!("identities.soon.expires = {}\nidentities.later.expires = {}\n", end(20), end(40));
    let toml = format!("[http]\nlisten = \"{at}\"\n\n{}", server_toml(backend.address(), &rules));
    let keys = secret("soon", KEY) + &secret("later", OTHER_KEY);
    let _server = PskgateBuilder::new().file("psk.txt", &keys).toml(&toml).start();
    let mut browser = Browser::open(&format!("http://{at}/"), (500, 800));
    let words = wait_text(&mut browser, "#services", |text| text.contains("expire within 30 days"));
    let line = words.lines().find(|line| line.contains("expire within 30 days")).unwrap_or("");
    assert!(line.contains(": soon in ") && !line.contains("later"), "{words}");
    let widths = "document.documentElement.scrollWidth <= window.innerWidth";
    assert_eq!(browser.value(widths), true, "it must not be wider than the window");
}

#[test]
fn a_name_that_looks_like_markup_is_shown_and_not_obeyed() {
    let backend = Backend::echo();
    let name = "<img src=x onerror=boom()>";
    let (_server, at, client) = ends(&backend, name);
    let _traffic = Traffic::through(&client);
    let mut browser = Browser::open(&format!("http://{at}/"), WIDE);
    wait_text(&mut browser, ROW, |text| text.contains(name));
    assert_eq!(browser.value("document.images.length"), 0);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_page_fits_a_phone_and_says_when_nobody_answers_any_more() {
    let backend = Backend::echo();
    let (mut server, at, client) = ends(&backend, IDENTITY);
    let traffic = Traffic::through(&client);
    let mut browser = Browser::open(&format!("http://{at}/"), (500, 800));
    wait_text(&mut browser, ROW, |text| text.contains(IDENTITY));
    let widths = "document.documentElement.scrollWidth <= window.innerWidth";
    assert_eq!(browser.value(widths), true, "it must not be wider than the window");
    assert_eq!(browser.value("document.getElementById('notice').hidden"), true);

    replace(&server.folder().join("psk.txt"), "no colon\n");
    wait_text(&mut browser, "#f-reload", |text| text.contains("refused"));
    wait_text(&mut browser, "#findings", |text| text.contains("colon"));

    drop(traffic);
    assert_eq!(server.terminate(), Some(0));
    let words = wait_text(&mut browser, "#notice", |text| !text.is_empty());
    assert!(words.contains("No answer from pskgate since"), "{words}");
    assert_eq!(browser.value("document.getElementById('notice').hidden"), false);
    wait_text(&mut browser, "#phase", |text| text.contains("no answer"));
    // What was known is still there.
    assert!(browser.text("#services").contains("tls"), "nothing is left of the page");
}
