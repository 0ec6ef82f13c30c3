//! Encryption at rest: what the database holds of a secret is a sealed blob that opens only with our key, and only in its place.
//!
//! Hierarchy: the master key wraps the data keys of the ring, which lie beside the data; each blob has a key of its own, derived
//! from a data key and a random salt. Invariants: a blob opens only for the table, role, owner and epoch that it was sealed
//! for; the owner's identity is inside the ciphertext too; what doesn't open is an error and never a value.
//!
//! Blob: magic 4 | version 1 | algorithm 1 | key id 4 | salt 32 | nonce 24 | key commitment 16 | ciphertext and tag.

use std::collections::BTreeMap;
use std::fmt;

use chacha20poly1305::{AeadInPlace, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::grant::{Fingerprint, TicketKind};
use super::key_file::{KEY_BYTES, MasterKey};
use crate::account::AccountKey;

const MAGIC: [u8; 4] = *b"BRRD";
const VERSION: u8 = 1;
const XCHACHA20_POLY1305: u8 = 1;
const SALT: std::ops::Range<usize> = 10..42;
const NONCE: std::ops::Range<usize> = 42..66;
const COMMITMENT: std::ops::Range<usize> = 66..82;
const HEADER: usize = COMMITMENT.end;
const TAG: usize = 16;
/// Plaintexts are padded to multiples of this, so that a length says little.
const PADDING: usize = 1024;

const RECORD: &[u8] = b"bearerd/v1/record";
const WRAP: &[u8] = b"bearerd/v1/wrap";

/// Why a blob doesn't open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("it is no sealed value")]
    Shape,
    #[error("its format {0} is unknown")]
    Version(u8),
    #[error("its algorithm {0} is unknown")]
    Algorithm(u8),
    #[error("it was sealed with key {0}, which this store doesn't have")]
    Key(u32),
    #[error("it was sealed with another key")]
    Commitment,
    #[error("it was changed, or belongs to another place")]
    Authentication,
    #[error("it belongs to another account")]
    Owner,
}

/// The system gave no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("no random numbers: {0}")]
pub struct NoRandom(getrandom::Error);

impl From<getrandom::Error> for NoRandom {
    fn from(error: getrandom::Error) -> Self {
        Self(error)
    }
}

/// The one place where a blob opens.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub table: &'static str,
    pub role: &'static str,
    /// Whose it is; `None` for what belongs to no account.
    pub owner: Option<(&'a AccountKey, &'a str)>,
    pub epoch: u64,
    /// What else tells it apart: a scope set, a ticket.
    pub detail: &'a [u8],
}

/// The data keys, opened. The newest one seals; each one opens what it sealed.
pub struct KeyRing {
    keys: BTreeMap<u32, MasterKey>,
    newest: u32,
    fingerprints: MasterKey,
    tickets: MasterKey,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("newest", &self.newest).finish_non_exhaustive()
    }
}

impl KeyRing {
    /// A ring of one new key, and that key as it is stored: its id and its wrapped bytes.
    pub fn generate(master: &MasterKey) -> Result<(Self, u32, Vec<u8>), NoRandom> {
        let id = 1;
        let mut key = MasterKey::default();
        getrandom::fill(key.as_mut())?;
        let wrapped = encrypt(master, WRAP, id, &wrap_context(id), padded(&[], key.as_ref()))?;
        let ring = Self::of(BTreeMap::from([(id, key)])).expect("a ring of one key has one");
        Ok((ring, id, wrapped))
    }

    /// The ring as it was stored. Fails with the wrong master key.
    pub fn unwrap(master: &MasterKey, stored: &[(u32, Vec<u8>)]) -> Result<Self, Broken> {
        let mut keys = BTreeMap::new();
        for (id, wrapped) in stored {
            if key_id(wrapped)? != *id {
                return Err(Broken::Key(*id));
            }
            let plaintext = decrypt(master, WRAP, &wrap_context(*id), wrapped)?;
            let (_, bytes) = unpadded(&plaintext)?;
            let mut key = MasterKey::default();
            if bytes.len() != KEY_BYTES {
                return Err(Broken::Shape);
            }
            key.copy_from_slice(bytes);
            keys.insert(*id, key);
        }
        Self::of(keys).ok_or(Broken::Shape)
    }

