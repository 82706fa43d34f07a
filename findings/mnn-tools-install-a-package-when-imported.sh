#!/usr/bin/env bash
# MNN 3.6.1: `mnnconvert`, which turns an ONNX file into MNN's format, first runs `pip install -U aliyun-log-python-sdk`, not
# pinned, when it is started and that package is absent: with whatever `pip` comes first on PATH, which need not be of the
# environment that MNN is in. It is an SDK to send logs with; in an environment of other packages its requirements replaced
# protobuf 6 by 5, and onnx could not be imported any more.
# Expected: a converter installs nothing, and what it needs is among its requirements. Here `pip` is a script that writes
# down what it is asked for. Exits 1 where it is not asked.
set -euo pipefail
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
"${PYTHON:-python3}" -m venv "$at/venv"
"$at/venv/bin/python" -m pip install --quiet --disable-pip-version-check MNN==3.6.1 numpy==2.4.6
mkdir "$at/elsewhere"
printf '#!/bin/sh\necho "pip $*" >> "%s"\n' "$at/asked" > "$at/elsewhere/pip"
chmod +x "$at/elsewhere/pip"
PATH="$at/elsewhere:$PATH" "$at/venv/bin/mnnconvert" --version > "$at/said" 2>&1 || true
cat "$at/asked"
grep -q "^pip install -U aliyun-log-python-sdk$" "$at/asked"
echo "MNN 3.6.1: mnnconvert --version asked the first pip on PATH for a package"
