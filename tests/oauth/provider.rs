//! A provider that answers what it was told to, and keeps what it was asked.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bearerd::account::AccountKey;
use bearerd::clock::{Clock, Timestamp};
use bearerd::config::{self, AppCredential, ProviderKind, Rotation};
use bearerd::oauth::{Provider, TokenError, TokenReply};
use bearerd::tasks::spawn_here;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::tokens;

pub const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
pub const TENANT: &str = "11111111-2222-3333-4444-555555555555";
/// The tenant of personal accounts.
pub const CONSUMERS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";
pub const OBJECT: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";
pub const CLIENT: &str = "client-1";
/// The paths of the token endpoints.
pub const ENTRA_TOKEN: &str = "/11111111-2222-3333-4444-555555555555/oauth2/v2.0/token";
pub const OIDC_TOKEN: &str = "/token";
/// Long enough for any test, and never reached by one that passes.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub headers: HeaderMap,
    pub form: BTreeMap<String, String>,
}

/// What to do with a request.
#[derive(Clone)]
pub enum Answer {
    Reply {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
    },
    /// Takes the request and never answers.
    Silence,
}

impl Answer {
    pub fn json(status: u16, body: &Value) -> Self {
        Self::text(status, "application/json", body.to_string())
    }

    pub fn text(status: u16, kind: &str, body: impl Into<Bytes>) -> Self {
        Self::Reply { status, headers: vec![("content-type", kind.to_owned())], body: body.into() }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Reply { headers, .. } = &mut self {
            headers.push((name, value.to_owned()));
        }
        self
    }
}

#[derive(Default)]
struct Script {
    asked: Vec<Asked>,
    /// The last answer of a path stays.
    answers: HashMap<String, VecDeque<Answer>>,
}

pub struct Simulator {
    pub origin: String,
    pub clock: Clock,
    script: Arc<Mutex<Script>>,
}

impl Simulator {
    /// A provider with discovery and keys, of both kinds.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script::default()));
        let serving = script.clone();
        spawn_here(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let script = serving.clone();
                let service = service_fn(move |request| answer(script.clone(), request));
                spawn_here(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        let simulator = Self { origin, clock: Clock::manual(NOW), script };
        simulator.publish(&simulator.metadata());
        simulator.publish_keys(&[tokens::rsa("a").public("a")]);
        simulator
    }

    /// The next answers of a path; the last one stays.
    pub fn answer(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().unwrap().answers.insert(path.to_owned(), answers.into_iter().collect());
    }

    pub fn token_answer(&self, answer: Answer) {
        for tenant in [TENANT, "contoso.com", "consumers", "common", "organizations"] {
            self.answer(&format!("/{tenant}/oauth2/v2.0/token"), [answer.clone()]);
        }
        self.answer(OIDC_TOKEN, [answer]);
    }

    pub fn metadata(&self) -> Value {
        let origin = &self.origin;
        json!({
            "issuer": origin,
            "authorization_endpoint": format!("{origin}/authorize?kept=1"),
            "token_endpoint": format!("{origin}/token"),
            "device_authorization_endpoint": format!("{origin}/device"),
            "jwks_uri": format!("{origin}/keys"),
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "HS256", "none"],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        })
    }

    /// Discovery of the generic provider as given, and of Entra in its shape.
    pub fn publish(&self, metadata: &Value) {
        self.answer("/.well-known/openid-configuration", [Answer::json(200, metadata)]);
        for (tenant, issuer) in [
            (TENANT, TENANT),
            ("contoso.com", TENANT),
            ("consumers", CONSUMERS),
            ("common", "{tenantid}"),
            ("organizations", "{tenantid}"),
        ] {
            let mut entra = metadata.clone();
            entra["issuer"] = format!("{}/{issuer}/v2.0", self.origin).into();
            self.answer(&format!("/{tenant}/v2.0/.well-known/openid-configuration"), [Answer::json(200, &entra)]);
        }
    }

    pub fn publish_keys(&self, keys: &[Value]) {
        self.answer("/keys", [Answer::json(200, &json!({"keys": keys}))]);
    }

    pub fn asked(&self, path: &str) -> Vec<Asked> {
        let script = self.script.lock().unwrap();
        script.asked.iter().filter(|asked| asked.path == path).cloned().collect()
    }

    pub fn all_asked(&self) -> Vec<Asked> {
        self.script.lock().unwrap().asked.clone()
    }

    /// The one request that the path saw.
    pub fn asked_once(&self, path: &str) -> Asked {
        let mut asked = self.asked(path);
        assert_eq!(asked.len(), 1, "requests for {path}");
        asked.remove(0)
    }

