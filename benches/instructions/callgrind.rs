//! What callgrind wrote down between two marks: instructions of each function, and who called whom how often.
//!
//! The format: <https://valgrind.org/docs/manual/cl-format.html>. Read as written with `--dump-line=no --compress-pos=no`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::Measured;

#[derive(Default)]
pub struct Profile {
    functions: BTreeMap<String, Costs>,
    /// Calls of the allocator from outside of it.
    allocations: u64,
}

#[derive(Clone, Copy, Default)]
struct Costs {
    own: u64,
    /// With what it called. Functions that never returned in between (event loops) have none but their own.
    inclusive: u64,
    calls: u64,
}

impl Profile {
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::parse(&String::from_utf8_lossy(&text))
    }

    fn parse(text: &str) -> Self {
        let mut profile = Self::default();
        let mut names = HashMap::new();
        let (mut function, mut callee) = (String::new(), String::new());
        let mut calls = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = named(&mut names, name);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                callee = named(&mut names, name);
            } else if let Some(rest) = line.strip_prefix("calls=") {
                calls = rest.split(' ').next().and_then(|calls| calls.parse::<u64>().ok());
            } else if line.starts_with(|first: char| first.is_ascii_digit()) {
                let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok()).unwrap_or_default();
                profile.add(&function, calls.take().map(|calls| (callee.as_str(), calls)), cost);
            }
        }
        profile
    }

    /// A line of costs: of `function` itself, or of what it called.
    fn add(&mut self, function: &str, call: Option<(&str, u64)>, cost: u64) {
        let costs = self.functions.entry(function.to_owned()).or_default();
        match call {
            None => {
                costs.own += cost;
                costs.inclusive += cost;
            }
            Some((callee, calls)) => {
                if callee != function {
                    costs.inclusive += cost;
                }
                self.functions.entry(callee.to_owned()).or_default().calls += calls;
                if allocates(callee) && !is_of_the_allocator(function) {
                    self.allocations += calls;
                }
            }
        }
    }

    fn instructions(&self) -> u64 {
        self.functions.values().map(|costs| costs.own).sum()
    }
}

/// Names are spelled out once, then stand as numbers: `(12) name`, `(12)`.
fn named(names: &mut HashMap<String, String>, written: &str) -> String {
    match written.split_once(' ') {
        Some((number, name)) => {
            names.insert(number.to_owned(), name.to_owned());
            name.to_owned()
        }
        None => names.get(written).cloned().unwrap_or_else(|| written.to_owned()),
    }
}

/// mimalloc's functions, in C.
fn is_of_the_allocator(function: &str) -> bool {
    function.starts_with("mi_") || function.starts_with("_mi_")
}

fn allocates(function: &str) -> bool {
    is_of_the_allocator(function) && function.contains("alloc")
}

impl Measured {
    /// Of one iteration.
    pub fn instructions(&self) -> u64 {
        self.profile.instructions() / self.iterations
    }

    /// Of one iteration, to the nearest: a table that grows once in a thousand requests is no allocation of each.
    pub fn allocations(&self) -> u64 {
        (self.profile.allocations + self.iterations / 2) / self.iterations
    }
}

/// The functions that cost most, by themselves and with what they call, in instructions an iteration.
pub fn print_top(measured: &Measured, top: usize) {
    let Measured { name, iterations, profile } = measured;
    for (title, key) in [("own", (|costs| costs.own) as fn(&Costs) -> u64), ("inclusive", |costs| costs.inclusive)] {
        println!(
            "\n{name}: {} instructions, {} allocations; by {title}",
            measured.instructions(),
            measured.allocations()
        );
        println!("{:>10} {:>10} {:>8}  function", "own", "inclusive", "calls");
        let mut functions: Vec<(&String, &Costs)> = profile.functions.iter().collect();
        functions.sort_by_key(|(_, costs)| std::cmp::Reverse(key(costs)));
        for (function, costs) in functions.into_iter().take(top).filter(|(_, costs)| key(costs) >= *iterations) {
            #[expect(clippy::cast_precision_loss, reason = "no run has 2^52 calls")]
            let calls = costs.calls as f64 / *iterations as f64;
            println!("{:>10} {:>10} {calls:>8.2}  {function}", costs.own / iterations, costs.inclusive / iterations);
        }
    }
}
