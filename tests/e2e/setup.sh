#!/usr/bin/env bash
# Installs what the end-to-end tests need: Debian packages and, beside this file, npm packages pinned by package-lock.json and
# Microsoft's MSAL for Python in a virtual environment, pinned by msal/requirements.txt.
# Does nothing, quickly, when everything is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

say() { printf 'setup: %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }

# program -> Debian package. The C compiler builds SQLite, ring and mimalloc.
missing=()
need() { have "$1" || missing+=("${@:2}"); }
need cc build-essential
need curl curl ca-certificates
need wget wget
need ab apache2-utils
# Debian keeps the part that makes virtual environments in a package of its own.
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
need openssl openssl
need chromium chromium fonts-dejavu-core
need node nodejs npm
need npm npm
need faketime faketime
# Clients of other people, old and new. Java compiles its program as it starts it, and runs WireMock.
need javac default-jdk-headless
need php php-cli
need nghttp nghttp2-client
need perl perl
perl -MLWP::UserAgent -MHTTP::Tiny -e 1 2>/dev/null || missing+=(libwww-perl perl)

if ((${#missing[@]})); then
  if ! have apt-get; then
    say "these are missing, and this is no Debian: ${missing[*]}" >&2
    exit 1
  fi
  as_root=()
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
fi

node_major=$(node -p 'process.versions.node.split(".")[0]')
if ((node_major < 20)); then
  say "Node.js $(node --version) is too old for the OpenID provider: install version 20 or newer (https://nodejs.org)" >&2
  exit 1
fi
if ! have cargo; then
  say "Rust is missing: install it from https://rustup.rs; rust-toolchain.toml picks the version" >&2
  exit 1
fi

# `npm ci` writes node_modules/.package-lock.json last; it is current when it is newer than what we asked for.
if [[ ! node_modules/.package-lock.json -nt package-lock.json ]]; then
  # Packages come by name and digest from the registry that npm is set up for; an address here could be anybody's.
  if grep -n '"resolved"' package-lock.json; then
    say "package-lock.json names download addresses (npm config: omit-lockfile-registry-resolved)" >&2
    exit 1
  fi
  say "installing npm packages"
  npm ci --no-progress --loglevel=error
  touch node_modules/.package-lock.json
fi

# The stamp is written last: an environment that was left half made is made again.
stamp=.venv/requirements.txt
if ! cmp -s msal/requirements.txt "$stamp"; then
  say "installing MSAL for Python"
  rm -rf .venv
  python3 -m venv .venv
  .venv/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement msal/requirements.txt
  cp msal/requirements.txt "$stamp"
fi
