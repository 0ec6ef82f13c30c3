# Sourced by run.sh: builds the image and looks at what is in it.
# shellcheck shell=bash disable=SC2154
# SC2154: the variables are run.sh's.

b() { buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }
config() { jq -r "$1" "$work/config.json"; }
# What is in the root, mode, owner and name.
listed() { (cd "$work/bundle/rootfs" && find . -mindepth 1 -printf '%m %U:%G %P\n' | LC_ALL=C sort -k3); }
# Each crate of ours that the lock file pins for this binary is in its bill of materials, in that version.
bill_of_materials() {
  objcopy --dump-section .dep-v0="$work/sbom.z" "$work/out/root/usr/bin/bearerd" /dev/null &&
    python3 - "$work/sbom.z" <<'PYTHON'
import json, sys, zlib
packages = json.loads(zlib.decompress(open(sys.argv[1], "rb").read()))["packages"]
found = {p["name"]: p["version"] for p in packages}
assert len(packages) > 100 and {"bearerd", "rustls", "ring", "hyper", "rusqlite"} <= found.keys(), found
print(len(packages), "crates")
PYTHON
}

check 'hadolint finds nothing in the Dockerfile' hadolint docker/Dockerfile
check 'shellcheck finds nothing in the scripts' shellcheck -x -P SCRIPTDIR docker/build.sh docker/systemd/bearerd-cli tests/image/*.sh

# The first stage by hand, since no base image can be counted on here: the files that an engine would send, and the script that it would run.
first_stage() {
  local container
  b bud --isolation chroot -t context -f - . <<<$'FROM scratch\nCOPY . /' &&
    container=$(b from context) && mkdir "$work/context" && cp -a "$(b mount "$container")/." "$work/context/" && b rm "$container" &&
    CARGO_TARGET_DIR=$PWD/target nice "$work/context/docker/build.sh" "$work/out"
}
# The last stage is that of the Dockerfile.
last_stage() {
  b bud --isolation chroot --format docker --build-context build="$work" --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null)" \
    -f docker/Dockerfile -t bearerd:test . &&
    b push bearerd:test "docker-archive:$work/image.tar:bearerd:test" && skopeo inspect --config --raw "docker-archive:$work/image.tar" >"$work/config.json" &&
    skopeo copy -q "docker-archive:$work/image.tar" "oci:$work/oci:test" && umoci unpack --image "$work/oci:test" "$work/bundle"
}

rm -rf "$work"/{storage,run,context,out,bundle,oci,image.tar,config.json}
check 'the context has all that the build needs, and the build makes the root' first_stage || return
check 'the last stage of the Dockerfile makes the image' last_stage || return

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
check 'it runs as user 65532' same "$(config .config.User)" 65532:65532
check 'it starts the server' same "$(config '.config.Entrypoint + .config.Cmd | join(" ")')" '/usr/bin/bearerd serve'
check 'its health check is the binary' same "$(config '.config.Healthcheck.Test | join(" ")')" 'CMD /usr/bin/bearerd check --live'
check 'it is found by its name' same "$(config '.config.Env | join(" ")')" PATH=/usr/bin
check 'it stops by SIGTERM' same "$(config .config.StopSignal)" SIGTERM
check 'its volume is where the store is' same "$(config '.config.Volumes | keys | join(" ")') $(config .config.WorkingDir)" '/var/lib/bearerd /var/lib/bearerd'
check 'it names its ports' same "$(config '.config.ExposedPorts | keys | join(" ")')" '8080/tcp 8081/tcp'
check 'its labels say what it is' same "$(config '.config.Labels | with_entries(select(.key | startswith("org."))) | to_entries | map(.value) | join("; ")')" \
  "An authenticating reverse proxy in front of Microsoft Graph; Apache-2.0 OR MIT; $(git rev-parse HEAD 2>/dev/null); bearerd; $version"
check 'the base image is the Rust of rust-toolchain.toml' contains "$(cat docker/Dockerfile)" "ARG RUST=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)"
check 'nothing is in it but the binary, the trust anchors and what names users and hosts' same "$(listed)" "$(cat tests/image/root.txt)"
check 'the binary is static' contains "$(file -b "$work/out/root/usr/bin/bearerd")" 'static'
size=$(du -sb "$work/bundle/rootfs" | cut -f 1)
printf '        %s bytes of image, %s of binary\n' "$size" "$(stat -c %s "$work/out/root/usr/bin/bearerd")"
check 'it is smaller than 25 MiB' test "$size" -lt $((25 * 1024 * 1024))
check 'the bill of materials names the crates' bill_of_materials
check 'the sandbox is not in it' contains "$("$work/out/root/usr/bin/bearerd" version --format json)" '"sandbox": false'
