//! What standard output is, and what may therefore be written to it.

use std::io::IsTerminal;

/// Width, colours and characters for standard output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// The terminal's columns and lines; none in a pipe, where lines are as long as they are.
    pub(super) size: Option<(usize, usize)>,
    /// Whether anything beyond ASCII is shown as it is meant.
    pub(super) unicode: bool,
    /// Whether the reader sees colour, and wants it (https://no-color.org).
    pub(super) color: bool,
}

/// Columns and rows, if the terminal does not say.
const DEFAULT_SIZE: (usize, usize) = (80, 24);
/// Cells of a bar from the empty to the full one.
const EIGHTHS: [char; 9] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];

impl Style {
    /// For standard output as it is now; a window may have changed since.
    pub(super) fn for_stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { size: terminal.then(size), unicode: unicode(), color: terminal && !plain }
    }

    /// The terminal's columns.
    pub(super) fn width(&self) -> Option<usize> {
        self.size.map(|(columns, _)| columns)
    }

    /// A bar of so many cells, as full as `share` says, from 0 to 1.
    pub(super) fn bar(&self, share: f64, cells: usize) -> String {
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        let eighths = (share * (cells * 8) as f64).round() as usize;
        (0..cells)
            .map(|cell| match eighths.saturating_sub(cell * 8).min(8) {
                part if self.unicode => EIGHTHS[part],
                4.. => '#',
                _ => ' ',
            })
            .collect()
    }

    /// Text that asks for attention.
    pub(super) fn alert(&self, text: &str) -> String {
        self.paint("31", text)
    }

    /// Text that stands out.
    pub(super) fn strong(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        match self.color {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

#[cfg(unix)]
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => DEFAULT_SIZE,
    }
}

#[cfg(not(unix))]
fn size() -> (usize, usize) {
    DEFAULT_SIZE
}

/// The first of these variables that says something decides (POSIX, 8.2).
#[cfg(unix)]
fn unicode() -> bool {
    let said = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(said).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

#[cfg(not(unix))]
fn unicode() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_share_in_blocks_and_in_ascii() {
        let style = |unicode| Style { size: None, unicode, color: false };
        assert_eq!(style(true).bar(0.5, 4), "██  ");
        assert_eq!(style(true).bar(0.28125, 4), "█▏  ");
        assert_eq!(style(false).bar(0.5, 4), "##  ");
        assert_eq!(style(false).bar(9.0, 3), "###");
        assert_eq!(style(true).bar(f64::NAN, 3), "   ");
    }
}
