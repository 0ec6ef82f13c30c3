//! Pure knowledge of Microsoft Graph. No I/O at all.

pub mod retry_after;
