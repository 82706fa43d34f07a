#!/usr/bin/env bash
# `mkdocs build --strict` ends with 1 where a link is broken. With --quiet, which should only print less, the same build ends
# with 0, and says nothing: strict counts warnings in a handler of a logger, whose level --quiet raises above them. So a
# pipeline that builds with both never fails. (MkDocs 1.6.1.)
# Expected: quiet and strict fail as strict does. Exits 1 where that is so.
set -euo pipefail
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
"${PYTHON:-python3}" -m venv "$at/venv"
"$at/venv/bin/python" -m pip install --quiet --disable-pip-version-check mkdocs==1.6.1 click==8.3.1
mkdir "$at/docs"
cd "$at"
echo 'site_name: example' > mkdocs.yml
echo 'A [broken link](nowhere.md).' > docs/index.md
"$at/venv/bin/mkdocs" --version
strict=0 both=0
"$at/venv/bin/mkdocs" build --strict > log 2>&1 || strict=$?
"$at/venv/bin/mkdocs" build --strict --quiet > quiet 2>&1 || both=$?
echo "--strict: exit status $strict, $(grep -c WARNING log) warning; --strict --quiet: exit status $both, $(grep -c WARNING quiet || true) warnings"
[ "$strict" = 1 ] && [ "$both" = 0 ]
