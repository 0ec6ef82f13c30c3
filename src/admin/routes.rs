//! Every route, once: the router and the OpenAPI document are both made from this table.

use http::Method;

use super::problem::Kind;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Live,
    Ready,
    Metrics,
    OpenApi,
    About,
    ListAccounts,
    ImportAccount,
    ShowAccount,
    RemoveAccount,
    RefreshAccount,
    RevokeAccount,
    MakeSigninLink,
    ListClients,
    ListAudit,
    ShowConfig,
    Explain,
    Reload,
}

/// One row of the table.
pub struct Route {
    pub operation: Operation,
    pub method: Method,
    /// `{id}` stands for one segment.
    pub path: &'static str,
    /// Its `operationId`.
    pub name: &'static str,
    pub summary: &'static str,
    /// The parameters of its query.
    pub parameters: &'static [&'static str],
    /// What may go wrong, beside what may go wrong everywhere.
    pub problems: &'static [Kind],
}

/// Where a request leads.
pub enum Found<'p> {
    Route {
        route: &'static Route,
        id: &'p str,
    },
    /// The path exists; these are its methods.
    OtherMethods(String),
    Nothing,
}

const LIST: &[Kind] = &[Kind::InvalidParameter, Kind::StoreUnavailable];
const ACCOUNT: &[Kind] = &[Kind::AccountNotFound, Kind::StoreUnavailable, Kind::InternalError];
const BODY: &[Kind] = &[Kind::InvalidBody, Kind::BodyTooLarge, Kind::UnsupportedMediaType];
const REFRESH: &[Kind] = &[
    Kind::AccountNotFound,
    Kind::SigninRequired,
    Kind::AppCredentialInvalid,
    Kind::ProviderMisconfigured,
    Kind::ProviderUnavailable,
    Kind::StoreUnavailable,
    Kind::InternalError,
];
const IMPORT: &[Kind] = &[
    Kind::InvalidBody,
    Kind::InvalidParameter,
    Kind::AliasTaken,
    Kind::BodyTooLarge,
    Kind::UnsupportedMediaType,
    Kind::ImportRefused,
    Kind::StoreUnavailable,
    Kind::InternalError,
];

/// All that there is.
pub const ROUTES: &[Route] = &[
    get(Operation::Live, "/livez", "live", "Whether the process lives"),
    get(Operation::Ready, "/readyz", "ready", "Whether what the process stands on answers"),
    get(Operation::Metrics, "/metrics", "metrics", "Metrics, as OpenMetrics text"),
    get(Operation::OpenApi, "/openapi.json", "openapi", "This document"),
    get(Operation::About, "/v1/about", "about", "Which server this is"),
    get(
        Operation::ListAccounts,
        "/v1/accounts",
        "listAccounts",
        "Accounts in the order of their aliases, page by page",
    )
    .taking(&["state", "provider", "search", "alias", "cursor", "limit"])
    .failing(LIST),
    post(Operation::ImportAccount, "/v1/accounts", "importAccount", "Takes a grant from elsewhere")
        .taking(&["verify"])
        .failing(IMPORT),
    get(Operation::ShowAccount, "/v1/accounts/{id}", "showAccount", "One account").failing(ACCOUNT),
    delete(Operation::RemoveAccount, "/v1/accounts/{id}", "removeAccount", "Removes an account and erases its grant")
        .failing(ACCOUNT),
    post(
        Operation::RefreshAccount,
        "/v1/accounts/{id}/refresh",
        "refreshAccount",
        "Presents the refresh token now; may revive an account that waits for interaction",
    )
    .failing(REFRESH),
    post(
        Operation::RevokeAccount,
        "/v1/accounts/{id}/revoke",
        "revokeAccount",
        "Ends the grant and erases its tokens; the account stays",
    )
    .failing(ACCOUNT),
    post(
        Operation::MakeSigninLink,
        "/v1/accounts/{id}/signin-link",
        "makeSigninLink",
        "Makes a single-use link by which the account's own user signs in again",
    )
    .failing(ACCOUNT),
    get(Operation::ListClients, "/v1/clients", "listClients", "The calling applications and what each may"),
    get(Operation::ListAudit, "/v1/audit", "listAudit", "Records of who did what, the newest first, page by page")
        .taking(&["account", "event", "outcome", "since", "until", "cursor", "limit"])
        .failing(LIST),
    get(Operation::ShowConfig, "/v1/config", "showConfig", "The configuration in effect, secrets masked"),
    post(Operation::Explain, "/v1/explain", "explain", "What a request would meet; nothing is sent").failing(BODY),
    post(
        Operation::Reload,
        "/v1/reload",
        "reload",
        "Reads the configuration again and puts it in force, unless it has a mistake",
    )
    .failing(&[Kind::ConfigurationInvalid, Kind::NotReloadable]),
];

