#!/usr/bin/env bash
# perf.sh - `make perf`: records a bench and says which kernels its layer calls spend their time in.
#
#   autotune/perf.sh BUILD ARGUMENTS OF fp4moe bench...
#
# Counts cycles, or where the machine has no PMU (many VMs) time. User space only, so that no
# privilege is needed. A sample belongs to the kernel nearest to it among its frames: register tiles
# count for their row. Kernels of the bench's own check against C are left out, as are its ceilings.
# The record stays in BUILD/perf.data.
set -u
build=$1
shift
data=$build/perf.data
out=$(mktemp)
trap 'rm -f "$out"' EXIT

say() { echo "perf: $*" >&2; }

# can_count EVENT: perf counts it here.
can_count() {
  perf stat -x, -e "$1" true 2>&1 | grep -qE "^[0-9.]+,[^,]*,$1"
}

command -v perf >/dev/null || { say "there is no perf here"; exit 1; }
if can_count cycles:u; then
  event=cycles:u
elif can_count task-clock:u; then
  event=task-clock:u
  say "this machine shows no PMU: samples of time, not of cycles"
else
  say "the system lets this user measure nothing (kernel.perf_event_paranoid is" \
    "$(cat /proc/sys/kernel/perf_event_paranoid)): as root, sysctl kernel.perf_event_paranoid=2, or run this as root"
  exit 1
fi

# A status of 1 is the bench's doubt of its own figures: a profiler costs some.
perf record -q -e "$event" -F "${PERF_HZ:-999}" --call-graph fp -o "$data" -- \
  "$build/fp4moe" bench "$@" | tee "$out"
[ "${PIPESTATUS[0]}" -le 1 ] && grep -q '^ *[0-9]' "$out" || { say "no record"; exit 1; }

# The kernels that served, as the bench lists them.
kernels=$(grep '^ *[0-9]' "$out" | grep -oE 'fp4moe_[a-z0-9_]+' | sort -u | tr '\n' ' ')
perf script -i "$data" -F comm,ip,sym 2>/dev/null | awk -v kernels="$kernels" -v data="$data" -v event="$event" '
  BEGIN { n = split(kernels, list, " "); for (i = 1; i <= n; i++) served[list[i]] = 1 }
  function leave() { # a sample
    if (row != "" || inside && !reference) {
      all++
      if (row == "") row = "between kernels"
      count[row]++
      leaves[row, leaf]++
      if (leaves[row, leaf] > leaves[row, top[row]]) top[row] = leaf
    }
    row = leaf = ""; frames = inside = reference = 0
  }
  /^$/ { leave(); next }
  /^[ \t]+[0-9a-f]+ / {
    if (!frames++) leaf = $2
    if (row == "" && ($2 in served) && !inside) row = $2
    if ($2 == "work" || $2 ~ /^fp4moe_call_/) inside = 1
    if ($2 ~ /_c$/) reference = 1
  }
  END {
    leave()
    if (!all) { print "perf: no sample in a layer call"; exit 1 }
    printf "# %d samples of %s in layer calls\n  share  samples  kernel\n", all, event
    sort = "sort -rn"
    for (r in count) printf "%6.1f%%  %7d  %s\n", 100 * count[r] / all, count[r], r | sort
    close(sort)
    for (r in count) if (r != "between kernels" && count[r] > count[hot]) hot = r
    if (hot) printf "# its instructions:  perf annotate --stdio -i %s -s %s\n", data, top[hot]
    printf "# all symbols:       perf report --no-children -g caller -i %s\n", data
  }'
