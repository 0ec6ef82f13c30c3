//! Every page with an example's content, and with hostile content, checked for what holds of all of them, and left in
//! `target/dashboard-pages` for eyes to see.

use std::path::Path;
use std::time::Duration;

use askama::Template;

use super::history::Minute;
use super::page::{
    AccountPage, Accounts, AuditPage, CheckRow, Clients, Configuration, Confirm, Frame, LinkPage, Notice, Overview,
    ProblemPage, Section, Signin, StateCount,
};
use super::plot;
use super::words::tests::{NOW, account, at, reason};
use super::words::{When, advice};
use crate::admin::desk::{
    Account, AuditWanted, Client, Credential, CredentialKind, Identity, Limits, Parked, Refresh, Refreshed, State,
};
use crate::admin::problem::Kind;
use crate::audit::{Entry, Event, Outcome, Record, Who};

const HOSTILE: &str = "\"'><script>alert(1)</script><img src=x onerror=a>&";

fn frame(section: Section, open: bool) -> Frame {
    Frame { form_token: "form-token".into(), signed_in: open, open, ..Frame::new(section, NOW) }
}

fn client(text: &str) -> Client {
    Client {
        name: text.into(),
        identity: Identity::User,
        credential: Credential { kind: CredentialKind::MtlsSan, name: Some(text.into()) },
        accounts: vec![text.into()],
        allow: vec![text.into()],
        deny: vec![text.into()],
        read_only: true,
        limits: Limits { requests_per_second: Some(2.5), concurrent: None },
    }
}

/// An account of which every text is this one.
fn all_over(text: &str, status: State) -> Account {
    let parked = Parked { scopes: text.into(), claims: Some(text.into()), text: text.into(), since: at(-60) };
    let mut reason = reason(true);
    reason.text = text.into();
    let mut account = account(status);
    account.access_tokens[0].scopes = text.into();
    Account {
        alias: text.into(),
        provider: text.into(),
        tenant: text.into(),
        subject: text.into(),
        username: Some(format!("{text} ")),
        reason: Some(reason),
        parked: vec![parked],
        scopes: vec![text.into()],
        next_try: Some(at(60)),
        ..account
    }
}

/// Every text of a record.
fn record(text: &str, event: Event, outcome: Outcome) -> Record {
    let entry = Entry::new(event, Who::Client(text.into())).named(text).because(text).asked(text, text).with(outcome);
    let entry = Entry { account_id: Some("0123456789abcdef0123456789abcdef".into()), count: 1234, ..entry };
    Record::new(entry, Some(7), at(-90).0)
}

