#!/usr/bin/env bash
# Finds PostgreSQL's programs, or installs them. The tests start servers of their own, on ports and folders of their own.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Debian keeps them out of the way of several versions.
if command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then exit 0; fi
if ! can_install; then do_without PostgreSQL postgresql; fi
# Debian makes a database of the machine's own with the server, and starts it with the machine; nobody here wants it.
install_without_starting postgresql-common
sed -i 's/^#\? *create_main_cluster .*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
install_without_starting postgresql
