#!/bin/sh
# check_tuner.sh - the program fp4moe-autotune from outside: what it says it would do, that a table
# it writes is read, that a run which ends early leaves a valid table and goes on later, and how it
# fails. Then what it does with the placements of another machine, and how its table is used with
# less of this one. Shapes are tiny: nothing here depends on what was measured.
#
#   tests/check_tuner.sh [BUILD]      BUILD: build
#
# Exit status 1 if something failed; the last line counts.
build=${1:-build}
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0 skipped=0
unset FP4MOE_KERNEL FP4MOE_CPU FP4MOE_TABLE
table=$scratch/table
small='--quick --output '$table' --shape 64,64,8,2,mxfp4'

check() { # check WHAT COMMAND...: passes when the command succeeds
  what=$1
  shift
  if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)) && echo "FAIL $what"; fi
}

tuner() { # tuner ARGUMENTS...: exit status in $status
  "$build/fp4moe-autotune" "$@" >"$scratch/out" 2>"$scratch/err" </dev/null
  status=$?
}

out() { grep -qF -- "$1" "$scratch/out"; }
err() { grep -qF -- "$1" "$scratch/err"; }
partial() { grep -q '^partial ' "$table"; }

all_json() { # all_json WHAT: every line of stdout is an object
  check "$1: JSON lines" [ "$(grep -c '^{".*}$' "$scratch/out")" -eq "$(wc -l <"$scratch/out")" ]
}

refuses() { # refuses WORD ARGUMENTS...: exit 2, and stderr names the thing
  word=$1
  shift
  tuner "$@"
  check "$* exits with 2, not $status" [ $status -eq 2 ]
  check "$* names $word: $(cat "$scratch/err")" err "$word"
}

tuner $small --dry-run
check 'dry run' [ $status -eq 0 ]
check 'dry run counts' out 'candidates in all'
check 'dry run writes nothing' [ ! -e "$table" ]

tuner $small --dry-run --json
all_json 'dry run'
tuner $small --precision bf16 --json
check 'tune' [ $status -eq 0 ]
check 'json' out '"refused":0'
check 'json names the table' out '"finished":true'
all_json 'tune'
check 'table is whole' grep -q '^end ' "$table"
check 'table is finished' [ "$(grep -c '^partial ' "$table")" -eq 0 ]
recipes=$(grep -c '^recipe .*class=bf16' "$table")
check 'recipes' [ "$recipes" -gt 0 ]
check 'the library reads it' sh -c "FP4MOE_TABLE=only:$table '$build/fp4moe' explain --hidden 64 \
  --intermediate 64 --experts 8 --topk 2 --format mxfp4 --precision bf16 --tokens 1 >/dev/null"

tuner $small --precision bf16 --verify
check 'verify ends with 0 or 1' [ $status -le 1 ]
check 'verify says' out 'in the table'
tuner $small --precision bf16 --verify --json
check 'verify, json' out '"lost":'
all_json 'verify'
tuner $small --precision bf16 --verify --quiet
check 'verify, quiet' [ ! -s "$scratch/out" ]

check 'gains are stored' [ "$(grep -c '^gain .*class=bf16' "$table")" -eq 8 ]
tuner report --table "$table" --against "$table"
check 'report' [ $status -eq 0 ]
check 'report of gains' out '| bf16 | 8 |'
check 'report of picks' out '| the same recipe | 16 | 100.0 % |'
sed '/^gain /d; s/^end .*/end '"$(grep -c -E '^(recipe|schedule) ' "$table")"'/' "$table" >"$scratch/without"
tuner report --table "$scratch/without"
check 'report without gains' out 'The table says nothing of it'
refuses 'no-such-table' report --table "$scratch/no-such-table"
refuses '--colour' report --colour
refuses '--output' report --table "$table" --no-measure

