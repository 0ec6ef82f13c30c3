//! Names of scopes, and which of them a grant lacks.

/// Added to every sign-in by `oauth`.
pub const ALWAYS: [&str; 3] = ["openid", "profile", "offline_access"];

/// What was asked for and not granted. `granted` empty: the provider did not say. An answer of Entra ID speaks of one API only: what was asked
/// of others is not missing because of it.
pub fn missing(asked: &[String], granted: &[String]) -> Vec<String> {
    let is_in = |name: &str| granted.iter().any(|other| short(other).eq_ignore_ascii_case(short(name)));
    let is_told = |name: &&String| !is_openid(name) && !name.ends_with(".default");
    if granted.is_empty() {
        return Vec::new();
    }
    let told: Vec<&str> = granted.iter().filter(|name| !is_openid(name)).map(|name| api(name)).collect();
    let is_told_of = |name: &&String| told.is_empty() || told.iter().any(|own| own.eq_ignore_ascii_case(api(name)));
    asked.iter().filter(is_told).filter(is_told_of).filter(|name| !is_in(name)).cloned().collect()
}

/// `api://billing/Invoices.Read` -> `api://billing`. Microsoft Graph's need no name.
fn api(name: &str) -> &str {
    let api = name.rsplit_once('/').map_or("", |(api, _)| api);
    let is_graph =
        ["https://graph.", "https://dod-graph.", "https://microsoftgraph."].iter().any(|own| api.starts_with(own));
    if is_graph { "" } else { api }
}

/// `https://graph.microsoft.com/Mail.Read` -> `Mail.Read`.
pub fn short(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Providers leave these out of what they say they granted.
fn is_openid(name: &str) -> bool {
    ALWAYS.contains(&name) || name == "email"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_granted() {
        let names = |list: &[&str]| -> Vec<String> { list.iter().map(ToString::to_string).collect() };
        let asked = names(&["User.Read", "Mail.Read", "offline_access"]);
        assert_eq!(missing(&asked, &names(&["https://graph.microsoft.com/user.read", "profile"])), ["Mail.Read"]);
        assert!(missing(&asked, &[]).is_empty());
        assert_eq!(missing(&asked, &names(&["openid", "profile"])), ["User.Read", "Mail.Read"]);
        let two = names(&["Mail.Read", "api://billing/Invoices.Read", "api://billing/Invoices.Send"]);
        assert!(missing(&two, &names(&["https://graph.microsoft.us/Mail.Read"])).is_empty());
        assert_eq!(missing(&two, &names(&["api://billing/Invoices.Read"])), ["api://billing/Invoices.Send"]);
        assert!(missing(&names(&["https://graph.microsoft.com/.default"]), &names(&["User.Read"])).is_empty());
    }
}
