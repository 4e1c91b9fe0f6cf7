#!/usr/bin/env bash
# results.sh - `make results`: measures what results/ holds about this machine, tuned before.
#
#   autotune/results.sh BUILD COMPILER FLAGS
#
# Writes results/<cpu>-<cores>c/, under FP4MOE_CPU <cpu>-<cores>c-<isa>/, whole or not at all: see
# results/README.md. fp4moe-autotune report
# measures and plots; SUMMARY.md holds its lines against our aims (results.awk).
# RESULTS_TOKENS: tokens of the calls instead of 1,4,16,64,256,2048.
set -eu
build=$1 compiler=$2 flags=$3
fp4moe=$build/fp4moe
here=$(dirname "$0")
tokens=${RESULTS_TOKENS:-1,4,16,64,256,2048}
models='gpt-oss-20b qwen3-30b-a3b'
classes='bf16 int8 f32'
routings='one most none'

new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT

say() { echo "results: $*" >&2; }

# What the report measured, in the order of SUMMARY.md.
measured_files() {
  local model class
  for model in $models; do
    for class in $classes; do ls "$model-$class.jsonl" 2>/dev/null || true; done
  done
  for routing in $routings; do echo "routing-$routing.jsonl"; done
  for model in $models; do echo "ops-$model.jsonl"; done
}

# Skewed calls, and the empty one. Status 1 is a figure that is not believed: bench has said so.
measure_routings() {
  local routing rows
  for routing in $routings; do
    rows=10,64,512
    [ "$routing" != none ] || rows=1
    "$fp4moe" bench --model gpt-oss-20b --precision bf16 --tokens $rows --routing "$routing" --json \
      >"$new/routing-$routing.jsonl" || [ $? -eq 1 ]
  done
}

host_value() { # name of a string or number in the first host line
  cat "$new"/*.jsonl | sed -n '/"what":"host"/{s/.*"'"$1"'":"\{0,1\}\([^",}]*\).*/\1/p;q}'
}

describe_machine() {
  echo "cpu       $(host_value cpu)"
  echo "cores     $(host_value cores)"
  echo "isa       $(host_value isa)"
  echo "topology  $(host_value topology)"
  echo "os        $(uname -srm)"
  echo "compiler  $($compiler --version | head -n 1)"
  echo "flags     $flags"
  echo "source    $(git describe --always --dirty 2>/dev/null || echo unknown)"
  echo "date      $(date -u +%F)"
}

directory_name() {
  host_value cpu | tr '[:upper:]' '[:lower:]' |
    sed 's/(r)//g; s/(tm)//g; s/ cpu//; s/[^a-z0-9]\{1,\}/-/g; s/^-//; s/-$//; s/$/-'"$(host_value cores)c${FP4MOE_CPU:+-$(host_value isa)}/"
}

table=$("$fp4moe" explain --model gpt-oss-20b --precision bf16 --tokens 1 |
  sed -n 's/^table: \(.*\) (.*), [0-9].*/\1/p')
[ -n "$table" ] || { say 'no selection table is in use here: make tune comes first'; exit 1; }
cp "$table" "$new/table"
for model in $models; do wanted="${wanted-} --model $model"; done
# shellcheck disable=SC2086
"$build/fp4moe-autotune" report --table "$table" --output "$new" --tokens "$tokens" $wanted
measure_routings
describe_machine >"$new/machine.txt"
svg=0
[ ! -e "$new/efficiency.svg" ] || svg=1
# shellcheck disable=SC2046
(cd "$new" && cat machine.txt $(measured_files)) | awk -v svg=$svg -f "$here/results.awk" >"$new/SUMMARY.md"
to=results/$(directory_name)
rm -rf "$to"
mkdir -p "$to"
cp "$new"/* "$to"
say "wrote $to"
