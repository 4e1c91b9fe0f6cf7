#!/usr/bin/env bash
# check_pages.sh - the manual pages against what they describe: options, commands, variables, the
# selection table's words. From the root of the repository, after make:
#
#   tests/check_pages.sh BUILD
#
# An option counts as described where it heads an item (.It Fl). In fp4moe(1) the title of a
# subsection lists the commands whose options it has.
set -uo pipefail
build=${1:?usage: tests/check_pages.sh BUILD}
pages=src/man
. tests/counting.sh

# lint PAGE: no warning, and every page that it refers to is there.
lint() {
  if command -v mandoc >/dev/null; then
    mandoc -Tlint "$1" | grep -v 'referenced manual not found' >"$scratch/found"
  else
    man --warnings -E UTF-8 -l -Tutf8 -Z "$1" 2>"$scratch/found" >/dev/null
  fi
  sed -nE 's/.*\.Xr ([^ ]+) ([0-9]).*/\1.\2/p' "$1" | while read -r other; do
    [ -e "$pages/$other" ] || echo "refers to $other, which is not there" >>"$scratch/found"
  done
  same "${1##*/}" "" "$(cat "$scratch/found")"
}

# heads: the options that head items of the mdoc text on standard input
heads() { grep '^\.It Fl' | grep -oE 'Fl -[a-z-]+' | sed 's/Fl /-/' | sort -u; }

# said COMMAND...: the options in what it says of itself
said() { "$@" --help | grep -oE -- '--[a-z][a-z-]*' | sort -u; }

described() { # page, command
  awk -v command="$2" '/^\.S[hs] / {gsub(/,/, ""); here = ($0 " ") ~ ("^\\.Ss.* " command " ")} here' \
    "$pages/$1" | heads
}

commands() { "$build/fp4moe" --help | sed -nE '/Commands:$/,/^$/ s/^  ([a-z]+) .*/\1/p'; }

options() { # page, title of the subsection, command...
  same "page, --help" "$(described "$1" "$2")" "$(said "${@:3}")"
}

command_titles() {
  same 'fp4moe(1), --help' "$(sed -n 's/^\.Ss //p' $pages/fp4moe.1 | tr -d , | tr ' ' '\n' | sort -u)" \
    "$(commands | sort)"
}

variables() {
  same 'fp4moe(1), src/environment.c' "$(sed -n 's/^\.It Ev //p' $pages/fp4moe.1 | sort)" \
    "$(grep -o '"FP4MOE_[A-Z][A-Z_]*"' src/environment.c | tr -d '"' | sort)"
}

# The keys of a line: table_words SUBSECTION FUNCTION OF table_write.c
table_words() {
  same "fp4moe-table(5) $1, table_write.c" \
    "$(sed -n "/^\.Ss $1/,/^\.El/ s/^\.It Cm //p" $pages/fp4moe-table.5 | tr -d , | tr ' ' '\n' | sed '/^$/d' | sort)" \
    "$(sed -n "/^static void $2/,/^}/p" src/table_write.c | grep -oE '[a-z_]+=%' | tr -d '=%' | sort)"
}

table_version() { grep -xF "$(grep -om 1 'fp4moe-table [0-9]*' src/table.h)" $pages/fp4moe-table.5; }

for page in "$pages"/*; do
  if command -v mandoc >/dev/null || command -v man >/dev/null; then
    check "${page##*/}: form and references" lint "$page"
  else
    skip "${page##*/}: form and references" 'neither mandoc nor man'
  fi
done
check 'fp4moe(1): commands' command_titles
for command in $(commands); do
  check "fp4moe(1): options of $command" options fp4moe.1 "$command" "$build/fp4moe" "$command"
done
check 'fp4moe-autotune(1): options' options fp4moe-autotune.1 Tuning "$build/fp4moe-autotune"
check 'fp4moe-autotune(1): options of report' options fp4moe-autotune.1 report "$build/fp4moe-autotune" report
check 'fp4moe(1): variables' variables
check 'fp4moe-table(5): words of a recipe' table_words Recipes add_recipe
check 'fp4moe-table(5): words of a schedule' table_words Schedules add_schedule
check 'fp4moe-table(5): words of a gain' table_words Gains add_gain
check 'fp4moe-table(5): words of a placement' table_words Placements add_placement
check 'fp4moe-table(5): version' table_version
closing
