//! `completions SHELL`: lets a shell complete a program's command line. In: its definition. Out: a script for the shell.

use clap::{Args, Command};
use clap_complete::Shell;

/// Flags of `completions`.
#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    /// The shell that reads the script
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// The script.
///
/// - command: of the whole program
pub fn completions(args: &CompletionsArgs, mut command: Command) -> String {
    let name = command.get_name().to_string();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}
