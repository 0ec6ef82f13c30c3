//! The name of one request, for logs and for the upstream: random, no secret, and cheap.

use std::cell::RefCell;

/// The system is asked for the bytes of so many ids at a time.
const STOCK: usize = 256;

/// A random id in the form of a UUID (version 4).
#[derive(Clone, Copy, Debug)]
pub struct RequestId([u8; LENGTH]);

const LENGTH: usize = 36;

impl RequestId {
    pub fn new() -> Self {
        let mut bytes = random();
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut id = [b'-'; LENGTH];
        for (byte, at) in bytes.into_iter().zip(DIGITS) {
            id[at] = HEX[usize::from(byte >> 4)];
            id[at + 1] = HEX[usize::from(byte & 0x0f)];
        }
        Self(id)
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits and dashes")
    }
}

const HEX: [u8; 16] = *b"0123456789abcdef";
/// Where the digits of each byte begin.
const DIGITS: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// Zeros where the system has no randomness.
fn random() -> [u8; 16] {
    thread_local! {
        static LEFT: RefCell<Vec<[u8; 16]>> = const { RefCell::new(Vec::new()) };
    }
    LEFT.with_borrow_mut(|left| {
        if left.is_empty() {
            let mut fresh = [[0; 16]; STOCK];
            if getrandom::fill(fresh.as_flattened_mut()).is_ok() {
                left.extend(fresh);
            }
        }
        left.pop().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_uuids_and_never_the_same() {
        let ids: HashSet<String> = (0..3 * STOCK).map(|_| RequestId::new().as_str().to_owned()).collect();
        assert_eq!(ids.len(), 3 * STOCK);
        for id in ids {
            let parts: Vec<usize> = id.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12], "{id}");
            assert!(id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')), "{id}");
            assert!(&id[14..15] == "4" && matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
        }
    }
}
