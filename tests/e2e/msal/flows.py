"""Microsoft's MSAL for Python against the simulated Entra ID: what MSAL accepts is Entra-shaped.

Prints one line for each flow that MSAL accepted. Stops with a traceback at the first one that it did not.
Everything comes by the environment: AUTHORITY (https), SANDBOX, GRAPH and PROXY (plain http: the switches, the API, bearerd), CLIENT_ID,
CLIENT_SECRET, KEY and CERTIFICATE (PEM files); REQUESTS_CA_BUNDLE is what `requests` trusts.
"""

import base64
import html.parser
import json
import os
import re
from urllib.parse import parse_qsl, urlsplit

import msal
import requests

AUTHORITY = os.environ["AUTHORITY"]
SANDBOX = os.environ["SANDBOX"]
GRAPH = os.environ["GRAPH"]
PROXY = os.environ["PROXY"]
CLIENT_ID = os.environ["CLIENT_ID"]
REDIRECT = "http://localhost:9999/callback"
SCOPES = ["User.Read", "Mail.Send"]
DEFAULT = ["https://graph.microsoft.com/.default"]
STEP_UP = '{"access_token":{"acrs":{"essential":true,"value":"c1"}}}'


def application(credential, **more):
    return msal.ConfidentialClientApplication(
        CLIENT_ID, authority=AUTHORITY, client_credential=credential, instance_discovery=False, **more
    )


def accepted(flow, result, *fields):
    assert result and "error" not in result, f"{flow}: {result and {key: result[key] for key in result if 'token' not in key}}"
    for field in ("access_token", *fields):
        assert result.get(field), f"{flow}: no {field}"
    print(f"accepted: {flow}", flush=True)
    return result


def ask(result, path="/v1.0/me"):
    return requests.get(GRAPH + path, headers={"Authorization": f"Bearer {result['access_token']}"}, timeout=10)


class Fields(html.parser.HTMLParser):
    """The buttons and fields of a page's form."""

    def __init__(self, page):
        super().__init__()
        self.names = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag in ("button", "input") and "name" in attributes:
            self.names.append((attributes["name"], attributes.get("value", "")))


def through_the_page(uri, user):
    """Looks at the sign-in page, clicks on the user, and comes back with the parameters of the redirection."""
    page = requests.get(uri, timeout=10)
    assert page.status_code == 200 and ("user", user) in Fields(page.text).names, page.text
    answer = requests.post(uri, data={"user": user}, allow_redirects=False, timeout=10)
    assert answer.status_code == 302 and answer.headers["Location"].startswith(REDIRECT), answer.text
    return dict(parse_qsl(urlsplit(answer.headers["Location"]).query))


def sign_in(app, user, **more):
    flow = app.initiate_auth_code_flow(SCOPES, redirect_uri=REDIRECT, **more)
    assert "code_challenge=" in flow["auth_uri"] and "nonce=" in flow["auth_uri"]
    return app.acquire_token_by_auth_code_flow(flow, through_the_page(flow["auth_uri"], user))


def challenge(answer):
    assert answer.status_code == 401, answer.text
    encoded = re.search(r'error="insufficient_claims", claims="([^"]+)"', answer.headers["WWW-Authenticate"])
    return base64.b64decode(encoded[1]).decode()


def switch(path, body=""):
    requests.post(f"{SANDBOX}/_sandbox/{path}", data=body, timeout=10).raise_for_status()


def of_the_application():
    secret = os.environ["CLIENT_SECRET"]
    own = accepted("client credentials, secret", application(secret).acquire_token_for_client(DEFAULT))
    assert ask(own, "/v1.0/users/alice@contoso.example/messages").status_code == 200
    assert ask(own).status_code == 400

    with open(os.environ["KEY"], encoding="ascii") as key, open(os.environ["CERTIFICATE"], encoding="ascii") as certificate:
        key, certificate = key.read(), certificate.read()
    modern = {"private_key": key, "public_certificate": certificate}
    app = application(modern)
    accepted("client credentials, certificate (PS256, x5t#S256)", app.acquire_token_for_client(DEFAULT))
    again = app.acquire_token_for_client([f"api://{CLIENT_ID}/.default"])
    accepted("client credentials, the same assertion again", again)
    legacy = {"private_key": key, "thumbprint": os.environ["THUMBPRINT"]}
    accepted("client credentials, certificate (RS256, x5t)", application(legacy).acquire_token_for_client(DEFAULT))
    token = requests.get(f"{SANDBOX}/_sandbox/federated-token", timeout=10).json()["token"]
    federated = application({"client_assertion": lambda: token}).acquire_token_for_client(DEFAULT)
    accepted("client credentials, federated token", federated)

    wrong = application("wrong").acquire_token_for_client(DEFAULT)
    assert (wrong["error"], wrong["error_codes"]) == ("invalid_client", [7000215]), wrong
    print("accepted: the refusal of a wrong secret", flush=True)


