//! What the state of an account means in words, and what to do about it. Times as people read them.

use std::time::Duration;

use crate::admin::desk::{Account, At, Client, CredentialKind, Identity, State};
use crate::audit::{Event, Outcome};
use crate::clock::Timestamp;

/// Why an account is as it is, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Advice {
    /// Its tokens can be had now.
    pub is_fresh: bool,
    pub what: String,
    pub next: &'static str,
}

/// A time: for programs, in full, and seen from now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct When {
    pub iso: String,
    pub full: String,
    pub relative: String,
}

pub fn advice(account: &Account, now: Timestamp) -> Advice {
    let lives = account.access_tokens.iter().map(|token| token.expires_at).filter(|at| at.0 > now).max();
    let until = |at: At| When::new(at, now).full;
    match account.status {
        State::Active => active(lives.map(until), account.next_try.filter(|at| at.0 > now).map(until)),
        State::Uncertain => Advice {
            is_fresh: false,
            what:
                "The provider was asked for new tokens and its answer was lost: nobody knows whether the refresh token \
                   was used up. What lives is served."
                    .to_owned(),
            next: "Nothing at first: it settles by itself within the life of the last access token. Refresh asks the \
                   provider now.",
        },
        State::Reauth if account.reason.is_none() => Advice {
            is_fresh: false,
            what: "Some of what the applications do for this account waits for a sign-in; the rest goes on.".to_owned(),
            next: "Send the person a sign-in link. If an administrator has changed a policy since, try a refresh first.",
        },
        State::Reauth => reauth(account.reason.as_ref().is_some_and(|reason| reason.dead), lives.map(until)),
        State::Revoked => Advice {
            is_fresh: false,
            what: "An operator or the person has ended the grant, and its tokens are erased.".to_owned(),
            next: "If the account shall work again, send the person a sign-in link. If it never shall, remove it.",
        },
    }
}

/// The whole account waits for a sign-in.
fn reauth(dead: bool, lives_until: Option<String>) -> Advice {
    let why = if dead {
        "The provider does not accept the refresh token any more."
    } else {
        "The provider wants to see the person before it gives another token."
    };
    let effect = lives_until.map_or_else(
        || "Applications get no token for this account.".to_owned(),
        |until| {
            format!("Applications are served with the last token until {until}, if it lives as long, and then refused.")
        },
    );
    let next = if dead {
        "Send the person a sign-in link. A refresh can't help."
    } else {
        "Send the person a sign-in link. If an administrator has given consent or changed a policy since, try a refresh first."
    };
    Advice { is_fresh: false, what: format!("{why} {effect}"), next }
}

fn active(lives_until: Option<String>, next_try: Option<String>) -> Advice {
    match (lives_until, next_try) {
        (Some(until), None) => Advice {
            is_fresh: true,
            what: format!("Requests get a token at once. The one at hand is good until {until}."),
            next: "Nothing. It is renewed before it ends, as long as the account is used.",
        },
        (None, None) => Advice {
            is_fresh: false,
            what: "No access token is at hand; the next request fetches one with the refresh token.".to_owned(),
            next: "Nothing. Refresh tries it now.",
        },
        (Some(until), Some(next)) => Advice {
            is_fresh: true,
            what: format!(
                "Requests get a token at once, good until {until}. But the last refresh failed; the next is not before \
                 {next}."
            ),
            next: "Nothing yet: it is tried again. If it lasts, look at the provider's health in the overview.",
        },
        (None, Some(next)) => Advice {
            is_fresh: false,
            what: format!(
                "The last refresh failed for a passing reason, and no token is left. The next is not before {next}."
            ),
            next: "Look at the provider's health in the overview. Refresh tries it now.",
        },
    }
}

impl When {
    pub fn new(At(at): At, now: Timestamp) -> Self {
        let iso = at.to_string();
        // 2026-03-01T14:05:00Z
        let full = match (iso.get(..10), iso.get(11..16)) {
            (Some(day), Some(time)) => format!("{day} {time} UTC"),
            _ => iso.clone(),
        };
        let relative =
            if at > now { format!("in {}", span(at.since(now))) } else { format!("{} ago", span(now.since(at))) };
        Self { iso, full, relative }
    }
}

