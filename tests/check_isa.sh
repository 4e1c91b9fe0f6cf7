#!/usr/bin/env bash
# Looks into the object files of x86-64: each may hold the instructions of its suffix's CPU bits
# (src/cpu.c, Makefile) and no others. A kernel compiled with a flag too many, or an intrinsic that
# the compiler takes from further up, would fault on a machine that the oracle thinks it serves. And
# every AVX kernel must leave no upper half of a vector register in use (uppers.py).
#   tests/check_isa.sh BUILD
set -u
build=$1
passed=0 failed=0 skipped=0

# What each suffix must not hold, as extended regular expressions on a line of objdump.
zmm='%zmm|%[xyz]mm(1[6-9]|2[0-9]|3[01])|%k[0-7]'
vex='\sv[a-z0-9]+\s'
dot='\bvpdpbusds?|\bvpdpwssds?'
bf16='\bvdpbf16ps|\bvcvtne2?ps2bf16|\bvcvtneps2bf16'
vbmi='\bvperm[it]?2?b\b|\bvpmultishiftqb'
others='\bvpcompress[bw]|\bvpexpand[bw]|\bvpopcnt|\bvp2intersect|\bvpmadd52|\bvpsh[lr]d|\bgf2p8|%tmm'

forbidden() { # suffix
  case $1 in
  avx2) echo "$zmm|$dot|$bf16|$vbmi|$others" ;;
  avxvnni) echo "$zmm|$bf16|$vbmi|$others" ;;
  avx512) echo "$dot|$bf16|$vbmi|$others" ;;
  avx512vnni) echo "$bf16|$vbmi|$others" ;;
  avx512vbmi) echo "$bf16|$others" ;;
  avx512bf16) echo "$dot|$vbmi|$others" ;;
  *) echo "$vex|$others" ;; # the baseline of x86-64
  esac
}

# VEX and EVEX forms look alike to AVX-VNNI: an EVEX one starts with the byte 62.
evex='^ *[0-9a-f]+:\s+62 '

scan() { # object file
  local suffix=${1%.o} pattern found
  suffix=${suffix##*_}
  pattern=$(forbidden "$suffix")
  [[ $suffix == avx512* ]] || pattern+="|$evex"
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
