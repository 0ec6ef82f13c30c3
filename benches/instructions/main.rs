//! The guard: user instructions and heap allocations of each step of a request and of whole requests, counted by valgrind's
//! callgrind and held against `benches/baseline.toml`. Fails where something grew past its tolerance, and says what.
//!
//!     cargo bench --bench instructions                       judge
//!     cargo bench --bench instructions -- --take-baseline    write the baseline anew
//!     FUNCTIONS=60 cargo bench --bench instructions          also list so many functions, those that cost most
//!
//! This process is client and upstream; the same program once more, under valgrind, is the proxy (`subject.rs`). Counts do not
//! depend on the machine's load, only on compiler, valgrind and processor, so nothing is judged where these differ.

mod baseline;
mod callgrind;
mod client;
#[path = "../fixture/mod.rs"]
mod fixture;
#[path = "../fixture/kilobyte.rs"]
mod kilobyte;
#[path = "../fixture/steps.rs"]
mod steps;
mod subject;
#[path = "../fixture/upstream.rs"]
mod upstream;

use std::process::ExitCode;

use crate::baseline::{Baseline, Conditions};
use crate::callgrind::Profile;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Enough that what happens once in a while weighs little.
const ITERATIONS: usize = 400;

/// What one step, or one whole request, was seen to do.
pub struct Measured {
    pub name: String,
    pub iterations: u64,
    pub profile: Profile,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(setting) = arguments.strip_prefix(&[subject::ROLE.to_owned()]) {
        subject::run(setting);
        return ExitCode::SUCCESS;
    }
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let baseline = Baseline::read();
    // `cargo bench` says `--bench`; everything else, `cargo bench -- --test` too, wants to know that it runs.
    if !has("--bench") || has("--test") {
        let measured = client::run(None, 1);
        assert!(baseline.is_none_or(|baseline| baseline.knows(&measured)), "take a new baseline: it has other steps");
        return ExitCode::SUCCESS;
    }
    let Some(conditions) = Conditions::here() else {
        println!(
            "instructions: skipped, nothing was counted: valgrind is missing (benches/setup.sh guard installs it)"
        );
        return ExitCode::SUCCESS;
    };
    let measured = client::run(Some("valgrind"), ITERATIONS);
    if let Some(top) = std::env::var("FUNCTIONS").ok().and_then(|top| top.parse().ok()) {
        for measured in &measured {
            callgrind::print_top(measured, top);
        }
    }
    if has("--take-baseline") {
        Baseline::take(&conditions, &measured);
        return ExitCode::SUCCESS;
    }
    let Some(baseline) = baseline else {
        println!("instructions: FAILED: there is no benches/baseline.toml: take one (make bench-baseline)");
        return ExitCode::FAILURE;
    };
    baseline.judge(&conditions, &measured)
}
