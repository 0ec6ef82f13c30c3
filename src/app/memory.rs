//! Looks at the process's memory, and says when it is too much: once at each turn.

use std::sync::Weak;
use std::time::Duration;

use super::live::Live;
use crate::process::memory::{Status, Turn};

/// Often enough that what is taken on between two looks fits between the mark and the limit.
const LOOK: Duration = Duration::from_millis(200);

/// Looks until everything ends.
pub(super) async fn watch(live: Weak<Live>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(live) = live.upgrade() else { return };
        live.look_at_memory();
    }
}

impl Live {
    /// By the limits that are in force.
    pub(super) fn look_at_memory(&self) {
        let mark = self.limits().memory_bytes.or(self.usual_mark).filter(|mark| *mark > 0);
        let Some(used) = self.status.as_ref().and_then(Status::resident) else { return };
        match self.core().pressure.look(used, mark) {
            Some(Turn::High) => {
                tracing::warn!(used, mark, "too much memory is in use: new requests and connections are refused");
            }
            Some(Turn::Low) => tracing::info!(used, mark, "there is enough memory again: new requests are taken on"),
            None => {}
        }
    }
}
