//! The manual pages: section 1 from the command line, section 5 by hand and held to the table of options.

use std::collections::BTreeMap;
use std::process::Command;

use pskgate::config::options::{TABLE, TomlTable};

use crate::harness::process::pskgate;
use crate::harness::stage::finish;
use crate::harness::{PskgateBuilder, root};

/// The heading under which a table's options stand.
fn table(heading: &str) -> Option<TomlTable> {
    Some(match heading {
        "BEFORE THE FIRST TABLE" => TomlTable::Top,
        "[log]" => TomlTable::Log,
        "[control]" => TomlTable::Control,
        "[http]" => TomlTable::Http,
        "[services.NAME] AND [defaults]" => TomlTable::Service,
        "[services.NAME.identities.IDENTITY]" => TomlTable::Identity,
        _ => return None,
    })
}

/// What the page says: table and option → its default.
fn described() -> BTreeMap<(String, String), String> {
    let page = std::fs::read_to_string(root().join("docs/man/pskgate.toml.5")).unwrap();
    let page = page.replace("\\-", "-").replace("\\:", "");
    let mut found = BTreeMap::new();
    let mut here = None;
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix(".SH ") {
            here = table(heading.trim_matches('"'));
        }
        if line != ".TP" {
            continue;
        }
        let (Some(table), Some(head)) = (here, lines.next()) else { continue };
        let name = head.strip_prefix("\\fB").and_then(|rest| rest.split_once("\\fR = "));
        let (name, value) = name.unwrap_or_else(|| panic!("no option: {head}"));
        let default = value.split_once("(default \\fB").map_or("", |(_, rest)| {
            rest.strip_suffix("\\fR)").unwrap_or_else(|| panic!("no default: {head}"))
        });
        let twice = found.insert((format!("{table:?}"), name.to_owned()), default.to_owned());
        assert_eq!(twice, None, "{head} is there twice");
    }
    found
}

#[test]
fn the_page_of_the_configuration_has_every_option_and_its_default_and_no_other() {
    let described = described();
    let options: BTreeMap<(String, String), String> = TABLE
        .iter()
        .filter_map(|row| row.native.map(|native| (native, row.native_default)))
        .map(|((table, name), default)| {
            ((format!("{table:?}"), name.to_owned()), default.to_owned())
        })
        .collect();
    for (option, default) in &options {
        let said = described.get(option);
        assert_eq!(said, Some(default), "docs/man/pskgate.toml.5 on {option:?}");
    }
    for option in described.keys() {
        assert!(options.contains_key(option), "docs/man/pskgate.toml.5: there is no {option:?}");
    }
    assert!(options.len() >= 60, "only {}", options.len());
}

fn row_name(row: &pskgate::config::options::OptionRow) -> Option<&'static str> {
    row.native.map(|(_, name)| name)
}

#[test]
fn the_page_of_the_configuration_has_every_word_that_is_a_value() {
    let page = std::fs::read_to_string(root().join("docs/man/pskgate.toml.5")).unwrap();
    let page = page.replace("\\-", "-");
    let known = |word: &str| page.contains(&format!("\\fB{word}\\fR"));
    // Of the twenty facilities it names some, and syslog(3); of OpenSSL's switches SSL_CTX_set_options(3).
    let elsewhere = ["facility", "tls-options"];
    let here = |row: &&_| row_name(row).is_some_and(|name| !elsewhere.contains(&name));
    for row in TABLE.iter().filter(here) {
        for word in row.words(pskgate::config::model::Dialect::Native) {
            assert!(known(word), "{word} of {:?}", row.opt);
        }
    }
}

