//! Where events go: one line each on standard error, as text or JSON. The access log, one line per request, has a way of its own
//! (`proxy::AccessLog`) by the same rules, and is switched by the same filter.
//!
//! Two invariants. No line can be forged: control characters are escaped, whatever a field holds. No secret of a request can
//! appear through a library: crates other than ours are capped at INFO, whatever `RUST_LOG` says, because HTTP libraries print
//! headers and bodies below that level.
//!
//! Targets: `bearerd::access` has one event per request, `bearerd::audit` one per record of who did what (`audit`); the rest is named by
//! module.

use std::io::{self, Write};

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{self, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{Log, LogAccess, LogFormat};
use crate::proxy::AccessLog;

/// The target of the line at the end of each request.
pub const ACCESS: &str = "bearerd::access";
/// The target of the audit log.
pub const AUDIT: &str = "bearerd::audit";

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log.level: {0:?} is neither a level nor a filter")]
    Level(String, #[source] tracing_subscriber::filter::ParseError),
    #[error("logging was started twice")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    #[error("log.level: can't be changed any more")]
    Gone(#[from] reload::Error),
}

/// The logs of the process, for those who serve.
pub struct Logs {
    pub access: AccessLog,
    pub level: Verbosity,
}

/// What is logged, and how much of it. The access log is there or not from the start on.
pub struct Verbosity(reload::Handle<EnvFilter, Registry>);

/// Starts logging for the process. `RUST_LOG` has become `log.level` when the configuration was read.
pub fn start(log: &Log) -> Result<Logs, TelemetryError> {
    let wants_access = log.access != LogAccess::Off && wants_access(filter(&log.level)?);
    let (filter, level) = reload::Layer::new(filter(&log.level)?);
    Registry::default().with(lines(log.format, filter, io::stderr)).try_init()?;
    report_panics();
    let access = if wants_access {
        AccessLog::new(log.format, |lines| {
            // Nobody could be told.
            let _ = io::stderr().lock().write_all(lines);
        })
    } else {
        AccessLog::off()
    };
    Ok(Logs { access, level: Verbosity(level) })
}

impl Verbosity {
    /// From now on.
    pub fn set(&self, level: &str) -> Result<(), TelemetryError> {
        Ok(self.0.reload(filter(level)?)?)
    }
}

fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder().parse(level).map_err(|error| TelemetryError::Level(level.to_owned(), error))
}

/// Whether `filter` lets the access log through. Asked once, at the start.
fn wants_access(filter: EnvFilter) -> bool {
    tracing::subscriber::with_default(Registry::default().with(filter), || {
        tracing::event_enabled!(
            target: ACCESS,
            Level::INFO,
            request_id, peer, client, account, upstream, method, path, status, error, attempts, bytes, took_ms, upstream_ms, broke_off, trace_id
        )
    })
}

/// Lines in `format` to `output`. Never with colours: the escape codes are what `OneLine` takes out.
fn lines<S, F, W>(format: LogFormat, filter: F, output: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    F: layer::Filter<S> + Send + Sync + 'static,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = filter.and(filter_fn(is_safe).with_max_level_hint(LevelFilter::TRACE));
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Escaped(output, format));
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
struct Escaped<W>(W, LogFormat);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Escaped<W> {
    type Writer = OneLine<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        OneLine(self.0.make_writer(), self.1)
    }
}

