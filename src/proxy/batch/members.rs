//! What may become of the members of a batch: judged as the requests that they are, cleaned, and named as the upstream knows them.
//!
//! Invariant: the URL that is judged is the one that is sent.

use http::Method;

use super::is_batch;
use crate::graph::batch::{self, Edit, Member};
use crate::graph::links;
use crate::proxy::canonical::{Canonical, canonical};
use crate::proxy::error::{Kind, Refusal};
use crate::proxy::policy::{Policy, is_tunnel};
use crate::proxy::terms::Terms;

/// Of a member's headers, besides `bearerd-*` and the tunnels: credentials, and where it goes.
const STRIPPED: [&str; 5] = ["authorization", "proxy-authorization", "x-api-key", "cookie", "host"];
/// Of a member's id, and of what is wrong with the member.
const LONGEST_SAID: usize = 256;
/// Some SDKs make a path relative by cutting this off: `/v1.0` or `/beta`.
const CUT_BY_SDKS: usize = "/v1.0".len();

/// What members are judged by, and what their URLs mean.
pub struct Members<'a> {
    pub terms: &'a Terms<'a>,
    /// `None`: the client has none.
    pub rules: Option<&'a Policy>,
}

impl Members<'_> {
    /// The batch as it goes out, if it has to change; every member of it may be sent.
    pub fn clean(&self, batch: &batch::Batch<'_>) -> Result<Option<String>, Refusal> {
        let edits: Result<Vec<Edit>, Refusal> = batch.members().iter().map(|member| self.edit(member)).collect();
        Ok(batch.edited(&edits?))
    }

    fn edit(&self, member: &Member<'_>) -> Result<Edit, Refusal> {
        let kind = if self.rules.is_some() { Kind::PolicyDenied } else { Kind::BadRequest };
        let denied = |why: &str| kind.because(format!("$batch member {}: {}", short(member.id), short(why)));
        let url = match self.place(&member.url) {
            Place::Here(relative) => relative,
            Place::OtherAccount => return Err(denied("its url names another account or upstream")),
            Place::OtherVersion if self.rules.is_some() => return Err(denied("its url names another version")),
            Place::Foreign if self.rules.is_some() => return Err(denied("its url names another host")),
            Place::OtherVersion | Place::Foreign => &member.url,
        };
        if let Some(policy) = self.rules {
            self.judge(policy, member, url, denied)?;
        }
        let goes = |name: &str| STRIPPED.contains(&name) || is_tunnel(name) || name.starts_with("bearerd-");
        Ok(Edit {
            url: (url != member.url).then(|| url.to_owned()),
            headers: member.headers_without(goes),
            body: match member.body {
                Some(body) => self.body(body).map_err(|refusal| denied(&refusal.message))?,
                None => None,
            },
        })
    }

    /// `url` is what will be sent.
    fn judge(
        &self,
        policy: &Policy,
        member: &Member<'_>,
        url: &str,
        denied: impl Fn(&str) -> Refusal,
    ) -> Result<(), Refusal> {
        let method = Method::from_bytes(member.method.to_ascii_uppercase().as_bytes())
            .map_err(|_| denied("its method is malformed"))?;
        if member.has_header(is_tunnel) {
            return Err(denied("a method override header can't be used by a client with rules"));
        }
        if !member.has_plain_headers() {
            return Err(denied("its headers are malformed"));
        }
        let two_ways = |what: &str| denied(&format!("its url can be read in two ways: it has {what}"));
        if url.contains('#') {
            return Err(two_ways("a fragment"));
        }
        if url.trim() != url {
            return Err(two_ways("white space at its ends"));
        }
        if version(self.terms).trim_start_matches('/').contains('/') {
            return Err(denied("a $batch of Graph follows the version at once"));
        }
        let path = path(self.terms, url);
        let path = canonical(&path).and_then(Canonical::certain).map_err(|unclear| two_ways(&unclear.to_string()))?;
        if is_batch(&path) {
            return Err(denied("a $batch can't contain a $batch"));
        }
        let judged = policy.judge(&method, &self.terms.naming.rule_path(self.terms.route.upstream, &path));
        judged.map_err(|refusal| Refusal { rule: refusal.rule, ..denied(&refusal.message) })
    }

    /// Links in a JSON body that name us, as the upstream knows them.
    fn body(&self, body: &str) -> Result<Option<String>, Refusal> {
        if !self.terms.upstream.rewrite_links || !body.starts_with(['{', '[']) {
            return Ok(None);
        }
        let translated = links::in_request(body.as_bytes(), |key, url| self.terms.link(key, url))?;
        Ok(translated.and_then(|text| String::from_utf8(text).ok()))
    }

    /// Where a member's URL leads. Relative ones are relative to the version.
    fn place<'u>(&self, url: &'u str) -> Place<'u> {
        if let Some(route) = self.terms.naming.route(url) {
            return if self.terms.is_ours(&route) { self.relative(route.target) } else { Place::OtherAccount };
        }
        if url.starts_with("//") || has_scheme(url) {
            return Place::Foreign;
        }
        let prefix = self.terms.route.prefix;
        let prefixes = [Some(prefix), prefix.strip_prefix('/'), prefix.get(CUT_BY_SDKS..)];
        let own = prefixes.into_iter().flatten().filter(|own| !own.is_empty());
        let cut = own.filter_map(|own| url.strip_prefix(own)).map(|target| self.relative(target));
        cut.into_iter().find(|place| matches!(place, Place::Here(_))).unwrap_or(Place::Here(url))
    }

    /// A path of the upstream without the version.
    fn relative<'u>(&self, target: &'u str) -> Place<'u> {
        let version = version(self.terms);
        match target.split_at_checked(version.len()) {
            Some((own, "")) if own.eq_ignore_ascii_case(version) => Place::Here("/"),
            Some((own, rest)) if own.eq_ignore_ascii_case(version) && rest.starts_with(['/', '?']) => Place::Here(rest),
            _ => Place::OtherVersion,
        }
    }
}

enum Place<'u> {
    /// Relative to the version.
    Here(&'u str),
    OtherVersion,
    OtherAccount,
    Foreign,
}

/// The path of a member whose URL is relative.
pub fn path(terms: &Terms<'_>, url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    format!("{}/{}", version(terms), path.strip_prefix('/').unwrap_or(path))
}

/// `/v1.0`
fn version<'t>(terms: &Terms<'t>) -> &'t str {
    let path = &*terms.path.text;
    path.strip_suffix("/$batch").unwrap_or(path)
}

/// Of what comes from a client as much as a message and a line in the log may hold.
fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_SAID)]
}

/// `https:`, as RFC 3986 has it: what readers do with the slashes behind it is up to them.
fn has_scheme(url: &str) -> bool {
    url.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}
