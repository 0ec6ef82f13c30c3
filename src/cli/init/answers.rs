//! The five answers: from flags, or asked line by line, each with its default. A line that is no answer is asked for again.

use std::fmt::{Display, Write as _};
use std::io::{self, Write};

use clap::ValueEnum;
use url::Url;

use super::{Init, Place, Proof};
use crate::config::{self, safe_origin, tenant};

/// In words for people, and what Graph calls it.
const PERMISSIONS: [(&str, &str); 4] = [
    ("read-mail", "Mail.Read"),
    ("send-mail", "Mail.Send"),
    ("read-files", "Files.Read"),
    ("write-files", "Files.ReadWrite"),
];
/// Lets people sign in and be named; asked for in any case.
const ALWAYS: &str = "User.Read";
const ANY_TENANT: &str = "organizations";

/// All that the file and the steps are made from.
#[derive(Debug)]
pub(super) struct Answers {
    pub tenant: String,
    /// `None`: the application is registered later.
    pub client_id: Option<String>,
    pub credential: Proof,
    /// By Graph's names, each once.
    pub scopes: Vec<String>,
    pub place: Place,
    public_url: Option<Url>,
}

/// A flag that is needed where nobody can be asked.
#[derive(Debug, PartialEq, Eq)]
pub struct Missing(pub &'static str);

impl Answers {
    /// With `--yes` each question but one has a default: nobody can guess a public URL.
    pub fn from_flags(init: Init) -> Result<Self, Missing> {
        let yes = init.yes;
        let place = given(init.place, yes.then_some(Place::Here), "--place")?;
        if place == Place::BehindTls && init.public_url.is_none() {
            return Err(Missing("--public-url"));
        }
        Ok(Self {
            tenant: given(init.tenant, yes.then(|| ANY_TENANT.to_owned()), "--tenant")?,
            client_id: filled(given(init.client_id, yes.then(String::new), "--client-id")?),
            credential: given(init.credential, yes.then_some(Proof::Secret), "--credential")?,
            scopes: scopes(&given(init.may, yes.then(Vec::new), "--may")?),
            place,
            public_url: init.public_url,
        })
    }

    /// Asks what no flag answers.
    pub fn asked(
        init: Init,
        lines: &mut dyn Iterator<Item = io::Result<String>>,
        out: &mut dyn Write,
    ) -> anyhow::Result<Self> {
        let mut asker = Asker { lines, out };
        let what = "Whose users sign in? The tenant's id, one of its domains, or organizations for any";
        let tenant = asker.unless(init.tenant, what, Some(ANY_TENANT), tenant)?;
        let what = "The application's (client) id; empty: register it later";
        let client_id = asker.unless(init.client_id, what, Some(""), client_id)?;
        let what = "How does bearerd prove that it is the application?";
        let credential = asker.chosen(init.credential, what, &Proof::Secret)?;
        let what = "What may applications do? Several, by commas: read-mail, send-mail, read-files, write-files, or scopes such \
            as Calendars.Read; empty: only see who it is";
        let may = asker.unless(init.may, what, Some(""), permissions)?;
        let place = asker.chosen(init.place, "Where does it listen?", &Place::Here)?;
        let public_url = match (init.public_url, place) {
            (Some(url), _) => Some(url),
            (None, Place::Here) => None,
            (None, Place::Container) => Some(asker.unless(None, HOW_REACHED, Some(LOCALHOST), safe_origin)?),
            (None, Place::BehindTls) => Some(asker.unless(None, HOW_REACHED, None, safe_origin)?),
        };
        Ok(Self { tenant, client_id: filled(client_id), credential, scopes: scopes(&may), place, public_url })
    }

    /// How browsers and applications reach it: an origin, without a slash at its end.
    pub fn public_url(&self) -> &str {
        self.public_url.as_ref().map_or(LOCALHOST, |url| url.as_str().trim_end_matches('/'))
    }
}

const HOW_REACHED: &str = "How do browsers and applications reach it? An origin such as https://graph.example.com";
/// Entra ID accepts plain http for this name only, and for any port of it.
const LOCALHOST: &str = "http://localhost:8080";

fn given<T>(flag: Option<T>, default: Option<T>, name: &'static str) -> Result<T, Missing> {
    flag.or(default).ok_or(Missing(name))
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

pub(super) fn client_id(text: &str) -> Result<String, String> {
    config::client_id(text.to_owned())
}

/// What `--may` takes: one of our words, or the name of a scope.
pub(super) fn permission(text: &str) -> Result<String, String> {
    if let Some((_, scope)) = PERMISSIONS.iter().find(|(word, _)| *word == text) {
        return Ok((*scope).to_owned());
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-:/".contains(c);
    if text.contains('.') && text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    let words: Vec<_> = PERMISSIONS.iter().map(|(word, _)| *word).collect();
    Err(format!("must be {}, or a scope such as Calendars.Read", words.join(", ")))
}

fn permissions(text: &str) -> Result<Vec<String>, String> {
    text.split([',', ' ']).filter(|word| !word.is_empty()).map(permission).collect()
}

fn scopes(wanted: &[String]) -> Vec<String> {
    let mut scopes = vec![ALWAYS.to_owned()];
    for scope in wanted {
        if !scopes.contains(scope) {
            scopes.push(scope.clone());
        }
    }
    scopes
}

struct Asker<'a> {
    lines: &'a mut dyn Iterator<Item = io::Result<String>>,
    out: &'a mut dyn Write,
}

impl Asker<'_> {
    fn unless<T, E: Display>(
        &mut self,
        flag: Option<T>,
        what: &str,
        default: Option<&str>,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> anyhow::Result<T> {
        if let Some(flag) = flag {
            return Ok(flag);
        }
        loop {
            match default {
                Some(default) if !default.is_empty() => write!(self.out, "\n{what} [{default}]: ")?,
                _ => write!(self.out, "\n{what}: ")?,
            }
            self.out.flush()?;
            let Some(line) = self.lines.next() else {
                anyhow::bail!("the answers ended too early; nothing is written")
            };
            let line = line?;
            let text = match (line.trim(), default) {
                ("", Some(default)) => default,
                (text, _) => text,
            };
            match parse(text) {
                Ok(answer) => return Ok(answer),
                Err(error) => writeln!(self.out, "{error}")?,
            }
        }
    }

    /// One of several, by its name or its number.
    fn chosen<T: ValueEnum>(&mut self, flag: Option<T>, what: &str, default: &T) -> anyhow::Result<T> {
        let shown = |choice: &T| choice.to_possible_value().expect("none is hidden");
        let mut text = what.to_owned();
        for (at, choice) in T::value_variants().iter().map(shown).enumerate() {
            let help = choice.get_help().map(ToString::to_string).unwrap_or_default();
            let _ = write!(text, "\n  {}. {:<17} {help}", at + 1, choice.get_name());
        }
        let default = shown(default);
        self.unless(flag, &format!("{text}\nName or number"), Some(default.get_name()), |text| {
            let numbered = text.parse().ok().and_then(|number: usize| T::value_variants().get(number.checked_sub(1)?));
            numbered.cloned().map_or_else(|| T::from_str(text, true), Ok)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(init: Init, text: &str) -> anyhow::Result<(Answers, String)> {
        let mut out = Vec::new();
        let answers = Answers::asked(init, &mut text.lines().map(|line| Ok(line.to_owned())), &mut out)?;
        Ok((answers, String::from_utf8(out).unwrap()))
    }

    #[test]
    fn enter_takes_the_defaults() {
        let (answers, out) = asked(Init::default(), "\n\n\n\n\n").unwrap();
        assert_eq!((answers.tenant.as_str(), answers.client_id.as_deref()), ("organizations", None));
        assert_eq!((answers.credential, answers.place), (Proof::Secret, Place::Here));
        assert_eq!(answers.scopes, ["User.Read"]);
        assert_eq!(answers.public_url(), "http://localhost:8080");
        assert_eq!(out.matches('[').count(), 3, "{out}");
    }

    #[test]
    fn what_is_no_answer_is_asked_again_and_flags_are_not_asked() {
        let init = Init { client_id: Some("app".into()), ..Init::default() };
        let lines = "a b\ncontoso.com\n7\n2\nfly\nsend-mail,Tasks.Read\n3\nnonsense\nhttps://g.example.com\n";
        let (answers, out) = asked(init, lines).unwrap();
        assert_eq!((answers.tenant.as_str(), answers.client_id.as_deref()), ("contoso.com", Some("app")));
        assert_eq!((answers.credential, answers.place), (Proof::Certificate, Place::BehindTls));
        assert_eq!(answers.scopes, ["User.Read", "Mail.Send", "Tasks.Read"]);
        assert_eq!(answers.public_url(), "https://g.example.com");
        assert!(!out.contains("client) id"), "{out}");
        assert!(out.contains("must be read-mail, "), "{out}");
    }

    #[test]
    fn an_end_of_the_answers_is_no_answer() {
        assert!(asked(Init::default(), "contoso.com\n").is_err());
    }

    #[test]
    fn the_first_missing_flag_is_named() {
        let missing = |init| Answers::from_flags(init).unwrap_err();
        assert_eq!(missing(Init::default()), Missing("--place"));
        assert_eq!(missing(Init { place: Some(Place::Here), ..Init::default() }), Missing("--tenant"));
        let behind = Init { yes: true, place: Some(Place::BehindTls), ..Init::default() };
        assert_eq!(missing(behind), Missing("--public-url"));
        assert!(Answers::from_flags(Init { yes: true, ..Init::default() }).is_ok());
    }
}