# The report as a directory; without gnuplot it has no plots and says why.
tuner report --table "$table" --output "$scratch/report" --no-measure
check 'report directory' [ $status -eq 0 ]
check 'winners' grep -q '^| 1 | fp4moe_gemv' "$scratch/report/REPORT.md"
nowhere=$scratch/no-gnuplot
(PATH=$nowhere && tuner report --table "$table" --output "$nowhere" --no-measure && [ $status -eq 0 ])
check 'no gnuplot' err 'gnuplot is not installed'
check 'no gnuplot, no plot' [ "$(grep -c svg "$nowhere/REPORT.md")" -eq 0 ]
if gnuplot=$(command -v gnuplot); then
  check 'plot of winners' grep -q '</svg>' "$scratch/report/winners.svg"
  mkdir "$scratch/bin" # a gnuplot that keeps what it is told
  printf '#!/bin/sh\ntee "%s" | "%s"\n' "$scratch/drawing" "$gnuplot" >"$scratch/bin/gnuplot"
  chmod +x "$scratch/bin/gnuplot"
  machine=$PATH
  PATH=$scratch/bin:$machine
  tuner report --table "$table" --output "$scratch/report" --model qwen3-30b-a3b --precision int8 --tokens 1
  PATH=$machine
  check "measured report: status $status" [ $status -le 1 ]
  check 'kernels' grep -q '^| fp4moe_gemm_nv_i8' "$scratch/report/REPORT.md"
  check 'roofline' grep -q 'Gop/s' "$scratch/report/roofline.svg"
  check 'the plots are shown' [ "$(grep -c '^!\[' "$scratch/report/REPORT.md")" -ge 2 ]
  rm "$scratch/report/roofline.svg"
  awk '/^\$(gemv|gemm|layer)/ { data = 1 } /^EOD/ { data = 0 } data && NF == 2 { $2 /= 1000 }
       { sub(/a < b \? a : b/, "(&) / 1000"); print }' "$scratch/drawing" | gnuplot >"$scratch/out" 2>&1
  check "roofline of a machine a thousand times as slow: $(cat "$scratch/out")" grep -q 'Gop/s' "$scratch/report/roofline.svg"
else
  skipped=$((skipped + 1)) && echo 'skipped: plots of the report: no gnuplot'
fi

# The table's pick on one side, the static order on the other. (Status 1: so small a layer is not
# to be believed.)
sed 's/gemv=fp4moe_gemv_mx_bf16[^ ]*/gemv=fp4moe_gemv_mx_bf16_8x16_c@1/' "$table" >"$scratch/slow"
FP4MOE_TABLE=only:$scratch/slow "$build/fp4moe" bench --hidden 64 --intermediate 64 --experts 8 \
  --topk 2 --format mxfp4 --precision bf16 --tokens 1 --against static --json >"$scratch/out" 2>&1
check 'against static: the table here' grep -q '"kernels":\[[^]]*gemv_mx_bf16_8x16_c"' "$scratch/out"
check 'against static: not there' grep -q '"against_kernels":\["fp4moe_gemv_mx_bf16_8x16_[^c]' "$scratch/out"

# Budget of next to nothing, then the rest.
tuner $small --precision int8,f32 --budget 0.000001s
check 'budget' [ $status -eq 0 ]
check 'unfinished table' partial
check 'old entries stay' [ "$(grep -c '^recipe .*class=bf16' "$table")" -eq "$recipes" ]
tuner $small --precision int8,f32
check 'second run' [ $status -eq 0 ]
check 'finished' [ "$(grep -c '^partial ' "$table")" -eq 0 ]
check 'both classes' grep -q '^recipe .*class=f32' "$table"

# A dense matrix: its recipes are the second phase's, found by the oracle as an exact shape.
linear=$scratch/linear
tuner --quick --output "$linear" --linear 96x64,nvfp4 --precision bf16
check 'linear' [ $status -eq 0 ]
check 'linear has one phase' [ "$(grep -c 'phase=gate_up' "$linear")" -eq 0 ]
check 'linear has its key' [ "$(grep -c '^recipe ' "$linear")" -eq \
  "$(grep -c '^recipe phase=down format=nvfp4 class=bf16 n=96 k=64 gated=0' "$linear")" ]
