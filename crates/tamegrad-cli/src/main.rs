//! The program `tamegrad`; what it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(tamegrad_cli::run(std::env::args_os()))
}
