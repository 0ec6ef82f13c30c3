//! What a request would meet: the decisions of `serve`, taken by the same functions in the same order, and said instead of acted on.
//!
//! Invariants: nothing is sent, to nobody; nothing is written; no secret is in an explanation. Where a decision goes against the request,
//! the verdict is the very refusal that the client would get.

mod explanation;

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Method, Request, Uri, header};
use schemars::JsonSchema;
use serde::Deserialize;

pub use self::explanation::{Account, Asking, Destination, Explanation, GrantState, Rule, Token, Verdict, Waiting};
use super::caller::{Caller, Client};
use super::error::{Kind, Refusal};
use super::outbound::OutboundHead;
use super::policy::{Asked, Decision};
use super::route::Route;
use super::shared::Shared;
use super::{Peer, PeerAddress};
use crate::account::Alias;
use crate::config::Identity;
use crate::vault::{LeaseError, Next, Subject};

/// What somebody wants to know.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// May be left out where there is only one.
    #[serde(default)]
    pub client: Option<String>,
    /// As the client would name it beside the path: Basic user name, or `Bearerd-Account`.
    #[serde(default)]
    pub account: Option<String>,
    #[schemars(regex(pattern = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"), extend("examples" = ["GET"]))]
    pub method: String,
    /// A path with or without a query, or an absolute URL.
    #[schemars(extend("examples" = ["/v1.0/me"]))]
    pub path: String,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    #[error("client: there are several; name one of {0}")]
    WhichClient(String),
    #[error("client: there is none in the configuration; `bearerd clients new NAME` makes a key and its entry")]
    NoClients,
    #[error("method: {0:?} is none")]
    Method(String),
    #[error("path: {0:?} is neither a path that begins with / nor an http or https URL")]
    Path(String),
}

/// The parts of an explanation as they are found out, and the first refusal among them.
struct Found {
    explanation: Explanation,
    refusal: Option<Refusal>,
}

impl Shared {
    /// What the request of the question would meet.
    pub async fn explain(&self, question: &Question) -> Result<Explanation, QuestionError> {
        let head = question.head(&self.origins.public)?;
        let client = self.asking(question)?;
        let mut found = Found::new(question);
        let secure = head.uri.scheme_str().unwrap_or(&self.origins.public).starts_with("https");
        let peer = Peer { address: PeerAddress::Tcp(([127, 0, 0, 1], 0).into()), secure, names: Vec::new() };
        let Some(host) = found.keep(self.admit(&head, &peer)) else {
            return Ok(found.conclude(client, None, Next::Ask));
        };
        if client.is_none() {
            found.refuse(Kind::ClientUnauthenticated.because("the client key is unknown or wrong"));
            let names = self.names_of_clients();
            found.note(format!("there is no client of that name; there are: {names}"));
        }
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let naming = self.naming(&head, &peer);
        let Some(target) = found.keep(naming.meant(target, host)) else {
            return Ok(found.conclude(client, None, Next::Ask));
        };
        let Some(route) = found.keep(naming.lead(&target, host)) else {
            return Ok(found.conclude(client, None, Next::Ask));
        };
        found.explanation.upstream = Some(self.destination(&route));
        let caller = client.as_ref().map(|client| Caller::known(Arc::clone(client)));
        let subject = caller.and_then(|caller| found.subject(&caller, &route, question));
        if let Some(path) = found.keep(route.canonical()) {
            let rule_path = naming.rule_path(route.upstream, &path.text);
            if let Some(client) = &client {
                let kind = self.templates[route.upstream].0.config.kind;
                let (method, headers) = (&head.method, &head.headers);
                found.rule(client, &Asked { method, path: &rule_path, doubt: path.doubt, headers, kind });
            }
            found.explanation.canonical = Some(rule_path.into_owned());
        }
        let destination = &self.templates[route.upstream].0.destination;
        found.keep(OutboundHead::new(head.clone(), route.target, "", destination));
        let next = self.grant(&mut found, &route).await;
        Ok(found.conclude(client, subject.as_ref(), next))
    }

    /// `Ok(None)`: no client has this name.
    fn asking(&self, question: &Question) -> Result<Option<Arc<Client>>, QuestionError> {
        let all = self.clients.all();
        match (&question.client, all) {
            (Some(name), _) => Ok(all.iter().find(|client| *client.name == **name).cloned()),
            (None, [only]) => Ok(Some(Arc::clone(only))),
            (None, []) => Err(QuestionError::NoClients),
            (None, _) => Err(QuestionError::WhichClient(self.names_of_clients())),
        }
    }

    fn names_of_clients(&self) -> String {
        self.clients.all().iter().map(|client| &*client.name).collect::<Vec<_>>().join(", ")
    }

    fn destination(&self, route: &Route<'_>) -> Destination {
        let template = &self.templates[route.upstream].0;
        Destination {
            name: template.name.to_string(),
            url: format!("{}{}", self.origins.upstreams[route.upstream].as_str(), route.target),
            target: route.target.to_owned(),
            provider: template.config.provider.clone(),
        }
    }

