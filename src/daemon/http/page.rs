//! The status page: one document that needs nothing else, and the policy that keeps it so.

use std::sync::LazyLock;

use data_encoding::BASE64;

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The document.
pub(super) const PAGE: &str = concat!(
    include_str!("page/head.html"),
    "<style>",
    include_str!("page/page.css"),
    "</style>\n",
    include_str!("page/body.html"),
    "<script>",
    include_str!("page/page.js"),
    "</script>\n</html>\n"
);

/// Its Content-Security-Policy. Of scripts and styles it allows these very texts: should a name out of
/// a key file ever be taken for HTML, nothing in it runs, and nothing leaves this machine.
pub(super) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| BASE64.encode(&openssl::sha::sha256(text.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_asks_nobody_else() {
        assert!(PAGE.len() < 40_000, "{} bytes", PAGE.len());
        for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!PAGE.contains(word), "{word}");
        }
        let foreign = PAGE.replace("http://www.w3.org/2000/svg", "");
        for word in ["http:", "https:", "//cdn", "@import", "src="] {
            assert!(!foreign.contains(word), "{word}");
        }
    }
}
