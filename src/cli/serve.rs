//! `bearerd serve`: starts everything, says where, waits for a signal, drains.

use std::time::Duration;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::{Source, shown};
use crate::app::App;
use crate::clock::Clock;
use crate::tasks::Tasks;
use crate::{process, telemetry};

pub fn run(source: &Source) -> anyhow::Result<()> {
    let loaded = source.load()?;
    let log = telemetry::start(&loaded.config.log)?;
    harden();
    let served = slow_runtime()?.block_on(async {
        let tasks = Tasks::on(tokio::runtime::Handle::current());
        let app = App::logged(&loaded.config, &log, Clock::system(), tasks).await?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            config = loaded.path.as_ref().map(|path| path.display().to_string()),
            data = app.data_addresses().iter().map(shown).collect::<Vec<_>>().join(", "),
            admin = app.admin_addresses().iter().map(shown).collect::<Vec<_>>().join(", "),
            workers = loaded.config.server.workers,
            "bearerd serves"
        );
        tell_supervisor(NotifyState::Ready);
        until_stopped().await?;
        tell_supervisor(NotifyState::Stopping);
        tracing::info!("draining; a second signal ends at once");
        tokio::select! {
            () = app.drain() => tracing::info!("drained"),
            stopped = until_stopped() => {
                stopped?;
                tracing::warn!("stopped without waiting for what was under way");
            }
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

/// SIGTERM or SIGINT. A SIGHUP changes nothing yet, and does not end the process.
pub(super) async fn until_stopped() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hang_up.recv() => tracing::warn!("SIGHUP: this version does not reload; restart it to read the configuration again"),
        }
    }
}
