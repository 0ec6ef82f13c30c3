//! Which surface serves a path, and what each listener serves. `/.bearerd/` is ours; everything else is the data path's.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::Incoming;

use crate::admin::{self, Admin};
use crate::clock::Clock;
use crate::hosts::{HostRefusal, Hosts, is_navigation};
use crate::proxy::{self, Kind, Peer, PeerAddress, Proxy, Refusal, ReplyBody};
use crate::server::Service;
use crate::signin::Signin;
use crate::tasks::Tasks;

/// A form of a person, with room to spare.
const PAGE_BODY_BYTES: usize = 64 * 1024;
const PAGE_BODY_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    Signin,
    Proxy,
}

/// Who serves `path`. Only this very spelling is ours: every other is the data path's, which trusts nobody.
pub fn surface(path: &str) -> Surface {
    match path.strip_prefix("/.bearerd") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Surface::Signin,
        _ => Surface::Proxy,
    }
}

/// The data listener of one worker. Aligned so that no two workers' are counted in one line of the cache.
#[derive(Debug)]
#[repr(align(128))]
pub struct Front {
    pub proxy: Proxy,
    /// `None`: the pages have a listener of their own.
    pub pages: Option<Pages>,
    pub clock: Clock,
}

/// The pages for people, guarded; clones share them.
#[derive(Clone, Debug)]
pub struct Pages {
    pub signin: Signin,
    pub hosts: Arc<Hosts>,
    /// Token calls and the store live on this runtime, not on the workers'.
    pub tasks: Tasks,
    pub clock: Clock,
}

/// An answer of the data path, or a page.
type Answer = Response<Either<ReplyBody, Full<Bytes>>>;

impl Service for Front {
    type Body = Either<ReplyBody, Full<Bytes>>;

    async fn handle(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
        match (surface(request.uri().path()), &self.pages) {
            (Surface::Proxy, _) => self.proxy.handle(request, peer).await.map(Either::Left),
            (Surface::Signin, Some(pages)) => pages.answer(request, peer.secure).await,
            (Surface::Signin, None) => refuse(&no_such_page(), &self.clock),
        }
    }

    fn panicked(&self) -> Answer {
        refuse(&bug(), &self.clock)
    }
}

impl Service for Pages {
    type Body = Either<ReplyBody, Full<Bytes>>;

    async fn handle(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
        match surface(request.uri().path()) {
            Surface::Signin => self.answer(request, peer.secure).await,
            Surface::Proxy => refuse(&no_such_page(), &self.clock),
        }
    }

    fn panicked(&self) -> Answer {
        refuse(&bug(), &self.clock)
    }
}

impl Service for Admin {
    type Body = Full<Bytes>;

    async fn handle(&self, request: Request<Incoming>, peer: &Peer) -> Response<Self::Body> {
        let (head, body) = request.into_parts();
        let peer = match peer.address {
            PeerAddress::Tcp(address) => admin::Peer::Address(address.ip()),
            PeerAddress::Unix { uid, .. } => admin::Peer::User(uid),
        };
        Self::handle(self, &head, body, peer).await
    }

    fn panicked(&self) -> Response<Self::Body> {
        admin::Kind::InternalError.because("a bug of ours; see the log").response()
    }
}

impl Pages {
    async fn answer(&self, request: Request<Incoming>, secure: bool) -> Answer {
        match self.page(request, secure).await {
            Ok(page) => page.map(Either::Right),
            Err(refusal) => refuse(&refusal, &self.clock),
        }
    }

    async fn page(&self, request: Request<Incoming>, secure: bool) -> Result<Response<Full<Bytes>>, Refusal> {
        let (head, body) = request.into_parts();
        admit(&self.hosts, &head, secure)?;
        let body = whole(body).await?;
        let signin = self.signin.clone();
        // Detached: a code that the provider gave is redeemed even if the browser has gone.
        let page = self.tasks.spawn(async move { signin.handle(Request::from_parts(head, body)).await });
        page.await.map_err(|_| bug())
    }
}

