#!/usr/bin/env bash
# What llvm-mca says of the inner loops of the ARM matmuls: results/neon/SUMMARY.md, by `make
# neon-cost`. No ARM machine has timed these kernels; this is a model of the core with all data in
# its first cache, and no more than that.
#
# The loops are read out of the object files that the library is made of, by their branches. That of
# a function is the shortest one with at least half of the dots of the fullest; a gemv has a second
# one, which makes the stretch's scales FP32 and is the only one to prefetch: its cycles are added,
# for as many scales as the turn uses. The bound is the model's rate of the dot alone, 16 chains.
#   autotune/neon_cost.sh BUILD
set -eu
build=$1
mca=$(command -v llvm-mca-19) || { echo "no llvm-mca-19 (Debian: llvm-19)" >&2; exit 1; }
objdump=aarch64-linux-gnu-objdump
out=results/neon
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p $out

# The loop of function $2 of the object file $1 whose instructions match $3, as assembly.
loop_of() {
  $objdump -d --no-show-raw-insn "$1" | awk -v f="<$2>:" -v wanted="$3" '
    function jumps(i) { return op[i] ~ /^(b|b\.[a-z]+|cbn?z|tbn?z)$/ }
    /^[0-9a-f]+ </ { on = $2 == f; next }
    on && NF > 1 {
      at[substr($1, 1, length($1) - 1)] = ++n
      op[n] = $2
      sub(/^[^\t]*\t/, "")
      sub(/ *(\/\/|<).*/, "")
      line[n] = $0
      found[n] = found[n - 1] + ($0 ~ wanted)
      if (jumps(n) && $NF in at) { from[++loops] = at[$NF]; to[loops] = n }
    }
    END {
      for (i = 1; i <= loops; i++) {
        has[i] = found[to[i]] - found[from[i] - 1]
        if (has[i] > most) most = has[i]
      }
      for (i = 1; i <= loops; i++)
        if (most && 2 * has[i] >= most && (!best || to[i] - from[i] < to[best] - from[best])) best = i
      if (!best) exit 1
      print ".Lturn:"
      for (i = from[best]; i <= to[best]; i++) {
        if (jumps(i)) sub(/[0-9a-f]+$/, ".Lturn", line[i])
        print line[i]
      }
    }' || { echo "no loop of $2 in $1 has $3" >&2; exit 1; }
}

model() { # core, file
  "$mca" -mtriple=aarch64 -mcpu="$1" -mattr=+dotprod,+i8mm,+bf16 -iterations=200 "$2" 2>"$dir/errors" ||
    { cat "$dir/errors" >&2; exit 1; }
}

# Cycles of one turn, and the unit that is used most with its share of them.
turn_of() { # core, file
  model "$1" "$2" | awk '
    /^Iterations:/ { n = $2 }
    /^Total Cycles:/ { cycles = $3 / n }
    /^\[[0-9.]+\] +- / { name[++units] = $3 }
    values { for (i = 1; i <= units; i++) if ($i + 0 > top) { top = $i + 0; unit = name[i] } values = 0 }
    /^Resource pressure per iteration:/ { getline; values = 1 }
    END { sub(/^.*Unit/, "", unit); printf "%.2f %s %.2f\n", cycles, unit, top / cycles }'
}

rate_of() { # core, the dot with ACC for its sum: cycles of one
  local i
  for i in $(seq 0 15); do echo "  ${2//ACC/v$i}"; done >"$dir/dot.s"
  turn_of "$1" "$dir/dot.s" | awk '{ print $1 / 16 }'
}

count() { grep -cE "^($1)" "$dir/loop.s" || true; }

# Object's name, function, what matches its dots, a dot with operands, its products, cores; of a
# gemv also its rows and the columns of a scale.
row() {
  local name=$2 core cycles unit load scales bound rows=${7:-0} group=${8:-1}
  loop_of "$build/kernels/$1.o" "$name" "$3" >"$dir/loop.s"
  [ "$rows" = 0 ] || loop_of "$build/kernels/$1.o" "$name" '^prfm' >"$dir/scales.s"
  local dots decode chain moves memory
  dots=$(count "$3") moves=$(count 'movi?	v')
  decode=$(count '(tbl|and	v|ushr|shl|sshr|trn[12]|zip[12]|uzp[12]|dup	v|ins	v|mov	v[0-9]+\.[sd]\[)')
  moves=$((moves - $(count 'mov	v[0-9]+\.[sd]\[')))
  chain=$(($(count '(fadd|fsub|fmul|fmla|scvtf|add	v|addp|s?adalp|saddlp)') - $(grep -E "^($3)" "$dir/loop.s" | grep -cE '^(fmul|fmla)' || true)))
  memory=$(count '(ldr|ldur|ldp|ld1|ld1r|str|stur|stp|st1|prfm)	')
  for core in $6; do
    read -r cycles unit load < <(turn_of "$core" "$dir/loop.s")
    scales=0
    [ "$rows" = 0 ] || read -r scales _ < <(turn_of "$core" "$dir/scales.s")
    bound=$(rate_of "$core" "$4")
    awk -v name="$name" -v core="${core#neoverse-}" -v dots="$dots" -v cycles="$cycles" -v scales="$scales" \
      -v m="$rows" -v group="$group" -v products="$5" -v bound="$bound" -v unit="$unit $load" \
      -v other="$decode $chain $moves $memory" 'BEGIN {
        split(other, n, " ")
        if (m) scales *= dots * products / (4 * m) / group / 4 # of four quarters one
        all = cycles + scales
        least = (dots + n[1] + n[2] + n[3]) / (core ~ /v2/ ? 4 : 2) # vector pipes
        limit = bound * dots < least ? bound * dots / least : 1
        share = bound * dots / all
        printf "| %s | %s | %d | %d | %d | %d | %d | %.1f | %s | %.2f | %.2f | %.2f | %s |\n", name, core, dots,
          n[1], n[2], n[3], n[4], cycles, m ? sprintf("%.1f", scales) : "", 64 * all / (dots * products),
          share, limit, unit }'
  done
}

