//! Who a grant belongs to: `AccountKey` decides, `Alias` is what people and rules call it.
//!
//! An account is never identified by an e-mail address or a display name: those change.

use std::fmt;
use std::sync::Arc;

use memchr::memchr_iter;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The identity of an account: provider + tenant id (`tid`) + object id (`oid`); for generic providers the issuer
/// stands in for the tenant and `sub` for the object id.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct AccountKey {
    pub provider: String,
    pub tenant: String,
    pub subject: String,
}

impl AccountKey {
    /// The name of this account in URLs and logs: 32 hex digits, made from the key alone.
    pub fn id(&self) -> String {
        self.digest().iter().fold(String::with_capacity(32), |hex, byte| hex + &format!("{byte:02x}"))
    }

    /// The same as bytes.
    pub fn digest(&self) -> [u8; 16] {
        let mut digest = Sha256::new();
        for part in [&self.provider, &self.tenant, &self.subject] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        let digest: [u8; 32] = digest.finalize().into();
        let (half, _) = digest.split_first_chunk().expect("32 bytes have 16");
        *half
    }
}

/// The label of an account, given once when the account is made.
///
/// 1 to 255 visible ASCII characters; no `/`, `:`, `*`, `?`, `[`, `]`, `{`, `}`, `\`, `%`, quotes, and at most one `@`, which
/// neither starts nor ends it. Such a label can stand in a path (`/as/{alias}`), in a Basic user name and in a rule
/// without being read in two ways. Upper and lower case differ.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Alias(Arc<str>);

/// By byte: whether an alias may contain it.
const CHARACTERS: [bool; 256] = {
    let mut characters = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        characters[byte as usize] = !matches!(
            byte,
            b'/' | b':'
                | b'*'
                | b'?'
                | b'['
                | b']'
                | b'{'
                | b'}'
                | b'\\'
                | b'%'
                | b'"'
                | b'\''
                | b'<'
                | b'>'
                | b'#'
                | b'&'
                | b';'
                | b','
        );
        byte += 1;
    }
    characters
};

/// Why a text is no alias.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AliasError {
    #[error("an alias has 1 to 255 characters")]
    Length,
    #[error("an alias can't contain {0:?}")]
    Character(char),
    #[error("an alias can't start or end with '.' or '@', and has at most one '@'")]
    Shape,
}

impl Alias {
    pub fn new(text: &str) -> Result<Self, AliasError> {
        if text.is_empty() || text.len() > 255 {
            return Err(AliasError::Length);
        }
        if !text.bytes().all(|byte| CHARACTERS[usize::from(byte)]) {
            let is_bad = |c: &char| !u8::try_from(*c).is_ok_and(|byte| CHARACTERS[usize::from(byte)]);
            return Err(AliasError::Character(text.chars().find(is_bad).unwrap_or_default()));
        }
        let is_edge = |byte: Option<&u8>| matches!(byte, Some(b'.' | b'@'));
        let bytes = text.as_bytes();
        if is_edge(bytes.first()) || is_edge(bytes.last()) || memchr_iter(b'@', bytes).count() > 1 {
            return Err(AliasError::Shape);
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl std::borrow::Borrow<str> for Alias {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_that_are_refused() {
        for text in ["", "a/b", "a b", "a@b@c", "@a", "a.", "ä", "a\0", "a*", "%41", "a:b", &"x".repeat(256)] {
            assert!(Alias::new(text).is_err(), "{text:?}");
        }
        for text in ["alice", "Alice.O-Hara_1", "alice@contoso.com", "svc+mail@contoso.com", "user_home.com!EXT"] {
            assert!(Alias::new(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("", AliasError::Length),
            ("aä/", AliasError::Character('ä')),
            ("@\u{ff}", AliasError::Character('\u{ff}')),
            ("a,b", AliasError::Character(',')),
            (".a", AliasError::Shape),
            ("a@b@c", AliasError::Shape),
        ] {
            assert_eq!(Alias::new(text), Err(expected), "{text}");
        }
        let refused = "/:*?[]{}\\%\"'<>#&;,";
        for byte in 0..=127_u8 {
            let c = char::from(byte);
            let expected = c.is_ascii_graphic() && !refused.contains(c);
            assert_eq!(Alias::new(&format!("a{c}b")).is_ok(), expected, "{c:?}");
        }
    }

    #[test]
    fn ids_depend_on_where_the_parts_end() {
        let key = |p: &str, t: &str, s: &str| AccountKey { provider: p.into(), tenant: t.into(), subject: s.into() };
        assert_ne!(key("ab", "c", "d").id(), key("a", "bc", "d").id());
        assert_eq!(key("a", "b", "c").id().len(), 32);
    }
}
