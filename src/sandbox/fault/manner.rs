//! Ways of answering that are no faults, and that clients must cope with all the same.

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    /// In the zlib format, as RFC 9110 has it.
    Deflate,
    /// Without it, as some servers do; called `deflate` all the same.
    RawDeflate,
    Brotli,
    /// Half of a gzip, properly framed.
    Broken,
}

/// In which order a batch is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchOrder {
    #[default]
    Reversed,
    /// In some order that depends on the ids alone.
    Shuffled,
    Kept,
}

impl Coding {
    pub(super) fn named(text: &str) -> Option<Self> {
        Some(match text {
            "gzip" => Self::Gzip,
            "deflate" => Self::Deflate,
            "raw-deflate" => Self::RawDeflate,
            "br" => Self::Brotli,
            "broken" => Self::Broken,
            _ => return None,
        })
    }
}

impl BatchOrder {
    pub(super) fn named(text: &str) -> Option<Self> {
        Some(match text {
            "reversed" => Self::Reversed,
            "shuffled" => Self::Shuffled,
            "kept" => Self::Kept,
            _ => return None,
        })
    }
}
