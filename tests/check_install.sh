#!/usr/bin/env bash
# check_install.sh - installs what was built into temporary trees and uses it from there alone: what a
# packager and a stranger's program see. From the root of the repository, after make:
#
#   tests/check_install.sh BUILD
#
# CC, CXX and NM name the tools. What is missing here is skipped, by name.
set -uo pipefail
build=${1:?usage: tests/check_install.sh BUILD}
cc=${CC:-cc} cxx=${CXX:-c++} nm=${NM:-nm}
warn='-O2 -Wall -Wextra -Wpedantic -Werror'
layers=$PWD/tests/data/layers
. tests/counting.sh
prefix=$scratch/prefix lib=$scratch/prefix/lib
export FP4MOE_TABLE=none PKG_CONFIG_PATH=$lib/pkgconfig
unset FP4MOE_KERNEL FP4MOE_CPU FP4MOE_TUNED

make_() { make --no-print-directory B="$build" "$@"; }
version=$(sed -n 's/.*FP4MOE_VERSION_M[A-Z]* //p' include/fp4moe.h | paste -sd.)

# ---- The tree

# listing DIRECTORY: names, modes, targets of links, contents
listing() {
  (cd "$1" && find . -printf '%p %m %l\n' | sort && find . -type f -exec sha256sum {} + | sort)
}

# By somebody whose umask lets nobody else read.
installs_whole() {
  (umask 077 && make_ install PREFIX="$prefix") && same 'files of the tree' "$(
    cat <<END
bin/fp4moe
bin/fp4moe-autotune
include/fp4moe.h
include/fp4moe_io.h
lib/libfp4moe.a
lib/libfp4moe.so libfp4moe.so.${version%%.*}
lib/libfp4moe.so.${version%%.*} libfp4moe.so.$version
lib/libfp4moe.so.$version
lib/libfp4moe_io.a
lib/libfp4moe_io.so libfp4moe_io.so.${version%%.*}
lib/libfp4moe_io.so.${version%%.*} libfp4moe_io.so.$version
lib/libfp4moe_io.so.$version
lib/pkgconfig/libfp4moe.pc
lib/pkgconfig/libfp4moe_io.pc
share/man/man1/fp4moe-autotune.1
share/man/man1/fp4moe.1
share/man/man3/fp4moe.3
share/man/man5/fp4moe-table.5
END
  )" "$(cd "$prefix" && find . -not -type d -printf '%P %l\n' | sed 's/ $//' | LC_ALL=C sort)" &&
    same 'what not all may read' '' "$(find "$prefix" -not -type l -not -perm 755 -not -perm 644)"
}

# Again, by somebody else: the same tree.
installs_twice_the_same() {
  local first
  first=$(listing "$prefix")
  (umask 022 && make_ install PREFIX="$prefix") && same 'the second tree' "$first" "$(listing "$prefix")"
}

stages() {
  local stage=$scratch/stage
  local -a where=(DESTDIR="$stage" PREFIX=/opt/there LIBDIR=/opt/there/lib64 INCLUDEDIR=/usr/include/fp4
    MANDIR=/opt/man)
  make_ install "${where[@]}" && [ -x "$stage/opt/there/bin/fp4moe" ] &&
    [ -e "$stage/opt/there/lib64/libfp4moe.so" ] && [ -e "$stage/usr/include/fp4/fp4moe.h" ] &&
    [ -e "$stage/opt/man/man1/fp4moe.1" ] && ! [ -e /opt/there ] || return 1
  if grep -rl "$scratch" "$stage"; then
    echo 'these files name the stage'
    return 1
  fi
  same 'libfp4moe.pc' $'prefix=/opt/there\nlibdir=${prefix}/lib64\nincludedir=/usr/include/fp4' \
    "$(head -n 3 "$stage/opt/there/lib64/pkgconfig/libfp4moe.pc")" &&
    touch "$stage/opt/there/lib64/libother.so" && make_ uninstall "${where[@]}" &&
    same 'what is left' "$stage/opt/there/lib64/libother.so" "$(find "$stage" -not -type d)"
}

uninstalls_whole() { make_ uninstall PREFIX="$prefix" && same 'what is left' '' "$(find "$prefix" -not -type d)"; }

check 'make install' installs_whole
check 'make install, again' installs_twice_the_same
check 'make install with DESTDIR and directories' stages

# ---- The libraries

# declared HEADER: the functions that it and what it includes declare, with or without FP4MOE_API
# shellcheck disable=SC2086
declared() {
  $cc -E -P -I"$prefix/include" "$prefix/include/$1" | tr -s '[:space:]' ' ' | sed -E ':a; s/\{[^{}]*\}//g; ta' | tr ';' '\n' |
    grep -v '^ *typedef' | sed -nE 's/^[^(]*(__attribute__\(\([^)]*\)+)?[^(]*\b(fp4moe_[a-z0-9_]+) ?\(.*/\2/p'
}

exports() { # library: names with their versions
  $nm -D --defined-only --with-symbol-versions "$lib/$1.so" | awk '$2 != "A" {print $3}' | LC_ALL=C sort
}

