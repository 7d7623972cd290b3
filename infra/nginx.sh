#!/usr/bin/env bash
# Finds an nginx, or installs one. The test starts its own, on a port and folder of its own.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if PATH=$PATH:/usr/sbin command -v nginx >/dev/null; then exit 0; fi
if ! can_install; then do_without nginx nginx-light; fi

# Debian starts a service when it installs one. This one is not wanted: 101 means "not allowed" to its installer.
policy=/usr/sbin/policy-rc.d
if [ "$(id -u)" = 0 ] && ! [ -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
install_packages nginx-light nginx
