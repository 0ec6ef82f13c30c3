//! What is wrong with a configuration: every mistake with its key path, in the order of the file.
//!
//! A mistake never quotes the value of a secret.

use std::cmp::Ordering;
use std::fmt;
use std::path::PathBuf;

use super::tree::Origin;
use super::watched::Files;

/// One mistake. Shown as `key.path: what is wrong`.
#[derive(Clone, Debug)]
pub struct Mistake {
    pub path: String,
    pub what: String,
    pub origin: Origin,
}

/// All mistakes of one configuration.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Mistakes {
    pub list: Vec<Mistake>,
    /// The file that was read; `None`: there was none.
    pub file: Option<PathBuf>,
    /// The warnings that came up on the way.
    pub warnings: Vec<String>,
    /// What was read on the way, and what should have been: when one of them changes, the mistakes may be mended.
    pub files: Files,
}

/// The marker of a value that can't be used because of a mistake that is in the report already.
#[derive(Clone, Copy, Debug)]
pub struct Reported;

impl Mistakes {
    pub fn new(mut list: Vec<Mistake>, file: Option<PathBuf>, warnings: Vec<String>, files: Files) -> Self {
        list.sort_by(|a, b| in_file_order(&a.origin, &b.origin));
        Self { list, file, warnings, files }
    }
}

/// One per line.
impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.list.iter().enumerate() {
            write!(f, "{}{mistake}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.what)?;
        match &self.origin {
            Origin::Default => Ok(()),
            origin => write!(f, " ({origin})"),
        }
    }
}

/// Places in the file first, by line; what has no place there keeps its order.
fn in_file_order(a: &Origin, b: &Origin) -> Ordering {
    let place = |origin: &Origin| match origin {
        Origin::File { line, column } => (*line, *column),
        _ => (usize::MAX, 0),
    };
    place(a).cmp(&place(b))
}
