# Sourced by run.sh: the chart, by helm, by Kubernetes' own schemas, and by what bearerd makes of what it renders.
# shellcheck shell=bash disable=SC2154

chart=docker/helm/bearerd
rendered() { helm template graph "$chart" --namespace mail --values "$chart/ci/$1-values.yaml" "${@:2}"; }
# refused_for WHY ARGUMENT...: rendering fails and says why.
refused_for() {
  local said
  said=$(helm template graph "$chart" --values "$chart/ci/least-values.yaml" "${@:2}" 2>&1) && { echo "rendered with ${*:2}"; return 1; }
  contains "$said" "$1"
}
# kinds FILE: what is rendered, in the order of the alphabet.
kinds() { sed -n 's/^kind: //p' "$1" | sort | tr '\n' ' '; }
# Fills a directory as Kubernetes fills a volume from a secret: links through `..data`, files of root's that the pod's group may read.
mounted() {
  local at=$1 name
  shift
  install -d -m 0755 "$at/..2026_11_23"
  ln -sfn ..2026_11_23 "$at/..data"
  for name; do
    install -m 0440 -o 0 -g 65532 "$work/chart/$name" "$at/..2026_11_23/$name"
    ln -sfn "..data/$name" "$at/$name"
  done
}
# The environment of the container and its configuration, out of the manifests; whether the rules are the ones that are tested.
of_the_pod() {
  tests/image/.venv/bin/python - "$1" "$2" <<'PYTHON'
import sys, yaml
documents = {d["kind"]: d for d in yaml.safe_load_all(open(sys.argv[1])) if d}
if sys.argv[2] == "rules":
    sys.exit(documents["PrometheusRule"]["spec"] != yaml.safe_load(open("docker/grafana/alerts.yaml")))
elif sys.argv[2] == "config":
    print(documents["ConfigMap"]["data"]["bearerd.toml"], end="")
else:
    for entry in documents["StatefulSet"]["spec"]["template"]["spec"]["containers"][0]["env"]:
        print(f"{entry['name']}={entry['value']}")
PYTHON
}

