# results.awk - SUMMARY.md from machine.txt and the lines of fp4moe bench --json, on stdin in the order
# of the summary. svg=1: there is a plot.

# Efficiencies that we aim at, for the tokens of `at`: set for AVX-512 and for AVX2.
function set_targets(isa) {
  at = "1 4 16 64 256 2048"
  if (isa ~ /^avx512/) {
    target("gpt-oss-20b", "bf16", "0.92 0.86 0.82 0.80 0.80 0.90")
    target("qwen3-30b-a3b", "bf16", "0.92 0.86 0.80 0.72 0.72 0.83")
    target("gpt-oss-20b", "int8", "0.92 0.86 0.80 0.62 0.60 0.70")
    target("qwen3-30b-a3b", "int8", "0.92 0.86 0.80 0.62 0.52 0.62")
  } else if (isa ~ /^avx/) {
    target("gpt-oss-20b", "int8", "0.90 - - - 0.60 0.60")
    target("gpt-oss-20b", "bf16", "- - - - 0.75 0.75")
    target("gpt-oss-20b", "f32", "- - - - 0.75 0.75")
  }
}

function target(model, class, list,    m, e, i, n) {
  n = split(at, m, " ")
  split(list, e, " ")
  for (i = 1; i <= n; i++) targets[model, class, m[i]] = e[i] == "-" ? "" : e[i]
}

# The value of a key of the present line, which is flat: "" where it is absent.
function value(key,    rest) {
  if (!match($0, "\"" key "\":")) return ""
  rest = substr($0, RSTART + RLENGTH)
  if (sub(/^"/, "", rest)) sub(/".*/, "", rest)
  else if (sub(/^\[/, "", rest)) sub(/\].*/, "", rest)
  else sub(/[,}].*/, "", rest)
  return rest
}

function rate(key,    x) {
  x = value(key) + 0
  return x > 0 ? sprintf("%.1f", x) : ""
}

function section(title, columns, marks) {
  if (section_of == command) return
  section_of = command
  printf "\n## %s\n\n    %s\n\n", title, command
  if (!read) {
    print columns "\n" marks
    return
  }
  printf "Limits in the same rounds, %s threads: read %.1f GB/s, int8 %.0f Gop/s, ", threads, read, int8
  printf "bf16 %.0f GFLOP/s, f32 %.0f GFLOP/s.\n\n%s\n%s\n", bf16, f32, columns, marks
}

!/^[{]/ { # machine.txt
  if (!machine++) head($0)
  if ($1 == "isa") set_targets($2)
  print "    " $0
  next
}

function head(cpu) {
  sub(/^cpu */, "", cpu)
  print "# " cpu "\n"
  if (svg) print "![efficiency over tokens](efficiency.svg)\n"
  print "Written by `make results` from the lines beside it; REPORT.md is the table's. Efficiency is floor / time of a whole layer,"
  print "floor = the larger of reading the active experts once and doing the dots, both at the machine's"
  print "limits of the same rounds; medians, quartiles in brackets. err: relative, against the C rows in"
  print "FP32. Targets for AVX-512 are of two Zen 4 cores. Single kernels run from the level-2 cache;"
  print "their share is the same floor / time on all threads, with the kernel's own input bytes and dots:"
  print "above 1 it is faster than memory can feed it. Their err is against the C row's bits, or the worst"
  print "|y - exact| and its bound, in 2^-24 * sum of |a*w| per 32 k. Routing one has all tokens at one"
  print "expert, most nine of ten: even ms is what such experts take beside others of as many rows, share"
  print "= even ms / ms, idle the share of a phase in which workers wait.\n"
}

/"what":"host"/ {
  command = value("command")
  read = 0 # until the line of the limits
}

/"what":"ceilings"/ {
  threads = value("threads")
  read = value("read_gbytes_s")
  int8 = value("int8_gops")
  bf16 = value("bf16_gflops")
  f32 = value("f32_gflops")
}

function layer_name() {
  return value("model") ", class " value("precision") " (" value("format") ")"
}

/"what":"layer"/ && value("routing") != "" {
  section("Routing " value("routing") ": " layer_name(),
          "| M | ms | efficiency | even ms | share | quartiles | idle, phase 1 | phase 2 | err |",
          "|--:|--:|--:|--:|--:|:-:|--:|--:|--:|")
  split(value("share_quartiles"), q, ",")
  split(value("idle"), idle, ",")
  printf "| %d | %.3f | %.3f | %.3f | %.3f | [%.3f, %.3f] | %.3f | %.3f | %.1e |\n", value("tokens"), value("ms"), \
         value("efficiency"), value("even_ms"), value("share"), q[1], q[2], idle[1], idle[2], value("err")
  next
}

/"what":"empty"/ {
  section("Empty call: " value("model"), "| M | us | least | quartiles |", "|--:|--:|--:|:-:|")
  split(value("quartiles"), q, ",")
  printf "| %d | %.3f | %.3f | [%.3f, %.3f] |\n", value("tokens"), value("us"), value("us_min"), q[1], q[2]
}

/"what":"layer"/ {
  section(layer_name(),
          "| M | ms | GB/s | GFLOP/s | floor ms | efficiency | quartiles | target | err |",
          "|--:|--:|--:|--:|--:|--:|:-:|--:|--:|")
  split(value("quartiles"), q, ",")
  printf "| %d | %.3f | %.1f | %.0f | %.3f | %.3f | [%.3f, %.3f] | %s | %.1e |\n", value("tokens"), \
         value("ms"), value("gbytes_s"), value("gflops"), value("floor_ms"), value("efficiency"), \
         q[1], q[2], targets[value("model"), value("precision"), value("tokens")], value("err")
}

/"what":"op"/ {
  section(value("op") ", K " value("k") " (" value("model") ", " value("format") ")",
          "| kernel | rows | GB/s, 1 thread | Gop/s | GB/s, " threads " threads | Gop/s | share | err |",
          "|---|--:|--:|--:|--:|--:|--:|---|")
  if (value("bound") != "") err = sprintf("%.2g of %d", value("err"), value("bound"))
  else err = value("same_bits") == "true" ? "same bits" : "OTHER BITS"
  printf "| %s | %d | %s | %s | %s | %s | %.3f | %s |\n", value("kernel"), value("rows"), \
         rate("gbytes_s_one"), rate("gops_one"), rate("gbytes_s"), rate("gops"), value("share"), err
}
