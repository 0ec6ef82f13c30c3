# Sourced by run.sh: the systemd unit. No systemd runs here: what it would forbid is held against what bearerd does.
# shellcheck shell=bash disable=SC2154

unit=docker/systemd/bearerd.service
exposure() { systemd-analyze security --offline=true --no-pager "$1" | sed -n 's/.*Overall exposure level for .*: \([0-9.]*\).*/\1/p'; }
at_most() { awk -v is="$1" -v most="$2" 'BEGIN { exit !(is != "" && is + 0 <= most + 0) }' || { echo "is $1, at most $2"; return 1; }; }
# The system calls that the unit's filters leave, one a line.
allowed() {
  systemd-analyze syscall-filter --no-pager >"$work/groups"
  python3 - "$work/groups" "$unit" <<'PYTHON'
import re, sys
groups, current = {}, None
for line in open(sys.argv[1]):
    if line.startswith("@"):
        current = groups.setdefault(line.split()[0], [])
    elif line.startswith("    ") and not line.strip().startswith("#"):
        current.append(line.strip())
def members(name):
    return {name} if not name.startswith("@") else set().union(*(members(inner) for inner in groups[name]))
calls = members("@default")
for line in re.findall(r"^SystemCallFilter=(.*)$", open(sys.argv[2]).read(), re.M):
    named = set().union(*(members(name) for name in line.lstrip("~").split()))
    calls = calls - named if line.startswith("~") else calls | named
print("\n".join(sorted(calls)))
PYTHON
}
called() { grep -oE '^([0-9]+ +)?[a-z_0-9]+\(' "$place"/trace.* | sed 's/.*[ :]//; s/($//' | sort -u; }
no_writable_code() { ! grep -E '^(mmap|mprotect|pkey_mprotect)\(.*PROT_WRITE\|PROT_EXEC' "$place"/trace.*; }
only_these_sockets() { ! grep -E '^socket\(' "$place"/trace.* | grep -vE 'socket\(AF_(INET|INET6|UNIX|NETLINK),'; }

mkdir -p "$work/unit"
sed "s|/usr/local/bin/bearerd|$PWD/target/debug/bearerd|" "$unit" >"$work/unit/bearerd.service"
check 'systemd finds nothing wrong with the unit' same "$(systemd-analyze verify "$work/unit/bearerd.service" 2>&1)" ''
score=$(exposure "$unit")
printf '        exposure %s\n' "$score"
check 'its exposure is at most 2.0' at_most "$score" 2.0
# The command line beside it gets the same credentials and the same variables.
pairs() { grep -oE '(LoadCredential=|BEARERD_[A-Z0-9_]+)[a-z./:-]*' "$1" | sort; }
check 'the command line beside it has its credentials and its variables' same "$(pairs docker/systemd/bearerd-cli)" "$(pairs "$unit")"
# The environment of the unit as systemd would fill it in, for a user as unprivileged as its own. Its files are where this user reaches them.
place=$(mktemp -d)
trap 'stop_all; rm -rf "$place"' EXIT
install -m 0755 target/debug/bearerd "$place/bearerd"
install -d -m 0700 "$place/state" "$place/credentials"
install -d -m "$(sed -n 's/^RuntimeDirectoryMode=//p' "$unit")" "$place/run" "$place/run/bearerd"
install -m 0400 /dev/stdin "$place/credentials/client-secret" <<<'a secret'
"$place/bearerd" keys generate "$place/credentials/store.key" >/dev/null
chown -R 65532:65532 "$place"
mapfile -t environment < <(sed -n 's/^Environment=//p' "$unit" | sed "s|%d|$place/credentials|; s|%S|$place/state|; s|%t|$place/run|")
environment+=(BEARERD_PROVIDERS__ENTRA__TENANT=contoso.onmicrosoft.com BEARERD_PROVIDERS__ENTRA__CLIENT_ID=11111111-2222-3333-4444-555555555555
  BEARERD_SERVER__LISTEN="unix:$place/data.sock")
as_user=(env -C "$place" -i "${environment[@]}" setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs)
check 'its environment hands over the credentials' "${as_user[@]}" ./bearerd check
"${as_user[@]}" strace -ff -qq -o "$place/trace" ./bearerd serve >"$work/unit/log" 2>&1 &
traced=$!
started+=("$traced")
check 'it serves from them' until_true "${as_user[@]}" ./bearerd check --live
check 'its operators come over a socket' same "$(stat -c '%F %a %u' "$place/run/bearerd/admin.sock")" 'socket 660 65532'
check 'in a directory that lets no other user in' same "$(stat -c '%a %u' "$place/run/bearerd")" '750 65532'
check 'it makes no key of its own' same "$(find "$place/state" -name '*.key')" ''
check 'it ends in order' ends_in_order "$(pgrep -P "$traced")" "$traced"
check 'it listens on no port of its own accord' same "$(grep -lE 'bind\(.*AF_INET6?,' "$place"/trace.*)" ''
check 'it makes no system call that the unit forbids' same "$(comm -23 <(called) <(allowed))" ''
check 'it never has memory that is written and executed' no_writable_code
check 'it opens no kind of socket that the unit forbids, but for one that may fail' only_these_sockets
