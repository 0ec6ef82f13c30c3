//! What is different between two configurations, by the names of keys. No value is ever said.

use std::collections::{BTreeMap, BTreeSet};

use super::load::Loaded;
use super::read::MASK;
use super::tree::Origin;

/// Sections and keys that take effect with the next start only. Everything else can be changed while it runs.
const NEED_A_RESTART: [&str; 9] = [
    "server.listen",
    "server.workers",
    "server.share_port",
    "admin.listen",
    "signin.listen",
    "store",
    "audit",
    "log.format",
    "log.access",
];

/// The names of what is different. A client is called `clients[NAME]`, wherever it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    changed: BTreeSet<String>,
    needs_restart: BTreeSet<String>,
}

impl Changes {
    /// What `new` changes of what runs, which began with `started` and goes by `current` now.
    pub fn between(started: &Loaded, current: &Loaded, new: &Loaded) -> Self {
        let [was_started, was, is] = [started, current, new].map(Named::of);
        let mut between = Self { changed: was.differences(&is), needs_restart: was_started.differences(&is) };
        between.changed.retain(|name| !needs_restart(name));
        between.needs_restart.retain(|name| needs_restart(name));
        // An address that stays may not lose the token or the TLS that it was checked with.
        for (address, guards) in [
            ("admin.listen", ["admin.token", "admin.token_file"]),
            ("server.listen", ["server.tls"; 2]),
            ("signin.listen", ["server.tls"; 2]),
        ] {
            let guarding = |name: &String| guards.iter().any(|guard| is_in(name, guard));
            if between.hold_back(address) && !is.keys.keys().any(guarding) {
                let kept: Vec<_> = between.changed.iter().filter(|name| guarding(name)).cloned().collect();
                between.changed.retain(|name| !guarding(name));
                between.needs_restart.extend(kept);
            }
        }
        if between.hold_back("server.listen") || between.hold_back("server.tls") {
            // What follows from the address and its TLS follows from those that are in use.
            for section in ["server", "signin"].into_iter().take_while(|section| new.is_default(section, "public_url"))
            {
                between.changed.remove(&format!("{section}.public_url"));
            }
        }
        between
    }

    /// What can be put in force now, in the order of names.
    pub fn changed(&self) -> impl Iterator<Item = &str> {
        self.changed.iter().map(String::as_str)
    }

    /// What stays as it was until the next start.
    pub fn needs_restart(&self) -> impl Iterator<Item = &str> {
        self.needs_restart.iter().map(String::as_str)
    }

    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.needs_restart.is_empty()
    }

    /// Something that can be put in force is different in the section, the key, or below.
    pub fn touch(&self, name: &str) -> bool {
        self.changed.iter().any(|changed| is_in(changed, name))
    }

    /// Nothing else of the section is different than these keys of it.
    pub fn touch_only(&self, section: &str, keys: &[&str]) -> bool {
        let is_one_of_them = |name: &str| keys.iter().any(|key| is_in(name, &format!("{section}.{key}")));
        self.changed.iter().filter(|name| is_in(name, section)).all(|name| is_one_of_them(name))
    }

    /// `touch` for what stays as it was.
    pub fn hold_back(&self, name: &str) -> bool {
        self.needs_restart.iter().any(|held_back| is_in(held_back, name))
    }
}

