//! Pure knowledge of Microsoft Graph. No I/O at all.

pub mod batch;
pub mod challenge;
pub mod links;
pub mod retry_after;
pub mod scopes;
pub mod workload;
