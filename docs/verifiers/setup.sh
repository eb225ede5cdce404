#!/bin/sh
# Makes a virtual environment for the Python verifier, with the one package it needs, and prints its interpreter.
#
#   docs/verifiers/setup.sh [FOLDER]        FOLDER: where to; default $CARGO_TARGET_DIR/verifiers/python, or target/…
#
# Nothing is made where the system's python3 has the package already. Nothing is written into the source tree.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-${CARGO_TARGET_DIR:-$here/../../target}/verifiers/python}
has_package() { "$1" -c 'from cryptography.hazmat.primitives.asymmetric import ed25519' 2>/dev/null; }

for python in python3 "$folder/bin/python3"; do
    if command -v "$python" >/dev/null && has_package "$python"; then
        command -v "$python"
        exit 0
    fi
done
command -v python3 >/dev/null || { echo "setup.sh: python3 is missing" >&2; exit 1; }
python3 -m venv "$folder" >&2
"$folder/bin/python3" -m pip install --quiet --disable-pip-version-check 'cryptography>=42' >&2
has_package "$folder/bin/python3"
echo "$folder/bin/python3"
