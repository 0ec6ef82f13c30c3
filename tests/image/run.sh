#!/usr/bin/env bash
# `make image`: builds the image without a container engine, takes it apart, runs it as an engine would, and checks all that deploys it. Root
# only: the layers are unpacked with their owners, and the run has namespaces and mounts of its own. `run.sh unit chart` runs parts; `contained`
# and the end of `chart` need what `image` left.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
. tests/image/checks.sh

if [[ $(id -u) -ne 0 ]]; then
  echo 'make image needs root: it unpacks layers with their owners, and makes namespaces and mounts' >&2
  exit 1
fi
tests/image/setup.sh || exit 1
PATH=$PWD/target/tools/bin:$PWD/tests/image/.venv/bin:$PWD/tests/image/node_modules/.bin:$PATH:/usr/sbin
work=$PWD/target/image
mkdir -p "$work"

# The tenant outside, and what reads configurations: the binary that `make test` leaves.
cargo build --quiet --locked --bin bearerd || exit 1

parts=("$@")
((${#parts[@]})) || parts=(image contained unit compose chart)
for part in "${parts[@]}"; do
  printf '\n== %s\n' "$part"
  # shellcheck source=/dev/null
  . "tests/image/$part.sh"
done

printf '\n%s passed, %s failed\n' "$passed" "$failed"
((failed == 0))
