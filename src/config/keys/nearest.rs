//! What was probably meant by a name that is none.

use super::{Keys, Presence};

/// The known name that was probably meant.
pub fn nearest(keys: Keys, name: &str) -> Option<&'static str> {
    let wanted = name.to_lowercase();
    let known = keys.iter().filter(|key| !matches!(key.presence, Presence::Reserved));
    let (distance, best) = known.map(|key| (distance(&wanted, key.name), key.name)).min()?;
    (distance <= 1 + best.len() / 4).then_some(best)
}

/// Levenshtein's distance.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::super::SERVER;
    use super::*;

    #[test]
    fn a_slip_finds_the_name_that_was_meant() {
        assert_eq!(nearest(SERVER, "listn"), Some("listen"));
        assert_eq!(nearest(SERVER, "Public_Url"), Some("public_url"));
        assert_eq!(nearest(SERVER, "publicurl"), Some("public_url"));
        assert_eq!(nearest(SERVER, "colour"), None);
    }
}
