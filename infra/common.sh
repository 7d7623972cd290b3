# Sourced by the other scripts of this folder.

say() { printf '\033[2m[setup]\033[0m %s\n' "$*" >&2; }

fail() {
  printf '[setup] %s\n' "$*" >&2
  exit 1
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
