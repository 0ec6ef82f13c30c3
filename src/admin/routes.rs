//! Every route, once: the router and the OpenAPI document are both made from this table.

use http::Method;

use self::Operation::{
    About, Explain, ImportAccount, ListAccounts, ListClients, Live, MakeSigninLink, Metrics, OpenApi, Ready,
    RefreshAccount, Reload, RemoveAccount, RevokeAccount, ShowAccount, ShowConfig,
};
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
    ShowConfig,
    Explain,
    Reload,
}

/// One row of the table.
pub struct Route {
    pub method: Method,
    /// `{id}` stands for one segment.
    pub path: &'static str,
    /// Its `operationId`.
    pub name: &'static str,
    pub summary: &'static str,
    /// What may go wrong, beside what may go wrong everywhere.
    pub problems: &'static [Kind],
}

/// Where a request leads.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'p> {
    Route {
        operation: Operation,
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

impl Operation {
    pub const ALL: [Self; 16] = [
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
        ShowConfig,
        Explain,
        Reload,
    ];

    pub fn route(self) -> Route {
        let get = |path, name, summary, problems| Route { method: Method::GET, path, name, summary, problems };
        let post = |path, name, summary, problems| Route { method: Method::POST, path, name, summary, problems };
        match self {
            Live => get("/livez", "live", "Whether the process lives", &[]),
            Ready => get("/readyz", "ready", "Whether what the process stands on answers", &[]),
            Metrics => get("/metrics", "metrics", "Metrics, as OpenMetrics text", &[]),
            OpenApi => get("/openapi.json", "openapi", "This document", &[]),
            About => get("/v1/about", "about", "Which server this is", &[]),
            ListAccounts => {
                get("/v1/accounts", "listAccounts", "Accounts in the order of their aliases, page by page", LIST)
            }
            ImportAccount => post("/v1/accounts", "importAccount", "Takes a grant from elsewhere", IMPORT),
            ShowAccount => get("/v1/accounts/{id}", "showAccount", "One account", ACCOUNT),
            RemoveAccount => Route {
                method: Method::DELETE,
                ..get("/v1/accounts/{id}", "removeAccount", "Removes an account and erases its grant", ACCOUNT)
            },
            RefreshAccount => post(
                "/v1/accounts/{id}/refresh",
                "refreshAccount",
                "Presents the refresh token now; may revive an account that waits for interaction",
                REFRESH,
            ),
            RevokeAccount => post(
                "/v1/accounts/{id}/revoke",
                "revokeAccount",
                "Ends the grant and erases its tokens; the account stays",
                ACCOUNT,
            ),
            MakeSigninLink => post(
                "/v1/accounts/{id}/signin-link",
                "makeSigninLink",
                "Makes a single-use link by which the account's own user signs in again",
                ACCOUNT,
            ),
            ListClients => get("/v1/clients", "listClients", "The calling applications and what each may", &[]),
            ShowConfig => get("/v1/config", "showConfig", "The configuration in effect, secrets masked", &[]),
            Explain => post("/v1/explain", "explain", "What a request would meet; nothing is sent", BODY),
            Reload => post(
                "/v1/reload",
                "reload",
                "Reads the configuration again and puts it in force, unless it has a mistake",
                &[Kind::ConfigurationInvalid, Kind::NotReloadable],
            ),
        }
    }

    /// The parameters of its query.
    pub fn parameters(self) -> &'static [&'static str] {
        match self {
            ListAccounts => &["state", "provider", "search", "alias", "cursor", "limit"],
            ImportAccount => &["verify"],
            _ => &[],
        }
    }

    /// A supervisor needs no secret for health, and nobody sends his before he knows to whom.
    pub fn is_open(self) -> bool {
        matches!(self, Live | Ready | About)
    }

    /// Asked for by the address of a pod, by supervisors and scrapers.
    pub fn is_for_machines(self) -> bool {
        matches!(self, Live | Ready | Metrics)
    }
}

/// Where this request leads. A `HEAD` is a `GET` whose answer stays here.
pub fn find<'p>(method: &Method, path: &'p str) -> Found<'p> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let mut methods = Vec::new();
    for operation in Operation::ALL {
        let route = operation.route();
        let Some(id) = matched(route.path, path) else { continue };
        if route.method == *method {
            return Found::Route { operation, id };
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
        let route = |operation, id| Found::Route { operation, id };
        for (method, path, found) in [
            (Method::GET, "/livez", route(Live, "")),
            (Method::HEAD, "/readyz", route(Ready, "")),
            (Method::GET, "/v1/accounts", route(ListAccounts, "")),
            (Method::POST, "/v1/accounts", route(ImportAccount, "")),
            (Method::GET, "/v1/accounts/abc", route(ShowAccount, "abc")),
            (Method::DELETE, "/v1/accounts/abc", route(RemoveAccount, "abc")),
            (Method::POST, "/v1/accounts/abc/refresh", route(RefreshAccount, "abc")),
            (Method::POST, "/v1/accounts/a%2Fb/revoke", route(RevokeAccount, "a%2Fb")),
            (Method::PUT, "/v1/accounts/abc", Found::OtherMethods("GET, HEAD, DELETE".into())),
            (Method::TRACE, "/v1/accounts", Found::OtherMethods("GET, HEAD, POST".into())),
            (Method::GET, "/v1/accounts/abc/refresh", Found::OtherMethods("POST".into())),
            (Method::GET, "/v1/accounts/", Found::Nothing),
            (Method::GET, "/v1/accounts/a/b", Found::Nothing),
            (Method::POST, "/v1/accounts//refresh", Found::Nothing),
            (Method::GET, "/v1/accounts/refresh", route(ShowAccount, "refresh")),
            (Method::GET, "/livez/", Found::Nothing),
            (Method::GET, "/LIVEZ", Found::Nothing),
            (Method::GET, "/v1/clients/x", Found::Nothing),
        ] {
            assert_eq!(find(&method, path), found, "{method} {path}");
        }
    }
}
