#!/usr/bin/env bash
# Classifies photographs with curl: examples/curl.sh PHOTOGRAPH...
# curl waits and asks again while the service is busy. It ends with an error on any other problem.
set -euo pipefail

url=${SERVICE_URL:-http://127.0.0.1:8000}
options=(--silent --show-error --fail-with-body --retry 5 --max-time 60)
if [ -n "${SERVICE_KEY:-}" ]; then options+=(--header "X-API-Key: $SERVICE_KEY"); fi

for photograph in "$@"; do
  printf '%s: ' "$photograph"
  curl "${options[@]}" --form "file=@$photograph" "$url/predict?top_k=2"
  echo
done
