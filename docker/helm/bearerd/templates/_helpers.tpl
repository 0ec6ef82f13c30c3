{{- define "bearerd.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "bearerd.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "bearerd.labels" -}}
{{ include "bearerd.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "bearerd.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The names of the Service, and those that were given. */}}
{{- define "bearerd.hosts" -}}
{{- $name := include "bearerd.fullname" . -}}
{{- $ours := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) -}}
{{- concat .Values.allowedHosts $ours | uniq | join "," -}}
{{- end -}}

{{/* What the chart decides, over the file. */}}
{{- define "bearerd.env" -}}
- { name: BEARERD_SERVER__LISTEN, value: "0.0.0.0:8080" }
- { name: BEARERD_SERVER__PUBLIC_URL, value: {{ required "publicUrl is needed: how applications and browsers reach it" .Values.publicUrl | quote }} }
- { name: BEARERD_SERVER__ALLOWED_HOSTS, value: {{ include "bearerd.hosts" . | quote }} }
- { name: BEARERD_ADMIN__LISTEN, value: "0.0.0.0:8081" }
- { name: BEARERD_ADMIN__TOKEN_FILE, value: /run/secrets/bearerd-admin/token }
- { name: BEARERD_STORE__PATH, value: /var/lib/bearerd/store }
- { name: BEARERD_STORE__KEY_FILE, value: {{ ternary "/run/secrets/bearerd-store" "/var/lib/bearerd/store" (ne .Values.store.keySecret.name "") }}/store.key }
{{- if .Values.tls.secretName }}
- { name: BEARERD_SERVER__TLS__CERT_FILE, value: /run/secrets/bearerd-tls/tls.crt }
- { name: BEARERD_SERVER__TLS__KEY_FILE, value: /run/secrets/bearerd-tls/tls.key }
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
