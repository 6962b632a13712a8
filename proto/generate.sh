#!/bin/sh
# Writes the stubs of proto/ into the folder given (default: the repository's own). A test compares the two.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/..}
python=${PYTHON:-$here/../.venv/bin/python}
exec "$python" -m grpc_tools.protoc -I"$here" --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" \
    framefeed/v1/decode.proto
