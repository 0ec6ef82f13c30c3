//! `bearerd completions SHELL`.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::say;

pub fn run<C: CommandFactory>(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    generate(shell, &mut C::command(), "bearerd", &mut script);
    say(&String::from_utf8(script)?)
}
