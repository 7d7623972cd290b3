# Sourced by the other scripts of this folder.

say() { printf '\033[2m[setup]\033[0m %s\n' "$*" >&2; }

fail() {
  printf '[setup] %s\n' "$*" >&2
  exit 1
}

can_install() { command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; }

do_without() { # WHAT PACKAGES: ends the script. At home the tests that need it skip; in CI nothing may be skipped.
  printf '[setup] %s is missing: tests that need it will skip. Debian: sudo apt-get install %s\n' "$1" "$2" >&2
  if [ "${CI:-}" = true ]; then exit 3; else exit 0; fi
}

install_packages() { # the first of the named distribution packages that can be had, or all of one name
  local name
  if ! command -v apt-get >/dev/null; then
    fail "please install: $1 (or your system's name for it)"
  elif [ "$(id -u)" != 0 ]; then
    fail "please run: sudo apt-get install -y $1"
  fi
  say "installing the system package $1"
  apt-get update -qq || fail "apt-get update failed; check the machine's network and package sources"
  for name in "$@"; do
    if DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$name" >/dev/null; then return; fi
  done
  fail "could not install $1; please install it by hand"
}

install_without_starting() { # PACKAGE: one that Debian would start as a service. 101 means "not allowed" to its installer
  local policy=/usr/sbin/policy-rc.d
  if [ "$(id -u)" = 0 ] && ! [ -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    # shellcheck disable=SC2064 # the name as it is now
    trap "rm -f $policy" EXIT
  fi
  install_packages "$@"
}
