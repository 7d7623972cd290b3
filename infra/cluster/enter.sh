#!/usr/bin/env bash
# Runs a command where the test cluster is: in its network namespace, with KUBECONFIG, GATEWAY, REGISTRY and the others
# that up.sh prints in its environment, and kubectl and ctr on its path. Without a command: a shell.
#
#   infra/cluster/enter.sh kubectl get pods -A
#
# Needs root, and a cluster that runs (exit status 3).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need_root
need_no_foreigner
[ -e "$state/up" ] || refuse 3 "no test cluster runs here: make cluster"
export PATH
PATH=$(part kube):$(part containerd):$PATH
export CONTAINERD_ADDRESS=$run/containerd.sock CONTAINERD_NAMESPACE=k8s.io KUBECACHEDIR=$run/kubectl
# shellcheck disable=SC2046 # a word a line
exec nsenter --net="$netns" env $(places) "${@:-bash}"
