/* report_plots.c - the report's pictures, drawn by gnuplot from data that goes through its pipe
 * (report.h). All in one style: log axes in powers of two or ten, colour by class. */
#include <math.h>
#include <string.h>
#include <sys/wait.h>

#include "measure.h"
#include "report.h"

const char *const report_plot_names[REPORT_PLOTS] = {"roofline.svg", "efficiency.svg",
                                                     "winners.svg"};

const char *const report_plot_captions[REPORT_PLOTS] = {
    ("Every gemv and gemm kernel that this machine can run, all threads. They run from the level-2\n"
     "cache and so may stand above the slope, which is the memory's; whole layers (triangles) may not.\n"
     "Bytes are those of the packed weights, which unpack reads for a gemm. A dot beneath the others of\n"
     "its class is a lesser ISA. Kernels without multiplications are in the list below."),
    "Medians over rounds, bars from the first to the third quartile.",
    ("Grey: half of the races have less noise. At 1 the two were equal within the noise; a race that\n"
     "left no other kernel has no mark."),
};

enum { CLASSES = 3 };
static const struct {
  const char *name, *colour, *limit;
  int act;
} classes[CLASSES] = {{"bf16", "#1f5fa8", "bf16_gflops", FP4MOE_ACT_BF16},
                      {"int8", "#c8501e", "int8_gops", FP4MOE_ACT_I8},
                      {"f32", "#3c8c3c", "f32_gflops", FP4MOE_ACT_F32}};

static void begin(FILE *to, const char *directory, const char *name, int width, int height) {
  fprintf(to,
          "reset\nset terminal svg size %d,%d font 'sans-serif,13' background '#ffffff'\n"
          "set output '%s/%s'\nset border 3\nset tics nomirror\nset grid lc '#dddddd' lt 1\n"
          "set key box lc '#bbbbbb' opaque samplen 2 spacing 1.1 width 1 Left reverse\n",
          width, height, directory, name);
}

/* ---- Roofline ---- */

/* Operations per byte of the packed weights that one row costs in a matmul: a gemm gets its panels
 * from the cache, but unpack read them before. */
static double intensity(const json_t *line) {
  int mx = !strcmp(report_word(line, "format"), fp4moe_format_name(FP4MOE_MXFP4));
  return 2 * report_number(line, "rows") / (0.5 + (mx ? 1.0 / 32 : 1.0 / 16));
}

/* Kernels of an op and a class: intensity and speed. Returns the lines. */
static size_t kernel_points(FILE *to, const json_t *lines, fp4moe_op op, int act) {
  size_t count = 0, i;
  const json_t *line;
  json_array_foreach(lines, i, line) {
    if (!report_is(line, "op")) continue;
    for (size_t k = 0; k < fp4moe_kernel_count; k++)
      if (fp4moe_kernels[k].op == op && fp4moe_kernels[k].act == act &&
          !strcmp(fp4moe_kernels[k].name, report_word(line, "kernel"))) {
        fprintf(to, "%g %g\n", intensity(line), report_number(line, "gops"));
        count++;
      }
  }
  return count;
}

static size_t layer_points(FILE *to, const json_t *lines, const char *class) {
  size_t count = 0, i;
  const json_t *line;
  json_array_foreach(lines, i, line) {
    if (!report_is(line, "layer") || strcmp(report_word(line, "precision"), class)) continue;
    fprintf(to, "%g %g\n", report_number(line, "gflops") / report_number(line, "gbytes_s"),
            report_number(line, "gflops"));
    count++;
  }
  return count;
}

/* A block of data that may be empty: gnuplot wants one line. */
static void end_block(FILE *to, size_t lines) { fprintf(to, lines ? "EOD\n" : "NaN NaN\nEOD\n"); }

static void roofline_data(FILE *to, const json_t *lines) {
  for (int c = 0; c < CLASSES; c++) {
    fprintf(to, "$gemv%d << EOD\n", c);
    end_block(to, kernel_points(to, lines, FP4MOE_OP_GEMV, classes[c].act));
    fprintf(to, "$gemm%d << EOD\n", c);
    end_block(to, kernel_points(to, lines, FP4MOE_OP_GEMM, classes[c].act));
    fprintf(to, "$layer%d << EOD\n", c);
    end_block(to, layer_points(to, lines, classes[c].name));
  }
}

