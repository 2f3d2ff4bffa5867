{{- define "recstore.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end -}}
{{- $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "recstore.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "recstore.labels" -}}
{{ include "recstore.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* The spec of a pod of one process. Takes root, component (the key of its values) and command (words with spaces between). */}}
{{- define "recstore.pod" -}}
{{- $values := .root.Values -}}
{{- $own := index $values .component -}}
{{- $resources := $own.resources -}}
{{- if $own.gpu }}{{ $resources = mustMergeOverwrite (deepCopy $resources) (dict "limits" (dict "nvidia.com/gpu" 1)) }}{{ end -}}
automountServiceAccountToken: false
enableServiceLinks: false # its variables, such as RECSTORE_PORT, are no settings
terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
{{- with $values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  seccompProfile: { type: RuntimeDefault }
volumes:
  - name: tmp
    emptyDir: {}
containers:
  - name: {{ .component }}
    image: "{{ $values.image.repository }}:{{ $values.image.tag | default (printf "v%s" .root.Chart.AppVersion) }}{{ if $own.gpu }}-gpu{{ end }}"
    imagePullPolicy: {{ $values.image.pullPolicy }}
    command: {{ splitList " " .command | toJson }}
    env:
      - name: RECSTORE_DATABASE_URL
        valueFrom:
          secretKeyRef:
            name: {{ required "Set database.existingSecret to the name of a Secret with the database's URL. This creates one: kubectl create secret generic recstore-database --from-literal=url=postgresql://.." $values.database.existingSecret }}
            key: {{ $values.database.key }}
      {{- with $values.broker.existingSecret }}
      - name: RECSTORE_BROKER_URL
        valueFrom:
          secretKeyRef:
            name: {{ . }}
            key: {{ $values.broker.key }}
      {{- end }}
      - name: RECSTORE_DEVICE
        value: {{ ternary "auto" "cpu" (default false $own.gpu) }}
      {{- if $own.gpu }}
      - name: NVIDIA_DRIVER_CAPABILITIES
        value: compute,utility
      {{- end }}
      - name: RECSTORE_METRICS_HOST
        value: 0.0.0.0
      - name: RECSTORE_METRICS_PORT
        value: "9469"
      {{- if not $values.settings.RECSTORE_THREADS }}
      - name: RECSTORE_THREADS # the CPUs of the limit; without one, the node's
        valueFrom: { resourceFieldRef: { resource: limits.cpu } }
      {{- end }}
      {{- range $name, $value := $values.settings }}
      - name: {{ $name }}
        value: {{ ternary $value (toJson $value) (kindIs "string" $value) | quote }}
      {{- end }}
      {{- with $values.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- if eq .component "beat" }}
    readinessProbe: # the database answers and is current, the broker answers, the last dispatch is recent
      exec: { command: [recstore, health] }
      periodSeconds: 60
      timeoutSeconds: 30
    {{- else if ne .component "migrate" }}
    ports:
      - { name: metrics, containerPort: 9469 }
    livenessProbe:
      httpGet: { path: /live, port: metrics }
      periodSeconds: 30
      timeoutSeconds: 5
    readinessProbe:
      httpGet: { path: /ready, port: metrics }
      timeoutSeconds: 10
    {{- end }}
    {{- with $resources }}
    resources: {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: { drop: [ALL] }
    volumeMounts:
      - { name: tmp, mountPath: /tmp }
{{- end -}}
