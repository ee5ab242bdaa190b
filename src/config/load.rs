//! From a file to a [`Config`], or to everything that is wrong with it.

use std::path::Path;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Diagnostics, SourceLocation};
use super::model::{Config, Dialect};
use super::parsed_file::ParsedFile;
use super::toml::without_curly_quotes;
use super::{stunnel, toml, validate};
use crate::sys::file_digest;

/// How to tell which language a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// By its name: `.toml` is native, any other is a stunnel.conf.
    #[default]
    Auto,
    /// Native, whatever its name.
    Toml,
    /// A stunnel.conf, whatever its name.
    Stunnel,
}

impl Format {
    /// The language of a file of this name.
    pub fn dialect(self, path: &Path) -> Dialect {
        let has = |path: &Path, ending: &str| {
            path.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending))
        };
        // Notepad adds its own ending.
        let is_of_notepad =
            has(path, "txt") && path.file_stem().is_some_and(|stem| has(Path::new(stem), "toml"));
        let is_toml = has(path, "toml") || is_of_notepad;
        match self {
            Self::Toml => Dialect::Native,
            Self::Stunnel => Dialect::Stunnel,
            Self::Auto if is_toml => Dialect::Native,
            Self::Auto => Dialect::Stunnel,
        }
    }
}

/// Reads and checks a file. The report that comes with a [`Config`] holds warnings and notices only.
///
/// Relative names in a native file are relative to the file's folder; in a stunnel.conf, to the
/// directory that this process is in now, which is taken once and joined, so that they stay valid
/// after daemonising.
///
/// # Errors
/// All mistakes at once, among them a file that cannot be read.
pub fn load(path: &Path, format: Format) -> Result<(Config, Diagnostics), Diagnostics> {
    sound(survey(path, format))
}

/// The same, for who looks for mistakes: what could be decided comes even when the report has errors,
/// so that the keys and lists of its other services can be looked at in the same run.
pub fn survey(path: &Path, format: Format) -> (Option<Config>, Diagnostics) {
    // The directory may have been removed; only relative names suffer.
    survey_from(&std::env::current_dir().unwrap_or_default(), path, format)
}

/// The same for a process that may have gone elsewhere since it was started in `here`.
pub fn survey_from(here: &Path, path: &Path, format: Format) -> (Option<Config>, Diagnostics) {
    let opened = here.join(path);
    let (bytes, digest) = match file_digest::read_with_digest(&opened) {
        Ok(read) => read,
        Err(e) => {
            let shown = path.display();
            let mut report = Diagnostics::default();
            report.read.insert(opened, None);
            let name = path.to_str().and_then(without_curly_quotes);
            let help = match name {
                Some(name) => format!("the quotation marks are a part of the name: write {name}"),
                None => "name a configuration file that exists and that this user can read".into(),
            };
            let found = Diagnostic::error("unreadable-file", format!("cannot read {shown}: {e}"));
            report.push(found.help(help));
            return (None, report);
        }
    };
    let base = match format.dialect(path) {
        Dialect::Stunnel => here.to_path_buf(),
        Dialect::Native => here.join(path).parent().map(Path::to_path_buf).unwrap_or_default(),
    };
    let (config, mut report) = survey_text(&bytes, path, &base, format);
    report.read.insert(opened, Some(digest));
    (config, report)
}

/// Reads and checks a text that is in memory already: from a file descriptor, or in a test. `name` is
/// what findings call it and what [`Format::Auto`] looks at; relative names are joined to `base`.
///
/// # Errors
/// All mistakes at once.
pub fn load_text(
    text: &[u8],
    name: &Path,
    base: &Path,
    format: Format,
) -> Result<(Config, Diagnostics), Diagnostics> {
    sound(survey_text(text, name, base, format))
}

/// Both of these at once.
pub fn survey_text(
    text: &[u8],
    name: &Path,
    base: &Path,
    format: Format,
) -> (Option<Config>, Diagnostics) {
    let mut report = Diagnostics::default();
    let parsed = read(text, name, base, format, &mut report);
    #[cfg(windows)]
    if let Some(parsed) = &parsed {
        super::windows::judge(parsed, &mut report);
    }
    let config = parsed.and_then(|parsed| validate::validate(&parsed, &mut report));
    report.sort();
    (config, report)
}