static void roofline(FILE *to, const char *directory, const fp4moe_context *ctx,
                     const json_t *lines) {
  double read = report_limit(lines, "read_gbytes_s");
  begin(to, directory, report_plot_names[0], 900, 600);
  roofline_data(to, lines);
  fprintf(to,
          "set title '%s, %s, %zu threads: kernels and layers under the roofline'\n"
          "set xlabel 'arithmetic intensity, operations per byte read'\n"
          "set ylabel 'speed, Gop/s (a multiply-add is two)'\n"
          "set logscale xy 10\nset xrange [1:3000]\n"
          "set key outside right top vertical\nset samples 1000\n"
          "min(a, b) = a < b ? a : b\n",
          ctx->host.cpu_model, fp4moe_isa_name(ctx->isa), fp4moe_context_threads(ctx));
  fprintf(to, "plot ");
  for (int c = 0; c < CLASSES; c++) {
    double dots = report_limit(lines, classes[c].limit);
    fprintf(to,
            "min(%g * x, %g) with lines lw 2 lc '%s' title '%s: %.0f GB/s, %.0f Gop/s', "
            "$gemv%d with points pt 6 ps 0.8 lc '%s' title '%s gemv', "
            "$gemm%d with points pt 4 ps 0.8 lc '%s' title '%s gemm', "
            "$layer%d with points pt 9 ps 1.1 lc '%s' title '%s layer'%s",
            read, dots, classes[c].colour, classes[c].name, read, dots, c, classes[c].colour,
            classes[c].name, c, classes[c].colour, classes[c].name, c, classes[c].colour,
            classes[c].name, c + 1 < CLASSES ? ", " : "\n");
  }
}

/* ---- Efficiency ---- */

static int same_curve(const json_t *a, const json_t *b) {
  return !strcmp(report_word(a, "model"), report_word(b, "model")) &&
         !strcmp(report_word(a, "precision"), report_word(b, "precision"));
}

/* Blocks $curve0, ...: M, efficiency, quartiles. The first line of each into `first`. */
static size_t curves(FILE *to, const json_t *lines, const json_t **first, size_t most) {
  size_t count = 0, i;
  const json_t *line;
  json_array_foreach(lines, i, line) {
    if (!report_is(line, "layer") || count == most) continue;
    if (!count || !same_curve(first[count - 1], line)) {
      if (count) fprintf(to, "EOD\n");
      fprintf(to, "$curve%zu << EOD\n", count);
      first[count++] = line;
    }
    const json_t *q = json_object_get(line, "quartiles");
    fprintf(to, "%g %g %g %g\n", report_number(line, "tokens"), report_number(line, "efficiency"),
            json_number_value(json_array_get(q, 0)), json_number_value(json_array_get(q, 1)));
  }
  if (count) fprintf(to, "EOD\n");
  return count;
}

static int class_of(const json_t *line) {
  int c = 0;
  while (c < CLASSES - 1 && strcmp(classes[c].name, report_word(line, "precision"))) c++;
  return c;
}

static void efficiency(FILE *to, const char *directory, const fp4moe_context *ctx,
                       const json_t *lines) {
  enum { MOST = 48 };
  const json_t *first[MOST];
  int seen[CLASSES] = {0};
  begin(to, directory, report_plot_names[1], 900, 500);
  size_t count = curves(to, lines, first, MOST);
  fprintf(to,
          "set title '%s, %s, %zu threads: a whole layer against the physical limit'\n"
          "set xlabel 'M, tokens of a call'\nset ylabel 'efficiency: floor / time'\n"
          "set logscale x 2\nset xtics 4\nset xrange [0.8:*]\nset yrange [0:1.05]\nset ytics 0.1\n"
          "set key outside right top vertical\nplot ",
          ctx->host.cpu_model, fp4moe_isa_name(ctx->isa), fp4moe_context_threads(ctx));
  for (size_t i = 0; i < count; i++) {
    int c = class_of(first[i]), dash = ++seen[c];
    fprintf(to,
            "$curve%zu using 1:2:3:4 with yerrorbars lc '%s' dt 1 pt 0 lw 1 notitle, "
            "$curve%zu with linespoints lc '%s' dt %d pt %d lw 2 title '%s %s'%s",
            i, classes[c].colour, i, classes[c].colour, dash, 3 + 2 * (dash % 4),
            report_word(first[i], "model"), classes[c].name, i + 1 < count ? ", " : "\n");
  }
}

