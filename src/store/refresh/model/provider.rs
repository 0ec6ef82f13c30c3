//! A provider that rotates as it is told to, and remembers what was presented to it.

use super::Held;
use crate::config::Rotation;
use crate::store::grant::Fingerprint;

/// Refresh tokens are numbers below 32; sets of them are bits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Provider {
    pub current: u8,
    pub previous: Option<u8>,
    pub next: u8,
    pub used: u32,
    /// Those that come from the newest sign-in.
    pub family: u32,
    pub dead: bool,
    /// How often a token of this family was presented again, last resorts included, and without them.
    pub repeats: u8,
    pub unasked_repeats: u8,
}

pub fn fingerprint(token: u8) -> Fingerprint {
    Fingerprint([token; 32])
}

pub fn bit(token: u8) -> u32 {
    1 << token
}

impl Provider {
    pub fn new(token: u8) -> Self {
        let next = token + 1;
        let family = bit(token);
        Self { current: token, previous: None, next, used: 0, family, dead: false, repeats: 0, unasked_repeats: 0 }
    }

    pub fn present(&mut self, held: Held, rotation: Rotation) -> Option<u8> {
        let token = held.token;
        let again = self.used & bit(token) != 0;
        if again {
            self.repeats += 1;
            self.unasked_repeats += u8::from(!held.last_resort);
        }
        let accepted = match rotation {
            Rotation::Tolerant => true,
            Rotation::Strict => !self.dead && token == self.current,
            Rotation::Grace(_) => !self.dead && (token == self.current || Some(token) == self.previous),
        };
        if !accepted {
            self.dead |= again;
            return None;
        }
        let successor = self.next;
        self.next += 1;
        self.used |= bit(token);
        self.family |= if self.family & bit(token) == 0 { 0 } else { bit(successor) };
        (self.current, self.previous) = (successor, Some(token));
        Some(successor)
    }
}