const fn get(operation: Operation, path: &'static str, name: &'static str, summary: &'static str) -> Route {
    route(Method::GET, operation, path, name, summary)
}

const fn post(operation: Operation, path: &'static str, name: &'static str, summary: &'static str) -> Route {
    route(Method::POST, operation, path, name, summary)
}

const fn delete(operation: Operation, path: &'static str, name: &'static str, summary: &'static str) -> Route {
    route(Method::DELETE, operation, path, name, summary)
}

const fn route(
    method: Method,
    operation: Operation,
    path: &'static str,
    name: &'static str,
    summary: &'static str,
) -> Route {
    Route { operation, method, path, name, summary, parameters: &[], problems: &[] }
}

impl Route {
    const fn taking(mut self, parameters: &'static [&'static str]) -> Self {
        self.parameters = parameters;
        self
    }

    const fn failing(mut self, problems: &'static [Kind]) -> Self {
        self.problems = problems;
        self
    }
}

impl Operation {
    /// A supervisor needs no secret for health, and nobody sends his before he knows to whom.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Live | Self::Ready | Self::About)
    }

    /// Asked for by the address of a pod, by supervisors and scrapers.
    pub fn is_for_machines(self) -> bool {
        matches!(self, Self::Live | Self::Ready | Self::Metrics)
    }
}

/// Where this request leads. A `HEAD` is a `GET` whose answer stays here.
pub fn find<'p>(method: &Method, path: &'p str) -> Found<'p> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let mut methods = Vec::new();
    for route in ROUTES {
        let Some(id) = matched(route.path, path) else { continue };
        if route.method == *method {
            return Found::Route { route, id };
        }
        methods.push(route.method.to_string());
        if route.method == Method::GET {
            methods.push(Method::HEAD.to_string());
        }
    }
    if methods.is_empty() { Found::Nothing } else { Found::OtherMethods(methods.join(", ")) }
}

/// What stands for `{id}`, or nothing where there is none; `None`: it is another path.
fn matched<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let Some((before, after)) = pattern.split_once("{id}") else {
        return (pattern == path).then_some("");
    };
    let id = path.strip_prefix(before)?.strip_suffix(after)?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_the_table_says() {
        let route = |operation: Operation, id: &str| format!("{operation:?} {id}");
        for (method, path, found) in [
            (Method::GET, "/livez", route(Operation::Live, "")),
            (Method::HEAD, "/readyz", route(Operation::Ready, "")),
            (Method::GET, "/v1/accounts", route(Operation::ListAccounts, "")),
            (Method::POST, "/v1/accounts", route(Operation::ImportAccount, "")),
            (Method::GET, "/v1/accounts/abc", route(Operation::ShowAccount, "abc")),
            (Method::DELETE, "/v1/accounts/abc", route(Operation::RemoveAccount, "abc")),
            (Method::POST, "/v1/accounts/abc/refresh", route(Operation::RefreshAccount, "abc")),
            (Method::POST, "/v1/accounts/a%2Fb/revoke", route(Operation::RevokeAccount, "a%2Fb")),
            (Method::PUT, "/v1/accounts/abc", "GET, HEAD, DELETE".to_owned()),
            (Method::TRACE, "/v1/accounts", "GET, HEAD, POST".to_owned()),
            (Method::GET, "/v1/accounts/abc/refresh", "POST".to_owned()),
            (Method::GET, "/v1/accounts/", String::new()),
            (Method::GET, "/v1/accounts/a/b", String::new()),
            (Method::POST, "/v1/accounts//refresh", String::new()),
            (Method::GET, "/v1/accounts/refresh", route(Operation::ShowAccount, "refresh")),
            (Method::GET, "/livez/", String::new()),
            (Method::GET, "/LIVEZ", String::new()),
            (Method::GET, "/v1/clients/x", String::new()),
        ] {
            let leads = match find(&method, path) {
                Found::Route { route: Route { operation, .. }, id } => format!("{operation:?} {id}"),
                Found::OtherMethods(methods) => methods,
                Found::Nothing => String::new(),
            };
            assert_eq!(leads, found, "{method} {path}");
        }
    }
}
