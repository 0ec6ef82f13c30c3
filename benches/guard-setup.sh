#!/usr/bin/env bash
# Installs what counts instructions: Debian's valgrind. Does nothing, quickly, when it is there.
# Elsewhere it only says so: the benchmarks that need it are skipped.
set -euo pipefail

say() { printf 'setup: %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }

if have valgrind; then exit 0; fi
if ! have apt-get; then
  say "valgrind is missing, and this is no Debian: instructions will not be counted" >&2
  exit 0
fi
as_root=()
if [[ $(id -u) -ne 0 ]]; then
  have sudo || { say "run as root, or install valgrind: instructions will not be counted" >&2; exit 0; }
  as_root=(sudo)
fi
say "installing valgrind"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { "${as_root[@]}" apt-get update &&
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends valgrind; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  say "apt-get failed" >&2
  exit 1
fi
