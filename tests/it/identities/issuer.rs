//! A tiny issuer of tokens: discovery and keys over HTTP, counted, and tokens signed as they should be, or not.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bearerd::clock::Clock;
use bearerd::oauth::jwt;
use bearerd::tasks::spawn_here;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub const AUDIENCE: &str = "api://bearerd";
const KEY: &str = include_str!("../../keys/rsa_a.pem");
const OTHER_KEY: &str = include_str!("../../keys/rsa_b.pem");

pub struct Issuer {
    pub origin: String,
    pub clock: Clock,
    state: Arc<Mutex<State>>,
}

struct State {
    asked: Vec<String>,
    keys: (u16, Value),
}

impl Issuer {
    pub async fn start(clock: Clock) -> Self {
        jwt::install();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let origin = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(Mutex::new(State { asked: Vec::new(), keys: good_keys() }));
        let (serving, issuer) = (Arc::clone(&state), origin.clone());
        spawn_here(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, issuer) = (Arc::clone(&serving), issuer.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = answer(&state, &issuer, request.uri().path());
                    async { Ok::<_, Infallible>(answer) }
                });
                spawn_here(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { origin, clock, state }
    }

    /// The paths that were asked for, oldest first.
    pub fn asked(&self) -> Vec<String> {
        self.state.lock().expect("no test panics in it").asked.clone()
    }

    /// What is said about the keys from now on.
    pub fn publish(&self, status: u16, keys: &Value) {
        self.state.lock().expect("no test panics in it").keys = (status, keys.clone());
    }

    pub fn recover(&self) {
        self.state.lock().expect("no test panics in it").keys = good_keys();
    }

    /// A user's token that lives for an hour; `changes` replace claims, null takes one out.
    pub fn token(&self, changes: &Value) -> String {
        self.signed(KEY, "a", changes)
    }

    pub fn signed_by_a_stranger(&self, changes: &Value) -> String {
        self.signed(OTHER_KEY, "a", changes)
    }

    pub fn under(&self, kid: &str, changes: &Value) -> String {
        self.signed(KEY, kid, changes)
    }

    fn signed(&self, pem: &str, kid: &str, changes: &Value) -> String {
        let now = self.clock.now().secs();
        let mut claims = json!({
            "iss": self.origin, "aud": AUDIENCE, "sub": "user-1", "azp": "portal", "scp": "access_as_user",
            "iat": now, "nbf": now, "exp": now + 3600,
        });
        for (name, value) in changes.as_object().expect("an object") {
            match value {
                Value::Null => drop(claims.as_object_mut().expect("an object").remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&json!({"alg": "RS256", "typ": "at+jwt", "kid": kid})), encode(&claims));
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).expect("a key");
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::RS256).expect("a signature");
        format!("{message}.{signature}")
    }
}

fn answer(state: &Mutex<State>, origin: &str, path: &str) -> Response<Full<Bytes>> {
    let mut state = state.lock().expect("no test panics in it");
    state.asked.push(path.to_owned());
    let (status, document) = match path {
        "/.well-known/openid-configuration" => (200, json!({"issuer": origin, "jwks_uri": format!("{origin}/keys")})),
        "/keys" => state.keys.clone(),
        _ => (404, json!({})),
    };
    let body = Full::new(Bytes::from(document.to_string()));
    Response::builder().status(status).body(body).expect("an answer")
}

fn good_keys() -> (u16, Value) {
    let key = EncodingKey::from_rsa_pem(KEY.as_bytes()).expect("a key");
    let jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).expect("a public key");
    let mut jwk = serde_json::to_value(jwk).expect("a JSON object");
    jwk["kid"] = "a".into();
    (200, json!({"keys": [jwk]}))
}
