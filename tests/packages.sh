# Sourced by the setup scripts: what this machine lacks is installed by name, and nothing is said when it is all there.
# shellcheck shell=bash

say() { printf 'setup: %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }

# Debian keeps nginx, haproxy and their like where only root's PATH looks.
PATH=$PATH:/usr/sbin
missing=()

# need PROGRAM PACKAGE...: the packages are missing when the program is.
need() { have "$1" || missing+=("${@:2}"); }

# Debian keeps the part of Python that makes virtual environments in a package of its own.
need_venv() { python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3 python3-venv); }

# node_serves WHO VERSION: whether that Node.js is new enough. Says so where it is not.
node_serves() {
  [[ $2 =~ ^v?([0-9]+:)?([0-9]+) ]] && ((BASH_REMATCH[2] >= 20)) && return
  say "$1 has Node.js $2, version 20 or newer is needed: install it from https://nodejs.org" >&2
  return 1
}

# quietly COMMAND...: shows the end of what it said where it fails.
quietly() {
  local log
  log=$(mktemp)
  if "$@" >"$log" 2>&1; then
    rm -f "$log"
    return
  fi
  tail -n 20 "$log" >&2
  rm -f "$log"
  say "failed: $*" >&2
  return 1
}

# Installs what is missing. Says why it can't, and fails.
install_packages() {
  ((${#missing[@]})) || return 0
  if ! have apt-get; then
    say "these are missing, and this is no Debian: ${missing[*]}" >&2
    return 1
  fi
  local as_root=()
  if [[ $(id -u) -ne 0 ]]; then
    have sudo || { say "run as root, or install these: ${missing[*]}" >&2; return 1; }
    as_root=(sudo)
  fi
  say "installing ${missing[*]}"
  quietly "${as_root[@]}" apt-get update || return
  # Debian 12 has version 18: known before anything is installed.
  if [[ " ${missing[*]} " == *' nodejs '* ]]; then
    node_serves apt "$(LC_ALL=C apt-cache policy nodejs | sed -n 's/^ *Candidate: //p')" || return
  fi
  quietly "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" || return
  missing=()
}

# Rust comes from rustup, not from Debian.
need_cargo() {
  have cargo || { say "Rust is missing: install it from https://rustup.rs; rust-toolchain.toml picks the version" >&2; return 1; }
}

# The npm packages of the current directory, pinned by its package-lock.json.
install_npm() {
  node_serves 'this machine' "$(node --version)" || return
  # `npm ci` writes node_modules/.package-lock.json last; it is current when it is newer than what we asked for.
  [[ node_modules/.package-lock.json -nt package-lock.json ]] && return
  # Packages come by name and digest from the registry that npm is set up for; an address here could be anybody's.
  if grep -n '"resolved"' package-lock.json; then
    say "package-lock.json names download addresses (npm config: omit-lockfile-registry-resolved)" >&2
    return 1
  fi
  say "installing npm packages"
  npm ci --no-progress --loglevel=error
  touch node_modules/.package-lock.json
}

# install_pip ENVIRONMENT WHAT REQUIREMENTS: a virtual environment with exactly these. The stamp is written last: one that was left half
# made is made again.
install_pip() {
  cmp -s "$3" "$1/requirements.txt" && return
  say "installing $2"
  rm -rf "$1"
  python3 -m venv "$1"
  "$1/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$3"
  cp "$3" "$1/requirements.txt"
}

# Prometheus's promtool, beside the calling script. Debian's package has it, and would also start a server: only the program is taken.
take_promtool() {
  [[ -x .promtool/usr/bin/promtool ]] && return
  local as_root=() log directory
  [[ $(id -u) -eq 0 ]] || as_root=(sudo)
  say "fetching promtool"
  directory=$(mktemp -d)
  log=$directory/log
  if ! { (cd "$directory" && { apt-get download prometheus || { "${as_root[@]}" apt-get update && apt-get download prometheus; }; }) &&
    dpkg-deb --fsys-tarfile "$directory"/prometheus_*.deb | tar -x -C "$directory" ./usr/bin/promtool &&
    mkdir -p .promtool/usr/bin && mv "$directory/usr/bin/promtool" .promtool/usr/bin/; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -rf "$directory"
    say "promtool could not be fetched" >&2
    return 1
  fi
  rm -rf "$directory"
}
