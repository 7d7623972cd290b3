# Sourced by the scripts of this folder: where things are, and whose they are. CLUSTER_NAME makes another cluster beside
# the usual one, with the same addresses in a network namespace of its own.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
. "$root/infra/common.sh"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/sunup/cluster
python=${CLUSTER_PYTHON:-$root/.venv/bin/python}
name=${CLUSTER_NAME:-sunup-cluster} # of the network namespace and of the cgroups
state=/var/lib/$name        # what a running cluster keeps: certificates, etcd's data, images, logs
run=/run/$name              # its sockets; a socket's path may have 108 bytes only
netns=/run/netns/$name
address=10.77.0.1           # of the node, inside the network namespace
gateway=10.96.0.80          # of Kourier, a cluster IP
registry=$address:5000
PATH=$PATH:/usr/local/go/bin:/usr/sbin:/sbin

refuse() { # STATUS WORDS
  printf '[cluster] %s\n' "${*:2}" >&2
  exit "$1"
}

need_root() { [ "$(id -u)" = 0 ] || refuse 3 "the test cluster needs root: it makes network namespaces, mounts and cgroups"; }

alone() { # one script at a time changes the cluster; the kernel takes the lock back from one that is killed
  exec 9>"/run/lock/$name"
  flock -w 300 9 || refuse 1 "another up.sh or down.sh has been busy for 5 minutes"
}

inside() { nsenter --net="$netns" "$@" 9>&-; } # only the network: the cgroups stay in sight

# --- Processes: a process is the one that was started here if its id and the time it started are those written down ------
started_at() { # PID: in clock ticks after boot, nothing for one that is gone or dead
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  set -- ${stat##*) } # its name may hold spaces
  [ "$1" != Z ] && printf '%s\n' "${20}"
}

is_running() { # NAME: of a file in $state/processes, "PID TIME"
  local pid time
  read -r pid time <"$state/processes/$1" 2>/dev/null && [ "$(started_at "$pid")" = "$time" ]
}

launch() { # NAME: in the namespace and in our control group, with its id and the time it started written down
  local process=$1
  eval "set -- $(cat "$state/commands/$process")"
  (
    echo "$BASHPID" >"$(group)/programs/cgroup.procs"
    exec setsid nsenter --net="$netns" "$@"
  ) >>"$state/log/$process.log" 2>&1 </dev/null 9>&- &
  printf '%s %s\n' "$!" "$(started_at $!)" >"$state/processes/$process"
}

end() { # NAME: at once
  local pid
  if is_running "$1"; then
    read -r pid _ <"$state/processes/$1"
    kill -9 "$pid" 2>/dev/null || true
  fi
}

# --- Whose cluster: up.sh writes a token down before it makes anything, and the namespace's bridge wears it -------------
token() { sed -n 's/^TOKEN=//p' "$state/owner" 2>/dev/null; }
boot() { cat /proc/sys/kernel/random/boot_id; }

is_foreign() { # a network namespace of this name that up.sh did not make
  [ -e "$netns" ] || return 1
  [ -n "$(token)" ] || return 0
  local bridge
  bridge=$(ip -n "$name" -o link show dev br0 2>/dev/null) || return 1 # up.sh was killed before it made the bridge
  [[ $bridge != *"alias $(token)"* ]]
}

need_no_foreigner() {
  if is_foreign; then
    refuse 5 "the network namespace $name was not made by infra/cluster/up.sh, so nothing is touched." \
      "If nobody needs it: ip netns delete $name"
  fi
}

part() { # PART: its folder, as build.sh has left it
  sed -n "s/^$1=//p" "$state/parts" 2>/dev/null
}

# --- Control groups ---------------------------------------------------------------------------------------------------
groups_of_machine() { # the top of every hierarchy that pods live in: one with cgroup v2, one per controller before
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    printf '/sys/fs/cgroup\n'
  else
    find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d ! -name unified
  fi
}

group() { # of the cluster: its programs are in `programs`, its pods in the others below
  local top=/sys/fs/cgroup
  if ! [ -e $top/cgroup.controllers ]; then top=$top/pids; fi
  printf '%s\n' "$top/$name"
}

# --- What runs --------------------------------------------------------------------------------------------------------
stopped() { # the programs that up.sh started and that are gone
  local each
  for each in "$state"/processes/*; do is_running "${each##*/}" || printf '%s\n' "${each##*/}"; done | xargs
}

kubectl() { KUBECACHEDIR=$run/kubectl inside "$(part kube)/kubectl" --kubeconfig="$state/admin.kubeconfig" "$@"; }

is_up() { # whole: up.sh came to its end, and nothing of it has ended since. A busy machine may answer late.
  local try
  [ -e "$state/up" ] && [ "$(sed -n 's/^BOOT=//p' "$state/owner")" = "$(boot)" ] || return 1
  for try in {1..10}; do
    [ -z "$(stopped)" ] || return 1
    if kubectl get --raw=/readyz --request-timeout=5s >/dev/null 2>&1; then return; fi
    sleep 0.5
  done
  return 1
}

places() { # where it is, as up.sh prints it
  printf '%s\n' "KUBECONFIG=$state/admin.kubeconfig" "NETNS=$netns" "ADDRESS=$address" "GATEWAY=http://$gateway" \
    "REGISTRY=$registry" "LOGS=$state/log"
}
