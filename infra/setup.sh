#!/usr/bin/env bash
# Makes .venv and installs what a lock file in infra/requirements names, and Sunup itself from this folder.
#
#   infra/setup.sh cpu|gpu|dev
#
# Needs Python 3.11 or 3.12 and nothing else. A second run with nothing changed takes a few milliseconds: a stamp in
# .venv holds the digest of everything that was installed from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. infra/common.sh

wanted=${1:-cpu}
lock=infra/requirements/$wanted.txt
[ -f "$lock" ] || fail "there is no lock called $wanted; choose cpu, gpu or dev"

stamp_of() { # the digest of what an installation of lock $1 is made from
  cat infra/setup.sh infra/requirements/uv.txt "infra/requirements/$1.txt" pyproject.toml | sha256sum | cut -c1-64
}
is_installed() { [ -x .venv/bin/platform ] && [ "$(cat ".venv/.installed-$1" 2>/dev/null)" = "$(stamp_of "$1")" ]; }

# dev holds everything cpu holds, so an up-to-date dev installation serves for cpu.
if is_installed "$wanted" || { [ "$wanted" = cpu ] && is_installed dev; }; then exit 0; fi

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3.11 python3.12 python3 python; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  fail "Python 3.11 or 3.12 was not found. Install it (Debian: apt-get install python3 python3-venv) or set PYTHON."
}

make_venv() { # Debian ships Python without the part of venv that installs pip
  local python=$1
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    install_packages "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv" python3-venv
  fi
  rm -rf .venv
  "$python" -m venv .venv
}

if ! .venv/bin/python -c '' 2>/dev/null; then
  say "making .venv"
  make_venv "$(find_python)"
fi
if ! [ -x .venv/bin/uv ]; then
  say "installing uv"
  .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r infra/requirements/uv.txt
fi

# LightGBM's wheel uses the system's OpenMP library and does not bring one.
if ! .venv/bin/python -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null; then
  install_packages libgomp1
fi

say "installing $lock"
export VIRTUAL_ENV=$PWD/.venv
# Where the system has a store of certificates, it is the one that knows this network's.
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then export UV_SYSTEM_CERTS=true; fi
rm -f .venv/.installed-*
# The two ONNX Runtime distributions write the same files: one must be gone before the other comes.
if [ "$wanted" = gpu ]; then other=onnxruntime; else other=onnxruntime-gpu; fi
if [ -n "$(find .venv/lib -maxdepth 3 -iname "${other//-/_}-*.dist-info" -print -quit)" ]; then
  .venv/bin/uv pip uninstall --quiet onnxruntime onnxruntime-gpu
fi
.venv/bin/uv pip install --quiet --require-hashes -r "$lock"
.venv/bin/uv pip install --quiet --no-deps -e .
# Imported once now, so that Python's compiled files are there and no first command pays for making them (-O: see
# sunup/cli/client.py). It also shows that what was installed can be imported.
say "compiling"
export PYTHONDONTWRITEBYTECODE=
.venv/bin/python -O -c 'import sunup.cli.resident, sunup.lookup.compile.service, sunup.registry.mlflow' &
.venv/bin/python -c 'import functions.fraud.train, sunup.bundle.convert.child, sunup.serve.nursery, sunup.cli.terminal, rich.table'
wait $!
stamp_of "$wanted" >".venv/.installed-$wanted"
