//! The app registration, step by step: what to click in the Entra admin center, or what to say to `az`.
//!
//! Redirect URIs are registered for programs that keep a secret (web) or for those that can't (public client), never as a single-page
//! application's: such sign-ins end after 24 hours.

use std::fmt::Write as _;

use super::answers::Answers;
use super::file::secrets;
use super::{Place, Proof};

/// Microsoft Graph, in every tenant of every cloud.
const GRAPH: &str = "00000003-0000-0000-c000-000000000000";
/// The ids of delegated permissions of Graph. Others are looked up by name when the command runs.
const PERMISSION_IDS: [(&str, &str); 16] = [
    ("openid", "37f7f235-527c-4136-accd-4a02d197296e"),
    ("profile", "14dad69e-099b-42c9-810b-d002981feec1"),
    ("offline_access", "7427e0e9-2fba-42fe-b0c0-848c9e6a8182"),
    ("User.Read", "e1fe6dd8-ba31-4d61-89e7-88639da4683d"),
    ("User.ReadBasic.All", "b340eb25-3456-403f-be2f-af7a0d370277"),
    ("Mail.Read", "570282fd-fa5c-430d-a7fd-fc8dc98a9dca"),
    ("Mail.ReadWrite", "024d486e-b451-40bb-833d-3e66d98c5c73"),
    ("Mail.Send", "e383f46e-2787-4529-855e-0e479a3ffac0"),
    ("Calendars.Read", "465a38f9-76ea-45b9-9f34-9e8b0d4b0b42"),
    ("Calendars.ReadWrite", "1ec239c2-d7c9-4623-a91a-a9775856bb36"),
    ("Contacts.Read", "ff74d97f-43af-4b68-9f2a-b77ee6968c5d"),
    ("Files.Read", "10465720-29dd-4523-a11a-6a75c743c9d9"),
    ("Files.ReadWrite", "5c28f0bf-8a70-41f1-8ab2-9032436ddb65"),
    ("Files.Read.All", "df85f4d6-205c-4ac5-a5ea-6bf408dba283"),
    ("Files.ReadWrite.All", "863451e7-0667-486c-a5d6-d135439485f0"),
    ("Sites.Read.All", "205e70e5-aba6-4c52-a976-6d2d46c48043"),
];
/// What every sign-in asks for besides the configured scopes.
const SIGN_IN: [&str; 3] = ["openid", "profile", "offline_access"];

pub(super) fn steps(answers: &Answers) -> String {
    let mut text = String::from(
        "The app registration: in the portal (https://entra.microsoft.com, Applications > App registrations), or by `az` in a shell.\n",
    );
    let mut number = 0;
    let mut step = |title: &str, portal: &str, az: &str| {
        number += 1;
        let _ = writeln!(text, "\n{number}. {title}");
        let _ = writeln!(text, "   portal: {portal}");
        for line in az.lines() {
            let _ = writeln!(text, "       {line}");
        }
    };
    let (portal, az) = application(answers);
    step("The application and where sign-ins come back to", &portal, &az);
    let (portal, az) = permissions(answers);
    step("What it may ask for", &portal, &az);
    let portal = "the same page > Grant admin consent, where your tenant does not let users consent themselves; otherwise skip it";
    step("An administrator's consent", portal, "az ad app permission admin-consent --id \"$APP_ID\"");
    if let Some((title, portal, az)) = credential(answers) {
        step(title, &portal, &az);
    }
    if answers.client_id.is_none() {
        let portal = "Overview > Application (client) ID: put it into the file as client_id";
        step("The application's id", portal, "echo \"client_id = \\\"$APP_ID\\\"\"");
    }
    text
}

/// For a POSIX shell.
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn application(answers: &Answers) -> (String, String) {
    let public = answers.credential == Proof::None;
    let (platform, uris, flows) = if public {
        ("Mobile and desktop applications", "--public-client-redirect-uris", " --is-fallback-public-client true")
    } else {
        ("Web (not single-page: those sign-ins end after 24 hours)", "--web-redirect-uris", "")
    };
    let (audience, supported) = match answers.tenant.as_str() {
        "common" => ("AzureADandPersonalMicrosoftAccount", "any directory and personal accounts"),
        "organizations" => ("AzureADMultipleOrgs", "any organizational directory"),
        _ => ("AzureADMyOrg", "this organizational directory only"),
    };
    let redirects = redirects(answers);
    let uris = format!("{uris} {}{flows}", redirects.iter().map(|uri| quoted(uri)).collect::<Vec<_>>().join(" "));
    let platform = format!(
        "Authentication > Add a platform > {platform}: {}{}",
        redirects.join(" and "),
        if public { "; Allow public client flows: Yes" } else { "" }
    );
    let mut az = "az login --allow-no-subscriptions".to_owned();
    if audience == "AzureADMyOrg" {
        let _ = write!(az, " --tenant {}", quoted(&answers.tenant));
    }
    if let Some(id) = &answers.client_id {
        let _ = write!(
            az,
            "\nAPP_ID={}\n\
            # This replaces the list: add what `az ad app show --id \"$APP_ID\"` shows and is still needed.\n\
            az ad app update --id \"$APP_ID\" {uris}",
            quoted(id)
        );
        return (format!("the application {id} > {platform}"), az);
    }
    let _ = write!(
        az,
        "\nAPP_ID=$(az ad app create --display-name bearerd --sign-in-audience {audience} \\\n    {uris} \\\n    \
        --query appId --output tsv)\naz ad sp create --id \"$APP_ID\""
    );
    (format!("New registration, accounts in {supported}; {platform}"), az)
}

