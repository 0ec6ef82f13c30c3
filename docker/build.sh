#!/usr/bin/env bash
# Builds what the image consists of: build.sh DIRECTORY [FEATURES] makes DIRECTORY/root and, with
# what bearerd may write, DIRECTORY/volume. One static binary with its bill of materials inside, the trust anchors of
# this machine, and the few files of a system that a resolver of names looks for. The Dockerfile runs it; so does `make image`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$1/root
volume=$1/volume
features=${2:-}

# Puts the list of all crates and their versions into the binary, for `cargo audit bin`, Trivy, Syft and Grype.
CARGO_AUDITABLE=0.7.7

tools=${CARGO_TARGET_DIR:-$PWD/target}/tools
if ! cargo install --list --root "$tools" | grep -q "^cargo-auditable v$CARGO_AUDITABLE:"; then
  echo "building cargo-auditable $CARGO_AUDITABLE"
  cargo install --quiet --locked --force --version "$CARGO_AUDITABLE" --root "$tools" --target-dir "$tools/build" cargo-auditable
  rm -rf "$tools/build"
fi

# Naming the target keeps the flags from the programs that run during the build. `crt-static` needs the C library's archive (Debian: libc6-dev).
# A static program can't look for the system's getrandom by name, and would open /dev/urandom instead: the flag calls it.
target=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS='-C target-feature=+crt-static --cfg getrandom_backend="linux_getrandom"' PATH=$tools/bin:$PATH \
  cargo auditable build --locked --profile "${PROFILE:-release}" --target "$target" --bin bearerd \
  --no-default-features ${features:+--features "$features"}

rm -rf "$root" "$volume"
mkdir -p "$root"/{usr/bin,etc/ssl/certs,etc/bearerd,var/lib,run/secrets,tmp}
install -d -m 0700 "$volume/bearerd"
install -m 0755 "${CARGO_TARGET_DIR:-target}/$target/${PROFILE:-release}/bearerd" "$root/usr/bin/bearerd"
install -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
echo 'bearerd:x:65532:65532::/var/lib/bearerd:/sbin/nologin' >"$root/etc/passwd"
echo 'bearerd:x:65532:' >"$root/etc/group"
# /etc/hosts first, then the name servers: the two sources that the C library has built in.
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