/// Escapes every control character but the newline at the end. The formatter hands over an event in one write.
struct OneLine<W>(W, LogFormat);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let body = event.strip_suffix(b"\n").unwrap_or(event);
        let is_plain = body.iter().all(|byte| matches!(byte, b' '..=b'~'));
        if is_plain {
            return self.0.write_all(event).map(|()| event.len());
        }
        let text = String::from_utf8_lossy(body);
        if text.contains(char::is_control) {
            let mut line = Vec::with_capacity(event.len() + 16);
            for character in text.chars() {
                match self.1 {
                    _ if !character.is_control() => write!(line, "{character}")?,
                    LogFormat::Text => write!(line, "{}", character.escape_default())?,
                    LogFormat::Json => write!(line, "\\u{:04x}", u32::from(character))?,
                }
            }
            line.push(b'\n');
            self.0.write_all(&line)?;
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
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::sync::{Arc, Mutex};

    use http::Method;

    use super::*;
    use crate::proxy::{Entry, PeerAddress};

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

    /// What the formatter of all events makes of an entry: the model for the access log's own.
    fn model(entry: &Entry<'_>) {
        tracing::info!(
            target: ACCESS,
            request_id = entry.request_id,
            peer = %entry.peer,
            client = entry.client,
            account = entry.account,
            upstream = entry.upstream,
            method = %entry.method,
            path = entry.path,
            status = entry.status,
            error = entry.error,
            attempts = entry.attempts,
            bytes = entry.bytes,
            took_ms = entry.took_ms,
            upstream_ms = entry.upstream_ms,
            broke_off = entry.broke_off,
            trace_id = entry.trace_id,
        );
    }

    const PEERS: [PeerAddress; 4] = [
        PeerAddress::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 54321)),
        PeerAddress::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::BROADCAST), 0)),
        PeerAddress::Tcp(SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 7)),
        PeerAddress::Unix { uid: 1000, gid: 100 },
    ];

    fn assert_as_the_model(entry: &Entry<'_>) {
        for format in [LogFormat::Text, LogFormat::Json] {
            let expected = logged(format, "info", || model(entry));
            let start = match format {
                LogFormat::Text => 0,
                LogFormat::Json => r#"{"timestamp":""#.len(),
            };
            let mut line = Vec::new();
            entry.write(format, &expected.as_bytes()[start..start + 27], &mut line);
            let line = String::from_utf8(line).unwrap();
            assert_eq!(line, expected);
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert!(!line.trim_end_matches('\n').contains(char::is_control), "{line:?}");
            if format == LogFormat::Json {
                let read: serde_json::Value = serde_json::from_str(&line).expect(&line);
                assert_eq!((&read["path"], &read["client"]), (&entry.path.into(), &entry.client.into()));
            }
        }
    }

    #[test]
    fn the_access_log_is_written_as_all_other_events_are() {
        let every: String = (0..=0x2ff).filter_map(char::from_u32).collect();
        let hostile = [
            "",
            "/v1.0/me",
            "a\nb",
            "\r",
            "\"",
            "\\",
            "\\\"",
            "'",
            "\u{7f}",
            "\u{85}",
            "\u{9b}2J",
            "\u{2028}",
            "\u{202e}",
            "\u{feff}",
            "\u{e000}",
            "e\u{301}",
            "\u{301}",
            "\u{10ffff}",
            "\0",
            "\x1b[31m",
            "/a/\u{e9}\u{1f600}",
            "}{\",\"status\":\"200",
            " ",
            "= status=200",
            &every,
        ];
        let plain = Entry {
            request_id: "01234567-89ab-4def-8123-456789abcdef",
            peer: &PEERS[0],
            client: "payroll",
            account: None,
            upstream: "",
            method: &Method::GET,
            path: "",
            status: 200,
            error: None,
            attempts: 0,
            bytes: 0,
            took_ms: 0,
            upstream_ms: None,
            broke_off: None,
            trace_id: None,
        };
        assert_as_the_model(&plain);
        let method = Method::from_bytes(b"!#$%&'*+-.^_`|~BREW").unwrap();
        for (number, value) in hostile.into_iter().enumerate() {
            assert_as_the_model(&Entry { path: value, ..plain.clone() });
            assert_as_the_model(&Entry {
                peer: &PEERS[number % PEERS.len()],
                client: value,
                account: Some(value),
                upstream: value,
                method: &method,
                status: 999,
                error: Some(value),
                attempts: u32::MAX,
                bytes: u64::MAX,
                took_ms: 1_000,
                upstream_ms: Some(u64::MAX),
                broke_off: Some(value),
                trace_id: Some(value),
                ..plain.clone()
            });
        }
    }

    #[test]
    fn directives_switch_the_access_log() {
        let wanted = |level: &str| wants_access(EnvFilter::try_new(level).unwrap());
        for level in
            ["info", "trace", "warn,bearerd::access=info", "bearerd=debug", "off,bearerd::access[{client}]=info"]
        {
            assert!(wanted(level), "{level}");
        }
        for level in [
            "warn",
            "off",
            "info,bearerd::access=off",
            "info,bearerd::access=warn",
            "hyper=info",
            "off,bearerd::access[{no}]=info",
        ] {
            assert!(!wanted(level), "{level}");
        }
    }

    #[test]
    fn control_characters_leave_json_what_it_is() {
        let hostile = "\u{7f}\u{9b}2J\n";
        let text = logged(LogFormat::Json, "info", || tracing::info!(target: AUDIT, path = hostile));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["path"], hostile);
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
