#!/bin/busybox sh
# vm_guest.sh - /init of the machine that check_vm.sh starts: PUs 0 and 1 on memory node 0, 2 and 3 on
# node 1, a core each, and node 2, which is memory without PUs. What is expected here is known from
# that, not from what the library says of it. The last line counts; then the machine switches off.
# shellcheck disable=SC2046,SC2086 # words
export PATH=/bin HOME=/tmp FP4MOE_TABLE=none
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t cgroup2 cgroup /sys/fs/cgroup
passed=0 failed=0 skipped=0
data=tests/data/layers

check() { # check WHAT COMMAND...: passes when the command succeeds
  what=$1
  shift
  if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)) && echo "FAIL $what"; fi
}

matches() { expr "$1" : "$2\$" >/dev/null; } # matches TEXT PATTERN

run() { # run COMMAND...: succeeds, its output is in /tmp/out
  "$@" >/tmp/out 2>&1 </dev/null
  check "$*: status $?: $(tail -n 3 /tmp/out)" [ $? -eq 0 ]
}

says() { check "no '$1' in: $(head -n 8 /tmp/out)" grep -qF -- "$1" /tmp/out; }

part() { echo "-- $(cut -d ' ' -f 1 /proc/uptime) s: $*"; }

suites() { # suites GLOB...: tests of build/check, none skipped
  build/check 1 $(printf -- '-f %s ' "$@") >/tmp/out 2>&1
  last=$(tail -n 1 /tmp/out)
  check "$*: $(grep -v ' 0 failed' /tmp/out)" matches "$last" '[1-9][0-9]* passed, 0 failed, 0 skipped'
  passed=$((passed + ${last%% *}))
}

# ---- What the machine is, and what the library and hwloc see of it

part 'what the machine is'
check 'AVX2 and no AVX-512' sh -c 'grep -qw avx2 /proc/cpuinfo && ! grep -q avx512 /proc/cpuinfo'
check 'three nodes' [ "$(cat /sys/devices/system/node/online)" = 0-2 ]
part 'tests of the library on it'
suites 'a?linear*' 'records*' homes 'bytes?of*' 'shards?on*' 'explained*' places topology

# ---- The tuner plans and races placements; the table names one, and a context takes it

part 'the tuner'
tiny='--shape 64,64,8,2,mxfp4'
problem='--hidden 64 --intermediate 64 --experts 8 --topk 2 --format mxfp4 --precision int8 --tokens 1'
run build/fp4moe-autotune --quick $tiny --precision int8 --dry-run --output /tmp/tuned
says 'packages=2 nodes=3 cores=4 pus=4'
for place in 'per_core, 2 shards, 4 threads on 2 nodes' 'per_core, 1 shard, 4 threads on 2 nodes' \
  'one_node, 1 shard, 2 threads on 1 nodes' 'per_l3, 2 shards, 2 threads on 2 nodes'; do
  says "$place"
done
run build/fp4moe-autotune --quick $tiny --precision int8 --budget 20s --output /tmp/tuned
says ': the best of 5, noise'
check 'the table'"'"'s placement' grep -q \
  '^placement cores=4 nodes=2 pus=4 ns=[1-9].* word=\(per_core\|one_node\|per_l3\) shards=[12]$' /tmp/tuned
export FP4MOE_TABLE=only:/tmp/tuned
run build/fp4moe explain $problem
says '(table, exact)'
run taskset 0xc build/fp4moe explain $problem
says '(table, nearest: of 4 cores, 2 nodes, 4 PUs; 2, 1, 2 allowed here)'

place() { # place WORD SHARDS: a table that says so and nothing else
  sed -e '/^recipe \|^schedule \|^gain \|^partial /d' -e "s/word=[a-z_0-9]* shards=.*/word=$1 shards=$2/" \
    -e 's/^end .*/end 1/' /tmp/tuned >/tmp/table
  export FP4MOE_TABLE=only:/tmp/table
}

# ---- Threads are where the placement says: that of "fp4moe/1" and so on

