#!/usr/bin/env bash
# Looks into the object files of x86-64: each may hold the instructions of its suffix's CPU bits
# (kernels/isas.inc, by BUILD/isas.mk) and no others. A kernel compiled with a flag too many, or an
# intrinsic that the compiler takes from further up, would fault on a machine that the oracle thinks it
# serves. And every AVX kernel must leave no upper half of a vector register in use (uppers.py).
#   tests/check_isa.sh BUILD
set -u
build=$1
passed=0 failed=0 skipped=0

# The instructions of each CPU bit, as extended regular expressions on a line of objdump; VPDPBUSD is
# of two.
dot='\bvpdpbusds?|\bvpdpwssds?'
# VEX and EVEX forms of AVX-VNNI look alike: an EVEX one starts with the byte 62.
evex='^ *[0-9a-f]+:\s+62 '
declare -A holds=(
  [avx]='\sv[a-z0-9]+\s'
  [avx512f]='%zmm|%[xyz]mm(1[6-9]|2[0-9]|3[01])|%k[0-7]'
  [avx512bf16]='\bvdpbf16ps|\bvcvtne2?ps2bf16|\bvcvtneps2bf16'
  [avx512vbmi]='\bvperm[it]?2?b\b|\bvpmultishiftqb'
  [avx512vbmi2]='\bvpcompress[bw]|\bvpexpand[bw]|\bvpsh[lr]d'
  [avx512vpopcntdq]='\bvpopcnt[dq]'
  [avx512bitalg]='\bvpopcnt[bw]|\bvpshufbitqmb'
  [avx512vp2intersect]='\bvp2intersect'
  [avx512ifma]='\bvpmadd52'
  [gfni]='\bgf2p8'
  [amx-tile]='%tmm'
)

forbidden() { # suffix
  local flags bit all=
  flags=" $(sed -n "s/^ISA_$1 := *//p" "$build/isas.mk") "
  for bit in "${!holds[@]}"; do
    [[ $flags == *" -m$bit "* ]] || all+="|${holds[$bit]}"
  done
  [[ $flags =~ vnni ]] || all+="|$dot"
  [[ $flags == *' -mavx512f '* ]] || all+="|$evex"
  echo "${all#|}"
}

scan() { # object file
  local suffix pattern found
  suffix=$(basename "$1" .o)
  suffix=${suffix##*_}
  pattern=$(forbidden "$suffix")
  found=$(objdump -d --insn-width=15 "$1" | grep -E "$pattern" | head -n 3)
  if [ -z "$found" ]; then
    passed=$((passed + 1))
  else
    echo "$1 holds what its suffix does not have:"
    echo "$found"
    failed=$((failed + 1))
  fi
}

if ! command -v objdump >/dev/null; then
  echo "skipped: instruction sets of the object files: no objdump here"
  skipped=1
elif [ "$(uname -m)" != x86_64 ]; then
  echo "skipped: instruction sets of the object files: not x86-64"
  skipped=1
else
  while read -r object; do scan "$object"; done \
    < <(find "$build/kernels" "$build/src" "$build/autotune" -name '*.o')
  if ! command -v python3 >/dev/null; then
    echo "skipped: upper halves of vector registers: no python3 here"
    skipped=1
  elif python3 tests/uppers.py "$build"/kernels/*_avx*.o; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
  fi
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$((passed + skipped))" != 0 ]
