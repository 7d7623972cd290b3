#!/usr/bin/env bash
# Finds systemd-analyze, or installs it: the test has it look at sunup.service. Nothing is started.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if command -v systemd-analyze >/dev/null; then exit 0; fi
if ! can_install; then do_without systemd-analyze systemd; fi
install_packages systemd
