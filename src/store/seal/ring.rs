//! The data keys of a store, opened: one of them seals, each opens what it sealed.
//!
//! Invariants: a key's id is never used again; the keys of digests outlive every rotation, so that lineage does; nothing here prints
//! a key.

use std::collections::BTreeMap;
use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{Broken, NoRandom, Place, append, decrypt, derive, encrypt, key_id, padded, unpadded};
use crate::store::grant::{Fingerprint, TicketKind};
use crate::store::key_file::{KEY_BYTES, MasterKey};

const RECORD: &[u8] = b"bearerd/v1/record";
const WRAP: &[u8] = b"bearerd/v1/wrap";
const FIRST: u32 = 1;
/// The entry of the ring that seals nothing: the keys of digests.
const DIGESTS: u32 = 0;

/// An entry of the ring as it is stored: its id, and its bytes wrapped by a master key.
pub type Wrapped = (u32, Vec<u8>);

/// The ring of one state of the store.
#[derive(Clone)]
pub struct KeyRing {
    /// Grows with every change of the stored ring.
    generation: u64,
    keys: BTreeMap<u32, MasterKey>,
    active: u32,
    fingerprints: MasterKey,
    tickets: MasterKey,
    audit: MasterKey,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("generation", &self.generation)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

/// The name of a master key: says which one, never what.
pub fn master_id(master: &MasterKey) -> String {
    let id = derive(master, &[], b"bearerd/v1/master-id");
    id[..8].iter().fold(String::with_capacity(16), |hex, byte| hex + &format!("{byte:02x}"))
}

impl KeyRing {
    /// A ring of one new key.
    pub fn generate() -> Result<Self, NoRandom> {
        Ok(Self::of(1, BTreeMap::from([(FIRST, random()?)]), FIRST, random()?, random()?))
    }

    /// The ring as it was stored. Fails with the wrong master key.
    pub fn unwrap(master: &MasterKey, stored: &[Wrapped], active: u32, generation: u64) -> Result<Self, Broken> {
        let mut keys = BTreeMap::new();
        let mut digests = None;
        for (id, wrapped) in stored {
            let opened = unwrapped(master, *id, wrapped)?;
            match (*id, opened.as_slice()) {
                (DIGESTS, [fingerprints, tickets]) => digests = Some((fingerprints.clone(), tickets.clone())),
                (DIGESTS, _) => return Err(Broken::Shape),
                (id, [key]) => drop(keys.insert(id, key.clone())),
                _ => return Err(Broken::Shape),
            }
        }
        let (fingerprints, tickets) = digests.ok_or(Broken::Shape)?;
        if !keys.contains_key(&active) {
            return Err(Broken::Key(active));
        }
        Ok(Self::of(generation, keys, active, fingerprints, tickets))
    }

    /// The ring of a store of format 2: the newest key seals, digests come from the oldest.
    pub fn unwrap_format_2(master: &MasterKey, stored: &[Wrapped]) -> Result<Self, Broken> {
        let mut keys = BTreeMap::new();
        for (id, wrapped) in stored {
            let [key] = unwrapped(master, *id, wrapped)?.try_into().map_err(|_| Broken::Shape)?;
            keys.insert(*id, key);
        }
        let oldest = keys.first_key_value().ok_or(Broken::Shape)?.1;
        let fingerprints = derive(oldest, &[], b"bearerd/v1/fingerprint");
        let tickets = derive(oldest, &[], b"bearerd/v1/ticket");
        let newest = *keys.last_key_value().ok_or(Broken::Shape)?.0;
        Ok(Self::of(1, keys, newest, fingerprints, tickets))
    }

    fn of(
        generation: u64,
        keys: BTreeMap<u32, MasterKey>,
        active: u32,
        fingerprints: MasterKey,
        tickets: MasterKey,
    ) -> Self {
        let audit = derive(&fingerprints, &[], b"bearerd/v1/audit");
        Self { generation, keys, active, fingerprints, tickets, audit }
    }

    /// Every entry, wrapped by this master key.
    pub fn wrapped(&self, master: &MasterKey) -> Result<Vec<Wrapped>, NoRandom> {
        let mut digests = Zeroizing::new(Vec::with_capacity(2 * KEY_BYTES));
        digests.extend_from_slice(self.fingerprints.as_ref());
        digests.extend_from_slice(self.tickets.as_ref());
        let mut entries = vec![(DIGESTS, wrap(master, DIGESTS, &digests)?)];
        for (id, key) in &self.keys {
            entries.push((*id, wrap(master, *id, key.as_ref())?));
        }
        Ok(entries)
    }

    /// A further key, wrapped; it is in the ring once that was stored.
    pub fn further(master: &MasterKey, id: u32) -> Result<Wrapped, NoRandom> {
        Ok((id, wrap(master, id, random()?.as_ref())?))
    }

    /// The same keys; `active` seals.
    pub fn sealing_with(&self, active: u32) -> Self {
        Self { active, ..self.clone() }
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn active(&self) -> u32 {
        self.active
    }

    pub fn has(&self, id: u32) -> bool {
        self.keys.contains_key(&id)
    }

    pub fn seal(&self, place: &Place<'_>, value: &[u8]) -> Result<Vec<u8>, NoRandom> {
        let id = self.active;
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

    /// The link of the audit log's chain: of a record, and of the link before.
    pub fn audit(&self, before: &[u8], record: &[u8]) -> [u8; 32] {
        digest(&self.audit, &[before, record])
    }
}

fn random() -> Result<MasterKey, NoRandom> {
    let mut key = MasterKey::default();
    getrandom::fill(key.as_mut())?;
    Ok(key)
}

fn wrap(master: &MasterKey, id: u32, bytes: &[u8]) -> Result<Vec<u8>, NoRandom> {
    encrypt(master, WRAP, id, &wrap_context(id), padded(&[], bytes))
}

/// The keys of an entry.
fn unwrapped(master: &MasterKey, id: u32, wrapped: &[u8]) -> Result<Vec<MasterKey>, Broken> {
    if key_id(wrapped)? != id {
        return Err(Broken::Key(id));
    }
    let plaintext = decrypt(master, WRAP, &wrap_context(id), wrapped)?;
    let (_, bytes) = unpadded(&plaintext)?;
    let (keys, rest) = bytes.as_chunks::<KEY_BYTES>();
    if rest.is_empty() { Ok(keys.iter().map(|key| Zeroizing::new(*key)).collect()) } else { Err(Broken::Shape) }
}

pub(super) fn wrap_context(id: u32) -> Vec<u8> {
    Place { table: "keyring", role: "data_key", owner: None, epoch: 0, detail: &[] }.context(id)
}

fn digest(key: &MasterKey, parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key.as_ref()).expect("HMAC takes keys of any length");
    for part in parts {
        let mut framed = Zeroizing::new(Vec::with_capacity(8 + part.len()));
        append(&mut framed, part);
        mac.update(&framed);
    }
    mac.finalize().into_bytes().into()
}