threads_of() { # threads_of PROCESS: "1:2 2:1 3:3": each with the PUs that it may use
  for task in "/proc/$1/task"/*; do
    name=$(cat "$task/comm" 2>/dev/null)
    [ "${name#fp4moe/}" = "$name" ] || echo "${name#fp4moe/}:$(sed -n 's/^Cpus_allowed_list:[^0-9]*//p' "$task/status")"
  done | sort | tr '\n' ' '
}

pins() { # pins WORD PINS
  place "$1" 1
  build/fp4moe run $data/gptoss_mxfp4.safetensors --tokens 100000 >/tmp/out 2>&1 &
  tries=0
  until [ "$(threads_of $!)" = "$2 " ] || [ $tries -eq 200 ]; do
    tries=$((tries + 1))
    sleep 0.1
  done
  check "$1: threads on \"$(threads_of $!)\", not \"$2 \"; $(cat /tmp/out)" [ $tries -lt 200 ]
  kill -9 $! && wait $! 2>/dev/null
}

part 'threads'
pins per_core '1:1 2:2 3:3'
pins all_nodes '1:2 2:1 3:3'
pins one_node '1:1'
pins per_l3 '1:2'

# ---- Where the weights are, and that nothing else comes of it

hash_of() { # hash_of LAYER CLASS TOKENS COMMAND...: runs it; y in $hash, where the weights are in $nodes
  of="$data/$1.safetensors --input $data/${1%_modelopt}.io.safetensors --precision $2 --tokens $3"
  shift 3
  rm -f /tmp/y
  run "$@" build/fp4moe run $of --output /tmp/y
  hash=$(sha256sum </tmp/y)
  nodes=$(sed -n 's/^weights: //p' /tmp/out)
}

on() { # on PATTERN: where the weights of the last run are
  check "weights are in \"$nodes\", not $1" matches "$nodes" "$1"
}

mb='0\.0[0-9]*[1-9][0-9]* MB'
part 'weights'
for case in gptoss_mxfp4:f32 gptoss_mxfp4:bf16 gptoss_mxfp4:int8 gptoss_mxfp4:mxfp8 \
  qwen3_nvfp4_modelopt:f32 qwen3_nvfp4_modelopt:bf16 qwen3_nvfp4_modelopt:int8 qwen3_nvfp4_modelopt:nvfp4; do
  for tokens in 1 64; do
    layer=${case%:*} class=${case#*:}
    place per_core 1
    hash_of $layer $class $tokens
    on '1 shard; .*'
    want=$hash
    place per_core 2
    hash_of $layer $class $tokens
    on "2 shards; node 0: $mb; node 1: $mb"
    check "$case, $tokens tokens: other bits in 2 shards than in 1" [ "$hash" = "$want" ]
    place all_nodes 2
    hash_of $layer $class $tokens taskset 0x5
    on "2 shards; node 0: $mb; node 1: $mb"
    check "$case, $tokens tokens: other bits on PUs 0 and 2" [ "$hash" = "$want" ]
    place one_node 1
    hash_of $layer $class $tokens taskset 0xc
    on "1 shard; node 1: $mb"
    check "$case, $tokens tokens: other bits on PUs 2 and 3" [ "$hash" = "$want" ]
    echo "y $layer $class $tokens $want" # for check_vm.sh
  done
done

part 'other hosts'
# No placement in a table; memory of one node only; a PU that is offline.
export FP4MOE_TABLE=none
hash_of gptoss_mxfp4 bf16 9
on "2 shards; node 0: $mb; node 1: $mb"
echo +cpuset >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/some
echo 1 >/sys/fs/cgroup/some/cpuset.mems
hash_of gptoss_mxfp4 bf16 9 sh -c 'echo $$ >/sys/fs/cgroup/some/cgroup.procs && exec "$@"' sh
on "1 shard; node 1: $mb"
echo 0 >/sys/devices/system/cpu/cpu2/online
run build/fp4moe-autotune --quick $tiny --precision int8 --dry-run --output /tmp/none
says 'nodes=3 cores=3 pus=3'
suites 'the?library?agrees*' 'shards?on*'

echo "$passed passed, $failed failed, $skipped skipped"
poweroff -f
