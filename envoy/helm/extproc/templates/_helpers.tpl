{{- define "extproc.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end -}}
{{- end }}

{{- define "extproc.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "extproc.labels" -}}
{{ include "extproc.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "extproc.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* gateway.yaml: what the pod decides, and over it what the user says. */}}
{{- define "extproc.config" -}}
{{- $gateway := dict "listen" "0.0.0.0:10000" "admin" "127.0.0.1:9901" }}
{{- with .Values.envoy.tls }}
{{- if .secretName }}
{{- $tls := dict "certificate_file" "/etc/envoy/tls/tls.crt" "key_file" "/etc/envoy/tls/tls.key" "client_certificates" .clientCertificates }}
{{- if ne .clientCertificates "none" }}
{{- $_ := set $tls "client_ca_file" "/etc/envoy/tls/ca.crt" }}
{{- end }}
{{- $_ := set $gateway "tls" $tls }}
{{- end }}
{{- end }}
{{- $service := dict "listen" "127.0.0.1:9000" "admin" "0.0.0.0:9002" "workers" .Values.extproc.workers "notice_s" 0 "drain_timeout_s" .Values.extproc.drainSeconds }}
{{- $url := "${file:/etc/extproc/secrets/redis-url}" }}
{{- if .Values.redis.enabled }}
{{- $url = printf "redis://:${file:/etc/extproc/secrets/redis-password}@%s-redis:6379" (include "extproc.name" .) }}
{{- end }}
{{- $own := dict "gateway" $gateway "service" $service "redis" (dict "url" $url) "keys" (dict "hash_secret_file" "/etc/extproc/secrets/key-secret") "ledger" (dict "spool_dir" "/var/lib/extproc/spool") }}
{{- toYaml (mergeOverwrite $own (deepCopy .Values.config)) }}
{{- end }}

{{- define "extproc.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "extproc.pod-restricted" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Envoy answers these itself. Where it asks kubelet for a certificate, all that can be seen is that it listens. */}}
{{- define "extproc.probe" -}}
{{- if and .Values.envoy.tls.secretName (eq .Values.envoy.tls.clientCertificates "required") -}}
tcpSocket:
  port: http
{{- else -}}
httpGet:
  path: {{ .path }}
  port: http
  scheme: {{ ternary "HTTPS" "HTTP" (ne .Values.envoy.tls.secretName "") }}
{{- end }}
{{- end }}
