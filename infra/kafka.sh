#!/usr/bin/env bash
# A Kafka broker of one node for tests and the demo, from the jars that infra/kafka pins.
#
#   infra/kafka.sh fetch [--install]              fetch the jars once, and print their folder
#   infra/kafka.sh run FOLDER PORT [KEY=VALUE]    a broker on 127.0.0.1:PORT with its data in FOLDER; more properties last
#
# Needs Java 17 or newer, and Maven for the first fetch. --install gets what is missing where it may (Debian, as root);
# where it may not, that is a failure in CI only, because the tests that need a broker skip. Otherwise: exit status 3.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/common.sh"

java=${JAVA_HOME:+$JAVA_HOME/bin/}java
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sunup
home=$cache/kafka-$(cat "$here/kafka/pom.xml" "$here/kafka/jars.sha256" | sha256sum | cut -c1-12)

java_is_new() { [[ $("$java" -version 2>&1) =~ version\ \"([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge 17 ]; }

need() { # PACKAGE...: install them where --install was given, and end the script where that cannot be
  if [ "$install" = no ]; then
    printf '[setup] a Kafka broker needs Java 17 and Maven. Debian: sudo apt-get install %s\n' "$*" >&2
    exit 3
  fi
  if ! can_install; then do_without "what a Kafka broker needs" "$*"; fi
  if [[ $* = *jre* ]]; then
    install_packages openjdk-17-jre-headless default-jre-headless
    java_is_new || fail "$java is older than Java 17; set JAVA_HOME"
    trust_this_network
  fi
  if [[ $* = *maven* ]]; then install_packages maven; fi
}

trust_this_network() { # a new Java knows the distribution's certificates, but not every one that was added to them
  local certificate
  for certificate in /usr/local/share/ca-certificates/*.crt; do
    [ -e "$certificate" ] || continue
    "${java%java}keytool" -importcert -noprompt -cacerts -storepass changeit -alias "$(basename "$certificate")" \
      -file "$certificate" >/dev/null 2>&1 || say "Java does not take $certificate, or has it already"
  done
}

properties() { # FOLDER PORT [KEY=VALUE]...: server.properties; where a key comes twice the last one counts
  local folder=$1 port=$2
  shift 2
  cat "$here/kafka/server.properties"
  # An address of its own keeps the controller's port free of everything that listens on 127.0.0.1.
  printf '%s\n' "log.dirs=$folder" "advertised.listeners=PLAINTEXT://127.0.0.1:$port" \
    "listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.2:$((port - 1))" \
    "controller.quorum.voters=1@127.0.0.2:$((port - 1))" "$@"
}

download() ( # makes $home: the jars, and `fresh`, a data folder as Kafka formats it
  mkdir -p "$cache"
  temporary=$(mktemp -d -p "$cache")
  trap 'rm -rf "$temporary"' EXIT
  # A Maven repository of its own, thrown away: two runs at once would spoil a shared one.
  mvn --batch-mode --quiet -f "$here/kafka" -Dmaven.repo.local="$temporary/maven" \
    dependency:copy-dependencies -DoutputDirectory="$temporary/home" >&2 || fail "Maven could not fetch Kafka"
  (cd "$temporary/home" && LC_ALL=C sha256sum -- *.jar) | diff - "$here/kafka/jars.sha256" >&2 ||
    fail "Maven fetched other jars than infra/kafka/jars.sha256 lists"
  properties "$temporary/home/fresh" 9092 >"$temporary/server.properties"
  "$java" -cp "$temporary/home/*" kafka.tools.StorageTool format --cluster-id c3VudXAtdGVzdC1rYWZrYQ \
    --config "$temporary/server.properties" >/dev/null
  mv -T "$temporary/home" "$home" 2>/dev/null || [ -d "$home" ] # another run may have been faster
)

fetch() {
  local missing=()
  if ! java_is_new; then missing+=(openjdk-17-jre-headless); fi
  if ! [ -d "$home" ] && ! command -v mvn >/dev/null; then missing+=(maven); fi
  if [ ${#missing[@]} -gt 0 ]; then need "${missing[@]}"; fi
  if ! [ -d "$home" ]; then
    say "fetching Kafka"
    download
  fi
}

run() { # FOLDER PORT [KEY=VALUE]...: becomes the broker: this process's id is its id, SIGTERM stops it
  local folder port=$2
  mkdir -p "$1"
  folder=$(cd "$1" && pwd)
  shift 2
  fetch
  properties "$folder/data" "$port" "$@" >"$folder/server.properties"
  if ! [ -e "$folder/data" ]; then cp -R "$home/fresh" "$folder/data"; fi
  exec "$java" -Xms128m -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
    -Dlog4j2.configurationFile="$here/kafka/log4j2.xml" -cp "$home/*" kafka.Kafka "$folder/server.properties"
}

install=no
case ${1:-} in
  fetch)
    if [ "${2:-}" = --install ]; then install=yes; fi
    fetch
    printf '%s\n' "$home"
    ;;
  run)
    [ $# -ge 3 ] || fail "usage: infra/kafka.sh run FOLDER PORT [KEY=VALUE]..."
    shift
    run "$@"
    ;;
  *) fail "usage: infra/kafka.sh fetch [--install] | run FOLDER PORT [KEY=VALUE]..." ;;
esac