/// The largest unit of which there is a whole one.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (count, unit) = match seconds {
        ..60 => return "less than a minute".to_owned(),
        60..3600 => (seconds / 60, "minute"),
        3600..172_800 => (seconds / 3600, "hour"),
        172_800.. => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// `12,345`
pub fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What a log would say, as a page says it.
pub fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let mut sentence: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    if !sentence.ends_with(['.', '!', '?', ':']) {
        sentence.push('.');
    }
    sentence
}

/// What a record tells, for people; a name that only another version knows is shown as it is.
pub fn event(name: &str) -> &str {
    let Some(event) = Event::named(name) else { return name };
    match event {
        Event::SignIn => "Sign-in",
        Event::LinkMade => "Sign-in link made",
        Event::LinkUsed => "Sign-in link used",
        Event::Import => "Import",
        Event::Refresh => "Refresh by an operator",
        Event::RefreshFailed => "Refresh failed",
        Event::Revoke => "Revocation",
        Event::Remove => "Removal",
        Event::KeysRotated => "Keys of the store rotated",
        Event::MasterKeyRotated => "Master key rotated",
        Event::PolicyDenied => "Denied by a rule",
        Event::AccountDenied => "Account denied",
        Event::ConfigReload => "Reload of the configuration",
        Event::Backup => "Backup",
        Event::Restore => "Restore",
        Event::DenialsDropped => "Denials without a record",
    }
}

/// What came of it, and the look of that.
pub fn outcome(name: &str) -> (&str, &'static str) {
    match Outcome::named(name) {
        Some(Outcome::Intended) => ("Begun", "uncertain"),
        Some(Outcome::Done) => ("Done", "active"),
        Some(Outcome::Failed) => ("Failed", "revoked"),
        Some(Outcome::Denied) => ("Denied", "reauth"),
        None => (name, "uncertain"),
    }
}

/// Who did it.
pub fn who(name: &str) -> String {
    match name.split_once(':') {
        Some(("client", name)) => format!("Client {name}"),
        Some(("operator", "cli")) => "Operator, command line".to_owned(),
        Some(("operator", "admin")) => "Operator, admin listener".to_owned(),
        _ if name == "user" => "The account's user".to_owned(),
        _ => name.to_owned(),
    }
}

/// As long as the answer of a provider takes.
pub fn took(span: Duration) -> String {
    if span < Duration::from_secs(1) {
        format!("{} ms", span.as_millis())
    } else {
        format!("{:.1} s", span.as_secs_f64())
    }
}

/// The state in a word or two for people.
pub fn state(state: State) -> &'static str {
    match state {
        State::Active => "Active",
        State::Uncertain => "Uncertain",
        State::Reauth => "Needs sign-in",
        State::Revoked => "Revoked",
    }
}

/// How a client proves who it is.
pub fn proof(client: &Client) -> &'static str {
    match client.credential.kind {
        CredentialKind::Key => "a key",
        CredentialKind::Password => "a password",
        CredentialKind::MtlsSan => "a certificate for",
        CredentialKind::PeerUid => "a Unix socket, as user",
        CredentialKind::Jwt => "a token of",
    }
}

/// Whose tokens its requests get.
pub fn acts_as(client: &Client) -> &'static str {
    match client.identity {
        Identity::User => "signed-in accounts",
        Identity::App => "the app registration itself",
        Identity::OnBehalfOf => "the user whose token it presents",
    }
}

