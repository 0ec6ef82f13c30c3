//! A service that can be replaced while it serves.
//!
//! Invariant: a request is served to its end by the service that it began with.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{Request, Response};
use hyper::body::Incoming;

use super::Service;
use crate::proxy::Peer;

pub struct Current<S>(ArcSwap<S>);

impl<S> Current<S> {
    pub fn new(service: S) -> Self {
        Self(ArcSwap::from_pointee(service))
    }

    /// For requests that come from now on.
    pub fn replace(&self, service: S) {
        self.0.store(Arc::new(service));
    }

    pub fn get(&self) -> Arc<S> {
        self.0.load_full()
    }
}

impl<S: Service> Service for Arc<Current<S>> {
    type Body = S::Body;

    async fn handle(&self, request: Request<Incoming>, peer: &Peer) -> Response<S::Body> {
        let service = self.get();
        service.handle(request, peer).await
    }

    fn panicked(&self) -> Response<S::Body> {
        self.get().panicked()
    }
}
