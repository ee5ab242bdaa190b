//! The binary: arguments to the library, the library's answer to an exit code.

fn main() -> std::process::ExitCode {
    pskgate::cli::main(std::env::args_os())
}
