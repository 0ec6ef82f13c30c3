//! Answers on their way out: what of the upstream's head may pass, and a body that streams, has idle time-outs and no total one, and
//! knows when it is over.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::access::Access;
use super::upstream::Hold;

/// A body of ours, or the upstream's as it comes.
#[derive(Default)]
pub struct ReplyBody {
    content: Content,
    /// Whether an upstream's body came to its end.
    access: Option<Box<Access>>,
}

#[derive(Default)]
enum Content {
    #[default]
    Empty,
    Full(Bytes),
    Streaming(Streaming),
}

struct Streaming {
    incoming: Incoming,
    /// What was read before somebody asked for it.
    ahead: VecDeque<Result<Bytes, ReplyError>>,
    /// The connection, to be given back at the end.
    hold: Option<Hold>,
    idle_timeout: Duration,
    idle: Option<Pin<Box<Sleep>>>,
}

/// An answer that is not delivered at once is waited for no longer than this.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    #[error("the upstream broke off: {0}")]
    Upstream(#[from] hyper::Error),
    #[error("the upstream sent nothing for {0:?}")]
    Idle(Duration),
}

impl ReplyBody {
    pub fn full(bytes: Bytes) -> Self {
        Self { content: if bytes.is_empty() { Content::Empty } else { Content::Full(bytes) }, access: None }
    }

    pub(super) fn streaming(incoming: Incoming, hold: Hold, idle_timeout: Duration) -> Self {
        let streaming = Streaming { incoming, ahead: VecDeque::new(), hold: Some(hold), idle_timeout, idle: None };
        Self { content: Content::Streaming(streaming), access: None }
    }

    /// The access event is written when this body is done or given up.
    pub(super) fn account_for(&mut self, access: Box<Access>) {
        self.access = Some(access);
    }

    /// Reads ahead, up to `limit` bytes, so that a short answer is whole and its connection free while something else is done. A long or
    /// slow one streams on; one that breaks off does so for the client too.
    pub(super) async fn settle(&mut self, limit: usize) {
        let Content::Streaming(streaming) = &mut self.content else {
            return;
        };
        if streaming.incoming.size_hint().lower() > limit as u64 {
            return;
        }
        let mut left = Some(limit);
        let mut patience = pin!(tokio::time::sleep(SETTLES_WITHIN));
        while left.is_some() {
            let next = tokio::select! {
                next = poll_fn(|cx| streaming.poll_incoming(cx)) => next,
                () = &mut patience => return,
            };
            let Some(next) = next else { return };
            let read = next.as_ref().map_or(usize::MAX, Bytes::len);
            left = left.and_then(|left| left.checked_sub(read));
            streaming.ahead.push_back(next);
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = ReplyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        let this = &mut *self;
        let polled = match &mut this.content {
            Content::Empty => Poll::Ready(None),
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.content = Content::Empty;
                Poll::Ready(Some(Ok(bytes)))
            }
            Content::Streaming(streaming) => streaming.poll_data(cx),
        };
        if let (Poll::Ready(Some(result)), Some(access)) = (&polled, &mut this.access) {
            match result {
                Ok(data) => access.sent(data.len()),
                Err(error) => access.broke_off(&error.to_string()),
            }
        }
        polled.map(|data| data.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(_) => false,
            Content::Streaming(streaming) => streaming.ahead.is_empty() && streaming.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Streaming(streaming) => streaming.size_hint(),
        }
    }
}

impl Streaming {
    fn size_hint(&self) -> SizeHint {
        let ahead: u64 = self.ahead.iter().flatten().map(|data| data.len() as u64).sum();
        let left = self.incoming.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(left.lower() + ahead);
        if let Some(upper) = left.upper() {
            hint.set_upper(upper + ahead);
        }
        hint
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ReplyError>>> {
        match self.ahead.pop_front() {
            Some(read) => Poll::Ready(Some(read)),
            None => self.poll_incoming(cx),
        }
    }

    /// Data frames only: trailers are dropped.
    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ReplyError>>> {
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.idle = None;
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(None) => {
                    self.give_back();
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    let limit = self.idle_timeout;
                    let idle = self.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                    return idle.as_mut().poll(cx).map(|()| Some(Err(ReplyError::Idle(limit))));
                }
            }
        }
    }
}

