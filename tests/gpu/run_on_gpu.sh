#!/usr/bin/env bash
# On a bare machine with Python, torch and an NVIDIA driver: install icewatch's needs from a folder of
# wheels (first argument) beside that torch, run every GPU check, and write a JSON report (second).
#   pip download --only-binary :all: -d WHEELS tensorrt-rtx cuda-bindings onnxruntime ... (see README)
#   bash tests/gpu/run_on_gpu.sh WHEELS tests/gpu/reports/CARD.json
set -euo pipefail
cd "$(dirname "$0")/../.."
wheels=$(realpath "$1")
report=$2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv --system-site-packages "$scratch/venv"
for wheel in "$wheels"/*.whl; do
    # one by one: a wheel that does not fit this Python must not keep the others out
    "$scratch/venv/bin/python" -m pip install --quiet --no-index --no-deps "$wheel" ||
        echo "left out: $(basename "$wheel")"
done
export ICEWATCH_GPU_CACHE="$scratch/state/engines"
mkdir -m 700 "$scratch/state"
"$scratch/venv/bin/python" -m tests.gpu.report "$report"
