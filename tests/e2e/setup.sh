#!/usr/bin/env bash
# Installs what the end-to-end tests need: Debian packages and, beside this file, npm packages pinned by package-lock.json and
# Microsoft's MSAL for Python and Schemathesis in virtual environments, pinned by msal/requirements.txt and schemathesis/requirements.txt.
# Does nothing, quickly, when everything is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ../packages.sh

# The C compiler builds SQLite, ring and mimalloc.
need cc build-essential
need curl curl ca-certificates
need wget wget
need ab apache2-utils
need_venv
need openssl openssl
need chromium chromium fonts-dejavu-core
need node nodejs npm
need npm npm
need faketime faketime
need argon2 argon2
# Clients of other people, old and new. Java compiles its program as it starts it, and runs WireMock.
need javac default-jdk-headless
need php php-cli
need nghttp nghttp2-client
need perl perl
perl -MLWP::UserAgent -MHTTP::Tiny -e 1 2>/dev/null || missing+=(libwww-perl perl)
install_packages

need_cargo
install_npm
install_pip .venv "MSAL for Python" msal/requirements.txt
install_pip schemathesis/.venv "Schemathesis" schemathesis/requirements.txt
take_promtool
