#!/usr/bin/env bash
# Lines that the tests of a coverage build reached, room by room, then each file below 90 %:
#   tests/coverage.sh BUILD        after the tests have run there (make coverage)
# Rows of an ISA that this CPU lacks are built and not reached; they have a line of their own.
set -uo pipefail
gcovr --root . --filter '(kernels|src|autotune)/' --exclude-throw-branches --csv - "$1" |
  awk -F, '
    NR == 1 || !$2 { next }
    {
      file = $1; room = file
      sub(/\/[^\/]*$/, "", room)
      if (room == "kernels" && match(file, /_[a-z0-9]+\.c$/)) room = "kernels, " substr(file, RSTART + 1, RLENGTH - 3)
      lines[room] += $2; reached[room] += $3
      if (10 * $3 < 9 * $2) low[file] = sprintf("%5.1f %%  %5d of %5d  %s", 100 * $3 / $2, $3, $2, file)
    }
    END {
      for (room in lines)
        printf "%5.1f %%  %5d of %5d  %s\n", 100 * reached[room] / lines[room], reached[room], lines[room], room | "sort -k6"
      close("sort -k6")
      print "below 90 %:"
      for (file in low) print low[file] | "sort -k6"
    }'
