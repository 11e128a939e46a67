{{- define "azimuth.labels" -}}
app.kubernetes.io/name: azimuth
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "azimuth.selector" -}}
app.kubernetes.io/name: azimuth
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "azimuth.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* What every pod has, but for its containers. */ -}}
{{- define "azimuth.pod" -}}
automountServiceAccountToken: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- /* What every container has. */ -}}
{{- define "azimuth.container" -}}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
envFrom:
  - secretRef: {name: {{ required "secretName: name a secret with AZIMUTH_DATABASE_URL and AZIMUTH_API_KEYS" .Values.secretName }}}
{{- end }}

{{- define "azimuth.settings" -}}
{{- range $name, $value := .Values.settings }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}

{{- define "azimuth.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: models, mountPath: /var/lib/azimuth/models}
{{- end }}

{{- define "azimuth.volumes" -}}
- {name: tmp, emptyDir: {}}
{{- if .Values.models.existingClaim }}
- {name: models, persistentVolumeClaim: {claimName: {{ .Values.models.existingClaim }}}}
{{- else }}
- {name: models, emptyDir: {}}
{{- end }}
{{- end }}

{{- define "azimuth.scheme" -}}
{{ if .Values.settings.AZIMUTH_TLS_CERTIFICATE }}HTTPS{{ else }}HTTP{{ end }}
{{- end }}
