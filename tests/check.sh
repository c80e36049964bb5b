#!/usr/bin/env bash
# The one script that checks everything: format, lint, types, tests, two minutes of faults among them (the whole suite of
# faults is `make faults`). `--fast` leaves out kafka, slow and faults.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff format --check .
ruff check .
mypy --strict
if [ "${1:-}" = --fast ]; then
  exec python -m pytest -m "not kafka and not slow and not faults"
fi
exec python -m pytest