/* ---- Winners ---- */

/* The median of a class's races, as a ratio. */
static double usual_noise(const fp4moe_table *t, int act) {
  size_t n = 0;
  double *noise = allocate(t->recipes, sizeof *noise);
  for (size_t i = 0; i < t->recipes; i++)
    if (t->recipe[i].act == act) noise[n++] = t->recipe[i].noise * 1e-6;
  double middle = n ? measure_summarise(noise, n).median : 0;
  free(noise);
  return 1 + middle;
}

/* The last panel has the key, in the room that winners() leaves above all marks. */
static void winners_panel(FILE *to, const fp4moe_table *t, int c) {
  for (int by_gemv = 0; by_gemv < 2; by_gemv++) {
    fprintf(to, "$won%d << EOD\n", by_gemv);
    end_block(to, report_contests(to, t, classes[c].act, by_gemv) > 0);
  }
  fprintf(to,
          "set title 'class %s'\nset ylabel '%s'\n%s\n"
          "plot %g with filledcurves y1=1 fc '#e4e4e4' title 'median noise', "
          "$won1 using ($1*0.92):2 with points pt 6 ps 0.8 lc '#1f5fa8' title 'won by a gemv', "
          "$won0 using ($1*1.08):2 with points pt 4 ps 0.8 lc '#c8501e' title 'won by a gemm'\n",
          classes[c].name, c ? "" : "runner-up time / winner time",
          c + 1 < CLASSES ? "unset key" : "set key box lc '#bbbbbb' top right",
          usual_noise(t, classes[c].act));
}

static double largest_ratio(const fp4moe_table *t) {
  double largest = 1.05;
  for (int c = 0; c < CLASSES; c++)
    for (int by_gemv = 0; by_gemv < 2; by_gemv++)
      largest = fmax(largest, report_contests(NULL, t, classes[c].act, by_gemv));
  return largest;
}

static void winners(FILE *to, const char *directory, const fp4moe_context *ctx,
                    const fp4moe_table *t) {
  begin(to, directory, report_plot_names[2], 1100, 440);
  fprintf(
      to,
      "set multiplot layout 1,3 title '%s, %s: the best other kernel against the one chosen, a mark "
      "a race'\n"
      "set xlabel 'rows per expert'\nset logscale x 2\nset xrange [0.7:180]\n"
      "set xtics (1,2,4,8,16,32,64,'>64' 128)\nset yrange [%g:%g]\n",
      ctx->host.cpu_model, fp4moe_isa_name(ctx->isa), 1 - 0.06 * (largest_ratio(t) - 1),
      1 + 1.4 * (largest_ratio(t) - 1));
  for (int c = 0; c < CLASSES; c++) winners_panel(to, t, c);
  fprintf(to, "unset multiplot\n");
}

/* ---- All ---- */

static int has_layers(const json_t *lines) {
  size_t i;
  const json_t *line;
  json_array_foreach(lines, i, line) if (report_is(line, "layer")) return 1;
  return 0;
}

unsigned report_plot(const char *directory, const fp4moe_context *ctx, const fp4moe_table *table,
                     const json_t *lines) {
  unsigned made = 0;
  if (system("command -v gnuplot >/dev/null 2>&1")) {
    fprintf(stderr, "%s: no plots: gnuplot is not installed (Debian: gnuplot-nox)\n", command_name);
    return 0;
  }
  FILE *to = popen("gnuplot", "w");
  if (!to) die("gnuplot cannot be started");
  if (lines) roofline(to, directory, ctx, lines), made |= 1;
  if (lines && has_layers(lines)) efficiency(to, directory, ctx, lines), made |= 2;
  if (table->recipes) winners(to, directory, ctx, table), made |= 4;
  int status = pclose(to);
  if (!status) return made;
  fprintf(stderr, "%s: no plots: gnuplot ended with status %d\n", command_name,
          WEXITSTATUS(status));
  return 0;
}
