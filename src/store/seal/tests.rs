//! A blob opens in its place only, whole only, and with its key only.

use super::*;

fn account(subject: &str) -> AccountKey {
    AccountKey { provider: "entra".into(), tenant: "contoso".into(), subject: subject.into() }
}

fn place(key: &AccountKey) -> Place<'_> {
    Place { table: "grants", role: "refresh_token", owner: Some((key, "alice")), epoch: 3, detail: b"" }
}

fn ring(master: &MasterKey) -> KeyRing {
    KeyRing::generate(master).unwrap().0
}

fn master(byte: u8) -> MasterKey {
    Zeroizing::new([byte; KEY_BYTES])
}

#[test]
fn opens_what_was_sealed_of_any_length() {
    let (keys, alice) = (ring(&master(1)), account("alice"));
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
    let (keys, alice) = (ring(&master(1)), account("alice"));
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
    let (keys, alice) = (ring(&master(1)), account("alice"));
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
    let (keys, alice, robert) = (ring(&master(1)), account("alice"), account("robert"));
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
    let (keys, alice, robert) = (ring(&master(1)), account("alice"), account("robert"));
    let foreign = Place { owner: Some((&robert, "alice")), ..place(&alice) };
    let id = keys.newest;
    let plaintext = padded(&foreign.owner_bytes(), b"bob's token");
    let blob = encrypt(&keys.keys[&id], RECORD, id, &place(&alice).context(id), plaintext).unwrap();
    assert_eq!(keys.open(&place(&alice), &blob).unwrap_err(), Broken::Owner);
}

#[test]
fn a_ring_unwraps_with_its_master_key_only() {
    let (ring, id, wrapped) = KeyRing::generate(&master(1)).unwrap();
    let alice = account("alice");
    let blob = ring.seal(&place(&alice), b"refresh").unwrap();
    let stored = [(id, wrapped)];
    let again = KeyRing::unwrap(&master(1), &stored).unwrap();
    assert_eq!(**again.open(&place(&alice), &blob).unwrap(), *b"refresh");
    assert_eq!(again.fingerprint("refresh"), ring.fingerprint("refresh"));
    assert_eq!(KeyRing::unwrap(&master(2), &stored).unwrap_err(), Broken::Commitment);
    assert_eq!(KeyRing::unwrap(&master(1), &[]).unwrap_err(), Broken::Shape);
    assert_eq!(KeyRing::unwrap(&master(1), &[(7, stored[0].1.clone())]).unwrap_err(), Broken::Key(7));
}

#[test]
fn digests_tell_keys_kinds_and_values_apart() {
    let (one, two) = (ring(&master(1)), ring(&master(1)));
    assert_ne!(one.fingerprint("refresh"), two.fingerprint("refresh"));
    assert_ne!(one.fingerprint("refresh"), one.fingerprint("refresh2"));
    assert_ne!(one.ticket(TicketKind::Invite, "id"), one.ticket(TicketKind::Pending, "id"));
    assert_ne!(one.ticket(TicketKind::Invite, "id"), one.fingerprint("id").0);
}
