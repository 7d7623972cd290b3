#!/usr/bin/env bash
# Ends or starts again one program of the test cluster, for tests of what happens without it.
#
#   infra/cluster/program.sh stop NAME      at once, as kill -9 does
#   infra/cluster/program.sh start NAME     as up.sh started it
#
# NAME is one of apiserver, controller-manager, scheduler, kubelet, kube-proxy, containerd, coredns, etcd and registry.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need_root
[ $# = 2 ] && [ -e "$state/commands/$2" ] || refuse 2 "usage: infra/cluster/program.sh stop|start NAME, in a cluster that runs"
alone
need_no_foreigner
case $1 in
  stop)
    end "$2"
    while is_running "$2"; do sleep 0.01; done
    ;;
  start) is_running "$2" || launch "$2" ;;
  *) refuse 2 "usage: infra/cluster/program.sh stop|start NAME" ;;
esac
