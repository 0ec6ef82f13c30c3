//! Where events go: one line each on standard error, as text or JSON.
//!
//! Two invariants. No line can be forged: control characters are escaped, whatever a field holds. No secret of a request can
//! appear through a library: crates other than ours are capped at INFO, whatever `RUST_LOG` says, because HTTP libraries print
//! headers and bodies below that level.
//!
//! Targets: `bearerd::access` has one event per request, `bearerd::audit` one per change of a grant or refusal of a policy; the
//! rest is named by module.

use std::io::{self, Write};

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::{Log, LogFormat};

/// The target of the event at the end of each request.
pub const ACCESS: &str = "bearerd::access";
/// The target of the audit log.
pub const AUDIT: &str = "bearerd::audit";

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log.level: {0:?} is neither a level nor a filter")]
    Level(String, #[source] tracing_subscriber::filter::ParseError),
    #[error("logging was started twice")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts logging for the process. `RUST_LOG` has become `log.level` when the configuration was read.
pub fn start(log: &Log) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(&log.level);
    let filter = filter.map_err(|error| TelemetryError::Level(log.level.clone(), error))?;
    Registry::default().with(lines(log.format, filter, io::stderr)).try_init()?;
    report_panics();
    Ok(())
}

/// Lines in `format` to `output`. Never with colours: the escape codes are what `OneLine` takes out.
fn lines<S, W>(format: LogFormat, filter: EnvFilter, output: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = filter.and(filter_fn(is_safe).with_max_level_hint(LevelFilter::TRACE));
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Escaped(output));
    match format {
        LogFormat::Text => layer.with_filter(filter).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_filter(filter).boxed(),
    }
}

/// See the module's text: below INFO only our own events.
fn is_safe(event: &Metadata<'_>) -> bool {
    let target = event.target();
    *event.level() <= Level::INFO || target == "bearerd" || target.starts_with("bearerd::")
}

/// Panics become events, with the place but without the message: it may quote what was being worked on.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(%place, "a bug: panicked");
    }));
}

/// Writers whose every write is one event.
struct Escaped<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Escaped<W> {
    type Writer = OneLine<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        OneLine(self.0.make_writer())
    }
}

/// Escapes every control character but the newline at the end. The formatter hands over an event in one write.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let body = event.strip_suffix(b"\n").unwrap_or(event);
        let is_plain = body.iter().all(|byte| matches!(byte, b' '..=b'~'));
        if is_plain {
            return self.0.write_all(event).map(|()| event.len());
        }
        let text = String::from_utf8_lossy(body);
        if text.contains(char::is_control) {
            let mut line = String::with_capacity(event.len() + 16);
            for character in text.chars() {
                if character.is_control() {
                    line.extend(character.escape_default());
                } else {
                    line.push(character);
                }
            }
            line.push('\n');
            self.0.write_all(line.as_bytes())?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What `events` logs at the level `level`.
    fn logged(format: LogFormat, level: &str, events: impl FnOnce()) -> String {
        let output = Arc::new(Mutex::new(Vec::new()));
        let filter = EnvFilter::try_new(level).unwrap();
        let subscriber = Registry::default().with(lines(format, filter, SharedOutput(output.clone())));
        tracing::subscriber::with_default(subscriber, events);
        let bytes = output.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    struct SharedOutput(Arc<Mutex<Vec<u8>>>);

    impl<'w> MakeWriter<'w> for SharedOutput {
        type Writer = &'w SharedOutput;

        fn make_writer(&'w self) -> Self::Writer {
            self
        }
    }

    impl Write for &SharedOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_field_cannot_forge_a_line_or_reach_the_terminal() {
        let hostile = "/v1.0/me\n2026-01-01 INFO forged\r\x1b[31m\u{9b}2J\t";
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(format, "info", || tracing::info!(target: ACCESS, path = %hostile, "{hostile}"));
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            assert!(!text.trim_end_matches('\n').contains(char::is_control), "{text:?}");
            assert!(text.contains("forged"), "{text}");
        }
    }

    #[test]
    fn libraries_stay_silent_below_info() {
        let text = logged(LogFormat::Text, "trace", || {
            tracing::trace!(target: "h2::codec", "authorization: Bearer s3cret");
            tracing::debug!(target: "rustls::connect", "s3cret");
            tracing::trace!(target: "bearerdx", "s3cret");
            tracing::info!(target: "hyper", "allowed");
            tracing::trace!(target: "bearerd::vault", "ours");
        });
        assert!(!text.contains("s3cret"), "{text}");
        assert!(text.contains("allowed") && text.contains("ours"), "{text}");
    }

    #[test]
    fn directives_cannot_lift_the_cap() {
        let text = logged(LogFormat::Json, "h2=trace,hyper=debug", || {
            tracing::trace!(target: "h2::codec", "s3cret");
            tracing::debug!(target: "hyper", "s3cret");
        });
        assert_eq!(text, "");
    }

    #[test]
    fn a_json_line_has_its_fields_at_the_top() {
        let text = logged(LogFormat::Json, "info", || tracing::info!(target: AUDIT, account = "alice", "signed in"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&line["target"], &line["account"], &line["message"]),
            (&"bearerd::audit".into(), &"alice".into(), &"signed in".into())
        );
    }
}
