#!/usr/bin/env bash
# A schema registry for tests: Apicurio's, in memory, with Confluent's REST API below /apis/ccompat/v7.
#
#   infra/schema-registry.sh fetch       fetch it once (136 MB), and print its folder
#   infra/schema-registry.sh run PORT    one on 127.0.0.1:PORT
#
# Needs Java 17 or newer, and Maven for the first fetch (infra/kafka.sh fetch --install gets both). Without: exit status 3.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/common.sh"

version=2.6.13.Final
digest=3cda1b34aa020fb4ac4dd6a66018d757e81e437f97e20a1f92d366b70091c6ba
java=${JAVA_HOME:+$JAVA_HOME/bin/}java
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sunup
home=$cache/apicurio-$version

download() ( # makes $home
  mkdir -p "$cache"
  temporary=$(mktemp -d -p "$cache")
  trap 'rm -rf "$temporary"' EXIT
  # A Maven repository of its own, thrown away: two runs at once would spoil a shared one.
  mvn --batch-mode --quiet -Dmaven.repo.local="$temporary/maven" dependency:copy -Dmdep.useBaseVersion=true \
    -Dartifact="io.apicurio:apicurio-registry-app:$version:tar.gz:all" -DoutputDirectory="$temporary" >&2 ||
    fail "Maven could not fetch the schema registry"
  sha256sum --quiet --check - <<<"$digest  $temporary/apicurio-registry-app-$version-all.tar.gz" >&2 ||
    fail "Maven fetched another schema registry than this script names"
  mkdir "$temporary/home"
  tar -xzf "$temporary/apicurio-registry-app-$version-all.tar.gz" -C "$temporary/home"
  mv -T "$temporary/home" "$home" 2>/dev/null || [ -d "$home" ] # another run may have been faster
)

fetch() {
  if ! command -v "$java" >/dev/null || ! { [ -d "$home" ] || command -v mvn >/dev/null; }; then
    printf '[setup] a schema registry needs Java 17 and Maven: infra/kafka.sh fetch --install\n' >&2
    exit 3
  fi
  if ! [ -d "$home" ]; then
    say "fetching a schema registry"
    download
  fi
}

case ${1:-} in
  fetch)
    fetch
    printf '%s\n' "$home"
    ;;
  run)
    [ $# = 2 ] || fail "usage: infra/schema-registry.sh fetch | run PORT"
    fetch
    exec "$java" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dquarkus.http.host=127.0.0.1 \
      -Dquarkus.http.port="$2" -jar "$home/apicurio-registry-app-$version-runner.jar"
    ;;
  *) fail "usage: infra/schema-registry.sh fetch | run PORT" ;;
esac