def of_a_user():
    app = application(os.environ["CLIENT_SECRET"], client_capabilities=["CP1"])
    result = accepted("authorization code with PKCE", sign_in(app, "alice"), "id_token_claims", "refresh_token", "client_info")
    assert ask(result).json()["mail"] == "alice@contoso.example"
    [account] = app.get_accounts()
    assert account["username"] == "alice@contoso.example", account
    cached = app.acquire_token_silent(SCOPES, account)
    assert cached["access_token"] == result["access_token"], "the granted scopes are those that were asked for"
    fresh = app.acquire_token_silent_with_error(SCOPES, account, force_refresh=True)
    accepted("silent refresh", fresh)
    assert fresh["access_token"] != result["access_token"] and ask(fresh).status_code == 200

    # Continuous access evaluation: a revocation, its challenge, and the token that answers to it.
    switch("revoke?user=alice&what=access")
    claims = challenge(ask(fresh))
    assert "nbf" in json.loads(claims)["access_token"], claims
    healed = app.acquire_token_silent_with_error(SCOPES, account, claims_challenge=claims)
    accepted("a claims challenge after a revocation", healed)
    assert ask(healed).status_code == 200

    # Step-up: no refresh will do, a sign-in does.
    switch("demand?prefix=/v1.0/me/messages", STEP_UP)
    claims = challenge(ask(healed, "/v1.0/me/messages"))
    refused = app.acquire_token_silent_with_error(SCOPES, account, claims_challenge=claims)
    assert refused["error"] == "interaction_required" and refused["claims"], refused
    stepped = accepted("a step-up by signing in again", sign_in(app, "alice", claims_challenge=claims))
    assert ask(stepped, "/v1.0/me/messages").status_code == 200
    switch("demand")

    switch("revoke?user=alice")
    dead = app.acquire_token_silent_with_error(SCOPES, account, force_refresh=True)
    assert (dead["error"], dead["suberror"]) == ("invalid_grant", "bad_token"), dead
    print("accepted: the refusal of a revoked refresh token", flush=True)


def of_a_middle_tier():
    caller = application(os.environ["CLIENT_SECRET"])
    flow = caller.initiate_auth_code_flow([f"api://{CLIENT_ID}/.default"], redirect_uri=REDIRECT)
    own = caller.acquire_token_by_auth_code_flow(flow, through_the_page(flow["auth_uri"], "bob"))
    accepted("a token for the application itself", own, "id_token_claims")
    middle = application(os.environ["CLIENT_SECRET"])
    result = accepted("on behalf of", middle.acquire_token_on_behalf_of(own["access_token"], DEFAULT))
    assert ask(result).json()["mail"] == "bob@contoso.example"
    through_the_proxy(own["access_token"])


def through_the_proxy(token):
    """What an application does that has nothing but its user's token for it: the proxy acts on behalf of that user."""
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {token}"
    subjects, link = [], f"{PROXY}/v1.0/me/messages?$top=10"
    while link:
        page = session.get(link, timeout=10).json()
        subjects += [message["subject"] for message in page["value"]]
        link = page.get("@odata.nextLink")
        assert not link or link.startswith(f"{PROXY}/v1.0/"), link
    assert len(subjects) == 25, subjects

    members = [{"id": "me", "method": "GET", "url": f"{PROXY}/v1.0/me"}]
    [member] = session.post(f"{PROXY}/v1.0/$batch", json={"requests": members}, timeout=10).json()["responses"]
    assert (member["status"], member["body"]["mail"]) == (200, "bob@contoso.example"), member

    file, content = f"{PROXY}/v1.0/me/drive/root:/msal.bin:/content", os.urandom(100_000)
    assert session.put(file, data=content, timeout=10).status_code == 201
    # On the way to the other origin `requests` takes the token off.
    assert session.get(file, timeout=10).content == content

    requests.post(f"{GRAPH}/_sandbox/fault", data="graph/v1.0/me/mailFolders:503=1", timeout=10).raise_for_status()
    assert session.get(f"{PROXY}/v1.0/me/mailFolders", timeout=10).status_code == 200
    print("accepted: a token of its user at the proxy", flush=True)


def of_a_device():
    # MSAL has this flow for public clients only; the application is none, so its secret goes along.
    app = msal.PublicClientApplication(CLIENT_ID, authority=AUTHORITY, instance_discovery=False)
    flow = app.initiate_device_flow(SCOPES)
    assert flow["user_code"] in flow["message"] and flow["interval"] == 5, flow
    page = requests.post(flow["verification_uri"], data={"user_code": flow["user_code"], "user": "bob"}, timeout=10)
    assert page.status_code == 200, page.text
    result = app.acquire_token_by_device_flow(flow, data={"client_secret": os.environ["CLIENT_SECRET"]})
    accepted("device code", result, "id_token_claims", "refresh_token")


def of_a_machine():
    def token(**environment):
        os.environ.update(environment)
        client = msal.ManagedIdentityClient(msal.SystemAssignedManagedIdentity(), http_client=requests.Session())
        result = client.acquire_token_for_client(resource="https://graph.microsoft.com")
        for name in environment:
            del os.environ[name]
        return result

    service = token(IDENTITY_ENDPOINT=f"{SANDBOX}/msi/token", IDENTITY_HEADER=os.environ["IDENTITY_HEADER_VALUE"])
    accepted("managed identity, App Service", service)
    assert ask(service, "/v1.0/users").status_code == 200
    imds = token(AZURE_POD_IDENTITY_AUTHORITY_HOST=SANDBOX)
    accepted("managed identity, IMDS", imds)
    assert ask(imds, "/v1.0/users").status_code == 200


of_the_application()
of_a_user()
of_a_middle_tier()
of_a_device()
of_a_machine()