/// Name and page of each; `text` wherever a text may come from outside.
fn pages(text: &str) -> Vec<(&'static str, String)> {
    let accounts: Vec<_> = State::ALL.map(|state| all_over(text, state)).into();
    let minutes: Vec<_> = (0..60_u64)
        .map(|minute| Minute {
            from: at(60 * i64::try_from(minute).unwrap() - 3600).0,
            answered: minute,
            refused: 1,
            failed: minute % 7,
            refreshed: minute % 3,
            refresh_failed: 0,
        })
        .collect();
    let notice = || Some(Notice { is_bad: true, title: text.into(), text: text.into() });
    let problem = Kind::InternalError.because(text);
    let checks = [("Store", true), ("Providers", false)];
    let render = |page: &dyn askama::DynTemplate| page.dyn_render().unwrap();
    let overview = Overview {
        frame: frame(Section::Overview, true),
        states: State::ALL.map(|state| StateCount { state, count: 12_345, about: "about" }).into(),
        accounts: 49_380,
        plots: [plot::traffic(&minutes), plot::refreshes(&minutes)],
        checks: checks.map(|(name, ok)| CheckRow { name, ok, said: text.into() }).into(),
        ready: false,
        reloads: "none".into(),
    };
    let list = Accounts {
        frame: frame(Section::Accounts, true),
        notice: notice(),
        state: Some(State::Reauth),
        search: text,
        rows: &accounts,
        next: Some("61".into()),
        is_first: false,
    };
    let link = LinkPage {
        frame: frame(Section::Accounts, true),
        account: &accounts[0],
        url: text,
        expires: When::new(at(60), NOW),
    };
    let confirm = Confirm { frame: frame(Section::Accounts, true), account: &accounts[0], remove: true };
    let clients = [client(text)];
    let mut records: Vec<_> = Event::ALL.iter().map(|event| record(text, *event, Outcome::Failed)).collect();
    records.extend(Outcome::ALL.iter().map(|outcome| record(text, Event::Refresh, *outcome)));
    records.push(Record { event: text.into(), outcome: text.into(), who: text.into(), ..records[0].clone() });
    let wanted = AuditWanted { account: Some(text.into()), event: Some(Event::Revoke), ..AuditWanted::default() };
    let audit =
        AuditPage { frame: frame(Section::Audit, true), wanted: &wanted, records: &records, next: Some("61".into()) };
    let refreshes = [Refreshed::Well(Duration::from_millis(120)), Refreshed::Failed(text.into())];
    let refreshes = refreshes.map(|outcome| Refresh { at: at(-60).0, outcome });
    let mut pages = vec![
        ("overview", render(&overview)),
        ("accounts", render(&list)),
        ("audit", render(&audit)),
        ("link", render(&link)),
        ("confirm", render(&confirm)),
        ("clients", render(&Clients { frame: frame(Section::Clients, true), clients: &clients })),
        ("configuration", render(&Configuration { frame: frame(Section::Configuration, true), text })),
        ("signin", render(&Signin { frame: frame(Section::None, false), to: text, problem: Some(text) })),
        ("problem", render(&ProblemPage { frame: frame(Section::None, true), problem: &problem })),
    ];
    for account in &accounts {
        let frame = frame(Section::Accounts, true);
        let page = AccountPage {
            frame,
            notice: notice(),
            account,
            advice: advice(account, NOW),
            refreshes: &refreshes,
            records: &records,
        };
        pages.push(("account", page.render().unwrap()));
    }
    pages
}

#[test]
fn nothing_from_outside_gets_into_the_markup() {
    let (plain, hostile) = (pages("plain"), pages(HOSTILE));
    let elements = |html: &str| html.matches('<').count();
    for ((name, plain), (_, hostile)) in plain.iter().zip(&hostile) {
        assert_eq!(elements(plain), elements(hostile), "{name}");
        assert!(!hostile.contains("<script") && !hostile.contains("<img"), "{name}");
        let harmless = name == &"overview" || hostile.contains("&#60;script&#62;");
        assert!(harmless, "{name}: {hostile}");
    }
}

#[test]
fn each_page_stands_alone_and_is_built_for_everyone() {
    for (name, html) in pages("plain") {
        for wanted in [
            "<html lang=\"en\">",
            "<title>",
            "class=\"skip\" href=\"#main\"",
            "<main id=\"main\"",
            "<header>",
            "<footer>",
        ] {
            assert_eq!(html.matches(wanted).count(), 1, "{name}: {wanted}");
        }
        assert_eq!(html.matches("<h1>").count(), 1, "{name}");
        for wrong in ["<script", "style=\"", " onclick", "http://", "https://", "javascript:"] {
            let html = html.replace("http://www.w3.org/2000/svg", "");
            assert!(!html.contains(wrong), "{name}: {wrong}");
        }
        assert_eq!(
            html.matches("<form").count() - html.matches("method=\"get\"").count(),
            html.matches("name=\"form\"").count(),
            "{name}"
        );
        let current = html.matches("aria-current=\"page\"").count();
        assert_eq!(current, usize::from(!["signin", "problem"].contains(&name)), "{name}");
        leave(name, &html);
        assert_eq!(html.matches("<table>").count(), html.matches("<caption").count(), "{name}");
    }
}

fn leave(name: &str, html: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/dashboard-pages");
    let style = concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/dashboard/pages/style.css");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(format!("{name}.html")), html.replace(super::page::STYLE_PATH.as_str(), style))
        .unwrap();
}
