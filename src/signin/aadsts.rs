//! What the numbers of Entra ID's errors mean for the person in front of the screen, and what that person can do.
//!
//! Only the number of an error is ever used: its text comes from outside and is not shown.

use crate::store::Reason;

/// Plain words for one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Words {
    pub what: &'static str,
    pub next: &'static str,
    /// An administrator of the tenant has to act; signing in again alone won't help.
    pub administrator: bool,
}

/// The first `AADSTS` number in `text`.
pub(super) fn number(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("AADSTS")?;
    let digits: &str = &rest[..rest.bytes().take_while(u8::is_ascii_digit).count()];
    if digits.len() > 9 { None } else { digits.parse().ok() }
}

/// In plain words, why an account has to be signed in again. A challenge that comes without a number still says one thing.
pub(super) fn why(reason: &Reason) -> Option<&'static str> {
    let known = number(&reason.text).and_then(words).map(|words| words.what);
    known
        .or(reason.claims.as_ref().map(|_| "Your organisation asks for one more step, such as a proof that it is you."))
}

/// True: the person's consent is what is missing, so the sign-in asks for it.
pub(super) fn asks_for_consent(text: &str) -> bool {
    matches!(number(text), Some(65001 | 65004))
}

pub(super) fn words(number: u32) -> Option<Words> {
    const SIGN_IN_AGAIN: &str = "Sign in once more.";
    const ADMINISTRATOR: &str =
        "Show this page to the administrator of your organisation. The link stays valid until it expires.";
    let person = |what, next| Some(Words { what, next, administrator: false });
    let administrator = |what| Some(Words { what, next: ADMINISTRATOR, administrator: true });
    match number {
        53003 => administrator(
            "Conditional Access of your organisation blocks this sign-in. For a sign-in by code this usually means that the \
             device code flow is blocked by Conditional Access: use the sign-in link in a browser instead.",
        ),
        53000 | 53001 => {
            administrator("Your organisation asks for a device that it manages, and this one is not, or not healthy.")
        }
        53002 => administrator("Your organisation allows only approved applications, and this one is not among them."),
        53004 | 53011 => administrator("The sign-in was blocked because your organisation sees a risk in it."),
        530_032 | 530_034 => administrator("A security policy of your organisation blocks this sign-in."),
        50076 | 50079 | 50074 | 50072 | 50158 => person(
            "Your organisation asks for one more proof that it is you, such as a code on your phone.",
            SIGN_IN_AGAIN,
        ),
        50078 => person("Your last additional proof is too old.", SIGN_IN_AGAIN),
        50097 | 50131 => {
            administrator("Your organisation's policy does not allow the sign-in from this device or place.")
        }
        50105 => administrator("You are not assigned to this application."),
        50089 | 50085 => person("The last sign-in has ended.", SIGN_IN_AGAIN),
        50173 | 50132 | 50133 => person("Your password was changed, or your sign-ins were revoked.", SIGN_IN_AGAIN),
        70008 | 700_082 => person("The last sign-in had not been used for a long time and has expired.", SIGN_IN_AGAIN),
        70043 => person("Your organisation asks for a new sign-in every so often, and the time is up.", SIGN_IN_AGAIN),
        700_084 => administrator(
            "The sign-in ended after 24 hours because the redirect address is registered as a single-page application.",
        ),
        65001 => person(
            "The application has no consent yet for what it asks.",
            "Sign in once more and agree when you are asked.",
        ),
        65004 => person("You declined what was asked.", "If that was a mistake, sign in once more and agree."),
        90094 | 90008 => administrator("What is asked needs the consent of an administrator."),
        90095 => administrator("What is asked needs the consent of an administrator. Your request for it was sent."),
        50020 | 51004 => person(
            "The account that you used is not known in this organisation.",
            "Sign in once more with your work or school account.",
        ),
        50034 | 16000 => {
            person("The account that you used was not found.", "Sign in once more with the right account.")
        }
        50057 => administrator("The account is disabled."),
        50053 => person(
            "The account is locked for a while, after too many attempts.",
            "Wait some minutes, then sign in once more.",
        ),
        50055 | 50144 => person("Your password has expired.", "Change it, then sign in once more."),
        501_481 | 50147 | 700_005 => {
            person("The answer belongs to another sign-in than the one that was started.", SIGN_IN_AGAIN)
        }
        54005 | 70000 => person("The answer of the sign-in was used already.", SIGN_IN_AGAIN),
        70016..=70020 => person("The code was not entered in time.", "Start again to get a new code."),
        50011 => administrator("The redirect address of this service is not registered with the provider."),
        700_016 => administrator("The application is not known in your organisation."),
        7_000_215 | 7_000_222 | 700_027 | 50012 => {
            administrator("The provider refuses the credential of this service: it is wrong or has expired.")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number("AADSTS50173 invalid_grant (bad_token)"), Some(50173));
        assert_eq!(number("x AADSTS53003: Access has been blocked"), Some(53003));
        assert_eq!(number("AADSTS"), None);
        assert_eq!(number("AADSTS99999999999999999999"), None);
        assert_eq!(number("HTTP 503"), None);
        assert!(asks_for_consent("AADSTS65001 ..."));
    }

    #[test]
    fn every_number_that_a_person_can_do_something_about_has_words() {
        use crate::oauth::{Class, classification};
        for row in classification() {
            if matches!(row.class, Class::Dead | Class::Interact | Class::User) {
                for code in row.codes.iter().filter(|code| **code != 9_002_313) {
                    assert!(words(u32::try_from(*code).unwrap()).is_some(), "{code}");
                }
            }
        }
    }

    #[test]
    fn a_challenge_without_a_number_is_explained_too() {
        let reason = |text: &str, claims: Option<&str>| Reason {
            dead: false,
            text: text.to_owned(),
            claims: claims.and_then(crate::claims::Claims::parse),
            since: crate::clock::Timestamp::default(),
        };
        assert!(why(&reason("interaction_required", Some("{}"))).is_some_and(|words| words.contains("one more step")));
        assert!(why(&reason("AADSTS53000 ..", Some("{}"))).is_some_and(|words| words.contains("a device")));
        assert_eq!(why(&reason("interaction_required", None)), None);
    }

    #[test]
    fn the_blocked_device_flow_is_explained_by_name() {
        let words = words(53003).unwrap();
        assert!(words.what.contains("device code flow is blocked by Conditional Access"));
        assert!(words.administrator);
    }
}