/// `providers.entra.tenant` is in `providers.entra`, and `providers.entra2` is not.
fn is_in(name: &str, section: &str) -> bool {
    name.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn needs_restart(name: &str) -> bool {
    NEED_A_RESTART.iter().any(|section| is_in(name, section))
}

/// Keys by their names, and what is compared of each.
struct Named {
    keys: BTreeMap<String, String>,
    /// The sections that the user names, such as `clients[payroll]` and `upstreams.graph`.
    own: BTreeSet<String>,
    clients: Vec<String>,
}

impl Named {
    fn of(loaded: &Loaded) -> Self {
        let mut named = Self { keys: BTreeMap::new(), own: BTreeSet::new(), clients: Vec::new() };
        let of_clients: BTreeMap<&str, &str> = loaded
            .settings
            .iter()
            .filter(|setting| setting.key == "name" && setting.section.starts_with("clients["))
            .filter_map(|setting| Some((setting.section.as_str(), setting.value.as_str()?)))
            .collect();
        for setting in &loaded.settings {
            let section = match setting.section.split_once(']') {
                Some((client, rest)) if client.starts_with("clients[") => {
                    let name = of_clients.get(format!("{client}]").as_str()).copied().unwrap_or_default();
                    let client = format!("clients[{name}]");
                    if rest.is_empty() && setting.key == "name" {
                        named.clients.push(client.clone());
                    }
                    named.own.insert(client.clone());
                    format!("{client}{rest}")
                }
                _ => {
                    let mut parts = setting.section.split('.');
                    if let (Some(kind @ ("providers" | "upstreams")), Some(id)) = (parts.next(), parts.next()) {
                        named.own.insert(format!("{kind}.{}", id.split('[').next().unwrap_or_default()));
                    }
                    setting.section.clone()
                }
            };
            let unshown = loaded.unshown.get(&format!("{}.{}", setting.section, setting.key));
            // A masked value has no text to compare, and a path has a file behind it.
            let text = if setting.value.as_str().is_some_and(|text| text.contains(MASK)) {
                String::new()
            } else {
                setting.value.to_string()
            };
            named.keys.insert(format!("{section}.{}", setting.key), format!("{text} {unshown:?}"));
        }
        named
    }

    fn differences(&self, new: &Self) -> BTreeSet<String> {
        let come_or_gone: BTreeSet<String> = self.own.symmetric_difference(&new.own).cloned().collect();
        let is_one_of_them = |name: &str| come_or_gone.iter().any(|section| is_in(name, section));
        let names = self.keys.keys().chain(new.keys.keys());
        let different = names.filter(|name| self.keys.get(*name) != new.keys.get(*name));
        let mut differences: BTreeSet<String> = different.filter(|name| !is_one_of_them(name)).cloned().collect();
        differences.extend(come_or_gone);
        // Who comes first counts where two could be meant.
        let stayed = |list: &[String], other: &Self| -> Vec<String> {
            list.iter().filter(|client| other.own.contains(*client)).cloned().collect()
        };
        if stayed(&self.clients, new) != stayed(&new.clients, self) {
            differences.insert("clients".to_owned());
        }
        differences
    }
}

impl Loaded {
    /// Nobody wrote this key: its value was worked out, or is the usual one.
    pub fn is_default(&self, section: &str, key: &str) -> bool {
        let mut settings = self.settings.iter();
        settings.any(|at| at.section == section && at.key == key && at.origin == Origin::Default)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::super::Config;
    use super::*;

    const USUAL: &str = r#"
        [providers.entra]
        tenant = "contoso.onmicrosoft.com"
        client_id = "app"
        credentials = [{ secret = "s3cret" }]
        [[clients]]
        name = "payroll"
        key_hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI"
        accounts = ["alice"]
        [[clients]]
        name = "portal.v2"
        key_hash = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
        accounts = ["bob"]
        limits = { concurrent = 4 }
    "#;

    fn loaded(text: &str) -> Loaded {
        Config::from_text(Some((Path::new("test.toml"), text)), &BTreeMap::new(), &[]).unwrap()
    }

    fn changes(replace: &str, by: &str) -> (Vec<String>, Vec<String>) {
        assert!(USUAL.contains(replace), "{replace}");
        let (old, new) = (loaded(USUAL), loaded(&USUAL.replacen(replace, by, 1)));
        let changes = Changes::between(&old, &old, &new);
        let names = |names: &mut dyn Iterator<Item = &str>| names.map(str::to_owned).collect();
        (names(&mut changes.changed()), names(&mut changes.needs_restart()))
    }

    #[test]
    fn each_change_has_the_name_of_its_key() {
        for (replace, by, changed) in [
            ("contoso.onmicrosoft.com", "contoso.onmicrosoft.com", &[][..]),
            ("s3cret", "another", &["providers.entra.credentials[0].secret"]),
            ("contoso.onmicrosoft.com", "fabrikam.com", &["providers.entra.tenant"]),
            ("$MTIz", "$NTIz", &["clients[payroll].key_hash"]),
            ("[\"alice\"]", "[\"alice\", \"bob\"]", &["clients[payroll].accounts"]),
            ("concurrent = 4", "concurrent = 5", &["clients[portal.v2].limits.concurrent"]),
            ("concurrent = 4", "", &["clients[portal.v2].limits.concurrent"]),
            ("portal.v2", "portal", &["clients[portal.v2]", "clients[portal]"]),
            (
                "\n",
                "\n[upstreams.billing]\nurl = \"https://billing\"\nscopes = [\"a\"]\n",
                &["upstreams.billing", "upstreams.graph"],
            ),
        ] {
            assert_eq!(changes(replace, by), (changed.iter().map(ToString::to_string).collect(), Vec::new()), "{by}");
        }
    }

    #[test]
    fn listeners_workers_and_the_store_wait_for_a_restart_and_are_named_until_then() {
        let with = |text: &str| loaded(&format!("{text}\n{USUAL}"));
        let (first, second) = (
            with("[server]\nworkers = 1\n[store]\npath = \"a\"\nkey_file = \"k\""),
            with(
                "[server]\nworkers = 2\nallowed_hosts = [\"h\"]\n[store]\npath = \"b\"\nkey_file = \"k\"\n[log]\naccess = \"off\"",
            ),
        );
        let names = |changes: &Changes| {
            (changes.changed().collect::<Vec<_>>().join(" "), changes.needs_restart().collect::<Vec<_>>().join(" "))
        };
        let all = "log.access server.workers store.path".to_owned();
        assert_eq!(names(&Changes::between(&first, &first, &second)), ("server.allowed_hosts".to_owned(), all.clone()));
        assert_eq!(names(&Changes::between(&first, &second, &second)), (String::new(), all), "still");
        assert!(Changes::between(&first, &second, &first).touch("server.allowed_hosts"));
    }

    #[test]
    fn an_address_that_stays_keeps_its_token_and_its_tls() {
        let with = |text: &str| loaded(&format!("{text}\n{USUAL}"));
        let directory = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
        for (file, text) in [(&cert, pair.cert.pem()), (&key, pair.signing_key.serialize_pem())] {
            std::fs::write(file, text).unwrap();
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let tls = format!("{{ cert_file = {cert:?}, key_file = {key:?} }}");
        let guarded = with(&format!(
            "[server]\nlisten = \"0.0.0.0:443\"\ntls = {tls}\n[admin]\nlisten = \"0.0.0.0:81\"\ntoken = \"a-token-of-operators\""
        ));
        let open = with("[server]\nlisten = \"127.0.0.1:443\"\n[admin]\nlisten = \"127.0.0.1:81\"");
        let changes = Changes::between(&guarded, &guarded, &open);
        assert!(!changes.touch("admin") && !changes.touch("server.tls"), "{changes:?}");
        assert!(changes.hold_back("admin.token") && changes.hold_back("server.tls"), "{changes:?}");
        let renewed = with("[admin]\nlisten = \"127.0.0.1:81\"\ntoken = \"another-of-operators\"");
        assert!(Changes::between(&guarded, &guarded, &renewed).touch("admin.token"));
    }

    #[test]
    fn the_order_of_clients_is_a_change_of_its_own() {
        let (payroll, rest) =
            USUAL.split_once("[[clients]]").map(|(_, clients)| clients.split_once("[[clients]]").unwrap()).unwrap();
        let head = USUAL.split_once("[[clients]]").unwrap().0;
        let turned = loaded(&format!("{head}[[clients]]{rest}\n[[clients]]{payroll}"));
        let old = loaded(USUAL);
        let changes = Changes::between(&old, &old, &turned);
        assert_eq!(changes.changed().collect::<Vec<_>>(), ["clients"]);
        assert!(changes.touch("clients") && !changes.touch("clients[payroll]"));
    }

    #[test]
    fn a_section_is_not_its_neighbour() {
        assert!(is_in("providers.entra.tenant", "providers.entra") && is_in("providers.entra", "providers.entra"));
        assert!(is_in("providers.entra.credentials[0].secret", "providers.entra.credentials"));
        assert!(!is_in("providers.entra2.tenant", "providers.entra") && !is_in("clients[ab].x", "clients[a]"));
    }
}
