//! `bearerd version`.

use serde_json::json;

use super::{Format, say, say_json};

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub fn run(format: Format) -> anyhow::Result<()> {
    match format {
        Format::Table => say(&format!("bearerd {VERSION}\n")),
        Format::Json => say_json(&json!({
            "name": "bearerd",
            "version": VERSION,
            "sandbox": cfg!(feature = "sandbox"),
        })),
    }
}