    fn of(keys: BTreeMap<u32, MasterKey>) -> Option<Self> {
        // Digests come from the oldest key, which stays in the ring: lineage outlives a rotation.
        let oldest = keys.first_key_value()?.1;
        let fingerprints = derive(oldest, &[], b"bearerd/v1/fingerprint");
        let tickets = derive(oldest, &[], b"bearerd/v1/ticket");
        let newest = *keys.last_key_value()?.0;
        Some(Self { keys, newest, fingerprints, tickets })
    }

    pub fn seal(&self, place: &Place<'_>, value: &[u8]) -> Result<Vec<u8>, NoRandom> {
        let id = self.newest;
        encrypt(&self.keys[&id], RECORD, id, &place.context(id), padded(&place.owner_bytes(), value))
    }

    pub fn open(&self, place: &Place<'_>, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, Broken> {
        let id = key_id(blob)?;
        let key = self.keys.get(&id).ok_or(Broken::Key(id))?;
        let plaintext = decrypt(key, RECORD, &place.context(id), blob)?;
        let (owner, value) = unpadded(&plaintext)?;
        if owner != place.owner_bytes() {
            return Err(Broken::Owner);
        }
        Ok(Zeroizing::new(value.to_vec()))
    }

    pub fn fingerprint(&self, refresh_token: &str) -> Fingerprint {
        Fingerprint(digest(&self.fingerprints, &[refresh_token.as_bytes()]))
    }

    /// What is stored of a ticket's id.
    pub fn ticket(&self, kind: TicketKind, id: &str) -> [u8; 32] {
        digest(&self.tickets, &[kind.name().as_bytes(), id.as_bytes()])
    }
}

impl TicketKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Invite => "invite",
            Self::Pending => "pending",
            Self::Device => "device",
            Self::Imported => "imported",
        }
    }
}

impl Place<'_> {
    fn context(&self, key: u32) -> Vec<u8> {
        let mut context = Vec::with_capacity(512);
        append(&mut context, &[VERSION, XCHACHA20_POLY1305]);
        append(&mut context, self.table.as_bytes());
        append(&mut context, self.role.as_bytes());
        append(&mut context, &self.owner_bytes());
        append(&mut context, self.owner.map_or("", |(_, alias)| alias).as_bytes());
        append(&mut context, &self.epoch.to_be_bytes());
        append(&mut context, self.detail);
        append(&mut context, &key.to_be_bytes());
        context
    }

    fn owner_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        if let Some((key, _)) = self.owner {
            for part in [&key.provider, &key.tenant, &key.subject] {
                append(&mut bytes, part.as_bytes());
            }
        }
        bytes
    }
}

fn wrap_context(id: u32) -> Vec<u8> {
    Place { table: "keyring", role: "data_key", owner: None, epoch: 0, detail: &[] }.context(id)
}

/// With its length in front, so that no two lists of parts read the same.
fn append(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
    bytes.extend_from_slice(part);
}

fn padded(owner: &[u8], value: &[u8]) -> Zeroizing<Vec<u8>> {
    let size = (16 + owner.len() + value.len()).next_multiple_of(PADDING);
    let mut plaintext = Zeroizing::new(Vec::with_capacity(size));
    append(&mut plaintext, owner);
    append(&mut plaintext, value);
    plaintext.resize(size, 0);
    plaintext
}

