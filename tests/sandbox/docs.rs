//! `docs/sandbox.md` says what the sandbox can do: its tables are those of the code, its examples are faults.

use bearerd::sandbox::entra::aadsts_table;
use bearerd::sandbox::{EFFECTS, Fault, Flaw};

const DOCS: &str = include_str!("../../docs/sandbox.md");

#[test]
fn the_tables_are_those_of_the_code() {
    let rows = EFFECTS.iter().map(|(places, syntax, example, what)| {
        let syntax = syntax.split(", ").map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", ");
        format!("| {places} | {syntax} | `{example}` | {what} |\n")
    });
    let effects =
        format!("| where | effect | example | what happens |\n|---|---|---|---|\n{}", rows.collect::<String>());
    let flaws: Vec<_> = Flaw::ALL.iter().map(|(name, _)| format!("`{name}`")).collect();
    for (table, expected) in [("effects", effects), ("flaws", flaws.join(",\n")), ("errors", aadsts_table())] {
        assert!(DOCS.contains(&expected), "docs/sandbox.md needs this table of {table}:\n{expected}");
    }
}

#[test]
fn every_example_is_a_fault() {
    for (places, _, example, _) in EFFECTS {
        let fault = Fault::parse(example).unwrap();
        let (place, _) = example.split_once(':').unwrap();
        assert!(*places == "everywhere" || places.contains(place), "{example}: {fault:?}");
    }
    let typed = DOCS.lines().filter_map(|line| {
        let (_, list) = line.split_once("--fault '").or_else(|| line.split_once("-d '"))?;
        list.split_once('\'').map(|(list, _)| list)
    });
    let typed: Vec<_> = typed.filter(|list| !list.starts_with('{')).collect();
    assert!(typed.len() >= 2, "{typed:?}");
    for list in typed {
        assert!(!Fault::parse_list(list).unwrap().is_empty(), "{list}");
    }
}
