//! Named points of the refresh protocol at which a test stops the process, as a power cut would.
//!
//! Without the cargo feature `fault-points` a point is nothing at all. With it, `BEARERD_FAULT_POINT=fp07` kills the process
//! at that point, and `fp07:once:/path/marker` does so only if the marker doesn't exist yet, and makes it.

/// The process passes the point `name`.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub fn point(_name: &str) {}

/// The process passes the point `name`.
#[cfg(feature = "fault-points")]
pub fn point(name: &str) {
    let Ok(wanted) = std::env::var("BEARERD_FAULT_POINT") else { return };
    let (point, marker) = match wanted.split_once(":once:") {
        Some((point, marker)) => (point, Some(marker)),
        None => (wanted.as_str(), None),
    };
    if point == name && marker.is_none_or(|path| std::fs::File::create_new(path).is_ok()) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
