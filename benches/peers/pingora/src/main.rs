//! Pingora at the job of the comparison: find the user's bearer in a table by a header, put it in place of the client's credential.
//!
//! `pingora-contender PORT UPSTREAM_PORT AUTHORITY TABLE [CA]`: with a CA, the upstream is reached by TLS and verified. `TABLE`: a user and a
//! bearer a line. It does no more than nginx and the others are told to.

use std::collections::HashMap;
use std::env;
use std::fs;

use async_trait::async_trait;
use http::HeaderValue;
use pingora::http::RequestHeader;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;

struct Injector {
    bearers: HashMap<String, HeaderValue>,
    upstream: HttpPeer,
    authority: HeaderValue,
}

#[async_trait]
impl ProxyHttp for Injector {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(self.upstream.clone()))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        (): &mut (),
    ) -> pingora::Result<()> {
        let user = session.req_header().headers.get("x-user").and_then(|name| name.to_str().ok()).unwrap_or_default();
        head.remove_header("x-user");
        head.remove_header("authorization");
        if let Some(bearer) = self.bearers.get(user) {
            head.insert_header("authorization", bearer.clone())?;
        }
        head.insert_header("host", self.authority.clone())
    }
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [port, upstream_port, authority, table, ca @ ..] = &arguments[..] else {
        panic!("usage: pingora-contender PORT UPSTREAM_PORT AUTHORITY TABLE [CA]");
    };
    let value = |text: &str| HeaderValue::from_str(text).expect("the table holds header values");
    let table = fs::read_to_string(table).expect("the table");
    let upstream = format!("127.0.0.1:{upstream_port}");
    let injector = Injector {
        bearers: table
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(user, bearer)| (user.to_owned(), value(bearer)))
            .collect(),
        upstream: HttpPeer::new(upstream.as_str(), !ca.is_empty(), "localhost".to_owned()),
        authority: value(authority),
    };
    let configuration = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: 512,
        ca_file: ca.first().cloned(),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, configuration);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, injector);
    service.add_tcp(&format!("127.0.0.1:{port}"));
    server.add_service(service);
    server.run_forever();
}
