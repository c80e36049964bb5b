#!/usr/bin/env bash
# The one script that checks everything: format, lint, types, tests. `--fast` leaves out kafka and slow; faults, which
# take their time and break brokers on purpose, have a command of their own (make faults).
set -euo pipefail
cd "$(dirname "$0")/.."
ruff format --check .
ruff check .
mypy --strict
if [ "${1:-}" = --fast ]; then
  exec python -m pytest -m "not kafka and not slow and not faults"
fi
exec python -m pytest -m "not faults"
