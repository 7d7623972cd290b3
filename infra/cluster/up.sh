#!/usr/bin/env bash
# A real Kubernetes of one node with Knative, Kourier and KEDA, in a network namespace of its own.
#
#   infra/cluster/up.sh     build what is missing, start it, wait until everything answers, print where it is
#
# On standard output, one a line: KUBECONFIG, NETNS, ADDRESS (the machine, as pods reach it), GATEWAY, REGISTRY, LOGS and
# STARTED (yes, or no for a cluster that ran already, which is left as it is). Needs root and Go (build.sh), or exit
# status 3; 5 is a network namespace of this name that is somebody else's; 6 a cluster of other programs than these.
# What an up.sh that was killed has left, and a cluster of which a process died, is cleared away first.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need_root
began=$SECONDS
at() { say "test cluster: $* after $((SECONDS - began)) s"; }

install_what_debian_has() {
  local missing=() each
  for each in etcd:etcd-server runc:runc nft:nftables conntrack:conntrack docker-registry:docker-registry ip:iproute2 \
    curl:curl openssl:openssl; do
    command -v "${each%:*}" >/dev/null || missing+=("${each#*:}")
  done
  [ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
  if [ ${#missing[@]} -gt 0 ]; then
    can_install || refuse 3 "the test cluster needs these packages: ${missing[*]}"
    for each in "${missing[@]}"; do install_without_starting "$each"; done
  fi
}

# --- The ground it stands on ------------------------------------------------------------------------------------------
claim() { # before anything is made: down.sh goes by it
  mkdir -p "$state"/{commands,log,processes,cni,registries,registry} "$run"
  chmod 711 "$state"
  printf '%s\n' "TOKEN=$name-$(cat /proc/sys/kernel/random/uuid)" "BOOT=$(boot)" "BY=$root" >"$state/owner"
  printf '%s\n' "$parts" >"$state/parts"
  # Kubelet sets these for the whole machine; down.sh sets them back.
  sysctl -e vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys \
    kernel.keys.root_maxbytes 2>/dev/null | tr -d ' ' >"$state/sysctls"
}

make_network() { # with routes and packet filters of its own; nothing of the machine's is touched
  ip netns add "$name"
  ip -n "$name" link add br0 type bridge
  ip -n "$name" link set br0 alias "$(token)"
  ip -n "$name" link set lo up
  ip -n "$name" addr add "$address/24" dev br0
  ip -n "$name" link set br0 up
  ip -n "$name" route add 10.96.0.0/16 dev br0 # cluster IPs need a way out, although they are changed on it
  ip -n "$name" route add unreachable default # what asks for more of the world is told at once that there is none
  modprobe -q -a br_netfilter overlay 2>/dev/null || true # built into some kernels
  inside sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
}

make_groups() { # a parent for all pods, and one group for the programs and what they start: down.sh empties both
  local group each
  for group in $(groups_of_machine); do
    mkdir -p "$group/$name/programs"
    if [ -e "$group/cpuset.cpus" ] && [ -e "$group/tasks" ]; then # cgroup v1: a new cpuset has no processors
      for each in "$group/$name" "$group/$name/programs"; do
        cat "$group/cpuset.cpus" >"$each/cpuset.cpus"
        cat "$group/cpuset.mems" >"$each/cpuset.mems"
      done
    fi
  done
}

configure() {
  local each
  "$here/pki.sh" "$state"
  : >"$state/resolv.conf" # pods ask CoreDNS only
  for each in "$here"/conf/*; do
    sed "s#@STATE@#$state#g; s#@RUN@#$run#g; s#@NAME@#$name#g; s#@ADDRESS@#$address#g; s#@REGISTRY@#$registry#g" \
      "$each" >"$state/${each##*/}"
  done
  mv "$state/network.conflist" "$state/cni/"
  mkdir -p "$state/registries/$registry"
  printf 'server = "http://%s"\n' "$registry" >"$state/registries/$registry/hosts.toml"
}

# --- Programs ---------------------------------------------------------------------------------------------------------
start() { # NAME COMMAND...: the command is kept, so that program.sh can start it again
  printf '%q ' "${@:2}" >"$state/commands/$1"
  launch "$1"
}

wait_for() { # SECONDS WHAT COMMAND...: until the command succeeds
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ -z "$(stopped)" ] || refuse 1 "the test cluster's $(stopped) ended while up.sh waited until $what: see $state/log"
    [ $SECONDS -lt $end ] || refuse 1 "the test cluster does not come up: waited in vain until $what; see $state/log"
    sleep 0.1
  done
}

apply() { kubectl apply --server-side --force-conflicts --field-manager=infra -f "$(part objects)/$1.yaml" >/dev/null; }
answers() { inside curl -sf -m 2 -o /dev/null "$@"; }
start_apiserver() {
  local pki=$state/pki
  start apiserver "$(part kube)/kube" kube-apiserver --etcd-servers=http://127.0.0.1:2379 --secure-port=6443 \
    --bind-address=0.0.0.0 --advertise-address="$address" --service-cluster-ip-range=10.96.0.0/16 --cert-dir="$pki" \
    --authorization-mode=Node,RBAC --allow-privileged=true --client-ca-file="$pki/ca.crt" \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$pki/accounts.pub" \
    --service-account-signing-key-file="$pki/accounts.key" --kubelet-certificate-authority="$pki/ca.crt" \
    --kubelet-client-certificate="$pki/to-kubelet.crt" --kubelet-client-key="$pki/to-kubelet.key" \
    --kubelet-preferred-address-types=InternalIP --enable-aggregator-routing=true \
    --requestheader-client-ca-file="$pki/front-ca.crt" --requestheader-allowed-names=front-proxy-client \
    --requestheader-extra-headers-prefix=X-Remote-Extra- --requestheader-group-headers=X-Remote-Group \
    --requestheader-username-headers=X-Remote-User --proxy-client-cert-file="$pki/front.crt" \
    --proxy-client-key-file="$pki/front.key"
}

start_store() {
  start etcd etcd --data-dir "$state/etcd" --listen-client-urls http://127.0.0.1:2379 --unsafe-no-fsync \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
  start containerd env PATH="$(part containerd):$PATH" "$(part containerd)/containerd" -c "$state/containerd.toml"
  start registry docker-registry serve "$state/registry.yaml"
}

start_controllers() {
  local kube config=$state/admin.kubeconfig pki=$state/pki
  kube=$(part kube)/kube
  local login=(--kubeconfig="$config" --authentication-kubeconfig="$config" --authorization-kubeconfig="$config"
    --leader-elect=false --cert-dir="$pki")
  start controller-manager "$kube" kube-controller-manager "${login[@]}" --root-ca-file="$pki/ca.crt" \
    --service-account-private-key-file="$pki/accounts.key" --use-service-account-credentials=true \
    --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
    --allocate-node-cidrs=false --requestheader-client-ca-file="$pki/front-ca.crt"
  start scheduler "$kube" kube-scheduler "${login[@]}"
  start kubelet "$kube" kubelet --config="$state/kubelet.yaml" --kubeconfig="$state/kubelet.kubeconfig" \
    --hostname-override=node --node-ip="$address" --root-dir="$state/kubelet" --cert-dir="$state/kubelet/pki"
  start kube-proxy "$kube" kube-proxy --config="$state/kube-proxy.yaml"
  start coredns "$(part coredns)/coredns" -conf "$state/Corefile"
}

import_images() { # pods that are made before their image is there wait long for the next try
  wait_for 30 "containerd answers" "$(part containerd)/ctr" -a "$run/containerd.sock" version
  printf '%s\n' "$(part images)"/*.tar | xargs -P 2 -I FILE "$(part containerd)/ctr" -a "$run/containerd.sock" \
    -n k8s.io images import FILE >"$state/log/images.log" 2>&1
}

# --- Everything, in order ---------------------------------------------------------------------------------------------
parts=$("$here/build.sh")
install_what_debian_has
alone
need_no_foreigner
if is_up; then
  [ "$(cat "$state/parts")" = "$parts" ] ||
    refuse 6 "a cluster of other programs than this working copy's runs (from $(sed -n 's/^BY=//p' "$state/owner"));" \
      "end it first: make cluster-down"
  places
  echo STARTED=no
  exit 0
fi
"$here/down.sh" --locked
claim
make_groups
make_network
configure
start_store
start_apiserver
import_images 9>&- &
images=$!
wait_for 60 "Kubernetes is ready" kubectl get --raw=/readyz
at "Kubernetes answers"
start_controllers
apply definitions
kubectl wait crd --all --for=condition=Established --timeout=30s >/dev/null 2>&1
apply objects
at "Knative's and KEDA's objects are there"
wait $images || refuse 1 "the images could not be imported: see $state/log/images.log"
at "the images are imported"
wait_for 30 "the node is ready" kubectl wait node/node --for=condition=Ready --timeout=1s
apply deployments
wait_for 120 "Knative, Kourier and KEDA are ready" kubectl wait deployments --all -A --for=condition=Available --timeout=5s
at "Knative, Kourier and KEDA are ready"
wait_for 30 "KEDA serves metrics" kubectl get --raw=/apis/external.metrics.k8s.io/v1beta1
wait_for 30 "CoreDNS is ready" answers http://127.0.0.1:8181/ready
wait_for 30 "the registry answers" answers "http://$registry/v2/"
wait_for 30 "Knative's webhook answers" kubectl create --dry-run=server -f "$state/service.yaml"
wait_for 30 "Kourier answers" inside curl -s -m 2 -o /dev/null "http://$gateway/"
: >"$state/up"
at "everything answers"
places
echo STARTED=yes
