//! A blob opens in its place only, whole only, and with its key only.

use super::*;
use crate::store::key_file::KEY_BYTES;

fn account(subject: &str) -> AccountKey {
    AccountKey { provider: "entra".into(), tenant: "contoso".into(), subject: subject.into() }
}

fn place(key: &AccountKey) -> Place<'_> {
    Place { table: "grants", role: "refresh_token", owner: Some((key, "alice")), epoch: 3, detail: b"" }
}

fn ring() -> KeyRing {
    KeyRing::generate().unwrap()
}

fn master(byte: u8) -> MasterKey {
    Zeroizing::new([byte; KEY_BYTES])
}

#[test]
fn opens_what_was_sealed_of_any_length() {
    let (keys, alice) = (ring(), account("alice"));
    for length in [0, 1, 900, 1_024, 5_000] {
        let value = vec![b'x'; length];
        let blob = keys.seal(&place(&alice), &value).unwrap();
        assert_eq!(*keys.open(&place(&alice), &blob).unwrap(), value);
        assert_eq!((blob.len() - HEADER - TAG) % PADDING, 0);
    }
    let same = |value| keys.seal(&place(&alice), value).unwrap();
    assert_ne!(same(b"x"), same(b"x"));
}

#[test]
fn a_changed_byte_or_a_cut_is_an_error() {
    let (keys, alice) = (ring(), account("alice"));
    let blob = keys.seal(&place(&alice), b"refresh").unwrap();
    for index in 0..blob.len() {
        let mut changed = blob.clone();
        changed[index] ^= 1;
        assert!(keys.open(&place(&alice), &changed).is_err(), "byte {index}");
        assert!(keys.open(&place(&alice), &blob[..index]).is_err(), "cut at {index}");
    }
    let longer = [blob.as_slice(), b"\0"].concat();
    assert!(keys.open(&place(&alice), &longer).is_err());
}

#[test]
fn says_what_is_unknown_about_a_blob() {
    let (keys, alice) = (ring(), account("alice"));
    let blob = keys.seal(&place(&alice), b"refresh").unwrap();
    for (index, value, why) in [
        (0, b'X', Broken::Shape),
        (4, 2, Broken::Version(2)),
        (5, 9, Broken::Algorithm(9)),
        (9, 77, Broken::Key(77)),
        (SALT.start, !blob[SALT.start], Broken::Commitment),
        (HEADER, !blob[HEADER], Broken::Authentication),
    ] {
        let mut changed = blob.clone();
        changed[index] = value;
        assert_eq!(keys.open(&place(&alice), &changed).unwrap_err(), why);
    }
}

#[test]
fn opens_in_its_own_place_only() {
    let (keys, alice, robert) = (ring(), account("alice"), account("robert"));
    let home = place(&alice);
    let blob = keys.seal(&home, b"refresh").unwrap();
    for other in [
        Place { table: "tickets", ..home },
        Place { role: "access_token", ..home },
        Place { owner: Some((&robert, "alice")), ..home },
        Place { owner: Some((&alice, "bob")), ..home },
        Place { owner: None, ..home },
        Place { epoch: 2, ..home },
        Place { detail: b"User.Read", ..home },
    ] {
        assert_eq!(keys.open(&other, &blob).unwrap_err(), Broken::Authentication, "{other:?}");
    }
}

#[test]
fn the_owner_inside_is_checked_too() {
    let (keys, alice, robert) = (ring(), account("alice"), account("robert"));
    let stored = keys.wrapped(&master(1)).unwrap();
    let (id, wrapped) = &stored[1];
    let plaintext = decrypt(&master(1), b"bearerd/v1/wrap", &ring::wrap_context(*id), wrapped).unwrap();
    let key = Zeroizing::new(<[u8; KEY_BYTES]>::try_from(unpadded(&plaintext).unwrap().1).unwrap());
    let foreign = Place { owner: Some((&robert, "alice")), ..place(&alice) };
    let plaintext = padded(&foreign.owner_bytes(), b"bob's token");
    let blob = encrypt(&key, b"bearerd/v1/record", *id, &place(&alice).context(*id), plaintext).unwrap();
    assert_eq!(keys.open(&place(&alice), &blob).unwrap_err(), Broken::Owner);
}

#[test]
fn a_ring_unwraps_with_its_master_key_only() {
    let (ring, alice) = (ring(), account("alice"));
    let stored = ring.wrapped(&master(1)).unwrap();
    let blob = ring.seal(&place(&alice), b"refresh").unwrap();
    let again = KeyRing::unwrap(&master(1), &stored, 1, 5).unwrap();
    assert_eq!(**again.open(&place(&alice), &blob).unwrap(), *b"refresh");
    assert_eq!(again.fingerprint("refresh"), ring.fingerprint("refresh"));
    assert_eq!(again.ticket(TicketKind::Invite, "id"), ring.ticket(TicketKind::Invite, "id"));
    assert_eq!(again.generation(), 5);
    let refused =
        |master: &MasterKey, stored: &[Wrapped], active| KeyRing::unwrap(master, stored, active, 1).unwrap_err();
    assert_eq!(refused(&master(2), &stored, 1), Broken::Commitment);
    assert_eq!(refused(&master(1), &[], 1), Broken::Shape);
    assert_eq!(refused(&master(1), &stored[1..], 1), Broken::Shape);
    assert_eq!(refused(&master(1), &stored, 2), Broken::Key(2));
    assert_eq!(refused(&master(1), &[stored[0].clone(), (7, stored[1].1.clone())], 1), Broken::Key(7));
    assert_ne!(master_id(&master(1)), master_id(&master(2)));
}

#[test]
fn a_further_key_seals_and_the_old_one_still_opens() {
    let (old, alice) = (ring(), account("alice"));
    let blob = old.seal(&place(&alice), b"refresh").unwrap();
    let mut stored = old.wrapped(&master(1)).unwrap();
    stored.push(KeyRing::further(&master(1), 2).unwrap());
    let prepared = KeyRing::unwrap(&master(1), &stored, 1, 2).unwrap();
    let active = prepared.sealing_with(2);
    let new = active.seal(&place(&alice), b"refresh").unwrap();
    assert_eq!((sealed_with(&blob), sealed_with(&new)), (Some(1), Some(2)));
    assert_eq!(**active.open(&place(&alice), &blob).unwrap(), *b"refresh");
    assert_eq!(**prepared.open(&place(&alice), &new).unwrap(), *b"refresh");
    assert_eq!(old.open(&place(&alice), &new).unwrap_err(), Broken::Key(2));
    stored.remove(1);
    let retired = KeyRing::unwrap(&master(1), &stored, 2, 4).unwrap();
    assert_eq!(retired.open(&place(&alice), &blob).unwrap_err(), Broken::Key(1));
    assert_eq!(retired.fingerprint("refresh"), old.fingerprint("refresh"), "lineage outlives a rotation");
}

#[test]
fn digests_tell_keys_kinds_and_values_apart() {
    let (one, two) = (ring(), ring());
    assert_ne!(one.fingerprint("refresh"), two.fingerprint("refresh"));
    assert_ne!(one.fingerprint("refresh"), one.fingerprint("refresh2"));
    assert_ne!(one.ticket(TicketKind::Invite, "id"), one.ticket(TicketKind::Pending, "id"));
    assert_ne!(one.ticket(TicketKind::Invite, "id"), one.fingerprint("id").0);
}
