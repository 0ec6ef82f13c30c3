//! Another configuration while it serves: what brings it about, what it changes and what it leaves alone, and what a mistake does: nothing.

mod effects;
mod flights;
mod house;
mod limits;
mod mistakes;
mod triggers;
mod trust;
