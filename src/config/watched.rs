//! The files that a configuration was made from, and whether they are still what they were.
//!
//! What counts is the content and the mode behind the name, however it came there: written in place, renamed over, or by a symbolic link
//! that was swapped somewhere in the path, as Kubernetes does. No content is kept.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{self, Print};

/// Files, and what each held. `None`: it could not be read, or was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, Option<Print>>);

impl Files {
    pub(super) fn note(&mut self, path: &Path, print: Option<Print>) {
        self.0.insert(path.to_owned(), print);
    }

    /// The same files as they are now.
    #[must_use]
    pub fn now(&self) -> Self {
        let print = |path: &PathBuf, last: &Option<Print>| match files::raw(path) {
            Ok((_, print)) => Some(print),
            // That is about us, and says nothing of the file.
            Err(error) if is_out_of_descriptors(&error) => *last,
            Err(_) => None,
        };
        Self(self.0.iter().map(|(path, last)| (path.clone(), print(path, last))).collect())
    }

    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    let errors = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    error.raw_os_error().is_some_and(|number| errors.iter().any(|errno| errno.raw_os_error() == number))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_counts_is_what_a_name_leads_to() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        fs::write(place("plain"), "1").unwrap();
        for version in ["v1", "v2"] {
            fs::create_dir(place(version)).unwrap();
            fs::write(place(version).join("secret"), version).unwrap();
        }
        symlink("v1", place("..data")).unwrap();
        symlink("..data/secret", place("secret")).unwrap();
        let mut files = Files::default();
        for name in ["plain", "secret", "missing"] {
            files.note(&place(name), None);
        }
        let mut before = files.now();
        assert_eq!(before, before.now());
        let mut differs = |what: &str| {
            let after = before.now();
            assert_ne!(after, before, "{what}");
            assert_eq!(after, after.now());
            before = after;
        };
        fs::write(place("plain"), "2").unwrap();
        differs("written in place");
        fs::write(place("new"), "3").unwrap();
        fs::rename(place("new"), place("plain")).unwrap();
        differs("renamed over");
        symlink("v2", place("..new")).unwrap();
        fs::rename(place("..new"), place("..data")).unwrap();
        differs("a link in the path was swapped");
        fs::write(place("missing"), "").unwrap();
        differs("it was not there");
        fs::set_permissions(place("plain"), fs::Permissions::from_mode(0o600)).unwrap();
        differs("its mode was mended");
        fs::remove_file(place("plain")).unwrap();
        differs("it is gone");
        fs::set_permissions(place("missing"), fs::metadata(place("missing")).unwrap().permissions()).unwrap();
        assert_eq!(before, before.now(), "nothing has changed");
    }
}