/// Every page, as `generate man --output` writes them.
fn pages() -> BTreeMap<String, String> {
    let folder = PskgateBuilder::new();
    let done = pskgate(folder.folder(), &["generate", "man", "--output", "man"]);
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (Some(0), "", ""));
    std::fs::read_dir(folder.folder().join("man"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect()
}

#[test]
fn there_is_a_page_for_every_command_and_troff_has_nothing_against_any() {
    let pages = pages();
    let help = pskgate(PskgateBuilder::new().folder(), &["--help"]).out;
    let commands = help.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0;
    let mut count = 0;
    for command in commands.lines().filter_map(|line| line.strip_prefix("  ")) {
        let Some(name) = command.split(' ').next().filter(|name| !name.is_empty()) else {
            continue;
        };
        assert!(name == "help" || pages.contains_key(&format!("pskgate-{name}.1")), "{name}");
        count += 1;
    }
    assert!(count >= 13, "only {count} commands");
    for nested in ["pskgate-keys-rotate.1", "pskgate-generate-man.1", "pskgate.1", "pskgate.toml.5"]
    {
        assert!(pages.contains_key(nested), "{nested}");
    }
    for (name, text) in &pages {
        let folder = PskgateBuilder::new().file("page", text);
        let mut groff = Command::new("groff");
        groff.args(["-man", "-Tutf8", "-ww", "-z", "page"]).current_dir(folder.folder());
        let done = finish(&mut groff);
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{name}");
        assert!(text.contains(".SH NAME") && text.contains("SEE ALSO"), "{name}");
    }
    // What the pages of the commands point to is there.
    for (name, text) in &pages {
        let text = text.replace("\\-", "-");
        for (at, _) in text.match_indices("\\fBpskgate") {
            let rest = &text[at + 3..];
            let Some((page, section)) = rest.split_once("\\fR(") else { continue };
            if page.contains(['\n', ' ', '\\']) {
                continue;
            }
            let file = format!("{page}.{}", &section[..1]);
            assert!(pages.contains_key(&file), "{name} points to {file}");
        }
    }
}

#[test]
fn every_command_has_examples_and_each_is_a_command_line_that_is_understood() {
    let pages = pages();
    let mut count = 0;
    for (name, text) in pages.iter().filter(|(name, _)| name.ends_with(".1")) {
        // A command with commands of its own is described by their pages.
        if ["pskgate-keys.1", "pskgate-generate.1", "pskgate-service.1"].contains(&name.as_str()) {
            continue;
        }
        let (_, examples) = text.split_once(".SH EXAMPLES\n").unwrap_or_else(|| panic!("{name}"));
        let examples = examples.split(".SH ").next().unwrap().replace("\\-", "-");
        for line in examples.lines().filter(|line| line.starts_with("pskgate ")) {
            let line = line.split(['|', '>']).next().unwrap();
            // `--help` behind the arguments is reached only if those before it are understood.
            let words: Vec<_> = line.split_whitespace().skip(1).chain(["--help"]).collect();
            if words[0].starts_with('/') {
                continue;
            }
            let done = pskgate(PskgateBuilder::new().folder(), &words);
            assert_eq!(done.code, Some(0), "{name}: {line}: {}", done.err);
            count += 1;
        }
    }
    assert!(count >= 25, "only {count}");
}

#[test]
fn a_page_is_printed_by_its_name_and_a_misspelt_one_is_refused_with_the_nearest() {
    let pages = pages();
    for (asked, file) in [
        (&["generate", "man"][..], "pskgate.1"),
        (&["generate", "man", "pskgate-check"], "pskgate-check.1"),
        (&["generate", "man", "pskgate.toml"], "pskgate.toml.5"),
        (&["generate", "man", "pskgate.toml.5"], "pskgate.toml.5"),
    ] {
        let done = pskgate(PskgateBuilder::new().folder(), asked);
        assert_eq!(
            (done.code, done.out.trim_end()),
            (Some(0), pages[file].trim_end()),
            "{asked:?}"
        );
    }
    let done = pskgate(PskgateBuilder::new().folder(), &["generate", "man", "pskgate-chek"]);
    assert_eq!(done.code, Some(64), "{}", done.out);
    assert!(done.err.contains("did you mean `pskgate-check`"), "{}", done.err);
}

#[test]
fn the_exit_codes_of_the_manual_are_those_of_the_program() {
    let page = &pages()["pskgate.1"];
    let codes = page.split_once(".SH \"EXIT STATUS\"").unwrap().1.split_once(".SH").unwrap().0;
    let source = std::fs::read_to_string(root().join("src/cli/mod.rs")).unwrap();
    let mut count = 0;
    for line in source.lines().filter(|line| line.trim_start().starts_with("pub const ")) {
        let code = line.rsplit_once("= ").unwrap().1.trim_end_matches(';');
        assert!(codes.contains(&format!("\\fB{code}\\fR\n")), "{line}");
        count += 1;
    }
    assert!(count >= 10, "only {count}");
}

#[test]
fn completions_know_every_command_and_the_shells_that_are_here_read_them() {
    for (shell, values) in
        [("bash", "1.0 1.1 1.2 1.3"), ("zsh", "1.0 1.1 1.2 1.3"), ("fish", "1.3")]
    {
        let done = pskgate(PskgateBuilder::new().folder(), &["generate", "completions", shell]);
        assert!(done.out.contains("no-common-suite"), "{shell}: codes of `explain`");
        let is_version = |line: &str| line.contains("tls-min") && line.contains(values);
        let near = done
            .out
            .match_indices("tls-min")
            .any(|(at, _)| done.out[at..].chars().take(400).collect::<String>().contains(values));
        assert!(near || done.out.lines().any(is_version), "{shell}: values of --tls-min");
    }
    for (shell, wanted) in [
        ("bash", "pskgate__subcmd__keys__subcmd__rotate"),
        ("zsh", "_pskgate__subcmd__keys__subcmd__rotate_commands"),
        ("fish", "__fish_pskgate_using_subcommand keys"),
        ("powershell", "'pskgate;keys;rotate'"),
    ] {
        let done = pskgate(PskgateBuilder::new().folder(), &["generate", "completions", shell]);
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{shell}");
        assert!(done.out.contains(wanted), "{shell}: {wanted} is not in {}", done.out);
        let folder = PskgateBuilder::new().file("pskgate", &done.out);
        // Completes `pskgate ke`, or where only the shell itself could: reads it without a complaint.
        let (program, script, answer) = match shell {
            "bash" => (
                "bash",
                "set -e; . ./pskgate; COMP_WORDS=(pskgate ke); COMP_CWORD=1; \
                 _pskgate pskgate ke pskgate; printf '%s\\n' \"${COMPREPLY[@]}\"",
                "keygen\nkeys\n",
            ),
            "fish" => (
                "fish",
                "source ./pskgate; complete --do-complete 'pskgate ke' | cut -f 1",
                "keygen\nkeys\n",
            ),
            "zsh" => ("zsh", "zsh -n ./pskgate && echo fine", "fine\n"),
            // Microsoft's is in no distribution.
            _ => continue,
        };
        let mut command = Command::new(program);
        command.args(["-c", script]).current_dir(folder.folder()).env("HOME", folder.folder());
        let answered = finish(&mut command);
        assert_eq!(answered.out, answer, "{shell}: {}", answered.err);
    }
}
