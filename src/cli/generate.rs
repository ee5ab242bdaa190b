//! `generate`: what goes beside the program, made by it, so that each fits this version: its manual
//! pages, completions for shells, and the schema of its TOML for editors.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use super::refusal::Refusal;
use super::{Arguments, exit, explain, print_result};
use crate::config::options::nearest;
use crate::config::schema::schema;
use crate::secrets::escape;

/// What no table of options knows: signals, files, environment.
const SECTIONS: &str = include_str!("generate/sections.roff");
/// Examples of each command, in the form that the head of the file describes.
const EXAMPLES: &str = include_str!("generate/examples.md");
/// Written by hand; a test compares it with the table of options.
const CONFIGURATION: &str = include_str!("../../docs/man/pskgate.toml.5");

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print a manual page, or write all pages to a folder
    #[command(after_help = "To read one here: pskgate generate man pskgate.toml | man -l -")]
    Man {
        /// The name of the page, such as pskgate-check or pskgate.toml
        #[arg(default_value = "pskgate")]
        page: String,
        /// Write all pages to this folder; it is created if it does not exist
        #[arg(short, long, value_name = "FOLDER", conflicts_with = "page")]
        output: Option<PathBuf>,
    },
    /// Print completions for a shell
    #[command(after_help = "\
bash:        pskgate generate completions bash > /usr/share/bash-completion/completions/pskgate
zsh:         pskgate generate completions zsh > /usr/local/share/zsh/site-functions/_pskgate
fish:        pskgate generate completions fish > ~/.config/fish/completions/pskgate.fish
powershell:  pskgate generate completions powershell >> $PROFILE")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the JSON Schema of the configuration, for editors
    #[command(after_help = "\
An editor with a language server for TOML completes and checks a configuration whose first line is:

    #:schema ./pskgate.schema.json

with the path of a file that has this output.")]
    Schema,
}

pub(super) fn main(command: &Command) -> u8 {
    match command {
        Command::Man { page, output: None } => match pages().iter().find(|one| one.is(page)) {
            Some(page) => print_result(page.text.trim_end()),
            None => no_such_page(page).report(),
        },
        Command::Man { output: Some(folder), .. } => match write(folder) {
            Ok(()) => exit::OK,
            Err(refusal) => refusal.report(),
        },
        Command::Completions { shell } => {
            let mut made = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "pskgate", &mut made);
            if *shell == Shell::Fish {
                // What clap_complete makes for fish has options alone.
                made.extend_from_slice(codes_for_fish().as_bytes());
            }
            print_result(String::from_utf8_lossy(&made).trim_end())
        }
        Command::Schema => print_result(schema().trim_end()),
    }
}

fn codes_for_fish() -> String {
    let codes: Vec<_> = explain::codes().collect();
    let codes = codes.join(" ");
    format!(
        "complete -c pskgate -n \"__fish_pskgate_using_subcommand explain\" -f -a \"{codes}\"\n"
    )
}

struct ManPage {
    /// With its section: `pskgate-check.1`.
    file: String,
    text: String,
}

impl ManPage {
    fn is(&self, name: &str) -> bool {
        self.file == name || self.name() == name
    }

    fn name(&self) -> &str {
        self.file.rsplit_once('.').map_or(&self.file, |(name, _)| name)
    }
}

/// Every page: one a command, and the configuration's.
fn pages() -> Vec<ManPage> {
    // `pskgate help` is no command to read about.
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let mut made = Vec::new();
    collect(&command, &mut made);
    made.push(ManPage { file: "pskgate.toml.5".into(), text: CONFIGURATION.into() });
    made
}

fn collect(command: &clap::Command, made: &mut Vec<ManPage>) {
    let is_first = made.is_empty();
    // The same text wherever and whenever it is made: no date.
    let man = Man::new(command.clone())
        .date("")
        .manual("pskgate")
        .source(concat!("pskgate ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    // A vector takes everything.
    let _ = man.render(&mut text);
    let mut text = with_notes(&String::from_utf8_lossy(&text));
    // `pskgate-keys-list.1` is the page of `pskgate keys list`.
    let name = man.get_filename();
    text += &examples(&name.trim_end_matches(".1").replace('-', " "));
    text += match is_first {
        true => SECTIONS,
        false => ".SH \"SEE ALSO\"\n\\fBpskgate\\fR(1), \\fBpskgate.toml\\fR(5)\n",
    };
    made.push(ManPage { file: name, text });
    command.get_subcommands().filter(|one| !one.is_hide_set()).for_each(|one| collect(one, made));
}

/// What stands below a command's help, as notes: line for line, for some of them are commands to copy. The
/// exit codes have a section of their own.
fn with_notes(text: &str) -> String {
    let Some((body, extra)) = text.split_once("\n.SH EXTRA\n") else { return text.into() };
    let paragraphs = extra.trim_end().split("\n\n").filter(|one| !one.starts_with("Exit codes:"));
    let notes: Vec<_> = paragraphs.map(|one| one.replace('\n', "\n.br\n")).collect();
    format!("{body}\n.SH NOTES\n{}\n", notes.join("\n.PP\n"))
}

/// The section EXAMPLES of a command's page; empty if there are none.
fn examples(command: &str) -> String {
    let mut sections = EXAMPLES.split("\n## ").skip(1).filter_map(|one| one.split_once('\n'));
    let Some((_, section)) = sections.find(|(name, _)| *name == command) else {
        return String::new();
    };
    let mut text = ".SH EXAMPLES\n".to_owned();
    for (number, paragraph) in section.trim_end().split("\n\n").enumerate() {
        let escaped = paragraph.replace('\\', "\\e").replace('-', "\\-");
        if paragraph.starts_with("    ") {
            let lines: Vec<_> = escaped.lines().map(str::trim_start).collect();
            text += &format!(".PP\n.RS 4\n.nf\n{}\n.fi\n.RE\n", lines.join("\n"));
        } else {
            text += if number == 0 { "" } else { ".PP\n" };
            text += &format!("{}\n", escaped.trim_end());
        }
    }
    text
}

fn no_such_page(wanted: &str) -> Refusal {
    let pages = pages();
    let help = match nearest(wanted, pages.iter().map(ManPage::name)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let all: Vec<_> = pages.iter().map(ManPage::name).collect();
            format!("there are: {}", all.join(", "))
        }
    };
    let wanted = escape(wanted.as_bytes());
    Refusal::new(exit::USAGE, format!("there is no manual page {wanted}; {help}"))
}

fn write(folder: &Path) -> Result<(), Refusal> {
    std::fs::create_dir_all(folder).map_err(|error| Refusal::cannot_write(folder, &error))?;
    for page in pages() {
        let path = folder.join(&page.file);
        std::fs::File::create(&path)
            .and_then(|mut file| file.write_all(page.text.as_bytes()))
            .map_err(|error| Refusal::cannot_write(&path, &error))?;
    }
    Ok(())
}
