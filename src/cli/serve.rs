//! `bearerd serve`: starts everything, says where, reloads and drains on signals.

use std::time::Duration;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Source;
use crate::app::{App, Reloadable};
use crate::clock::Clock;
use crate::tasks::Tasks;
use crate::telemetry::Logs;
use crate::{process, telemetry};

pub fn run(source: &Source) -> anyhow::Result<()> {
    let source = source.of_the_configuration();
    let loaded = super::loaded(&source)?;
    let Logs { access: log, level } = telemetry::start(&loaded.config.log)?;
    harden();
    let served = slow_runtime()?.block_on(async {
        // Before anything is there that a signal could cut short.
        let mut signals = Signals::new()?;
        let tasks = Tasks::on(tokio::runtime::Handle::current());
        let level = Box::new(move |new: &str| level.set(new).map_err(|error| error.to_string()));
        let (config, workers) = (loaded.path.clone(), loaded.config.server.workers);
        let app = App::reloadable(loaded, Reloadable { source, level }, &log, Clock::system(), tasks).await?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            config = config.map(|path| path.display().to_string()),
            data = app.data_addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            pages = Some(app.page_addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
                .filter(|pages| !pages.is_empty()),
            admin = app.admin_addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            workers,
            "bearerd serves"
        );
        tell_supervisor(NotifyState::Ready);
        while signals.next().await == Asked::ToReload {
            app.begin_reload("SIGHUP");
        }
        tell_supervisor(NotifyState::Stopping);
        tracing::info!("draining; a second signal ends at once");
        tokio::select! {
            () = app.drain() => tracing::info!("drained"),
            () = signals.stopped() => tracing::warn!("stopped without waiting for what was under way"),
        }
        Ok(())
    });
    // Of workers that are still at it, where nobody waited for them.
    log.write_out();
    served
}

/// The runtime of everything that is not the data path.
pub(super) fn slow_runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_keep_alive(Duration::from_secs(10))
        .thread_name("slow")
        .enable_all()
        .build()
        .context("the runtime can't be started")
}

/// What can't be had is logged, and the process goes on without.
pub(super) fn harden() {
    if let Err(error) = process::forbid_dumps() {
        tracing::warn!(%error, "the process is less protected than it could be");
    }
    if let Err(error) = process::raise_open_files() {
        tracing::warn!(%error, "fewer connections can be served than the limit says");
    }
}

/// For a service manager that waits for it (systemd's `Type=notify`); without one nothing happens.
fn tell_supervisor(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager can't be told");
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGHUP.
    ToReload,
    /// SIGTERM or SIGINT.
    ToStop,
}

/// The signals of the process from now on: none is lost, and none ends it.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::ToStop,
            _ = self.interrupt.recv() => Asked::ToStop,
            _ = self.hang_up.recv() => Asked::ToReload,
        }
    }

    /// Until SIGTERM or SIGINT.
    pub(super) async fn stopped(&mut self) {
        while self.next().await != Asked::ToStop {}
    }
}
