{{- define "trackly-connector.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "trackly-connector.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "trackly-connector.labels" -}}
{{ include "trackly-connector.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "trackly-connector.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "trackly-connector.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "trackly-connector.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* The longest time, in whole seconds, that a stream may take to finish what is in flight. */}}
{{- define "trackly-connector.drainSecs" -}}
{{- $longest := 0.0 -}}
{{- range .Values.settings.streams -}}
{{- $longest = maxf $longest (dig "delivery" "drain_secs" 40 .) -}}
{{- end -}}
{{- ceil $longest | int -}}
{{- end -}}

{{/* How long a pod may take to stop: what the settings say, else the longest drain and 20 s. */}}
{{- define "trackly-connector.graceSecs" -}}
{{- $given := dig "shutdown" "grace_secs" 0 .Values.settings -}}
{{- if $given -}}
{{- ceil $given | int -}}
{{- else -}}
{{- add (include "trackly-connector.drainSecs" .) 20 -}}
{{- end -}}
{{- end -}}

{{- define "trackly-connector.port" -}}
{{- dig "web" "port" 8080 .Values.settings | int -}}
{{- end -}}

{{/* The settings, with what the chart adds, as JSON: other than `toYaml` it writes large numbers as they are. */}}
{{- define "trackly-connector.settings" -}}
{{- $added := dict
  "trackly" (dict "api_key" "${file:/run/secrets/trackly-connector/api_key}")
  "web" (dict "host" "0.0.0.0" "port" 8080)
  "log" (dict "format" "json")
  "shutdown" (dict "grace_secs" (include "trackly-connector.graceSecs" . | int))
-}}
{{- mergeOverwrite $added (deepCopy .Values.settings) | toPrettyJson -}}
{{- end -}}

{{/* What no schema can say. */}}
{{- define "trackly-connector.check" -}}
{{- if .Values.settings.instance_id -}}
{{- fail "settings.instance_id: leave it out; each pod has its own, from its name" -}}
{{- end -}}
{{- if not (dig "trackly" "api_key" "" .Values.settings) -}}
{{- if not .Values.secretFiles.api_key -}}
{{- fail "secretFiles.api_key: name the Secret that holds the platform's API key, such as {secret: trackly, key: api-key}" -}}
{{- end -}}
{{- end -}}
{{- if .Values.keda.enabled -}}
{{- if lt (int .Values.keda.maxReplicas) (int .Values.keda.minReplicas) -}}
{{- fail "keda.maxReplicas: must not be below keda.minReplicas" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.strimzi.enabled (not .Values.strimzi.cluster) -}}
{{- fail "strimzi.cluster: name the Kafka resource" -}}
{{- end -}}
{{- end -}}
