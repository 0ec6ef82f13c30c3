#!/usr/bin/env bash
# Becomes the first process of a container: enter.sh ROOT DATA ETC SECRETS [NAME=VALUE...] ARGUMENT... Runs in mount, process and IPC namespaces of its own. The
# root is read-only, DATA is the volume, ETC and SECRETS are read-only mounts; the user is 65532 without a capability.
set -euo pipefail
root=$1 data=$2 etc=$3 secrets=$4
shift 4
environment=()
while [[ ${1:-} == *=* ]]; do environment+=("$1"); shift; done
mount --make-rprivate /
mount --bind "$root" "$root"
mkdir -p "$root"/{proc,dev}
touch "$root"/etc/{hosts,resolv.conf}
mount --bind "$data" "$root/var/lib/bearerd"
mount --bind "$etc" "$root/etc/bearerd"
mount --bind "$secrets" "$root/run/secrets"
for name in hosts resolv.conf; do
  from=/etc
  if [[ -e $etc/$name ]]; then from=$etc; fi
  mount --bind "$from/$name" "$root/etc/$name"
done
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
for device in null zero full random urandom; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
for mounted in "" /etc/bearerd /run/secrets /etc/hosts /etc/resolv.conf; do mount -o remount,bind,ro "$root$mounted"; done
# `unshare` of util-linux changes root, directory and user at once; the image has no program but one.
exec env -i "${environment[@]}" setpriv --no-new-privs unshare --root "$root" --wd /var/lib/bearerd --setgid 65532 --setuid 65532 /usr/bin/bearerd "$@"
