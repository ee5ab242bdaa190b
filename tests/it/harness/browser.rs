//! Chromium without a window, spoken to over its debugging pipe: what a page shows, and what the
//! browser complains of.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Process, until};

/// A browser takes seconds to start on a busy machine.
const WAIT_TIMEOUT: Duration = Duration::from_secs(180);

/// One page in a browser of its own.
pub struct Browser {
    process: Process,
    _profile: TempDir,
    session: Option<String>,
    last: u64,
}

impl Browser {
    /// Starts it and opens `url`, in a window of so many pixels.
    pub fn open(url: &str, (width, height): (u32, u32)) -> Self {
        let profile = TempDir::new().expect("a folder for the profile");
        let mut command = Command::new("sh");
        // It reads orders from descriptor 3 and answers on 4.
        command.args(["-c", "exec chromium \"$@\" 3<&0 4>&1 </dev/null >&2", "chromium"]).args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--remote-debugging-pipe",
            &format!("--window-size={width},{height}"),
            &format!("--user-data-dir={}", profile.path().display()),
        ]);
        let process = Process::spawn("chromium", "chromium", &mut command);
        let mut browser = Self { process, _profile: profile, session: None, last: 0 };
        let target = browser.order("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.order("Target.attachToTarget", attach);
        browser.session = Some(session["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.order(&format!("{domain}.enable"), json!({}));
        }
        let navigated = browser.order("Page.navigate", json!({ "url": url }));
        assert!(navigated["errorText"].is_null(), "{url} cannot be opened: {navigated}");
        browser
    }

    /// Gives an order, and waits for what comes of it.
    fn order(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.process.type_in(&format!("{message}\0"));
        let number = self.last;
        let answer = until(&format!("chromium's answer to {method}"), WAIT_TIMEOUT, || {
            self.messages().into_iter().find(|message| message["id"] == number)
        });
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Everything that it has said.
    fn messages(&self) -> Vec<Value> {
        let said = self.process.out();
        let whole = said.rsplit_once('\0').map_or("", |(whole, _)| whole);
        whole.split('\0').filter_map(|message| serde_json::from_str(message).ok()).collect()
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true });
        let result = self.order("Runtime.evaluate", parameters);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// The text of an element, as it stands in the document.
    pub fn text(&mut self, selector: &str) -> String {
        let selector = json!(selector);
        let text = self.value(&format!("document.querySelector({selector})?.textContent ?? ''"));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// What it has complained of so far: the console, exceptions, whatever was blocked or not found.
    pub fn complaints(&self) -> Vec<String> {
        let complains = |message: &Value| match message["method"].as_str() {
            Some("Runtime.exceptionThrown" | "Network.loadingFailed") => true,
            Some("Runtime.consoleAPICalled") => message["params"]["type"] != "log",
            Some("Log.entryAdded") => message["params"]["entry"]["level"] != "verbose",
            _ => false,
        };
        self.messages().iter().filter(|message| complains(message)).map(Value::to_string).collect()
    }
}
