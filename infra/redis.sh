#!/usr/bin/env bash
# Finds a redis-server, or installs one. The tests start their own, on a port and folder of their own.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if command -v redis-server >/dev/null; then exit 0; fi
if ! can_install; then do_without redis-server redis-server; fi
install_without_starting redis-server
