#!/usr/bin/env bash
# Clients of others for tests, unchanged: fetched once, with pinned versions, into a cache folder; nothing is installed elsewhere.
#
#   clients.sh python FILE ARGUMENTS…   runs a Python program with what requirements.txt names
#   clients.sh java CLASS ARGUMENTS…    runs CLASS.java of this folder with the JDBC drivers that pom.xml names
#   clients.sh go ARGUMENTS…            runs the Go program of go/, built with the modules that go.mod names
#   clients.sh fetch python|java|go     only fetches
#
# Needs Python 3; Java 17 and Maven; Go. The first time their registries have to be in reach. Exit code 69: one is not there.
# CAIRN_CLIENTS_CACHE names the cache folder (default: clients in the target folder).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${CAIRN_CLIENTS_CACHE:-${CARGO_TARGET_DIR:-$here/../../target}/clients}"

unavailable() {
  echo "$1" >&2
  exit 69
}

# The folder of what was made from some files, under a name that changes with them.
made_from() {
  echo "$cache/$1-$(cat "${@:2}" | sha256sum | cut -c 1-12)"
}

fetch_python() {
  command -v python3 > /dev/null || unavailable "Python clients need Python 3, which is not here"
  python="$(made_from python "$here/requirements.txt")"
  [ -e "$python/complete" ] && return
  rm -rf "$python"
  python3 -m venv "$python" > "$cache/python.log" 2>&1 || unavailable "Python clients need venv: see $cache/python.log"
  timeout 400 "$python/bin/python" -m pip install --quiet --disable-pip-version-check --timeout 15 --retries 1 \
    --requirement "$here/requirements.txt" > "$cache/python.log" 2>&1 ||
    unavailable "Python clients cannot be fetched: see $cache/python.log"
  touch "$python/complete"
}

fetch_java() {
  command -v java > /dev/null && command -v javac > /dev/null || unavailable "JDBC drivers need Java 17, which is not here"
  java="$(made_from java "$here/pom.xml" "$here"/*.java)"
  [ -e "$java/complete" ] && return
  command -v mvn > /dev/null || unavailable "JDBC drivers need Maven to be fetched, which is not here"
  rm -rf "$java"
  mkdir -p "$java"
  cp "$here/pom.xml" "$java/pom.xml"
  timeout 300 mvn -q -B -f "$java/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
    -DoutputDirectory="$java/lib" > "$cache/java.log" 2>&1 ||
    unavailable "JDBC drivers cannot be fetched: see $cache/java.log"
  javac -cp "$java/lib/*" -d "$java/classes" "$here"/*.java
  touch "$java/complete"
}

fetch_go() {
  command -v go > /dev/null || unavailable "the Go client needs Go, which is not here"
  go="$(made_from go "$here/go/go.mod" "$here/go/go.sum" "$here"/go/*.go)"
  [ -e "$go/client" ] && return
  rm -rf "$go"
  mkdir -p "$go"
  (cd "$here/go" && GOTOOLCHAIN=local timeout 300 go mod download) > "$cache/go.log" 2>&1 ||
    unavailable "the Go client's modules cannot be fetched: see $cache/go.log"
  (cd "$here/go" && GOTOOLCHAIN=local GOFLAGS=-mod=readonly go build -o "$go/unfinished" .)
  mv "$go/unfinished" "$go/client"
}

# Each kind is made by one process at a time.
fetch() {
  mkdir -p "$cache"
  exec 9> "$cache/$1.lock"
  flock 9
  "fetch_$1"
  exec 9>&-
}

case "${1:-}" in
  fetch)
    case "${2:-}" in python | java | go) fetch "$2" ;; *) exit 64 ;; esac
    ;;
  python)
    fetch python
    exec "$python/bin/python" "${@:2}"
    ;;
  java)
    fetch java
    # Arrow's memory in Java reaches into buffers of the JDK.
    exec java -XX:TieredStopAtLevel=1 -XX:-UsePerfData -Xmx384m --add-opens=java.base/java.nio=ALL-UNNAMED \
      -cp "$java/lib/*:$java/classes" "${@:2}"
    ;;
  go)
    fetch go
    exec "$go/client" "${@:2}"
    ;;
  *)
    sed -n '2,11p' "${BASH_SOURCE[0]}"
    exit 64
    ;;
esac
