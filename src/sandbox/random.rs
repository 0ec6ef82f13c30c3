//! Names that nobody can guess: codes, tokens, correlation ids.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// `length` characters of the base64url alphabet.
pub(super) fn text(length: usize) -> String {
    let mut bytes = vec![0; length.div_ceil(4) * 3];
    fill(&mut bytes);
    let mut text = URL_SAFE_NO_PAD.encode(&bytes);
    text.truncate(length);
    text
}

/// `length` capitals and digits that can't be mistaken for each other: what a person types.
pub(super) fn typed(length: usize) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let mut bytes = vec![0; length];
    fill(&mut bytes);
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

/// A GUID of version 4.
pub(super) fn guid() -> String {
    let mut bytes = [0; 16];
    fill(&mut bytes);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let number = u128::from_be_bytes(bytes);
    let hex = format!("{number:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the system has random numbers");
}
