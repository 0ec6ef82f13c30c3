//! `docs/token-endpoint.md` is the table, printed. `BEARERD_WRITE_DOCS=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use bearerd::oauth::{Class, Dialect, Example, JWT_BEARER, Row, Whose, classification};

const INTRODUCTION: &str = include_str!("introduction.md");
const OPERATOR: &str = include_str!("operator.md");

#[test]
fn the_table_in_the_docs_is_the_table_in_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/token-endpoint.md");
    let page = page();
    if std::env::var_os("BEARERD_WRITE_DOCS").is_some_and(|wanted| wanted == "1") {
        std::fs::write(&path, &page).expect("docs/ can be written");
    }
    let printed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(printed == page, "docs/token-endpoint.md is not what the code says; BEARERD_WRITE_DOCS=1 writes it anew");
}

fn page() -> String {
    let mut page = format!("{INTRODUCTION}\n");
    page.push_str(
        "| class | meaning | the grant is then | its refresh token | the application gets |\n|---|---|---|---|---|\n",
    );
    for class in Class::ALL {
        let follows = class.consequence();
        let state = follows.state.map_or("-".to_owned(), |state| format!("`{state}`"));
        let (meaning, token, told) = (meaning(class), follows.token, told(class));
        let _ = writeln!(page, "| {} | {meaning} | {state} | {token} | {told} |", name(class));
    }
    page.push_str("\n## The table\n\n");
    page.push_str(
        "| | an answer with | for example | class | the application gets | meaning |\n|---|---|---|---|---|---|\n",
    );
    for (number, row) in classification().iter().enumerate() {
        let (matches, example) = (matches(row), example(&row.example));
        let follows = row.class.consequence();
        let (class, told) = (name(row.class), format!("{} `{}`", follows.status, follows.error));
        let _ = writeln!(page, "| {} | {matches} | {example} | {class} | {told} | {} |", number + 1, row.meaning);
    }
    page.push('\n');
    page.push_str(OPERATOR);
    page
}

fn name(class: Class) -> String {
    let words = format!("{class:?}");
    words
        .chars()
        .flat_map(|c| c.is_uppercase().then_some(' ').into_iter().chain(c.to_lowercase()))
        .collect::<String>()
        .trim_start()
        .to_owned()
}

fn meaning(class: Class) -> &'static str {
    match class {
        Class::Dead => "this refresh token will never work again",
        Class::Interact => "a person has to sign in",
        Class::User => "the user can't be helped by a sign-in now",
        Class::AppCredential => "our own credential is refused",
        Class::Config => "our request or our registration is refused",
        Class::Assertion => "on-behalf-of: the calling application's own token is refused",
        Class::Backoff => "throttled, or a loop was detected",
        Class::Retry => "down for the moment",
    }
}

fn told(class: Class) -> String {
    let follows = class.consequence();
    let with = match follows.error {
        "signin_required" => " with `Bearerd-Signin-Url`",
        "provider_unavailable" => " with `Retry-After`",
        "client_unauthenticated" => " with `WWW-Authenticate: Bearer error=\"invalid_token\"`",
        _ => "",
    };
    format!("{} `{}`{with}", follows.status, follows.error)
}

fn list(words: impl IntoIterator<Item = impl std::fmt::Display>) -> String {
    words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" ")
}

fn matches(row: &Row) -> String {
    let mut conditions = Vec::new();
    match row.dialect {
        Some(Dialect::Entra) => conditions.push("Entra ID".to_owned()),
        Some(Dialect::Oidc) => conditions.push("generic providers".to_owned()),
        None => {}
    }
    if let Some(grant_type) = row.grant_type {
        conditions.push(if grant_type == JWT_BEARER { "on-behalf-of".to_owned() } else { list([grant_type]) });
    }
    match row.status {
        Some((low, high)) if low == high => conditions.push(format!("HTTP {low}")),
        Some((low, high)) => conditions.push(format!("HTTP {low}-{high}")),
        None => {}
    }
    if row.any_error {
        conditions.push("any other `error`".to_owned());
    }
    if !row.errors.is_empty() {
        conditions.push(list(row.errors));
    }
    if !row.suberrors.is_empty() {
        conditions.push(format!("suberror {}", list(row.suberrors)));
    }
    if !row.codes.is_empty() {
        conditions.push(format!("AADSTS {}", list(row.codes)));
    }
    if row.claims {
        conditions.push("`claims`".to_owned());
    }
    let conditions = if conditions.is_empty() { "anything else".to_owned() } else { conditions.join("; ") };
    match row.whose {
        Whose::Provider => conditions + " (the whole provider pauses)",
        Whose::Grant if row.class == Class::Backoff => conditions + " (this account pauses)",
        Whose::Grant => conditions,
    }
}

fn example(example: &Example) -> String {
    let mut text = example.status.to_string();
    for word in [example.error, example.suberror].into_iter().filter(|word| !word.is_empty()) {
        let _ = write!(text, " {word}");
    }
    if example.code != 0 {
        let _ = write!(text, " {}", example.code);
    }
    if !example.claims.is_empty() {
        text.push_str(" claims");
    }
    text
}