/// Whether a request for a page comes to one of our names, and not from another site's page.
fn admit(hosts: &Hosts, head: &Parts, secure: bool) -> Result<(), Refusal> {
    proxy::framing(head)?;
    hosts.check(head).map_err(|refused| match refused {
        HostRefusal::NotAllowed => Kind::HostNotAllowed.because("this host name is not ours"),
        HostRefusal::Missing | HostRefusal::Doubled | HostRefusal::Malformed => {
            Kind::BadRequest.because(refused.to_string())
        }
    })?;
    // The way back from an identity provider is a link that another site's page follows.
    if hosts.cross_site(head, secure) && !is_navigation(head) {
        return Err(Kind::CrossSiteRefused.because("a page of another origin sent this request"));
    }
    Ok(())
}

/// The whole of a page's body.
async fn whole<B>(body: B) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    let whole = tokio::time::timeout(PAGE_BODY_TIMEOUT, Limited::new(body, PAGE_BODY_BYTES).collect());
    match whole.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Kind::BodyTooLarge.because("no form here is that large"))
        }
        Ok(Err(_)) | Err(_) => Err(Kind::BadRequest.because("the body did not come")),
    }
}

fn no_such_page() -> Refusal {
    Kind::NotFound.because("there is no such page")
}

fn bug() -> Refusal {
    Kind::InternalError.because("a bug of ours; the log says more")
}

fn refuse(refusal: &Refusal, clock: &Clock) -> Answer {
    refusal.answer_alone(clock).map(Either::Left)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn only_one_prefix_is_ours() {
        for path in ["/.bearerd", "/.bearerd/", "/.bearerd/login", "/.bearerd/callback/entra"] {
            assert_eq!(surface(path), Surface::Signin, "{path}");
        }
        for path in
            ["/", "", "/v1.0/me", "/.bearerdx", "/.Bearerd/login", "//.bearerd/", "/x/.bearerd/", "/%2ebearerd/"]
        {
            assert_eq!(surface(path), Surface::Proxy, "{path}");
        }
    }

    fn admitted(method: &str, headers: &[(&str, &str)]) -> Result<(), StatusCode> {
        let mut request = Request::builder().method(method).uri("/.bearerd/login");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let head = request.body(()).unwrap().into_parts().0;
        admit(&Hosts::new([], &[], []), &head, false).map_err(|refused| refused.kind.status())
    }

    #[test]
    fn pages_are_for_our_names_and_our_own_forms() {
        let host = ("host", "localhost:8080");
        let from =
            |site| [host, ("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        assert_eq!(admitted("GET", &[host]), Ok(()));
        assert_eq!(admitted("GET", &from("none")), Ok(()));
        assert_eq!(admitted("GET", &from("cross-site")), Ok(()), "the way back from the provider");
        assert_eq!(admitted("POST", &[host, ("origin", "http://localhost:8080")]), Ok(()));
        assert_eq!(admitted("POST", &from("cross-site")), Err(StatusCode::FORBIDDEN));
        assert_eq!(admitted("POST", &[host, ("origin", "null")]), Err(StatusCode::FORBIDDEN));
        assert_eq!(admitted("GET", &[host, ("sec-fetch-site", "cross-site")]), Err(StatusCode::FORBIDDEN));
        assert_eq!(admitted("GET", &[("host", "evil.com")]), Err(StatusCode::MISDIRECTED_REQUEST));
        assert_eq!(admitted("GET", &[]), Err(StatusCode::BAD_REQUEST));
    }

    #[tokio::test]
    async fn a_form_has_a_limit() {
        let body = |length| Full::new(Bytes::from(vec![b'x'; length]));
        assert_eq!(whole(body(PAGE_BODY_BYTES)).await.unwrap().len(), PAGE_BODY_BYTES);
        let refused = whole(body(PAGE_BODY_BYTES + 1)).await.unwrap_err();
        assert_eq!(refused.kind, Kind::BodyTooLarge);
    }
}