/// The owner and the value of a padded plaintext.
fn unpadded(plaintext: &[u8]) -> Result<(&[u8], &[u8]), Broken> {
    let part = |from: &'_ [u8]| -> Option<usize> {
        let length = u64::from_be_bytes(*from.first_chunk::<8>()?);
        usize::try_from(length).ok().filter(|length| *length <= from.len() - 8)
    };
    let owner = part(plaintext).ok_or(Broken::Shape)?;
    let (owner, rest) = plaintext[8..].split_at(owner);
    let value = part(rest).ok_or(Broken::Shape)?;
    Ok((owner, &rest[8..8 + value]))
}

fn key_id(blob: &[u8]) -> Result<u32, Broken> {
    let Some((magic, rest)) = blob.split_first_chunk::<4>() else { return Err(Broken::Shape) };
    if blob.len() < HEADER + TAG || *magic != MAGIC {
        return Err(Broken::Shape);
    }
    match rest {
        [VERSION, XCHACHA20_POLY1305, a, b, c, d, ..] => Ok(u32::from_be_bytes([*a, *b, *c, *d])),
        [VERSION, algorithm, ..] => Err(Broken::Algorithm(*algorithm)),
        [version, ..] => Err(Broken::Version(*version)),
        [] => Err(Broken::Shape),
    }
}

fn encrypt(
    key: &MasterKey,
    purpose: &[u8],
    key_id: u32,
    context: &[u8],
    mut plaintext: Zeroizing<Vec<u8>>,
) -> Result<Vec<u8>, NoRandom> {
    let mut blob = Vec::with_capacity(HEADER + plaintext.len() + TAG);
    blob.extend_from_slice(&MAGIC);
    blob.extend_from_slice(&[VERSION, XCHACHA20_POLY1305]);
    blob.extend_from_slice(&key_id.to_be_bytes());
    blob.resize(COMMITMENT.start, 0);
    getrandom::fill(&mut blob[SALT.start..NONCE.end])?;
    let (subkey, commitment) = subkey(key, &blob[SALT], purpose);
    blob.extend_from_slice(&commitment);
    let tag = XChaCha20Poly1305::new(subkey.as_ref().into())
        .encrypt_in_place_detached(XNonce::from_slice(&blob[NONCE]), context, &mut plaintext)
        .expect("a token is shorter than the 256 GiB that the cipher can take");
    blob.extend_from_slice(&plaintext);
    blob.extend_from_slice(&tag);
    Ok(blob)
}

/// `blob` has passed `key_id`, so that its parts are there.
fn decrypt(key: &MasterKey, purpose: &[u8], context: &[u8], blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, Broken> {
    let (subkey, commitment) = subkey(key, &blob[SALT], purpose);
    if !bool::from(commitment.ct_eq(&blob[COMMITMENT])) {
        return Err(Broken::Commitment);
    }
    let (ciphertext, tag) = blob[HEADER..].split_at(blob.len() - HEADER - TAG);
    let mut plaintext = Zeroizing::new(ciphertext.to_vec());
    XChaCha20Poly1305::new(subkey.as_ref().into())
        .decrypt_in_place_detached(XNonce::from_slice(&blob[NONCE]), context, &mut plaintext, Tag::from_slice(tag))
        .map_err(|_| Broken::Authentication)?;
    Ok(plaintext)
}

/// The key of one blob, and the 16 bytes that commit to it: the cipher alone would open under more than one key.
fn subkey(key: &MasterKey, salt: &[u8], purpose: &[u8]) -> (MasterKey, [u8; 16]) {
    let mut commitment = [0; 16];
    let commitment_key = derive(key, salt, &[purpose, b"/commitment"].concat());
    commitment.copy_from_slice(&commitment_key[..16]);
    (derive(key, salt, purpose), commitment)
}

fn derive(key: &MasterKey, salt: &[u8], purpose: &[u8]) -> MasterKey {
    let mut derived = MasterKey::default();
    Hkdf::<Sha256>::new(Some(salt), key.as_ref())
        .expand(purpose, derived.as_mut())
        .expect("32 bytes are less than HKDF's limit");
    derived
}

fn digest(key: &MasterKey, parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key.as_ref()).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests;