    pub fn entra_config(&self) -> config::Provider {
        config(ProviderKind::Entra { authority: self.origin.parse().unwrap(), tenant: TENANT.to_owned() })
    }

    pub fn oidc_config(&self) -> config::Provider {
        config(ProviderKind::Oidc { issuer: self.origin.parse().unwrap() })
    }

    pub fn entra(&self) -> Provider {
        self.provider(&self.entra_config())
    }

    pub fn oidc(&self) -> Provider {
        self.provider(&self.oidc_config())
    }

    pub fn provider(&self, config: &config::Provider) -> Provider {
        Provider::new(config, self.clock.clone()).unwrap()
    }

    pub fn with_credentials(&self, mut config: config::Provider, credentials: Vec<AppCredential>) -> Provider {
        config.credentials = credentials;
        self.provider(&config)
    }

    /// The claims of a token that Entra would issue.
    pub fn entra_claims(&self) -> Value {
        let now = self.clock.now().secs();
        json!({
            "iss": format!("{}/{TENANT}/v2.0", self.origin), "tid": TENANT, "oid": OBJECT, "sub": "pairwise",
            "aud": CLIENT, "iat": now, "nbf": now, "exp": now + 3600,
            "preferred_username": "alice@contoso.com", "name": "Alice",
        })
    }

    /// The claims of a token that the generic provider would issue.
    pub fn oidc_claims(&self) -> Value {
        let now = self.clock.now().secs();
        json!({
            "iss": self.origin, "sub": "alice", "aud": CLIENT, "iat": now, "exp": now + 3600,
            "email": "alice@example.com",
        })
    }

    pub fn oidc_account(&self) -> AccountKey {
        AccountKey { provider: "idp".into(), tenant: self.origin.clone(), subject: "alice".into() }
    }
}

pub fn entra_account() -> AccountKey {
    AccountKey { provider: "idp".into(), tenant: TENANT.into(), subject: OBJECT.into() }
}

fn config(kind: ProviderKind) -> config::Provider {
    config::Provider {
        id: "idp".to_owned(),
        kind,
        client_id: CLIENT.to_owned(),
        credentials: Vec::new(),
        allowed_tenants: Vec::new(),
        rotation: Rotation::Strict,
        ca_pem: None,
        client_capabilities: Vec::new(),
        idle_limit: None,
        token_requests: config::TokenRequests::default(),
    }
}

/// A reply of the token endpoint with everything in it that should be there.
pub fn success(id_token: &str) -> Value {
    json!({
        "token_type": "Bearer", "access_token": "access-token-1", "refresh_token": "refresh-token-2", "expires_in": 3600,
        "scope": "User.Read openid", "id_token": id_token,
    })
}

/// A reply with an access token and nothing that needs a user.
pub fn bare_success() -> Answer {
    let body = json!({"token_type": "Bearer", "access_token": "access-token-1", "expires_in": 3600});
    Answer::json(200, &body)
}

/// "We don't know you."
pub fn invalid_client() -> Answer {
    Answer::json(401, &json!({"error": "invalid_client", "error_codes": [7_000_215]}))
}

pub fn secret(text: &str) -> AppCredential {
    AppCredential::Secret { secret: text.into(), expires: None }
}

/// Presents `refresh-token-1` for the scope `User.Read`.
pub async fn refresh(provider: &Provider, account: &AccountKey) -> Result<TokenReply, TokenError> {
    provider.refresh(&"refresh-token-1".into(), account, &["User.Read".to_owned()], None, LIMIT).await
}

/// A server that answers one request with these bytes and closes the connection.
pub async fn raw(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    spawn_here(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        // Our bodies end in a form field whose text is known.
        while !String::from_utf8_lossy(&request).contains("refresh_token=refresh-token-1") {
            stream.read_buf(&mut request).await.unwrap();
        }
        stream.write_all(bytes).await.unwrap();
    });
    origin
}

async fn answer(script: Arc<Mutex<Script>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let answer = {
        let mut script = script.lock().unwrap();
        let path = head.uri.path().to_owned();
        let answer = script
            .answers
            .get_mut(&path)
            .and_then(|queue| if queue.len() > 1 { queue.pop_front() } else { queue.front().cloned() });
        script.asked.push(Asked {
            method: head.method,
            path,
            query: form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect(),
            headers: head.headers,
            form: form_urlencoded::parse(&body).into_owned().collect(),
        });
        answer.unwrap_or_else(|| Answer::text(404, "text/plain", "nothing here"))
    };
    match answer {
        Answer::Silence => std::future::pending().await,
        Answer::Reply { status, headers, body } => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok(response.body(Full::new(body)).unwrap())
        }
    }
}