impl Streaming {
    /// The answer has been read to its end: its connection is free.
    fn give_back(&mut self) {
        if let Some(hold) = self.hold.take() {
            hold.give_back();
        }
    }
}

impl Drop for Streaming {
    /// A body whose length is known is over before anyone asks for its end.
    fn drop(&mut self) {
        if self.incoming.is_end_stream() {
            self.give_back();
        }
    }
}

/// Hop by hop, or not for the client: `Set-Cookie` and CORS grants would work against us in a browser.
const STRIPPED: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    header::UPGRADE,
    header::SET_COOKIE,
    HeaderName::from_static("alt-svc"),
];

/// What of the upstream's head reaches the client. `secure`: the client's connection is TLS.
pub fn filter(headers: &mut HeaderMap, secure: bool) {
    let mut doomed: Vec<HeaderName> = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        doomed.extend(
            value
                .as_bytes()
                .split(|byte| *byte == b',')
                .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()),
        );
    }
    let not_ours =
        |name: &HeaderName| name.as_str().starts_with("access-control-") || name.as_str().starts_with("bearerd-");
    doomed.extend(headers.keys().filter(|name| not_ours(name)).cloned());
    for name in doomed.iter().filter(|name| **name != header::CONTENT_LENGTH).chain(&STRIPPED) {
        headers.remove(name);
    }
    if !secure {
        headers.remove(header::STRICT_TRANSPORT_SECURITY);
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    }
    headers.append(header::VARY, HeaderValue::from_static("Authorization, X-Api-Key, Bearerd-Account"));
    if may_hold_scripts(headers) {
        headers.append(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    }
}

/// A page from somebody's mail must not act as a page of ours, next to the sign-in pages and with the browser's Basic credential.
fn may_hold_scripts(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let kind = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().to_ascii_lowercase();
        let kind = kind.trim_ascii();
        kind.ends_with(b"html") || kind.ends_with(b"+xml") || kind.ends_with(b"/xml")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(pairs: &[(&'static str, &'static str)], secure: bool) -> Vec<String> {
        let pair = |&(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers: HeaderMap = pairs.iter().map(pair).collect();
        filter(&mut headers, secure);
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn what_would_work_against_us_in_a_browser_does_not_pass() {
        let vary = "vary: Authorization, X-Api-Key, Bearerd-Account";
        let lines = filtered(
            &[
                ("access-control-allow-origin", "*"),
                ("access-control-expose-headers", "x"),
                ("set-cookie", "a=b"),
                ("strict-transport-security", "max-age=1"),
                ("connection", "close, x-hop"),
                ("x-hop", "1"),
                ("keep-alive", "timeout=5"),
                ("transfer-encoding", "chunked"),
                ("trailer", "x"),
                ("upgrade", "h2c"),
                ("bearerd-error", "fake"),
                ("etag", "W/\"1\""),
                ("content-length", "5"),
            ],
            false,
        );
        assert_eq!(lines, ["cache-control: private", "content-length: 5", "etag: W/\"1\"", vary]);
        let lines = filtered(&[("strict-transport-security", "max-age=1"), ("cache-control", "no-store")], true);
        assert_eq!(lines, ["cache-control: no-store", "strict-transport-security: max-age=1", vary]);
    }

    #[test]
    fn pages_of_others_are_no_pages_of_ours() {
        for kind in ["text/html", "Text/HTML; charset=utf-8", "application/xhtml+xml", "image/svg+xml", "text/xml"] {
            let lines = filtered(&[("content-type", kind), ("content-security-policy", "x")], true);
            assert!(lines.contains(&"content-security-policy: sandbox".to_owned()), "{kind}");
            assert!(lines.contains(&"content-security-policy: x".to_owned()), "{kind}");
        }
        for kind in ["application/json;odata.metadata=minimal", "image/png", "text/plain"] {
            let lines = filtered(&[("content-type", kind)], true);
            assert!(!lines.iter().any(|line| line.starts_with("content-security-policy")), "{kind}");
        }
    }
}
