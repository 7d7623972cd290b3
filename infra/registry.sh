#!/usr/bin/env bash
# Finds a container registry and skopeo, or installs them. The tests start registries of their own, each on a port and
# folder of its own; skopeo reads what was pushed, as a program that knows nothing of Sunup.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

for program in docker-registry skopeo; do
  if command -v "$program" >/dev/null; then continue; fi
  if ! can_install; then do_without "$program" "$program"; fi
  install_without_starting "$program"
done
