//! The configuration in effect as text: every key that has a value, secrets masked, and where it came from.

use std::fmt::Write as _;

use super::Masked;
use super::read::{MASK, Setting};
use super::tree::Origin;

/// TOML that reads back as the same configuration, but for the masked secrets.
pub fn toml(settings: &[Setting]) -> String {
    let mut sections: Vec<&str> = Vec::new();
    for setting in settings {
        if !sections.contains(&setting.section.as_str()) {
            sections.push(&setting.section);
        }
    }
    let mut text = String::new();
    for section in sections {
        let _ = writeln!(text, "{}{}", if text.is_empty() { "" } else { "\n" }, header(section));
        let mut settings: Vec<_> = settings.iter().filter(|setting| setting.section == section).collect();
        settings.sort_by_key(|setting| setting.at);
        for Setting { key, value, origin, .. } in settings {
            let _ = match origin {
                Origin::Default => writeln!(text, "{key} = {value}"),
                origin => writeln!(text, "{key} = {value} # {origin}"),
            };
        }
    }
    text
}

/// The same as a JSON object.
pub fn json(settings: &[Setting]) -> serde_json::Value {
    toml::from_str(&toml(settings)).expect("what we print is TOML, and TOML without dates and infinities is JSON")
}

/// Both, for eyes that are not the file's owner's: the hash of a key is nobody's business either.
pub fn masked(settings: &[Setting]) -> Masked {
    let mut settings = settings.to_vec();
    for setting in settings.iter_mut().filter(|setting| setting.key == "key_hash") {
        setting.value = MASK.into();
    }
    Masked { toml: toml(&settings), json: json(&settings) }
}

/// `clients[2]` is a table of a list: `[[clients]]`; `clients[2].limits` belongs to the last one: `[clients.limits]`.
fn header(section: &str) -> String {
    let mut name = String::new();
    let mut inside = false;
    for c in section.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if !inside => name.push(c),
            _ => {}
        }
    }
    if section.ends_with(']') { format!("[[{name}]]") } else { format!("[{name}]") }
}
