#!/usr/bin/env bash
# Fills corpus/ with the golden files, so that fuzzing starts from bytes that are accepted.
set -euo pipefail
cd "$(dirname "$0")"
golden=../tests/golden
seed() { # target, names of golden forms
  local target=$1 name
  shift
  mkdir -p "corpus/$target"
  for name in "$@"; do
    case $name in
      *.*) cp "$golden/$name" "corpus/$target/" ;;
      *) xxd -r -p "$golden/$name.hex" > "corpus/$target/$name" ;;
    esac
  done
}
seed record record record-bare
seed signed_headers signed-headers
seed sequences sequences
seed writer_schemas writer-schemas
seed statement register-identity register-stream register-stream-signed anchor rotate-key revoke-identity set-expiry set-role transfer-stream update-stream \
  vote-add vote-parameters attest evidence anchors
seed log_entry anchor anchors-entry
seed header header-0 header
seed block block blocks
seed certificate certificate
seed receipt receipt.json receipts/{one,change,changes,checkpoint,several,rotated}.json
seed state_proof state-proof-present.json state-proof-absent.json
seed note checkpoint.txt
seed login login.txt
seed answer answer
seed answer_evidence answer.json
seed tlog_proof anchor.tlog-proof
mkdir -p corpus/did corpus/tile
printf 'tile/0/x001/x234/067.p/8' > corpus/tile/hashes
printf 'tile/entries/000' > corpus/tile/entries
sed -n 's/^did of device: //p' "$golden/digests.txt" | tr -d '\n' > corpus/did/device
seed genesis city.json genesis.json
seed cbor record anchor header block genesis validators
