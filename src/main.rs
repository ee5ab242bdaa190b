//! The binary: arguments to the library, the library's answer to an exit code.
fn main() {}