    /// The grant of the account that is named, even where the client may not act for it.
    async fn grant(&self, found: &mut Found, route: &Route<'_>) -> Next {
        let named = found.explanation.account.as_ref().and_then(|account| Alias::new(&account.alias).ok());
        let Some(alias) = named else { return Next::Ask };
        let (template, upstream) = &self.templates[route.upstream];
        match self.vault.foresee(&alias, *upstream).await {
            Ok(foreseen) => {
                let state = GrantState::new(&foreseen, &template.config.scopes, self.clock.now());
                if state.state != "active" && matches!(foreseen.outcome, Ok(Next::Take)) {
                    found.note("the token that lives is served to its end, or until the upstream refuses it");
                }
                found.explanation.grant = Some(state);
                found.keep(foreseen.outcome.map_err(Refusal::from)).unwrap_or(Next::Ask)
            }
            Err(error) => {
                if let LeaseError::StoreUnavailable(why) | LeaseError::Damaged(why) = &error {
                    found.note(why.clone());
                }
                found.refuse(error.into());
                Next::Ask
            }
        }
    }
}

impl Question {
    /// A request as the client would send it to `public_origin`, without a credential.
    fn head(&self, public_origin: &str) -> Result<Parts, QuestionError> {
        let method = Method::from_bytes(self.method.as_bytes()).ok();
        let method = method.ok_or_else(|| QuestionError::Method(self.method.clone()))?;
        let wrong = || QuestionError::Path(self.path.clone());
        let uri: Uri = self.path.parse().map_err(|_| wrong())?;
        let has_shape = match uri.scheme_str() {
            Some(scheme) => matches!(scheme, "http" | "https") && uri.authority().is_some(),
            None => self.path.starts_with('/'),
        };
        if !has_shape {
            return Err(wrong());
        }
        let mut request = Request::new(());
        (*request.method_mut(), *request.uri_mut()) = (method, uri);
        let authority = public_origin.split_once("://").map_or(public_origin, |(_, authority)| authority);
        let host = HeaderValue::try_from(authority).map_err(|_| wrong())?;
        request.headers_mut().insert(header::HOST, host);
        Ok(request.into_parts().0)
    }
}

impl Found {
    fn new(question: &Question) -> Self {
        let explanation = Explanation {
            method: question.method.clone(),
            path: question.path.clone(),
            client: None,
            account: None,
            upstream: None,
            canonical: None,
            rule: None,
            grant: None,
            notes: Vec::new(),
            verdict: Verdict { sent: false, text: String::new(), error: None, status: None, message: None },
        };
        Self { explanation, refusal: None }
    }

    fn note(&mut self, note: impl Into<String>) {
        self.explanation.notes.push(note.into());
    }

    /// The first refusal is what the client would get: `serve` goes no further.
    fn refuse(&mut self, refusal: Refusal) {
        self.refusal.get_or_insert(refusal);
    }

    fn keep<T>(&mut self, decided: Result<T, Refusal>) -> Option<T> {
        decided.map_err(|refusal| self.refuse(refusal)).ok()
    }

    /// For whom. On behalf of whom a client acts is in the token that it presents.
    fn subject(&mut self, caller: &Caller, route: &Route<'_>, question: &Question) -> Option<Subject> {
        if caller.client.identity == Identity::OnBehalfOf {
            self.note("the account is that of the user whose token the application presents; account names have to agree with it");
            return None;
        }
        let selectors = [route.alias.as_deref(), question.account.as_deref(), None];
        let subject = self.keep(caller.subject(selectors));
        self.explanation.account = match &subject {
            Some(Subject::User(alias)) => Some(Account { alias: alias.to_string(), may_act: true }),
            Some(_) => None,
            None => {
                let named = selectors.into_iter().flatten().next();
                named.map(|alias| Account { alias: alias.to_owned(), may_act: false })
            }
        };
        subject
    }

    fn rule(&mut self, client: &Client, asked: &Asked<'_>) {
        if self.keep(client.policy.understands(asked.doubt)).is_none() {
            return;
        }
        let decision = client.policy.decide(asked.method, asked.path);
        if decision == Decision::EachMember {
            self.note("a $batch is sent if each of its members is permitted: ask for each");
        }
        self.explanation.rule = Some(Rule::new(decision));
        self.keep(client.policy.permit(asked));
    }

    fn conclude(mut self, client: Option<Arc<Client>>, subject: Option<&Subject>, next: Next) -> Explanation {
        self.explanation.verdict = match self.refusal.take() {
            Some(refusal) => Verdict::refused(&refusal),
            None => Verdict::sent(&self.explanation, subject, next),
        };
        self.explanation.client = client.map(|client| Asking {
            name: client.name.to_string(),
            proof: client.proof.clone(),
            identity: match client.identity {
                Identity::User => "user",
                Identity::App => "app",
                Identity::OnBehalfOf => "on-behalf-of",
            },
        });
        self.explanation
    }
}