# Functions that are exported for libfp4moe_io alone: those marked in headers of src/.
private() { sed -nE 's/^FP4MOE_API .*\b(fp4moe_[a-z0-9_]+)\(.*/\1@@FP4MOE_PRIVATE/p' src/*.h; }

# shellcheck disable=SC2086 # lists of words
exports_are_declared() {
  local core io
  core=$(declared fp4moe.h) io=$(declared fp4moe_io.h | grep -vxF "$core")
  [ "$(wc -w <<<"$core")" -ge 30 ] && [ "$(wc -w <<<"$io")" -ge 15 ] &&
    same 'dynamic symbols of libfp4moe' \
      "$( (printf '%s@@FP4MOE_0\n' $core && private) | LC_ALL=C sort)" "$(exports libfp4moe)" &&
    same 'dynamic symbols of libfp4moe_io' "$(printf '%s@@FP4MOE_IO_0\n' $io | LC_ALL=C sort)" \
      "$(exports libfp4moe_io)"
}

page_names_functions() {
  same 'functions of fp4moe(3)' "$(declared fp4moe_io.h | sort)" \
    "$(grep '^\.It Fn' "$prefix/share/man/man3/fp4moe.3" | grep -o 'fp4moe_[a-z0-9_]*' | sort)"
}

archives_keep_to_their_names() {
  local names
  names=$($nm -g --defined-only "$lib/libfp4moe.a" "$lib/libfp4moe_io.a" 2>/dev/null | awk 'NF == 3 {print $3}')
  [ "$(wc -w <<<"$names")" -ge 100 ] && same 'names not of this library' '' "$(grep -vE '^(fp4moe_|_\.stapsdt\.base$)' <<<"$names")"
}

# perf names kernels by the symbol table that a linker keeps and strip removes.
kernels_have_symbols() {
  local kernels file
  kernels=$($nm -g --defined-only "$build"/kernels/*.o | awk 'NF == 3 && $2 == "T" {print $3}' | sort -u)
  [ "$(wc -w <<<"$kernels")" -ge 20 ] || return 1
  for file in "$lib/libfp4moe.so" "$lib/libfp4moe.a" "$prefix"/bin/*; do
    same "kernels of $file" "$kernels" \
      "$($nm "$file" 2>/dev/null | awk 'NF == 3 {print $3}' | sort -u | grep -xF "$kernels")" || return 1
  done
}

names_no_directory() {
  local file
  for file in "$lib"/*.so "$prefix"/bin/*; do readelf -d "$file" | grep -E 'RPATH|RUNPATH' && return 1; done
  for file in libfp4moe libfp4moe_io; do
    readelf -d "$lib/$file.so" | grep -F "soname: [$file.so.${version%%.*}]" || return 1
  done
}

check 'exported are the declared functions' exports_are_declared
check 'fp4moe(3) has the declared functions' page_names_functions
check 'archives define fp4moe_* only' archives_keep_to_their_names
check 'kernels have symbols for perf' kernels_have_symbols
check 'soname, and no run path' names_no_directory

# ---- Programs and consumers, out of the tree alone

programs_run() {
  local p=$prefix/bin
  [ "$(env -i "$p/fp4moe" --version)" = "fp4moe $version" ] &&
    env -i "$p/fp4moe" inspect "$layers/gptoss_mxfp4.safetensors" | grep MXFP4 &&
    env -i "$p/fp4moe-autotune" --dry-run --model gpt-oss-20b --output "$scratch/table" | grep candidates
}

# shellcheck disable=SC2086
header_alone() { # compiler, language, standard, header
  echo "#include <$4>" | $1 -std=$3 $warn -I"$prefix/include" -fsyntax-only -x "$2" -
}

# consumer static|shared SOURCE MODULE [ARGUMENT...]: built with what pkg-config says, and run.
# shellcheck disable=SC2086,SC2046
consumer() (
  local kind=$1 module=$3 program=$scratch/consumer compiler="$cc -std=c11" static=
  cp "tests/examples/$2" "$scratch" && cd "$scratch" || return
  [[ $2 == *.cpp ]] && compiler="$cxx -std=c++17"
  [ "$kind" = static ] && static=--static
  $compiler $warn "$2" ${static#-} -o "$program" $(pkg-config $static --cflags --libs "$module") || return
  case $kind in
  static) readelf -d "$program" | grep NEEDED && return 1 ;;
  shared) readelf -d "$program" | grep -F '[libfp4moe.so.'"${version%%.*}"']' || return ;;
  esac
  shift 3
  LD_LIBRARY_PATH=$lib "$program" "$@"
)

check 'programs run' programs_run
for header in fp4moe.h fp4moe_io.h; do
  check "$header alone, C11" header_alone "$cc" c c11 $header
  if command -v "${cxx%% *}" >/dev/null; then
    check "$header alone, C++17" header_alone "$cxx" c++ c++17 $header
  else
    skip "$header alone, C++17" "no C++ compiler '$cxx'"
  fi
done

for kind in shared static; do
  for source in minimal.c mul_mat_id.c parallel_for.cpp; do
    what="$source through pkg-config, $kind" module=libfp4moe
    arguments=()
    [ $source = minimal.c ] && module=libfp4moe_io && arguments=("$layers/gptoss_mxfp4.safetensors")
    if ! command -v pkg-config >/dev/null; then
      skip "$what" 'no pkg-config'
    elif [[ $source == *.cpp ]] && ! command -v "${cxx%% *}" >/dev/null; then
      skip "$what" "no C++ compiler '$cxx'"
    else
      check "$what" consumer $kind $source $module "${arguments[@]}"
    fi
  done
done

check 'make uninstall' uninstalls_whole
closing
