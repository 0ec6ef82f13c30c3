//! One line of the access log, as text or JSON: byte for byte what the formatter of all other events would write, which a test in
//! `telemetry` holds it to, for a tenth of the work.
//!
//! No line can be forged: control characters are escaped, whatever a field holds.

use std::io::Write;

use http::Method;

use super::super::PeerAddress;
use crate::config::LogFormat;

/// What is said of a request that has ended. The names are public (`docs/operations.md`).
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    pub request_id: &'a str,
    pub peer: &'a PeerAddress,
    pub client: &'a str,
    pub account: Option<&'a str>,
    pub upstream: &'a str,
    pub method: &'a Method,
    pub path: &'a str,
    pub status: u16,
    pub error: Option<&'a str>,
    pub attempts: u32,
    pub bytes: u64,
    pub took_ms: u64,
    pub upstream_ms: Option<u64>,
    pub broke_off: Option<&'a str>,
    /// Where requests are traced.
    pub trace_id: Option<&'a str>,
}

impl Entry<'_> {
    /// Appends the line to `line`. `at`: the date and the time to the microsecond, in RFC 3339.
    pub fn write(&self, format: LogFormat, at: &[u8], line: &mut Vec<u8>) {
        match format {
            LogFormat::Text => {
                line.extend_from_slice(at);
                line.extend_from_slice(b"  INFO bearerd::access:");
                self.fields(&mut Text(line));
                line.push(b'\n');
            }
            LogFormat::Json => {
                line.extend_from_slice(b"{\"timestamp\":\"");
                line.extend_from_slice(at);
                line.extend_from_slice(b"\",\"level\":\"INFO\"");
                self.fields(&mut Json(line));
                line.extend_from_slice(b",\"target\":\"bearerd::access\"}\n");
            }
        }
    }

    fn fields(&self, to: &mut impl Fields) {
        to.text("request_id", self.request_id);
        to.peer("peer", self.peer);
        to.text("client", self.client);
        if let Some(account) = self.account {
            to.text("account", account);
        }
        to.text("upstream", self.upstream);
        to.token("method", self.method.as_str());
        to.text("path", self.path);
        to.number("status", self.status.into());
        if let Some(error) = self.error {
            to.text("error", error);
        }
        to.number("attempts", self.attempts.into());
        to.number("bytes", self.bytes);
        to.number("took_ms", self.took_ms);
        if let Some(upstream) = self.upstream_ms {
            to.number("upstream_ms", upstream);
        }
        if let Some(why) = self.broke_off {
            to.text("broke_off", why);
        }
        if let Some(trace) = self.trace_id {
            to.text("trace_id", trace);
        }
    }
}

/// How the fields of an entry are written.
trait Fields {
    /// Anything, and so in quotes and escaped.
    fn text(&mut self, name: &str, value: &str);

    /// What has nothing that needs an escape.
    fn token(&mut self, name: &str, value: &str);

    fn peer(&mut self, name: &str, value: &PeerAddress);

    fn number(&mut self, name: &str, value: u64);
}

struct Text<'a>(&'a mut Vec<u8>);

struct Json<'a>(&'a mut Vec<u8>);

impl Text<'_> {
    fn name(&mut self, name: &str) {
        self.0.push(b' ');
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'=');
    }
}

impl Fields for Text<'_> {
    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        if is_plain(value) {
            quoted(self.0, value);
        } else {
            put(self.0, format_args!("{value:?}"));
        }
    }

    fn token(&mut self, name: &str, value: &str) {
        self.name(name);
        self.0.extend_from_slice(value.as_bytes());
    }

    fn peer(&mut self, name: &str, value: &PeerAddress) {
        self.name(name);
        peer(self.0, value);
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        number(self.0, value);
    }
}

impl Json<'_> {
    fn name(&mut self, name: &str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }
}

impl Fields for Json<'_> {
    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        if is_plain(value) {
            quoted(self.0, value);
            return;
        }
        // It leaves the control characters above ASCII as they are.
        let escaped = serde_json::Value::from(value).to_string();
        for character in escaped.chars() {
            if character.is_control() {
                put(self.0, format_args!("\\u{:04x}", u32::from(character)));
            } else {
                self.0.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
    }

    fn token(&mut self, name: &str, value: &str) {
        self.name(name);
        quoted(self.0, value);
    }

    fn peer(&mut self, name: &str, value: &PeerAddress) {
        self.name(name);
        self.0.push(b'"');
        peer(self.0, value);
        self.0.push(b'"');
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        number(self.0, value);
    }
}

/// Neither format escapes anything of it.
fn is_plain(value: &str) -> bool {
    value.bytes().all(|byte| matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~'))
}

fn quoted(line: &mut Vec<u8>, value: &str) {
    line.push(b'"');
    line.extend_from_slice(value.as_bytes());
    line.push(b'"');
}

fn number(line: &mut Vec<u8>, value: impl itoa::Integer) {
    line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// As it is shown; addresses of IPv4 by hand, since the general way takes longer than all the rest of the line.
fn peer(line: &mut Vec<u8>, peer: &PeerAddress) {
    let PeerAddress::Tcp(std::net::SocketAddr::V4(address)) = peer else {
        return put(line, format_args!("{peer}"));
    };
    for (octet, end) in address.ip().octets().into_iter().zip(*b"...:") {
        number(line, octet);
        line.push(end);
    }
    number(line, address.port());
}

fn put(line: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    line.write_fmt(text).expect("memory takes everything");
}
