//! What everything may cost: `benches/baseline.toml`, written by `--take-baseline`, judged by otherwise.
//!
//! Only like is compared with like: where compiler, valgrind or processor are others than the baseline's, nothing is judged, and that is
//! said.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use serde::Deserialize;

use crate::Measured;

/// What a baseline does not decide but a person: it outlives new baselines. Counts vary by 2 %, whatever else the machine does.
const TOLERANCE: Tolerance = Tolerance { instructions_percent: 4.0, allocations: 0 };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    taken_with: Conditions,
    tolerance: Tolerance,
    steps: BTreeMap<String, Costs>,
}

/// What counts depend on besides the code.
#[derive(Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    rustc: String,
    /// Another Debian has another one: it stands for the C library too.
    valgrind: String,
    /// Libraries choose their code by what the processor can do.
    cpu: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tolerance {
    instructions_percent: f64,
    allocations: u64,
}

/// Of one step, or of one whole request.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Costs {
    instructions: u64,
    allocations: u64,
}

impl Conditions {
    /// None: there is no valgrind.
    pub fn here() -> Option<Self> {
        let valgrind = first_line("valgrind")?;
        Some(Self { rustc: first_line("rustc").unwrap_or_default(), valgrind, cpu: cpu() })
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}", self.rustc, self.valgrind, self.cpu)
    }
}

impl Baseline {
    /// None: nobody has taken one.
    pub fn read() -> Option<Self> {
        let text = std::fs::read_to_string(path()).ok()?;
        Some(toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path().display())))
    }

    /// Writes `measured` down as what everything may cost from now on.
    pub fn take(conditions: &Conditions, measured: &[Measured]) {
        let Tolerance { instructions_percent, allocations } = Self::read().map_or(TOLERANCE, |old| old.tolerance);
        let Conditions { rustc, valgrind, cpu } = conditions;
        let mut text = format!(
            "# What each step of a request and a whole request may cost: user instructions and heap allocations of bearerd.\n\
             # `make bench` judges by it, `make bench-baseline` writes it anew; the tolerance is edited by hand.\n\n\
             [taken_with]\nrustc = {rustc:?}\nvalgrind = {valgrind:?}\ncpu = {cpu:?}\n\n\
             [tolerance]\ninstructions_percent = {instructions_percent:?}\nallocations = {allocations}\n\n[steps]\n"
        );
        for measured in measured {
            let Costs { instructions, allocations } = measured.costs();
            let line = format!("{{ instructions = {instructions}, allocations = {allocations} }}");
            writeln!(text, "{:?} = {line}", measured.name).expect("memory takes it");
        }
        std::fs::write(path(), text).expect("benches/ can be written");
        println!("instructions: the new baseline is in benches/baseline.toml");
    }

    /// The steps that were measured are those of the baseline.
    pub fn knows(&self, measured: &[Measured]) -> bool {
        measured.len() == self.steps.len() && measured.iter().all(|measured| self.steps.contains_key(&measured.name))
    }

    /// Says what is cheaper or dearer than it was. Fails for what is dearer.
    pub fn judge(&self, conditions: &Conditions, measured: &[Measured]) -> ExitCode {
        if *conditions != self.taken_with {
            println!(
                "instructions: not judged, for the baseline was taken elsewhere ({}); this is {conditions}",
                self.taken_with
            );
            return ExitCode::SUCCESS;
        }
        if !self.knows(measured) {
            println!("instructions: FAILED: the baseline has other steps: take a new one (make bench-baseline)");
            return ExitCode::FAILURE;
        }
        let findings = measured.iter().flat_map(|measured| self.compare(measured));
        let (dearer, cheaper): (Vec<_>, Vec<_>) = findings.partition(|finding| finding.is_dearer);
        for finding in &cheaper {
            println!("instructions: cheaper: {finding}");
        }
        if !cheaper.is_empty() {
            println!("instructions: well done; take a new baseline, so that it stays so (make bench-baseline)");
        }
        for finding in &dearer {
            println!("instructions: FAILED: {finding}");
        }
        if dearer.is_empty() {
            println!("instructions: within the baseline");
            return ExitCode::SUCCESS;
        }
        println!(
            "instructions: FUNCTIONS=60 lists the functions; if it is worth its price, take a new baseline (make bench-baseline)"
        );
        ExitCode::FAILURE
    }

    /// What is beyond the tolerance, either way.
    fn compare<'a>(&self, measured: &'a Measured) -> impl Iterator<Item = Finding<'a>> {
        let (now, then, name) = (measured.costs(), self.steps[&measured.name], &measured.name);
        let percent = self.tolerance.instructions_percent;
        let allowed = self.tolerance.allocations;
        let instructions = (now.instructions, then.instructions, share(then.instructions, percent), "instructions");
        let allocations = (now.allocations, then.allocations, allowed, "allocations");
        let tolerances = [format!("{percent} %"), allowed.to_string()];
        [instructions, allocations].into_iter().zip(tolerances).filter_map(
            move |((now, then, allowed, unit), tolerance)| {
                (now.abs_diff(then) > allowed).then(|| Finding {
                    name,
                    now,
                    then,
                    unit,
                    tolerance,
                    is_dearer: now > then,
                })
            },
        )
    }
}

struct Finding<'a> {
    name: &'a str,
    now: u64,
    then: u64,
    unit: &'static str,
    tolerance: String,
    is_dearer: bool,
}

impl fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, now, then, unit, tolerance, .. } = self;
        write!(f, "{name}: {} {unit}, baseline {}, tolerance {tolerance}", thousands(*now), thousands(*then))
    }
}

impl Measured {
    fn costs(&self) -> Costs {
        Costs { instructions: self.instructions(), allocations: self.allocations() }
    }
}

/// `percent` of `whole`, and at least one.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small and positive"
)]
fn share(whole: u64, percent: f64) -> u64 {
    (whole as f64 * percent / 100.0).ceil() as u64
}

/// 12345 as 12,345.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/baseline.toml")
}

fn first_line(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

/// The architecture, and of what valgrind passes on that which memory, cryptography and searching are written for.
fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let known = ["ssse3", "sse4_2", "aes", "avx", "avx2", "bmi2"];
    let has = known.into_iter().filter(|known| flags.split(' ').any(|flag| flag == *known));
    [std::env::consts::ARCH].into_iter().chain(has).collect::<Vec<_>>().join(" ")
}
