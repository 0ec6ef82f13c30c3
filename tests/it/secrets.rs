//! T407: the whole story at TRACE, with every fault that talks, and then a search for every secret in everything that came out.

mod canary;
mod server;
mod story;