/// A sign beside the word, so that lists are read at a glance.
pub fn sign(state: State) -> &'static str {
    match state {
        State::Active => "●",
        State::Uncertain => "◐",
        State::Reauth => "▲",
        State::Revoked => "■",
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::admin::desk::{AccessToken, Parked, Reason};

    pub const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

    pub fn at(seconds: i64) -> At {
        At(Timestamp::from_secs(NOW.secs() + seconds))
    }

    pub fn account(status: State) -> Account {
        Account {
            alias: "alice".into(),
            id: "0123456789abcdef0123456789abcdef".into(),
            provider: "entra".into(),
            tenant: "9f6b2c1e-8a57-4c0f-9d34-2f1d0a7b6c55".into(),
            subject: "2b7c6d01-1f0e-4b7a-8f43-64b1f6a1a0de".into(),
            username: Some("alice@contoso.com".into()),
            status,
            reason: None,
            parked: Vec::new(),
            scopes: vec!["User.Read".into(), "Mail.Read".into()],
            epoch: 2,
            version: 341,
            created_at: at(-9_000_000),
            signed_in_at: at(-800_000),
            refreshed_at: Some(at(-2400)),
            next_try: None,
            access_tokens: vec![AccessToken { scopes: "Mail.Read User.Read".into(), expires_at: at(1500) }],
        }
    }

    pub fn reason(dead: bool) -> Reason {
        Reason { text: "AADSTS50173 invalid_grant (bad_token)".into(), dead, since: at(-7200) }
    }

    #[test]
    fn each_state_is_said_in_words() {
        let said = |account: &Account| {
            let advice = advice(account, NOW);
            assert!(advice.what.ends_with('.') && advice.next.ends_with('.'), "{advice:?}");
            (advice.is_fresh, advice.what + " / " + advice.next)
        };
        let fresh = account(State::Active);
        assert!(said(&fresh).0 && said(&fresh).1.contains("good until 2026-09-21 14:38 UTC"), "{:?}", said(&fresh));
        let empty = Account { access_tokens: Vec::new(), ..fresh.clone() };
        assert!(!said(&empty).0 && said(&empty).1.contains("next request fetches one"));
        let failing = Account { next_try: Some(at(60)), ..empty };
        assert!(!said(&failing).0 && said(&failing).1.contains("The last refresh failed"));
        let holding = Account { next_try: Some(at(60)), ..fresh.clone() };
        assert!(said(&holding).0 && said(&holding).1.contains("the last refresh failed"));
        let waited = Account { next_try: Some(at(-60)), ..fresh };
        assert!(!said(&waited).1.contains("failed"));
        assert!(said(&account(State::Uncertain)).1.contains("answer was lost"));
        assert!(said(&account(State::Revoked)).1.contains("has ended the grant"));
        let dead = Account { reason: Some(reason(true)), ..account(State::Reauth) };
        assert!(said(&dead).1.contains("A refresh can't help") && said(&dead).1.contains("until 2026-09-21 14:38 UTC"));
        assert!(said(&Account { access_tokens: Vec::new(), ..dead }).1.contains("get no token"));
        let asked = Account { reason: Some(reason(false)), ..account(State::Reauth) };
        assert!(said(&asked).1.contains("wants to see the person"));
        let parked = Parked { scopes: "a".into(), claims: None, text: "b".into(), since: at(-60) };
        let partly = Account { parked: vec![parked], ..account(State::Reauth) };
        assert!(said(&partly).1.contains("the rest goes on"));
    }

    #[test]
    fn times_and_numbers_as_people_read_them() {
        for (seconds, relative) in [
            (0, "less than a minute ago"),
            (59, "in less than a minute"),
            (-60, "1 minute ago"),
            (3599, "in 59 minutes"),
            (-3600, "1 hour ago"),
            (-172_799, "47 hours ago"),
            (864_000, "in 10 days"),
        ] {
            assert_eq!(When::new(at(seconds), NOW).relative, relative);
        }
        let when = When::new(at(0), NOW);
        assert_eq!((&*when.iso, &*when.full), ("2026-09-21T14:13:20Z", "2026-09-21 14:13 UTC"));
        assert_eq!(sentence("the store is locked"), "The store is locked.");
        assert_eq!(sentence("Full stop."), "Full stop.");
        for (count, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(count), text);
        }
    }
}
