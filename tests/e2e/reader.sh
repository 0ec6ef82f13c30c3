# Sourced before the commands of a document: the hands of its reader, and stand-ins where the document means more than this machine.
# shellcheck shell=bash disable=SC2034 # KEY is for the documents, BEARERD_... for the program
#
# What a comment of the document asks for is done here: the entry that `clients new` prints is appended to bearerd.toml and its key kept in
# KEY, a sign-in link is opened. `serve` and `sandbox` go on in the background whether or not the document says `&`, and are waited for.
# The caller ends them all: they are in its process group. It also sets BINARY, E2E (where this file is), PORT and TENANT_PORT.

set -euo pipefail
trap 'echo "FAILED in line $LINENO: $BASH_COMMAND" >&2' ERR
set -E

# A refusal is a failure, and nobody's proxy is asked.
curl() { command curl --fail-with-body --silent --show-error --noproxy '*' --max-time 30 "$@" && echo; }
# Asked for a password it gets PASSWORD.
python3() { "$E2E/.venv/bin/python" "$@" <<<"${PASSWORD-}"; }

bearerd() {
  case "$1 ${2-}" in
    'serve ') "$BINARY" "$@" >>servers.log 2>&1 & until_ready ;;
    sandbox\ *)
      [[ $* == *--port-base* ]] || set -- "$@" --port-base "$PORT"
      "$BINARY" "$@" >sandbox.txt 2>>servers.log & until [[ -s sandbox.txt ]]; do wait_a_moment $!; done
      KEY=$(sed -n 's/.*alice:\(bk_[^ ]*\).*/\1/p' sandbox.txt | head -n 1) ;;
    'clients new')
      local said
      said=$("$BINARY" "$@")
      KEY=$(grep -o '\bbk_[A-Za-z0-9_-]*' <<<"$said")
      sed -n '/^\[\[clients\]\]/,$p' <<<"$said" >>bearerd.toml
      if is_ready; then curl -X POST "$ADMIN/v1/reload"; fi ;;
    'login '*)
      until_ready
      local said
      said=$("$BINARY" "$@")
      node "$E2E/open-link.mjs" "$(grep -o 'http[^ ]*' <<<"$said" | head -n 1)" "$3" ;;
    *) "$BINARY" "$@" ;;
  esac
}

ADMIN=http://127.0.0.1:$((PORT + 1))
is_ready() { command curl --fail --silent --output /dev/null --noproxy '*' "$ADMIN/readyz"; }
until_ready() { until is_ready; do wait_a_moment "${!:-}"; done; }
# What ended will not come up any more. The caller bounds the whole.
wait_a_moment() {
  if [[ -n $1 ]] && ! kill -0 "$1"; then cat servers.log >&2; return 1; fi
  sleep 0.05
}

# A tenant for the bearerd.toml of the document, whose placeholders and addresses the environment overrides.
tenant() {
  bearerd sandbox --tenant-only --port-base "$TENANT_PORT"
  export BEARERD_SERVER__LISTEN=127.0.0.1:$PORT BEARERD_ADMIN__LISTEN=127.0.0.1:$((PORT + 1))
  BEARERD_PROVIDERS__ENTRA__AUTHORITY=$(of_tenant authority)
  BEARERD_PROVIDERS__ENTRA__TENANT=$(of_tenant tenant)
  BEARERD_PROVIDERS__ENTRA__CLIENT_ID=$(of_tenant client_id)
  BEARERD_UPSTREAMS__GRAPH__URL=$(of_tenant url)
  export "${!BEARERD_@}"
  (umask 077; sed -n 's/.*{ secret = "\(.*\)" }.*/\1/p' sandbox.txt >client-secret)
}
of_tenant() { sed -n "s/^ *$1 = \"\(.*\)\"$/\1/p" sandbox.txt; }
# The line of `accounts import` for a user of the tenant, and a value in it.
grant() { command curl -sS --noproxy '*' "$BEARERD_PROVIDERS__ENTRA__AUTHORITY/_sandbox/grants?count=3" | grep "\"alias\":\"$1\""; }
of_grant() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
refresh_token() { grant "$1" | of_grant refresh_token; }
# The token cache of an MSAL application in which Alice has signed in.
msal_cache() {
  local line host=${BEARERD_PROVIDERS__ENTRA__AUTHORITY#http://} home
  line=$(grant alice)
  home=$(of_grant oid <<<"$line").$(of_grant tid <<<"$line")
  printf '{"RefreshToken": {"1": {"credential_type": "RefreshToken", "secret": "%s", "client_id": "%s", "home_account_id": "%s",
    "environment": "%s"}}, "Account": {"1": {"home_account_id": "%s", "environment": "%s", "realm": "%s", "username": "alice@contoso.com"}}}' \
    "$(of_grant refresh_token <<<"$line")" "$BEARERD_PROVIDERS__ENTRA__CLIENT_ID" "$home" "$host" "$home" "$host" "$BEARERD_PROVIDERS__ENTRA__TENANT"
}
