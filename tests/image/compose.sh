# Sourced by run.sh: the compose files, by the schema of compose and by what we promise.
# shellcheck shell=bash disable=SC2154

compose_lint() { dclint --quiet --config tests/image/dclint.yaml "$@"; }
# hardened FILE: each service has a read-only root, no capability, no way to get one, no privilege, and time to drain.
hardened() {
  tests/image/.venv/bin/python - "$1" <<'PYTHON'
import sys, yaml
services = yaml.safe_load(open(sys.argv[1]))["services"]
for name, service in services.items():
    wanted = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"], "stop_grace_period": "45s"}
    assert {key: service.get(key) for key in wanted} == wanted, (name, service)
    assert not {"privileged", "user", "cap_add", "devices", "pid", "ipc"} & service.keys(), name
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), port
assert services
PYTHON
}

for file in docker/compose.yaml docker/compose.tenant.yaml; do
  check "$file is as compose wants it" compose_lint "$file"
  sed 's/cap_drop:/cap_dropped:/' "$file" >"$work/compose-broken.yaml"
  check 'and a mistake in it would be found' refuses compose_lint "$work/compose-broken.yaml"
  check 'its services may do as little as possible' hardened "$file"
done
check 'the configuration for the sandbox is valid' target/debug/bearerd check --config docker/compose/sandbox.toml
mkdir -p "$work/secrets"
install -m 0400 /dev/stdin "$work/secrets/client-secret" <<<'a secret'
check 'the configuration for a tenant is valid' env BEARERD_PROVIDERS__ENTRA__CREDENTIALS__0__SECRET_FILE="$work/secrets/client-secret" \
  target/debug/bearerd check --config docker/compose/tenant.toml
published=$(grep -o 'bk_[A-Za-z0-9_-]*' docker/compose.yaml)
check 'the published key opens the published client' contains "$(cat docker/compose/sandbox.toml)" "sha256:$(printf %s "$published" | sha256sum | cut -d ' ' -f 1)"

# What compose.yaml starts, on other ports: the tenant, and the proxy by the published configuration and key.
base=$(free_ports)
target/debug/bearerd sandbox --tenant-only --port-base "$base" >"$work/compose.log" 2>&1 &
started+=("$!")
check 'the tenant starts' until_true curl -fsS -o "$work/compose.jsonl" "http://127.0.0.1:$((base + 2))/_sandbox/grants?count=1"
rm -rf "$work/compose-store"
proxy=(env BEARERD_SERVER__LISTEN=127.0.0.1:"$base" BEARERD_ADMIN__LISTEN=127.0.0.1:$((base + 1)) BEARERD_STORE__PATH="$work/compose-store"
  BEARERD_STORE__KEY_FILE="$work/compose-store/store.key" BEARERD_PROVIDERS__ENTRA__AUTHORITY=http://127.0.0.1:$((base + 2))
  BEARERD_UPSTREAMS__GRAPH__URL=http://127.0.0.1:$((base + 3)) target/debug/bearerd --config docker/compose/sandbox.toml)
"${proxy[@]}" serve >"$work/compose-proxy.log" 2>&1 &
started+=("$!")
proxied=$!
check 'the proxy starts' until_true "${proxy[@]}" check --live
check 'it is before that tenant' "${proxy[@]}" check --online
check 'a link is made beside it' contains "$("${proxy[@]}" login --account alice --link)" "http://127.0.0.1:$base/.bearerd/login?invite="
check 'Alice is signed in' "${proxy[@]}" accounts import "$work/compose.jsonl"
check 'the published key reads her profile' contains "$(curl -sS -u "alice:$published" "http://127.0.0.1:$base/v1.0/me")" '"displayName":"Alice'
check 'the proxy ends in order' ends_in_order "$proxied" "$proxied"
