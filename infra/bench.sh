#!/usr/bin/env bash
# Finds or installs what the benchmarks need beside the development lock: the load generator wrk.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if ! command -v wrk >/dev/null; then install_packages wrk; fi
