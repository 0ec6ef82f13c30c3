# Sourced by run.sh: runs the image as an engine would, between a client and a simulated tenant outside.
# shellcheck shell=bash disable=SC2154

# run_contained NAME [NAME=VALUE...] ARGUMENT...: starts the image's binary; its process id is in $contained, what it says in NAME.log.
run_contained() {
  local name=$1
  shift
  unshare --mount --pid --ipc --fork --kill-child tests/image/enter.sh "$work/bundle/rootfs" "$work/run.data" "$work/run.etc" "$work/run.secrets" \
    "$@" >"$work/$name.log" 2>&1 &
  outside=$!
  started+=("$outside")
  until_true pgrep -P "$outside" || return
  contained=$(pgrep -P "$outside")
}
# A command in the running container, as `docker exec` gives it.
exec_contained() {
  env -i "${environment[@]}" nsenter --target "$contained" --mount --pid --ipc --root --wd="/proc/$contained/cwd" --setuid 65532 --setgid 65532 \
    /usr/bin/bearerd "$@"
}
of_process() { sed -n "s/^$1:[[:space:]]*//p" "/proc/$contained/status"; }
ask() { curl -sS --max-time 10 -u "alice:$key" "http://127.0.0.1:$base$1"; }
root_refuses_writing() { ! touch "/proc/$contained/root/usr/bin/x" 2>/dev/null && ! touch "/proc/$contained/root/x" 2>/dev/null; }

base=$(free_ports)
target/debug/bearerd sandbox --tenant-only --port-base "$base" >"$work/sandbox.log" 2>&1 &
started+=("$!")
check 'the sandbox outside answers' until_true curl -fsS -o "$work/grants.jsonl" "http://127.0.0.1:$((base + 2))/_sandbox/grants?count=1"

rm -rf "$work"/run.{data,etc,secrets}
install -d -m 0755 "$work/run.etc" "$work/run.secrets"
install -d -m 0700 -o 65532 -g 65532 "$work/run.data"
# What the sandbox says of itself is the configuration, but for the secret.
sed -n 's/^  //p' "$work/sandbox.log" | sed "s|{ secret = .* }|{ secret_file = \"/run/secrets/client-secret\" }|" >"$work/run.etc/bearerd.toml"
sed -n 's/.*{ secret = "\(.*\)" }.*/\1/p' "$work/sandbox.log" | install -m 0400 -o 65532 -g 65532 /dev/stdin "$work/run.secrets/client-secret"
client=$("$work/out/root/usr/bin/bearerd" clients new payroll --account alice --format json)
key=$(jq -r .key <<<"$client")
jq -r .stanza <<<"$client" >>"$work/run.etc/bearerd.toml"
environment=(BEARERD_SERVER__LISTEN=127.0.0.1:"$base" BEARERD_ADMIN__LISTEN=127.0.0.1:$((base + 1)))

check 'the image starts' run_contained served "${environment[@]}" serve
check 'its health check passes once it serves' until_true exec_contained check --live
check 'it runs as 65532 without a capability or a way to get one' same \
  "$(of_process Uid | cut -f 1,2) $(of_process CapEff) $(of_process NoNewPrivs)" $'65532\t65532 0000000000000000 1'
check 'it is the first process of its own' same "$(of_process NSpid | cut -f 2)" 1
check 'its root can not be written' root_refuses_writing
install -m 0400 -o 65532 -g 65532 "$work/grants.jsonl" "$work/run.data/grants.jsonl"
check 'an account is imported beside the running server' exec_contained accounts import grants.jsonl
check 'a request is answered with what Graph says' contains "$(ask '/v1.0/me')" '"displayName":"Alice'
check 'links lead through the image' contains "$(ask "/v1.0/me/messages?\$top=3")" "http://127.0.0.1:$base/v1.0/me/messages?"
check 'it is ready' contains "$(curl -sS "http://127.0.0.1:$((base + 1))/readyz")" '"ready":true'
check 'the provider and the upstream answer, asked from inside' exec_contained check --online
check 'the store and its key are in the volume, for its user only' same "$(cd "$work/run.data" && stat -c '%a %u %n' bearerd-data bearerd-data/store.key)" \
  $'700 65532 bearerd-data\n600 65532 bearerd-data/store.key'
check 'SIGTERM ends it in order' ends_in_order "$contained" "$outside"
check 'and it says so' contains "$(tail -n 1 "$work/served.log")" drained

# Names: a static binary finds hosts by /etc/hosts and by a name server. Nobody listens where they lead: a refused connection proves the name.
printf '127.0.0.1 localhost\n127.0.0.7 graph.in-hosts.test\n' >"$work/run.etc/hosts"
printf 'nameserver 127.0.0.1\noptions timeout:2 attempts:1\n' >"$work/run.etc/resolv.conf"
cat >"$work/run.etc/names.toml" <<'TOML'
[providers.entra]
authority = "http://localhost:9"
tenant = "contoso.onmicrosoft.com"
client_id = "11111111-2222-3333-4444-555555555555"
[upstreams]
in-hosts = { url = "https://graph.in-hosts.test", scopes = ["a"] }
in-dns = { url = "https://graph.in-dns.test", scopes = ["a"] }
unknown = { url = "https://graph.unknown.test", scopes = ["a"] }
TOML
names=$(unshare --net tests/image/names.py unshare --mount --pid --ipc --fork --kill-child tests/image/enter.sh \
  "$work/bundle/rootfs" "$work/run.data" "$work/run.etc" "$work/run.secrets" check --online --config /etc/bearerd/names.toml 2>&1)
said_of() { grep -F "$1" <<<"$names"; }
check 'localhost is found' contains "$(said_of 'provider entra:')" refused
check 'a name of /etc/hosts is found' contains "$(said_of 'https://graph.in-hosts.test/:')" refused
check 'a name that the name server knows is found' contains "$(said_of 'https://graph.in-dns.test/:')" refused
check 'a name that nobody knows is said so' contains "$(said_of 'https://graph.unknown.test/:')" lookup
