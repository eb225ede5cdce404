#!/usr/bin/env bash
# An S3 server for tests: moto's, on loopback, in a Python environment of its own; nothing is installed elsewhere.
#
#   s3.sh fetch          makes the environment in the cache folder
#   s3.sh serve PORT     serves until standard input closes or it is told to stop; what is stored ends with it
#
# Needs Python 3 and, the first time, pip with its registry in reach. Exit code 69: one of them is not there.
# CAIRN_S3_CACHE names the cache folder (default: s3 in the target folder).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${CAIRN_S3_CACHE:-${CARGO_TARGET_DIR:-$here/../../target}/s3}"

unavailable() {
  echo "$1" >&2
  exit 69
}

fetch() {
  command -v python3 > /dev/null || unavailable "the S3 server needs Python 3, which is not here"
  mkdir -p "$cache"
  exec 9> "$cache/lock"
  flock 9
  environment="$cache/env-$(sha256sum "$here/requirements.txt" | cut -c 1-12)"
  if [ ! -e "$environment/complete" ]; then
    rm -rf "$environment"
    python3 -m venv "$environment" > "$cache/fetch.log" 2>&1 ||
      unavailable "the S3 server needs Python's venv module: see $cache/fetch.log"
    timeout 240 "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --timeout 15 --retries 1 \
      --requirement "$here/requirements.txt" > "$cache/fetch.log" 2>&1 ||
      unavailable "the S3 server cannot be fetched: see $cache/fetch.log"
    touch "$environment/complete"
  fi
  exec 9>&-
}

# The server is a child, so that it ends when whoever started this script ends, however that may be.
serve() {
  "$environment/bin/python" -m moto.server -H 127.0.0.1 -p "$1" &
  server=$!
  trap 'kill -KILL "$server" 2> /dev/null; exit 0' EXIT TERM INT
  # Also while the server is stopped by a signal.
  while read -r _; do :; done
}

case "${1:-}" in
  fetch)
    fetch
    echo "$environment"
    ;;
  serve)
    fetch
    serve "$2"
    ;;
  *)
    sed -n '2,9p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