check 'linear has gains' [ "$(grep -c '^gain .* linear=1' "$linear")" -eq 8 ]
tuner report --table "$linear"
check 'linear in the report' out '| linear 96 x 64 | nvfp4 | bf16 |'
tuner --quick --output "$linear" --linear 96x64,nvfp4 --precision bf16 --verify
check 'linear verified' out 'picks have lost'
refuses '96,64' --linear 96,64,nvfp4
if command -v python3 >/dev/null; then # an LM head of 96 x 64 and nothing else
  python3 -c '
import json, struct, sys
shapes = (("weight", "U8", [96, 32], 3072), ("weight_scale", "F8_E4M3", [96, 4], 384),
          ("weight_scale_2", "F32", [], 4))
head, at = {}, 0
for name, dtype, shape, size in shapes:
    head["lm_head." + name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
    at += size
text = json.dumps(head).encode()
sys.stdout.buffer.write(struct.pack("<Q", len(text)) + text + bytes(at - 4) + struct.pack("<f", 1))
' >"$scratch/head.safetensors"
  tuner --model "$scratch/head.safetensors" --precision bf16 --dry-run --output "$linear"
  check 'linears of a checkpoint' out '96x64,nvfp4 bf16'
else
  skipped=$((skipped + 1)) && echo 'skipped: linears of a checkpoint: no python3'
fi
refuses '48' --quick --output "$linear" --linear 96x48,mxfp4

# Interrupted: status 130, a valid table; the next run begins where it ended.
many="--output $table --shape 64,64,8,2,mxfp4 --shape 96,64,8,2,mxfp4 --shape 64,96,8,2,mxfp4 --shape 96,96,8,2,mxfp4"
"$build/fp4moe-autotune" $many >"$scratch/out" 2>&1 </dev/null &
pid=$!
tries=0
until grep -q ' s left' "$scratch/out" || [ $tries -gt 4000 ]; do
  tries=$((tries + 1))
  sleep 0.05
done
kill -INT $pid
wait $pid
status=$?
check "interrupted: status $status" [ $status -eq 130 ]
check 'interrupted table is whole' grep -q '^end ' "$table"
check 'interrupted table says so' partial
tuner $many --budget 0.000001s
check 'goes on' out 'goes on after'

# A table of another host stays, unless --force.
sed -i 's/^cpu .*/cpu Elsewhere 1 1 1/' "$table"
cp "$table" "$scratch/foreign"
refuses 'Elsewhere' report --table "$table"
refuses 'force' $small
check 'foreign table untouched' cmp -s "$table" "$scratch/foreign"
tuner $small --precision bf16 --force --json
check 'force' [ $status -eq 0 ]
all_json 'force'
check 'moved aside' cmp -s "$table.old" "$scratch/foreign"

# The plan for other machines, which hwloc makes up; on this one as many placements in the table as
# there is something to choose from.
plans() { # plans TOPOLOGY COUNT LINE: what a dry run lists
  export HWLOC_SYNTHETIC="$1"
  tuner $small --dry-run
  unset HWLOC_SYNTHETIC
  check "$1: $(grep -c '^placement' "$scratch/out") places" [ "$(grep -c '^placement' "$scratch/out")" -eq "$2" ]
  check "$1: no '$3'" grep -q "$3\$" "$scratch/out"
}
plans 'numa:2 l3:1 core:4 pu:2' 7 'all_pus, 2 shards, 16 threads on 2 nodes'
plans 'package:2 numa:4 l3:2 core:2 pu:1' 5 'one_node, 1 shard, 4 threads on 1 nodes'
plans 'l3:1 core:2 pu:1' 0 'would write .*'
tuner $small --dry-run
choice=$(grep -q '^placement' "$scratch/out" && echo 1 || echo 0)
check 'placements of this host' [ "$(grep -c '^placement ' "$table")" -eq "$choice" ]

explains() { # explains TEXT COMMAND...: fp4moe explain after COMMAND says it
  text=$1
  shift
  FP4MOE_TABLE="only:$table" "$@" "$build/fp4moe" explain --hidden 64 --intermediate 64 \
    --experts 8 --topk 2 --format mxfp4 --precision bf16 --tokens 1 >"$scratch/out" 2>&1
  status=$?
  if [ $status -eq 125 ]; then
    echo "skipped: $*: no mount namespace here"
    skipped=$((skipped + 1))
  else
    check "$*: no '$text' in: $(sed -n 1,8p "$scratch/out")" out "$text"
  fi
}

# Less of the machine than was tuned: the nearest entry, and that is said.
cores=$(sed -n 's/^recipe .* cores=\([0-9]*\) .*/\1/p' "$table" | head -n 1)
if [ "$cores" -lt 2 ]; then
  echo 'skipped: taskset, numactl, quota: one core is allowed'
  skipped=$((skipped + 3))
else
  less="exact shape, nearest cores: of $cores, 1 allowed here"
  explains "$less" taskset -c 0
  explains "$less" tests/fake_host.sh quota
  if command -v numactl >/dev/null; then
    explains "$less" numactl --physcpubind=0
  else
    echo 'skipped: numactl: not here'
    skipped=$((skipped + 1))
  fi
fi

# Two hardware threads a core, two memory nodes: a race, one line, and the library takes it.
for kind in smt nodes; do
  rm -f "$table"
  tests/fake_host.sh $kind "$build/fp4moe-autotune" $small --precision bf16 >"$scratch/out" 2>"$scratch/err"
  status=$?
  if [ $status -eq 125 ]; then
    echo "skipped: a host with $kind: no mount namespace here, or one PU"
    skipped=$((skipped + 1))
    continue
  fi
  check "$kind: exit status $status: $(cat "$scratch/err")" [ $status -eq 0 ]
  check "$kind: $(cat "$scratch/out")" out ': the best of '
  check "$kind: one line" [ "$(grep -c '^placement cores=.* shards=[12]$' "$table")" -eq 1 ]
  explains '(table, exact)' tests/fake_host.sh $kind
  explains '(table, nearest: of ' tests/fake_host.sh $kind taskset -c 0
  explains '; layers in 1 shard' tests/fake_host.sh $kind # node 1 has no memory for us
  [ $kind = smt ] || check 'keyed by nodes' grep -q '^placement .*nodes=2' "$table"
  tests/fake_host.sh $kind "$build/fp4moe-autotune" $small --precision bf16 --threads 1 \
    --budget 0.000001s --output "$scratch/one" >/dev/null 2>&1
  check 'threads are said: no race' [ "$(grep -c '^placement' "$scratch/one")" -eq 0 ]
done

# Where the table goes when nobody says: --quick without --output.
place='--dry-run --quick --shape 64,64,8,2,mxfp4'
(FP4MOE_TABLE="only:$scratch/said" && export FP4MOE_TABLE && tuner $place)
check 'FP4MOE_TABLE names the table' out "would write $scratch/said"
FP4MOE_TABLE=none && export FP4MOE_TABLE
refuses 'FP4MOE_TABLE is none' $place
unset FP4MOE_TABLE
tuner $place
if [ "$(id -u)" = 0 ]; then home=/etc/fp4moe/table; else home=${XDG_CACHE_HOME:-$HOME/.cache}/fp4moe/table; fi
check "the table of this user is $home" out "would write $home"

refuses 'no-such-model' --model no-such-model
refuses '10x' --budget 10x
refuses 'int4' --precision int4
refuses '--shape' --shape 64,64
refuses 'extra' extra
refuses '/proc/none' --quick --output /proc/none/table --shape 64,64,8,2,mxfp4

# A full disk: the table that was there stays, and nothing is left beside it.
rm -f "$table"
"$build/fp4moe-autotune" $small --precision bf16 --budget 0.000001s >/dev/null 2>&1
cp "$table" "$scratch/before"
(trap '' XFSZ && ulimit -f 1 && exec "$build/fp4moe-autotune" $small --precision bf16) \
  >/dev/null 2>"$scratch/err" </dev/null
check 'full disk: status' [ $? -eq 2 ]
check "full disk: $(cat "$scratch/err")" err "write $table.tmp: File too large"
check 'full disk: the old table stays' cmp -s "$table" "$scratch/before"
check 'full disk: nothing is left' [ ! -e "$table.tmp" ]
"$build/fp4moe-autotune" $small --dry-run >/dev/full 2>"$scratch/err"
check 'full output: status' [ $? -eq 2 ]
check 'full output' err 'standard output'

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
