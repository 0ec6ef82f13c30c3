//! The fuzz targets in short: over their corpus, over mutations of it, and over plain noise, so that they can't rot.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

#[path = "../../fuzz/targets.rs"]
mod targets;

/// Bytes taken out, put in or changed at a place, and pieces of the text repeated elsewhere.
fn mutated(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let place = (any::<Index>(), any::<Index>(), any::<Index>(), 0..4, any::<u8>());
    (any::<Index>(), prop::collection::vec(place, 0..8)).prop_map(move |(seed, changes)| {
        let mut text = seeds[seed.index(seeds.len())].clone();
        for (from, to, at, kind, byte) in changes {
            let (from, to, at) = (from.index(text.len() + 1), to.index(text.len() + 1), at.index(text.len() + 1));
            let piece = text[from.min(to)..from.max(to)].to_vec();
            match kind {
                0 => drop(text.drain(from.min(to)..from.max(to))),
                1 => text.insert(at, byte),
                2 => drop(text.splice(at..at, piece)),
                _ => text.truncate(at.max(1)),
            }
        }
        text
    })
}

fn run(target: fn(&[u8]), corpus: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(corpus);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let seeds: Vec<Vec<u8>> = files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(!seeds.is_empty());
    for seed in &seeds {
        target(seed);
    }
    let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
    let inputs = prop_oneof![4 => mutated(seeds), 1 => prop::collection::vec(any::<u8>(), 0..200)];
    let outcome = runner.run(&inputs, |input| {
        target(&input);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn links() {
    run(targets::links, "links");
}

#[test]
fn canonical_path() {
    run(targets::canonical_path, "canonical_path");
}

#[test]
fn batch() {
    run(targets::batch, "batch");
}

#[test]
fn headers() {
    run(targets::headers, "headers");
}
