//! What a decision by 1,000 rules costs beside the same decision by 10, in turns in one run: the ratio is to be 1.
//!
//! In each shape the last rule is the one that matches, so that nobody finds it early.

use std::hint::black_box;
use std::time::Duration;

use bearerd::clock::Clock;
use bearerd::config::{Client, ClientCredential, ClientLimits, Identity};
use bearerd::proxy::policy::{Decision, Policy};
use http::Method;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Its name, the rule of a number, the path that this rule covers.
type Shape = (&'static str, fn(usize) -> String, fn(usize) -> String);

const SHAPES: [Shape; 4] = [
    (
        "names",
        |n| format!("GET /v1.0/users/u{n}@contoso.com/messages"),
        |n| format!("/v1.0/users/u{n}@contoso.com/messages"),
    ),
    (
        "what is below",
        |n| format!("GET /v1.0/users/u{n}@contoso.com/**"),
        |n| format!("/v1.0/users/u{n}@contoso.com/messages/1/$value"),
    ),
    (
        "anywhere",
        |n| format!("GET /v1.0/**/folder{n}/*"),
        |n| format!("/v1.0/me/mailfolders/inbox/childfolders/folder{n}/messages"),
    ),
    (
        "patterns",
        |n| format!("GET /v1.0/users/*@d{n}.contoso.com/**"),
        |n| format!("/v1.0/users/alice@d{n}.contoso.com/messages"),
    ),
];

fn main() {
    // `cargo bench` says `--bench`; everything else, `cargo bench -- --test` too, wants to know that it runs.
    let arguments: Vec<String> = std::env::args().collect();
    let measures = arguments.iter().any(|a| a == "--bench") && !arguments.iter().any(|a| a == "--test");
    let (rounds, decisions) = if measures { (15, 20_000) } else { (1, 10) };
    let clock = Clock::system();
    println!("{:<16} {:>10} {:>12} {:>8}", "ns a decision", "10 rules", "1,000 rules", "ratio");
    for (name, rule, path) in SHAPES {
        let contenders = [10, 1000].map(|count| (policy((0..count).map(rule).collect()), path(count - 1)));
        let mut best = [Duration::MAX; 2];
        for _ in 0..rounds {
            for (best, (policy, path)) in best.iter_mut().zip(&contenders) {
                let start = clock.moment();
                for _ in 0..decisions {
                    let decision = policy.decide(&Method::GET, black_box(path));
                    assert!(matches!(decision, Decision::Allowed { rule: Some(_) }), "{path}: {decision:?}");
                }
                *best = clock.moment().since(start).min(*best);
            }
        }
        let [few, many] = best.map(|best| best.as_secs_f64() * 1e9 / f64::from(decisions));
        println!("{name:<16} {few:>10.0} {many:>12.0} {:>8.2}", many / few);
    }
}

fn policy(allow: Vec<String>) -> Policy {
    Policy::new(&Client {
        name: "payroll".into(),
        credential: ClientCredential::PeerUid(1),
        identity: Identity::User,
        accounts: Vec::new(),
        allow,
        deny: Vec::new(),
        read_only: false,
        limits: ClientLimits::default(),
    })
}
