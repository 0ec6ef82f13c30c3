//! Pure knowledge of Microsoft Graph. No I/O at all.

pub mod challenge;
pub mod retry_after;