fn sound(
    (config, report): (Option<Config>, Diagnostics),
) -> Result<(Config, Diagnostics), Diagnostics> {
    match config {
        Some(config) if !report.has_errors() => Ok((config, report)),
        _ => Err(report),
    }
}

/// Reads a text without deciding anything; `None` if it is not even text.
pub(crate) fn read(
    text: &[u8],
    name: &Path,
    base: &Path,
    format: Format,
    report: &mut Diagnostics,
) -> Option<ParsedFile> {
    match format.dialect(name) {
        Dialect::Stunnel => Some(stunnel::read(text, name, base, report)),
        Dialect::Native => match std::str::from_utf8(text) {
            Ok(text) => {
                Some(toml::read(text.strip_prefix('\u{feff}').unwrap_or(text), name, base, report))
            }
            Err(e) => {
                let before = text.get(..e.valid_up_to()).unwrap_or_default();
                let line = before.iter().filter(|b| **b == b'\n').count() + 1;
                let place = SourceLocation {
                    file: Arc::from(name),
                    line: u32::try_from(line).unwrap_or(u32::MAX),
                    column: 1,
                    span: 0..0,
                };
                report.push(
                    Diagnostic::error("not-utf-8", "the file is not UTF-8")
                        .at(place)
                        .help("TOML is UTF-8: save the file in that encoding"),
                );
                None
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::convert::{ConversionRequest, convert};
    use crate::config::model::Mode;

    fn example(name: &str) -> (Config, Diagnostics) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        match load(&path, Format::Auto) {
            Ok(loaded) => loaded,
            Err(report) => panic!("{}", report.render(false)),
        }
    }

    fn secrets(config: &Config) -> PathBuf {
        let psk = &config.services[0].psk;
        psk.secrets[0].value.clone()
    }

    #[test]
    fn the_examples_are_the_founding_scenario_in_both_dialects() {
        let here = std::env::current_dir().unwrap();
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        for (end, mode, listens, key) in [
            ("client", Mode::Client, "3002", "pskclient1.txt"),
            ("server", Mode::Server, "3001", "psk.txt"),
        ] {
            for (suffix, base) in [("conf", &here), ("toml", &examples)] {
                let (config, report) = example(&format!("stunnel-{end}.{suffix}"));
                let service = &config.services[0];
                assert_eq!(config.services.len(), 1);
                assert_eq!(service.name.value, "beremiz");
                assert_eq!(service.mode.value, mode);
                assert!(service.accept()[0].at.value.to_string().ends_with(listens));
                assert_eq!(secrets(&config), base.join(key));
                let log = config.log.output.as_ref().unwrap();
                assert_eq!(log.value, base.join(format!("stunnel-{end}.log")));
                assert!(config.file.is_absolute() && config.file.is_file());
                let warned = end == "client" && suffix == "conf";
                assert_eq!(
                    report.diagnostics.len(),
                    usize::from(warned),
                    "{}",
                    report.render(false)
                );
            }
        }
    }

    /// xorshift: the same mistakes on every machine.
    fn random(state: &mut u64) -> usize {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 11) as usize
    }

    fn survive(text: &[u8], name: &str) {
        let report = match load_text(text, Path::new(name), Path::new("/base"), Format::Auto) {
            Ok((_, report)) => {
                assert!(!report.has_errors());
                report
            }
            Err(report) => {
                assert!(
                    report.has_errors(),
                    "refused in silence: {:?}",
                    String::from_utf8_lossy(text)
                );
                report
            }
        };
        let to = match Format::Auto.dialect(Path::new(name)) {
            Dialect::Native => Dialect::Stunnel,
            Dialect::Stunnel => Dialect::Native,
        };
        let order = ConversionRequest {
            format: Format::Auto,
            to,
            start: Path::new("/base"),
            home: None,
            unit_logs: None,
        };
        // One in four: each takes as long as all of the rest.
        let sample = text.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) % 4 == 0;
        let converted = sample.then(|| convert(text, Path::new(name), &order));
        let report = match converted {
            Some(Ok(converted)) => {
                let odd = |c: char| c.is_control() && c != '\n';
                assert!(!converted.text.contains(odd), "{:?}", converted.text);
                let mut both = report;
                both.extend(converted.report);
                both
            }
            Some(Err(_)) | None => report,
        };
        for shown in [report.render(false), report.render_stunnel()] {
            assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
        }
    }

    #[test]
    fn no_text_makes_the_readers_panic() {
        let mut seeds: Vec<(Vec<u8>, &str)> = Vec::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for folder in ["examples", "tests/cases/config/valid", "tests/cases/config/invalid"] {
            for entry in std::fs::read_dir(root.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                match path.extension().and_then(|e| e.to_str()) {
                    Some("toml") => seeds.push((std::fs::read(&path).unwrap(), "x.toml")),
                    Some("conf") => seeds.push((std::fs::read(&path).unwrap(), "x.conf")),
                    _ => {}
                }
            }
        }
        assert!(seeds.len() >= 25, "only {} seeds found", seeds.len());
        let pieces: [&[u8]; 16] = [
            b"\0",
            b"\r",
            b"\n",
            b"=",
            b"[",
            b"]",
            b"\"",
            b":",
            b"\xff",
            "\u{e9}".as_bytes(),
            b" ",
            b"#",
            b"99999999999999999999",
            b"\x1b[2J",
            b"[[",
            b"client1:c2VjcmV0c2VjcmV0c2VjcmV0",
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15;
        for round in 0..1_500 {
            let (seed, name) = &seeds[round % seeds.len()];
            let mut text = seed.clone();
            for _ in 0..=random(&mut state) % 4 {
                let at = random(&mut state) % (text.len() + 1);
                let end = (at + random(&mut state) % 8).min(text.len());
                match random(&mut state) % 4 {
                    0 => drop(text.drain(at..end)),
                    1 => text.truncate(at),
                    2 if at < text.len() => text[at] = (random(&mut state) % 256) as u8,
                    _ => {
                        let piece = pieces[random(&mut state) % pieces.len()];
                        drop(text.splice(at..at, piece.iter().copied()));
                    }
                }
            }
            survive(&text, name);
        }
        for round in 0..500 {
            let length = random(&mut state) % 200;
            let text: Vec<u8> = (0..length).map(|_| (random(&mut state) % 256) as u8).collect();
            survive(&text, if round % 2 == 0 { "x.toml" } else { "x.conf" });
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_a_finding() {
        let report = load(Path::new("/nonexistent/x.toml"), Format::Auto).unwrap_err();
        assert_eq!(report.diagnostics[0].code, "unreadable-file");
        assert!(report.render(false).contains("1 error"));
        let report = load(Path::new("“x.toml”"), Format::Auto).unwrap_err();
        let help = report.diagnostics[0].help.as_deref();
        assert!(help.is_some_and(|help| help.ends_with("write x.toml")), "{help:?}");
        let text = "[services.s]\npsk-secrets = “psk.txt”\n";
        let path = Path::new;
        let report = load_text(text.as_bytes(), path("x.toml"), path("/"), Format::Auto);
        let found = report.unwrap_err().diagnostics.swap_remove(0);
        let help = found.help.unwrap_or_default();
        assert!(help.ends_with("write psk-secrets = \"psk.txt\""), "{help}");
    }

    #[test]
    fn a_native_file_that_is_not_utf_8_is_a_finding_with_its_line() {
        let name = Path::new("x.toml");
        let report =
            load_text(b"a = 1\nb = \"\xff\"\n", name, Path::new("/"), Format::Auto).unwrap_err();
        assert_eq!(report.diagnostics[0].code, "not-utf-8");
        assert_eq!(report.diagnostics[0].place.as_ref().unwrap().line, 2);
    }

    #[test]
    fn the_name_tells_the_language_unless_the_caller_does() {
        assert_eq!(Format::Auto.dialect(Path::new("a.toml")), Dialect::Native);
        assert_eq!(Format::Auto.dialect(Path::new("a.TOML")), Dialect::Native);
        assert_eq!(Format::Auto.dialect(Path::new("pskgate.toml.txt")), Dialect::Native);
        assert_eq!(Format::Auto.dialect(Path::new("pskgate.txt")), Dialect::Stunnel);
        assert_eq!(Format::Auto.dialect(Path::new("stunnel.conf")), Dialect::Stunnel);
        assert_eq!(Format::Auto.dialect(Path::new("-")), Dialect::Stunnel);
        assert_eq!(Format::Toml.dialect(Path::new("a.conf")), Dialect::Native);
        assert_eq!(Format::Stunnel.dialect(Path::new("a.toml")), Dialect::Stunnel);
    }
}