head_of_table() {
  echo
  echo "| function | core | dots | decode | chain | moves | memory | cycles | + scales | cycles per 64 products | share of the bound | limit | busiest unit |"
  echo "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
}

all='neoverse-n1 neoverse-n2 neoverse-v2' new='neoverse-n2 neoverse-v2'
fmla='fmla ACC.4s, v30.4s, v31.s[0]' smlal='smlal ACC.8h, v30.8b, v31.8b'
sdot='sdot ACC.4s, v30.16b, v31.4b[0]' smmla='smmla ACC.4s, v30.16b, v31.16b'
bfmmla='bfmmla ACC.4s, v30.8h, v31.8h' bfdot='bfdot ACC.4s, v30.8h, v31.2h[0]'
by_element='fml?[au]l?	.*\.s\[' narrow='sml?[au]l?l2?	.*8h'

gemms() {
  local w
  for w in f32 bf16; do row gemm_neon gemm_${w}_8_rows_neon "$by_element" "$fmla" 4 "$all"; done
  row gemm_bf16neon gemm_bf16x4_8_rows_bf16neon bfmmla "$bfmmla" 16 "$new"
  for w in mx nv; do
    row gemm_neon gemm_${w}_s8_8_rows_neon "$narrow" "$smlal" 8 "$all"
    row gemm_dotprod gemm_${w}_s8_8_rows_dotprod sdot "$sdot" 16 "$all"
    row gemm_i8mm gemm_${w}_s8x8_8_rows_i8mm smmla "$smmla" 32 "$new"
  done
}

gemvs() {
  local w m group
  for m in 1 4 8; do
    for w in mx nv; do
      [ $w = mx ] && group=32 || group=16
      row gemv_neon gemv_${w}_bf16_${m}_rows_neon "$by_element" "$fmla" 4 "$all" $m $group
      row gemv_bf16neon gemv_${w}_bf16_${m}_rows_bf16neon bfdot "$bfdot" 8 "$new" $m $group
      row gemv_neon gemv_${w}_i8_${m}_rows_neon "$narrow" "$smlal" 8 "$all" $m $group
      row gemv_dotprod gemv_${w}_i8_${m}_rows_dotprod sdot "$sdot" 16 "$all" $m $group
    done
  done
}

{
  cat <<TEXT
# ARM matmuls: the cost of their inner loops, as llvm-mca models it

Generated by \`make neon-cost\` with $("$mca" --version | grep -o 'LLVM version.*') from the object files of
$(aarch64-linux-gnu-gcc --version | head -n 1); data in the first cache. **Nothing here was
measured on an ARM machine.** Cores are Neoverse.

The loop's instructions: dots, what decodes or rearranges, what belongs to the chain of scales, moves of
vector registers, loads and stores. *Share*: of the rate of that dot alone on the same model. *Limit*: the
share if the vector pipes, where every one of the first four kinds takes a place at least, never waited;
conversions and shifts take two places or more on these cores. (SMLAL runs in half of the pipes, but
SMULL, the first of each sum, in all of Neoverse N2's and V2's, so that a share may pass 1.) *+ scales* (gemv): the
cycles of the loop that makes block scales FP32, for what one turn uses; they count in the share.
TEXT
  echo
  echo "## Many rows: 8 rows against unpacked panels"
  head_of_table
  gemms
  cat <<TEXT

Class int8 is bound by its canonical chain. Per vector of four sums and 32 columns it has 8 SDOTs or 4
SMMLAs, and MXFP4 needs three instructions more (int to FP32, product of the two scales, FMA), NVFP4 five
(twice int to FP32, product, two FMAs): no more than 8/11 = 0.73 and 8/13 = 0.62 of SDOT, 4/7 = 0.57 and
4/9 = 0.44 of SMMLA, which also places each scale in both rows of its vector. Int to FP32 is one subtraction,
because sums start at 1.5 * 2^23; SCVTF takes the time of four dots, a start by a copy that of one.
SMLAL runs in half of the vector pipes, so that the rest of its loop goes beside it. BF16 panels are
widened beside FMLA, one instruction for every 8.

## Few rows: nibbles decoded in registers
TEXT
  head_of_table
  gemvs
  cat <<TEXT

With few rows the decode is the work: 16 bytes of nibbles, 32 weights, take 4 instructions as bytes for 2
SDOTs a row, and 10 as BF16 for 4 BFDOTs, 18 as FP32 for 8 FMLAs.
TEXT
} >$out/SUMMARY.md
cat $out/SUMMARY.md
