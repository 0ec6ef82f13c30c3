//! Traces, as a collector sees them: the tree of spans, what upstreams are told of it, and that no request waits or fails for it.

pub mod collector;
mod story;
mod troubles;
