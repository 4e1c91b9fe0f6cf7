/* cli.h - what the commands of the program share: failing, reading words and numbers, progress.
 *
 * An error is one line on stderr, "fp4moe <command>: <the thing>: <why>", and exit status 2; status
 * 1 is kept for a check that ran and did not hold. Memory lives until the program ends where
 * nothing is gained by giving it back. */
#ifndef FP4MOE_CLI_H
#define FP4MOE_CLI_H

#include <getopt.h>
#include <jansson.h>

#include "fp4moe_io.h"

enum { EXIT_CHECK = 1, EXIT_ERROR = 2 };

/* Each gets its own argv: argv[0] is the command's name. Returns the exit status. */
typedef int command_fn(int argc, char **argv);
command_fn command_run, command_bench, command_explain, command_inspect, command_unpack,
    command_pack;

extern const char *command_name; /* "fp4moe bench", for messages */

_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Dies with "<what>: <STATUS>: <the library's detail>" unless the status is OK; what: NULL = the
 * detail names the thing. */
void require(fp4moe_status status, const char *what);

void *allocate(size_t count, size_t size); /* zeroed */
void *allocate_workspace(size_t bytes);    /* in huge pages where the system gives them */
char *copy_text(const char *text);         /* all three: or death */

/* getopt_long over long options only: the option's val, or -1 at the end. Dies on an unknown option
 * or a missing value. */
int next_option(int argc, char **argv, const struct option *options);

/* The one argument that is left, or death. */
const char *last_argument(int argc, char **argv, const char *name);

/* The exit status, once all that was printed has been written; death where it has not. */
int finish_output(int status);

_Noreturn void print_usage(const char *text);

/* The value of `option`, or death with its name and text. */
size_t parse_size(const char *option, const char *text, size_t least, size_t most);
double parse_number(const char *option, const char *text);

typedef struct word {
  const char *text;
  int value;
} word;
extern const word precision_words[], format_words[];
const char *word_of(const word *words, int value);
int parse_word(const char *option, const char *text, const word *words);
fp4moe_precision parse_precision(const char *text);
fp4moe_input_global parse_input_global(const char *text);
fp4moe_format parse_format(const char *text);

/* The options that make an activation, in the order in which a command lists its own. */
enum {
  ACTIVATION_NAME, /* the kind, with the numbers that models use; gated but for relu2 */
  ACTIVATION_ALPHA,
  ACTIVATION_BETA,
  ACTIVATION_LIMIT,
  ACTIVATION_LINEAR_BETA,
  ACTIVATION_UNGATED,
  ACTIVATION_OPTIONS
};

typedef struct activation_flags {
  unsigned given; /* options, by bit */
  fp4moe_activation usual;
  float number[ACTIVATION_OPTIONS];
} activation_flags;

/* name: the option as the command spells it, for messages. */
void activation_take(activation_flags *f, int option, const char *name, const char *text);

/* What was given over what is there: a kind replaces all of it. */
void activation_set(const activation_flags *f, fp4moe_activation *a);

/* --rank R, --ranks N, --split experts|intermediate: all three or none. */
typedef struct slice_options {
  const char *rank, *ranks, *split; /* NULL = not given */
} slice_options;
/* Dies when some are missing. split NONE when none is given. */
fp4moe_slice parse_slice(const slice_options *o);

/* A context with the program's flags; lines of its log go to stderr. kernels: NULL = any. */
fp4moe_context *open_context(size_t threads, const char *kernels);
fp4moe_context *open_context_of(fp4moe_context_desc desc); /* struct_size and log filled in */

/* On a terminal, "what: done of total", in place: once work of this name has lasted two seconds,
 * and then with the time that is left; or at once. */
void progress(const char *what, size_t done, size_t total);
void progress_at_once(const char *what, size_t done, size_t total);
void progress_clear(void);

/* Take a new value over, or die; also where there is none for want of memory. */
void json_append(json_t *list, json_t *value);
void json_put(json_t *object, const char *name, json_t *value);
void json_merge(json_t *object, json_t *fields);

/* Prints a JSON value on one line of stdout and drops it. A number that is no number is null. */
void print_json(json_t *value);
json_t *json_number(double x);

/* "a,b,c" <-> ["a","b","c"] */
json_t *json_names(const char *names);

#endif
