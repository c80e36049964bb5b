#!/usr/bin/env bash
# The one script that checks everything: format, lint, types, tests, a cut of the fault suite among them (the whole of it is
# `make faults`). `--fast` leaves out kafka, slow and faults. What needs brokers mostly waits for them, so it runs beside
# the rest, and is shown when it has ended.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff format --check .
ruff check .
mypy --strict
if [ "${1:-}" = --fast ]; then
  exec python -m pytest -m "not kafka and not slow and not faults and not native"
fi
beside=$(mktemp)
python -m pytest -m "kafka or faults or native" >"$beside" 2>&1 &
brokers=$!
trap 'kill "$brokers" 2>/dev/null || true; rm -f "$beside"' EXIT
status=0
python -m pytest -m "not kafka and not faults and not native" || status=$?
echo "Kafka, faults, and instructions counted:"
wait "$brokers" || status=$?
cat "$beside"
exit "$status"
