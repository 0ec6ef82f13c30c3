//! Encryption at rest: what the database holds of a secret is a sealed blob that opens only with our key, and only in its place.
//!
//! Hierarchy: the master key wraps the data keys of the ring (`ring`), which lie beside the data; each blob has a key of its own,
//! derived from a data key and a random salt. Invariants: a blob opens only for the table, role, owner and epoch that it was sealed
//! for; the owner's identity is inside the ciphertext too; what doesn't open is an error and never a value.
//!
//! Blob: magic 4 | version 1 | algorithm 1 | key id 4 | salt 32 | nonce 24 | key commitment 16 | ciphertext and tag.

use chacha20poly1305::{AeadInPlace, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::grant::TicketKind;
use super::key_file::MasterKey;
use crate::account::AccountKey;

pub use self::ring::{KeyRing, Wrapped, master_id};

mod ring;

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

impl TicketKind {
    pub(super) const ALL: [Self; 4] = [Self::Invite, Self::Pending, Self::Device, Self::Imported];

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

/// Which data key sealed the blob that begins like this; `None`: it is no blob that we know.
pub fn sealed_with(beginning: &[u8]) -> Option<u32> {
    let [VERSION, XCHACHA20_POLY1305, a, b, c, d, ..] = beginning.strip_prefix(&MAGIC)? else { return None };
    Some(u32::from_be_bytes([*a, *b, *c, *d]))
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

#[cfg(test)]
mod tests;
