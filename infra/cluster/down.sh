#!/usr/bin/env bash
# Ends the test cluster and takes away everything that up.sh has made: processes, pods, mounts, cgroups, the network
# namespace, its state. What it kept in ~/.cache/sunup stays.
#
#   infra/cluster/down.sh
#
# Only what up.sh started is ended: a process with the id and the time of its start that were written down, or one in the
# control group that up.sh made. A network namespace of this name that is somebody else's is left alone: exit status 5.
# It may be killed and run again at any point.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need_root
if [ "${1:-}" != --locked ]; then alone; fi # up.sh has the lock already
need_no_foreigner
if ! [ -e "$state" ]; then exit 0; fi

end_processes() { # those of this boot: after it, the ids are somebody else's
  local file
  [ "$(sed -n 's/^BOOT=//p' "$state/owner" 2>/dev/null)" = "$(boot)" ] || return 0
  for file in "$state"/processes/*; do
    if [ -e "$file" ]; then end "${file##*/}"; fi
  done
}

members() { # of our control group and those below: pods, and what containerd started for them
  find "$(group)" -name cgroup.procs -exec cat {} + 2>/dev/null || true
}

end_pods() { # again and again: one that is being made when its maker dies appears late
  local end=$((SECONDS + 30)) pids
  while pids=$(members | xargs) && [ -n "$pids" ]; do
    # shellcheck disable=SC2086 # several words
    kill -9 $pids 2>/dev/null || true
    [ $SECONDS -lt $end ] || refuse 1 "these processes of the test cluster cannot be ended: $pids"
    sleep 0.05
  done
}

unmount() { # the deepest first; detached, so that somebody who looks into one does not hold it
  local place
  awk -v state="$state/" -v run="$run/" 'index($2, state) == 1 || index($2, run) == 1 { print $2 }' /proc/self/mounts |
    sort -r | while read -r place; do umount -l "$place" 2>/dev/null || true; done
  # What is mounted from elsewhere must not be removed with the rest.
  ! grep -qE " ($state|$run)/" /proc/self/mounts || refuse 1 "there are mounts left below $state or $run: see /proc/mounts"
}

remove_groups() {
  local top end=$((SECONDS + 10))
  for top in /sys/fs/cgroup /sys/fs/cgroup/*/; do # runc makes one where nobody asked it to, too
    while [ -d "$top/$name" ] && ! find "$top/$name" -depth -type d -exec rmdir {} + 2>/dev/null; do
      [ $SECONDS -lt $end ] || refuse 1 "the control group $top/$name cannot be removed"
      sleep 0.05 # the kernel lets go of a dead process's group a little later
    done
  done
}

remove_strays() { # what kubelet and the network plugins keep outside our folders
  find /var/log/containers -lname "$state/*" -delete 2>/dev/null || true
  { grep -rlsF "$run/" /var/lib/cni/results || true; } | xargs -r rm -f
}

restore_settings() { # of the kernel, as they were before kubelet changed them
  if [ -s "$state/sysctls" ]; then xargs sysctl -qw <"$state/sysctls"; fi
}

end_processes
end_pods
unmount
remove_strays
remove_groups
restore_settings
if [ -e "$netns" ]; then ip netns delete "$name"; fi
rm -rf --one-file-system "$run" # its owner's mark goes last: what was killed before this line can be done again
find "$state" -mindepth 1 -maxdepth 1 ! -name owner -exec rm -rf --one-file-system {} +
rm -rf "$state"
