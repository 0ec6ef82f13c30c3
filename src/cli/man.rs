//! `bearerd man`: the manual pages, from the same definition as the command line itself.

use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory;
use clap_mangen::Man;

use super::say;

/// One page to standard output, or one for each verb into a directory.
pub fn run<C: CommandFactory>(directory: Option<&Path>) -> anyhow::Result<()> {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        Man::new(C::command()).render(&mut page)?;
        return say(&String::from_utf8(page)?);
    };
    clap_mangen::generate_to(C::command(), directory).with_context(|| directory.display().to_string())?;
    say(&format!("the pages are in {}; read one: man {0}/bearerd.1\n", directory.display()))
}
