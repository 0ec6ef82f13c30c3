//! `bearerd config print` and `config schema`.

use clap::ValueEnum;

use super::{Source, say, say_json};
use crate::config;

/// How the configuration is printed.
#[derive(Clone, Copy, Default, ValueEnum)]
pub enum Format {
    #[default]
    #[value(alias = "table")]
    Toml,
    Json,
}

pub fn print(source: &Source, format: Format) -> anyhow::Result<()> {
    let loaded = source.load()?;
    match format {
        Format::Toml => say(&loaded.toml()),
        Format::Json => say_json(&loaded.json()),
    }
}

pub fn schema() -> anyhow::Result<()> {
    say_json(&config::schema())
}