/// Of the pages, and of `bearerd login` in a browser on the same machine, whose port changes and is not compared.
fn redirects(answers: &Answers) -> Vec<String> {
    const CALLBACK: &str = "/.bearerd/callback/entra";
    let local = format!("http://localhost{CALLBACK}");
    match answers.public_url() {
        url if url.starts_with("http://localhost:") || url == "http://localhost" => vec![local],
        url => vec![format!("{url}{CALLBACK}"), local],
    }
}

fn permissions(answers: &Answers) -> (String, String) {
    let asked: Vec<&str> = SIGN_IN.into_iter().chain(answers.scopes.iter().map(String::as_str)).collect();
    let (others, graph): (Vec<&str>, Vec<&str>) = asked
        .iter()
        .map(|scope| scope.strip_prefix("https://graph.microsoft.com/").unwrap_or(scope))
        .partition(|scope| scope.contains("://"));
    let mut portal = format!("API permissions > Microsoft Graph > Delegated permissions: {}", graph.join(", "));
    if !others.is_empty() {
        let _ = write!(portal, "; of other APIs (My APIs, or APIs my organization uses): {}", others.join(", "));
    }
    let mut az = format!(
        "# {}, in this order\naz ad app permission add --id \"$APP_ID\" --api {GRAPH} --api-permissions",
        graph.join(", ")
    );
    for scope in graph {
        match PERMISSION_IDS.iter().find(|(name, _)| *name == scope) {
            Some((_, id)) => {
                let _ = write!(az, " \\\n    {id}=Scope");
            }
            None => {
                let _ = write!(
                    az,
                    " \\\n    \"$(az ad sp show --id {GRAPH} --query \"oauth2PermissionScopes[?value=='{scope}'].id\" --output tsv)=Scope\""
                );
            }
        }
    }
    (portal, az)
}

/// `None`: a public client has none.
fn credential(answers: &Answers) -> Option<(&'static str, String, String)> {
    let directory = secrets(answers.place);
    let hand_over = match answers.place {
        Place::Here => "",
        Place::Container => {
            " Hand it to the container as a secret, not readable by others, at the path that the file names."
        }
        Place::BehindTls => " It belongs to the user that bearerd runs as.",
    };
    // Where the commands run is not where a container looks.
    let file =
        |name: &str| if answers.place == Place::Container { name.to_owned() } else { format!("{directory}/{name}") };
    match answers.credential {
        Proof::Secret => Some((
            "The client secret",
            format!(
                "Certificates & secrets > New client secret; its value, not its id, goes into {}, mode 0600.{hand_over}",
                file("client-secret")
            ),
            format!(
                "(umask 077; az ad app credential reset --id \"$APP_ID\" --append --display-name bearerd --years 1 \\\n    --query password --output tsv > {})",
                file("client-secret")
            ),
        )),
        Proof::Certificate => Some((
            "The certificate",
            format!("Certificates & secrets > Certificates > Upload {}; its key stays in {}, mode 0600.{hand_over}", file("app.crt"), file("app.key")),
            format!(
                "(umask 077; openssl req -x509 -newkey rsa:3072 -sha256 -days 365 -nodes -subj /CN=bearerd \\\n    -keyout {key} -out {certificate})\naz ad app credential reset --id \"$APP_ID\" --append --cert @{certificate}",
                key = file("app.key"),
                certificate = file("app.crt"),
            ),
        )),
        Proof::ManagedIdentity => Some((
            "The managed identity that vouches for it (a user-assigned one; managed_identity in the file is its client id)",
            "Certificates & secrets > Federated credentials > Add > Managed identity".to_owned(),
            "TENANT_ID=$(az account show --query tenantId --output tsv)\n\
            PRINCIPAL_ID=$(az identity show --resource-group GROUP --name IDENTITY --query principalId --output tsv)\n\
            az ad app federated-credential create --id \"$APP_ID\" --parameters \"{\\\"name\\\": \\\"bearerd\\\",\n    \
            \\\"issuer\\\": \\\"https://login.microsoftonline.com/$TENANT_ID/v2.0\\\", \\\"subject\\\": \\\"$PRINCIPAL_ID\\\",\n    \
            \\\"audiences\\\": [\\\"api://AzureADTokenExchange\\\"]}\"\n\
            az identity show --resource-group GROUP --name IDENTITY --query clientId --output tsv"
                .to_owned(),
        )),
        Proof::Federated => Some((
            "The platform's tokens that vouch for it",
            "Certificates & secrets > Federated credentials > Add > Kubernetes accessing Azure resources".to_owned(),
            "ISSUER=$(az aks show --resource-group GROUP --name CLUSTER --query oidcIssuerProfile.issuerUrl --output tsv)\n\
            az ad app federated-credential create --id \"$APP_ID\" --parameters \"{\\\"name\\\": \\\"bearerd\\\",\n    \
            \\\"issuer\\\": \\\"$ISSUER\\\", \\\"subject\\\": \\\"system:serviceaccount:NAMESPACE:SERVICEACCOUNT\\\",\n    \
            \\\"audiences\\\": [\\\"api://AzureADTokenExchange\\\"]}\""
                .to_owned(),
        )),
        Proof::None => None,
    }
}
