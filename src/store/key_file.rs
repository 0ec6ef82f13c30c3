//! The master key of the store: a file of ours outside the database, or a value from the environment.
//!
//! Invariants: a key is made only where there is no store yet, and appears whole or not at all; a file that others could have
//! read or put there is refused.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use super::StoreError;
use super::seal::NoRandom;
use crate::config;
use crate::secret::Secret;

pub const KEY_BYTES: usize = 32;
const SETTING: &str = "store.key_file";
/// Far more than the base64 of a key with its line end.
const READ_LIMIT: u64 = 1024;

pub type MasterKey = Zeroizing<[u8; KEY_BYTES]>;

/// A new master key as the key file holds it: the base64 of 32 random bytes.
pub fn generate_key() -> Result<Secret<String>, StoreError> {
    let mut key = MasterKey::default();
    getrandom::fill(key.as_mut()).map_err(NoRandom::from)?;
    Ok(Secret::new(BASE64_STANDARD.encode(key.as_ref())))
}

/// The key of the configuration. `first_start`: there is no store yet, so a key file may be made.
pub fn load(config: &config::Store, first_start: bool) -> Result<MasterKey, StoreError> {
    if let Some(key) = &config.key {
        return decode(key.expose().as_bytes())
            .map_err(|why| StoreError::Setup { key: "store.key", why: why.to_owned() });
    }
    let path = &config.key_file;
    match fs::symlink_metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound && first_start => {
            let key = generate_key()?;
            make(path, &key).map_err(|error| refusal(path, &format!("can't make the key file: {error}")))?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let directory = config.path.display();
            let why = format!(
                "there is no such file, and the store in {directory} opens only with the key that it was made with"
            );
            return Err(refusal(path, &why));
        }
        Err(error) => return Err(refusal(path, &error.to_string())),
    }
    read(path).map_err(|why| refusal(path, &why))
}

/// The key in this file, which the setting or flag `key` names.
pub fn read_named(path: &Path, key: &'static str) -> Result<MasterKey, StoreError> {
    read(path).map_err(|why| StoreError::Setup { key, why: format!("{}: {why}", path.display()) })
}

/// Puts another key into the place of the one in `path`: whoever opens that file finds the one or the other. Owner and group stay.
pub fn replace(path: &Path, key: &MasterKey) -> io::Result<()> {
    // Of a link, what it leads to: the link is somebody's who may make it again.
    let path = &fs::canonicalize(path)?;
    let old = fs::metadata(path)?;
    let text = Secret::new(BASE64_STANDARD.encode(key.as_ref()));
    let (directory, draft) = draft(path)?;
    let written = write_durably(&draft, &text)
        .and_then(|()| std::os::unix::fs::chown(&draft, Some(old.uid()), Some(old.gid())))
        .and_then(|()| fs::rename(&draft, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&draft);
        return Err(error);
    }
    File::open(directory)?.sync_all()
}

fn refusal(path: &Path, why: &str) -> StoreError {
    StoreError::Setup { key: SETTING, why: format!("{}: {why}", path.display()) }
}

fn decode(text: &[u8]) -> Result<MasterKey, &'static str> {
    let bytes = BASE64_STANDARD.decode(text.trim_ascii()).map(Zeroizing::new).map_err(|_| "the key is not base64")?;
    let mut key = MasterKey::default();
    if bytes.len() != KEY_BYTES {
        return Err("the key must be the base64 of exactly 32 bytes");
    }
    key.copy_from_slice(&bytes);
    Ok(key)
}

fn read(path: &Path) -> Result<MasterKey, String> {
    let us = rustix::process::geteuid().as_raw();
    let link = fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    if link.is_symlink() && !is_trusted(link.uid(), us) {
        return Err(format!("is a symbolic link of user {}, who could lead it to any key", link.uid()));
    }
    // Not waiting for the other end of a pipe.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    judge(metadata.mode() & 0o7777, metadata.uid(), us)?;
    // Room for everything at once: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(READ_LIMIT).unwrap_or(usize::MAX)));
    file.take(READ_LIMIT).read_to_end(&mut text).map_err(|error| error.to_string())?;
    decode(&text).map_err(str::to_owned)
}

/// Only root and we ourselves can have put there what this user owns.
fn is_trusted(owner: u32, us: u32) -> bool {
    owner == 0 || owner == us
}

/// Who could have read the key or put it there. A group may read a file of root's: so service managers and orchestrators hand secrets to one user.
fn judge(mode: u32, owner: u32, us: u32) -> Result<(), String> {
    let handed_over = owner == 0 && us != 0;
    if mode & 0o077 & !(if handed_over { 0o040 } else { 0 }) != 0 {
        return Err(format!("its mode is {mode:04o}: others than its owner may use it; it must be 0600"));
    }
    if !is_trusted(owner, us) {
        return Err(format!("it belongs to user {owner}, who could have put any key there"));
    }
    Ok(())
}

/// The file appears under its name with everything in it, or not at all; who comes second keeps the first one's.
fn make(path: &Path, key: &Secret<String>) -> io::Result<()> {
    let (directory, draft) = draft(path)?;
    let written = write_durably(&draft, key).and_then(|()| fs::hard_link(&draft, path));
    let removed = fs::remove_file(&draft);
    match written {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        other => other.and(removed)?,
    }
    File::open(directory)?.sync_all()
}

/// The directory of `path`, and the name in it of what is to become that file.
fn draft(path: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(NoRandom::from(error)))?;
    let draft = directory.join(format!(".store.key.{:016x}", u64::from_be_bytes(random)));
    Ok((directory, draft))
}

fn write_durably(path: &Path, key: &Secret<String>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(key.expose().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn a_key_is_for_its_owner_or_handed_over_by_root() {
        let (root, us, other) = (0, 65532, 1000);
        for mode in [0o600, 0o400] {
            assert_eq!((judge(mode, us, us), judge(mode, root, us), judge(mode, root, root)), (Ok(()), Ok(()), Ok(())));
            assert!(judge(mode, other, us).unwrap_err().contains("user 1000"));
            assert!(judge(mode, other, root).unwrap_err().contains("user 1000"));
        }
        assert_eq!(judge(0o440, root, us), Ok(()), "a secret of Kubernetes, a credential of systemd");
        for (mode, owner, us) in
            [(0o440, us, us), (0o440, root, root), (0o460, root, us), (0o444, root, us), (0o644, us, us)]
        {
            assert!(judge(mode, owner, us).unwrap_err().contains("must be 0600"), "{mode:o} of {owner} for {us}");
        }
    }
}
