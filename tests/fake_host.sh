#!/bin/sh
# fake_host.sh - runs a command where this machine looks like another: in a mount namespace of its
# own, with files of sysfs and of the cgroup replaced.
#
#   tests/fake_host.sh smt COMMAND...     PUs 0 and 1 are of one core
#   tests/fake_host.sh nodes COMMAND...   the second half of the PUs has a memory node of its own
#   tests/fake_host.sh quota COMMAND...   the CPU quota is half a CPU
#
# Exit status 125: the system gives no such namespace (it wants root, or user namespaces).
if [ "$1" = inside ]; then
  shift
  kind=$1
  shift
  fake=$(mktemp -d) || exit 125
  trap 'rm -rf "$fake"' EXIT
  pus=$(nproc --all)
  case $kind in
  smt)
    [ "$pus" -ge 2 ] || exit 125
    echo 0-1 >"$fake/list"
    echo 3 >"$fake/mask"
    echo 0 >"$fake/id"
    for pu in 0 1; do
      for file in thread_siblings_list:list core_cpus_list:list thread_siblings:mask core_cpus:mask core_id:id; do
        at=/sys/devices/system/cpu/cpu$pu/topology/${file%:*}
        [ ! -e "$at" ] || mount --bind "$fake/${file#*:}" "$at" || exit 125
      done
    done
    ;;
  nodes)
    [ "$pus" -ge 2 ] || exit 125
    half=$((pus / 2))
    for file in online possible has_cpu has_memory has_normal_memory; do echo 0-1 >"$fake/$file"; done
    mkdir "$fake/node0" "$fake/node1"
    echo "0-$((half - 1))" >"$fake/node0/cpulist"
    echo "$half-$((pus - 1))" >"$fake/node1/cpulist"
    printf '%x\n' $(((1 << half) - 1)) >"$fake/node0/cpumap"
    printf '%x\n' $((((1 << (pus - half)) - 1) << half)) >"$fake/node1/cpumap"
    for node in 0 1; do
      sed "s/^Node 0/Node $node/" /sys/devices/system/node/node0/meminfo >"$fake/node$node/meminfo"
      echo '10 10' >"$fake/node$node/distance"
    done
    mount --bind "$fake" /sys/devices/system/node || exit 125
    ;;
  quota)
    mount -t tmpfs none /sys/fs/cgroup || exit 125
    echo '50000 100000' >/sys/fs/cgroup/cpu.max
    ;;
  *) exit 125 ;;
  esac
  "$@"
  exit
fi
for how in '-m' '-rm'; do
  unshare $how true 2>/dev/null && exec unshare $how "$0" inside "$@"
done
exit 125