rm -rf "$work/chart"
mkdir -p "$work/chart"
for values in "$chart"/ci/*-values.yaml; do
  name=$(basename "$values" -values.yaml)
  check "helm finds nothing wrong with the chart ($name)" helm lint --strict --quiet "$chart" --values "$values"
  rendered "$name" >"$work/chart/$name.yaml"
  check "what it renders fits Kubernetes 1.33 ($name)" kubernetes-validate -k 1.33 --strict "$work/chart/$name.yaml"
  check "and 1.37 ($name)" kubernetes-validate -k 1.37 --strict "$work/chart/$name.yaml"
done
sed 's/replicas: 1/replicas: two/' "$work/chart/least.yaml" >"$work/chart/broken.yaml"
check 'a manifest with a mistake would be found' refuses kubernetes-validate -k 1.33 --strict "$work/chart/broken.yaml"
check 'the least values render what every pod needs' same "$(kinds "$work/chart/least.yaml")" \
  'ConfigMap NetworkPolicy PodDisruptionBudget Service Service ServiceAccount StatefulSet '
check 'all values render the rest' same "$(kinds "$work/chart/full.yaml")" \
  'ConfigMap NetworkPolicy PodDisruptionBudget PrometheusRule Service Service ServiceAccount ServiceMonitor StatefulSet '
check 'its rules are those of docker/grafana, to the letter' of_the_pod "$work/chart/full.yaml" rules
check 'a changed configuration restarts the pod only where that is wanted' same \
  "$(grep -l checksum/config "$work"/chart/{least,claim,full}.yaml)" "$work/chart/full.yaml"
rendered least --skip-schema-validation --set store.kind=shared,replicas=2,autoscaling.enabled=true >"$work/chart/scaled.yaml"
check 'with a store that pods share it would scale' contains "$(kinds "$work/chart/scaled.yaml")" HorizontalPodAutoscaler
check 'and fit Kubernetes' kubernetes-validate -k 1.33 --strict "$work/chart/scaled.yaml"

sed -n '/^# values.yaml$/,/^```$/p' docs/deploy.md | sed '$d' >"$work/chart/documented-values.yaml"
check 'the values of docs/deploy.md render' helm template graph "$chart" --namespace graph --values "$work/chart/documented-values.yaml"
check 'two pods are refused' refused_for 'the embedded store is for one pod' --set replicas=2
check 'autoscaling is refused' refused_for 'the embedded store is for one pod' --set autoscaling.enabled=true
check 'another store is refused' refused_for "at '/store/kind'" --set store.kind=postgres
check 'a missing public address is refused' refused_for 'publicUrl is needed' --set publicUrl=
check 'a public address with a path is refused' refused_for "at '/publicUrl'" --set publicUrl=https://graph.example.com/x
check 'a missing admin token is refused' refused_for 'admin.tokenSecret.name is needed' --set admin.tokenSecret.name=
check 'an unknown value is refused' refused_for "additional properties 'replicaCount' not allowed" --set replicaCount=1
check 'a text where a number belongs is refused' refused_for "at '/service/port'" --set service.port=http
check 'the versions of the chart are those of the package' same "$(sed -n 's/^\(version\|appVersion\): //p' "$chart/Chart.yaml" | tr '\n' ' ')" \
  "$(sed -n 's/^version = "\(.*\)"/\1 \1 /p' Cargo.toml | head -n 1)"
manifest=$(cat "$work/chart/full.yaml")
for promise in 'runAsNonRoot: true' 'runAsUser: 65532' 'fsGroup: 65532' 'type: RuntimeDefault' 'allowPrivilegeEscalation: false' \
  'readOnlyRootFilesystem: true' 'drop: [ALL]' 'automountServiceAccountToken: false' 'terminationGracePeriodSeconds: 45' 'path: /readyz' 'path: /livez'; do
  check "the pod has $promise" contains "$manifest" "$promise"
done

# The pod, in the image of the part before: all its secrets as Kubernetes mounts them, all its environment, in a network of its own.
if [[ -d $work/bundle/rootfs ]]; then
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=graph.example.com -keyout "$work/chart/tls.key" -out "$work/chart/tls.crt" 2>"$work/said"
  echo 'a secret' >"$work/chart/client-secret"
  echo 'a token for operators' >"$work/chart/token"
  "$work/out/root/usr/bin/bearerd" keys generate "$work/chart/store.key" >/dev/null
  mounted "$work/chart/secrets/bearerd" client-secret
  mounted "$work/chart/secrets/bearerd-admin" token
  mounted "$work/chart/secrets/bearerd-store" store.key
  mounted "$work/chart/secrets/bearerd-tls" tls.crt tls.key
  install -d -m 0755 "$work/chart/etc"
  of_the_pod "$work/chart/full.yaml" config >"$work/chart/etc/bearerd.toml"
  mapfile -t environment < <(of_the_pod "$work/chart/full.yaml" environment)
  # A volume belongs to root, and to the group that fsGroup names.
  install -d -m 2775 -o 0 -g 65532 "$work/chart/volume"
  said=$(unshare --net tests/image/names.py unshare --mount --pid --ipc --fork --kill-child tests/image/enter.sh "$work/bundle/rootfs" \
    "$work/chart/volume" "$work/chart/etc" "$work/chart/secrets" "${environment[@]}" check --online --config /etc/bearerd/bearerd.toml 2>&1)
  check 'the pod accepts its configuration' contains "$said" 'configuration ok: /etc/bearerd/bearerd.toml'
  check 'it listens with TLS on all addresses' contains "$said" 'listens on  0.0.0.0:8080 (TLS)'
  check 'its store opens with the key of a secret' contains "$said" 'store /var/lib/bearerd/store: opens with the key'
  check 'and makes none of its own' same "$(find "$work/chart/volume" -name '*.key')" ''
fi
