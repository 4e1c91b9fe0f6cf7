#!/usr/bin/env bash
# results.sh - `make results`: measures what results/ holds about this machine, tuned before.
#
#   autotune/results.sh BUILD COMPILER FLAGS
#
# Writes results/<cpu>-<cores>c/, whole or not at all: see results/README.md. SUMMARY.md and the plot
# come from the measured lines alone (results.awk). A class that only C kernels serve is left out.
# RESULTS_TOKENS: tokens of the calls instead of 1,4,16,64,256,2048.
set -eu
build=$1 compiler=$2 flags=$3
fp4moe=$build/fp4moe
here=$(dirname "$0")
tokens=${RESULTS_TOKENS:-1,4,16,64,256,2048}
models='gpt-oss-20b qwen3-30b-a3b'
classes='bf16 int8 f32'
ops='unpack quant gemv gemm act combine store'
tries=3
files='' # measured, in the order of SUMMARY.md

new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT

say() { echo "results: $*" >&2; }

# measure FILE ARGUMENTS...: adds the lines of a bench to FILE. Figures that the bench itself does not
# believe (exit status 1: the machine was busy) are measured again.
measure() {
  local file=$1 status try
  shift
  for ((try = 1; try <= tries; try++)); do
    say "fp4moe bench $* --json"
    status=0
    "$fp4moe" bench "$@" --json >"$new/lines" || status=$?
    [ $status = 1 ] || break
  done
  [ $status = 0 ] || { say "gave up: no figures to be believed"; exit 1; }
  cat "$new/lines" >>"$new/$file"
  rm "$new/lines"
  case " $files " in *" $file "*) ;; *) files="$files $file" ;; esac
}

only_c_serves() { # model, class
  "$fp4moe" explain --model "$1" --precision "$2" --tokens 1 | grep -q '^gate_up .*_c, '
}

measure_all() {
  local model class op
  for model in $models; do
    for class in $classes; do
      if only_c_serves "$model" "$class"; then
        say "left out: $model $class: only C kernels serve it here"
        continue
      fi
      measure "$model-$class.jsonl" --model "$model" --precision "$class" --tokens "$tokens"
    done
  done
  for model in $models; do
    for op in $ops; do measure "ops-$model.jsonl" --op "$op" --model "$model"; done
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
    sed 's/(r)//g; s/(tm)//g; s/ cpu//; s/[^a-z0-9]\{1,\}/-/g; s/^-//; s/-$//; s/$/-'"$(host_value cores)"'c/'
}

# One line of the plot for each measured model and class: colour by class, dashes by model.
curves() {
  local model class m=0 c
  for model in $models; do
    m=$((m + 1)) c=0
    for class in $classes; do
      c=$((c + 1))
      [ -e "$new/$model-$class.jsonl" ] || continue
      awk -v curve=1 -f "$here/results.awk" "$new/$model-$class.jsonl" >"$new/curve-$m-$c"
      printf "%s'%s' with linespoints lc %d dt %d pt %d lw 2 title '%s, %s'" "${comma-}" \
        "$new/curve-$m-$c" $c $m $((2 * c + 3 - m % 2)) "$model" "$class"
      comma=', '
    done
  done
}

plot() {
  gnuplot <<PLOT
set terminal svg size 760,460 font 'sans-serif,13' background '#ffffff'
set output '$new/efficiency.svg'
set title '$(host_value cpu), $(host_value threads) threads: a whole layer against the physical limit'
set xlabel 'M, tokens of a call'
set ylabel 'efficiency: floor / time'
set logscale x 2
set xtics ($tokens)
set xrange [0.8:*<${tokens##*,}]
set offsets 0, graph 0.04, 0, 0
set border 3
set tics nomirror
set yrange [0:1.05]
set ytics 0.1
set grid lc '#dddddd' lt 1
set key bottom left box lc '#bbbbbb' opaque samplen 4
set linetype 1 lc '#1f5fa8'
set linetype 2 lc '#c8501e'
set linetype 3 lc '#3c8c3c'
plot $(curves)
PLOT
  rm "$new"/curve-*
}

table=$("$fp4moe" explain --model gpt-oss-20b --precision bf16 --tokens 1 |
  sed -n 's/^table: \(.*\) (.*), [0-9].*/\1/p')
[ -n "$table" ] || { say 'no selection table is in use here: make tune comes first'; exit 1; }
cp "$table" "$new/table"
measure_all
describe_machine >"$new/machine.txt"
svg=0
if command -v gnuplot >/dev/null; then
  plot
  svg=1
else
  say 'skipped: efficiency.svg: no gnuplot here (Debian: gnuplot-nox)'
fi
# shellcheck disable=SC2086
(cd "$new" && cat machine.txt $files) | awk -v svg=$svg -f "$here/results.awk" >"$new/SUMMARY.md"
to=results/$(directory_name)
rm -rf "$to"
mkdir -p "$to"
cp "$new"/* "$to"
say "wrote $to"
