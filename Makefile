# Makefile - builds fp4moe out of tree in build/. Sources are found by wildcard, the ISA flags of a
# kernel file come from its suffix: a new file or variant needs no edit here.
#   make        libraries and programs      make test   tests that need only a compiler and CUnit
#   make check  everything (installs what is missing; INSTALL=0 forbids)      make tune   this host
#   make fuzz   the parsers under libFuzzer, a minute each (FUZZ_SECONDS)
#   make rules  which room may include and call which (tests/rules.awk)
#   make perf   the hottest kernels of a bench (PERF='its arguments')
#   make vm     two memory nodes in a virtual machine
#   make proof  all there is: check, tsan, memcheck, vm, asan, coverage, soak; each is a target too
#   make coverage   the lines that the tests reach, by room
#   make results  measures this host for results/, after make tune
#   make install, make uninstall    under PREFIX, below DESTDIR; also BINDIR LIBDIR INCLUDEDIR MANDIR
#   make CROSS=aarch64-linux-gnu-   for another machine, in build-aarch64 (results/README.md: ARM)
# V=1 shows the commands.
CROSS  :=
CC     ?= cc
CXX    ?= c++
CFLAGS ?= -O2 -g
B      := build$(if $(CROSS),-$(firstword $(subst -, ,$(CROSS))))
VERSION   := $(shell sed -n 's/.*FP4MOE_VERSION_M[A-Z]* //p' include/fp4moe.h | paste -sd.)
SOVERSION := $(firstword $(subst ., ,$(VERSION)))

# Libraries of the other machine: .ci/sysroot puts them there. Tests and those libraries themselves find
# them by the tests' rpath (runpath would not do for the latter); what is installed has none.
SYSROOT  := $(if $(CROSS),$(CURDIR)/$(B)/sysroot/usr)
ifneq ($(CROSS),)
CC       := $(CROSS)gcc
AR       := $(CROSS)ar
export NM := $(CROSS)nm
export SIZE := $(CROSS)size
CPPFLAGS += -isystem $(SYSROOT)/include -isystem $(SYSROOT)/include/$(CROSS:-=)
LDFLAGS  += -L$(SYSROOT)/lib/$(CROSS:-=) -Wl,-rpath-link,$(SYSROOT)/lib/$(CROSS:-=)
$(B)/check: LDFLAGS += -Wl,--disable-new-dtags,-rpath,$(SYSROOT)/lib/$(CROSS:-=)
endif

IS_CLANG := $(findstring clang,$(shell $(CC) --version))
ARCH := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
# Fields that an initialiser leaves out are zero by the rule of fp4moe.h: no warning.
WARN := -Wall -Wextra -Wno-missing-field-initializers -Wmissing-prototypes -Wconversion -Werror
# What a profiler needs: a frame in every function, calls that stay calls, no two kernels in one.
FRAMES := -fno-omit-frame-pointer -mno-omit-leaf-frame-pointer -fno-optimize-sibling-calls
BASE := -std=c11 -D_GNU_SOURCE $(WARN) -ffp-contract=off $(FRAMES) -fPIC \
        -fvisibility=hidden $(if $(IS_CLANG),,-fno-ipa-icf) \
        -Iinclude -Ikernels -Isrc -Iautotune
COMPILE = $(CC) $(BASE) $(CFLAGS) $(CPPFLAGS) -MMD -MP

# The suffixes of each machine and the flags of each: below.
-include $(B)/isas.mk
# Loops of ARM stand in the order that the registers bear; GCC's first scheduler would spill.
IN_ORDER_aarch64 := $(if $(IS_CLANG),,-fno-schedule-insns)
isa_flags         = $(ISA_$(1)) $(if $(ISA_$(1)),$(IN_ORDER_$(ARCH)))
SUFFIXES         := $(SUFFIXES_any) $(SUFFIXES_$(ARCH))

KERNELS  := $(foreach s,$(SUFFIXES),$(wildcard kernels/*_$(s).c))
CORE     := $(KERNELS) $(wildcard src/*.c)
IO       := $(wildcard src/io/*.c)
CEILINGS := $(foreach s,$(SUFFIXES),$(wildcard autotune/ceiling_$(s).c))
TOOLS    := $(filter-out src/cli/main.c,$(wildcard src/cli/*.c)) $(CEILINGS) \
            $(addprefix autotune/,measure.c ceilings.c presets.c counters.c)
TUNER    := $(filter-out $(TOOLS) autotune/ceiling_%,$(wildcard autotune/*.c))
# 1: there is the header, and the library for this machine. (A make before 4.3 wants \# in a call,
# a later one keeps its backslash.)
HASH     := \#
has       = $(shell echo '$(HASH)include <$(1)>' | \
              $(CC) $(CPPFLAGS) $(LDFLAGS) -shared -x c - -l$(2) -o /dev/null 2>/dev/null && echo 1)
JANSSON  := $(call has,jansson.h,jansson)
NUMA     := $(call has,numa.h,numa)
# make USDT=0 leaves the probes out (src/probes.h).
USDT     := $(call has,sys/sdt.h,c)
HWLOC    := $(call has,hwloc.h,hwloc)
PFM      := $(call has,perfmon/pfmlib_perf_event.h,pfm)
TESTS    := $(filter-out tests/soak% tests/faulty_main.c $(if $(JANSSON),,tests/check_io% tests/gguf_file.c) $(if $(filter x86_64,$(ARCH)),,tests/evex_%) \
              $(if $(HWLOC),,tests/check_topology.c),$(wildcard tests/*.c)) \
            $(addprefix autotune/,presets.c measure.c counters.c race.c prove.c \
              gains.c compare.c $(if $(HWLOC),topology.c))
PROGRAMS := fp4moe fp4moe-autotune
obj       = $(patsubst %.c,$(B)/%.o,$(1))

CPPFLAGS += $(if $(filter 1,$(USDT)),-DFP4MOE_USDT)
LIBS     := $(if $(NUMA),-lnuma) -lm -lpthread
PFM_LIBS := $(if $(PFM),-lpfm)
IO_LIBS  := -ljansson
Q        := $(if $(V),,@)
say       = $(if $(V),,@echo "  $(1) $@")

all: $(B)/libfp4moe.a $(B)/libfp4moe.so $(B)/libfp4moe_io.a $(B)/libfp4moe_io.so \
     $(B)/fp4moe $(B)/fp4moe-autotune

# SUFFIXES_x86_64 += avxvnni, ISA_avxvnni := -mavx -mfma ...: the rows of isas.inc, whose CPU bits are
# the compiler's words.
$(B)/isas.mk: kernels/isas.inc Makefile
	@mkdir -p $(@D)
	$(Q)$(CC) -E -P -x c '-DISA(suffix, arch, bits)=suffix arch bits' $< | awk 'NF { \
	    flags = ""; \
	    for (i = 3; i <= NF; i += 2) { \
	      word = tolower($$i); if (word ~ /_.*_/) sub(/_/, ".", word); gsub(/_/, "-", word); \
	      flags = flags ($$2 != "aarch64" ? " -m" : i == 3 ? " -march=" : "+") word } \
	    print "SUFFIXES_" $$2 " += " $$1 "\nISA_" $$1 " :=" ($$2 == "any" ? "" : flags) }' >$@

$(B)/%.o: %.c Makefile
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) $(call isa_flags,$(lastword $(subst _, ,$(basename $(notdir $<))))) -c $< -o $@

# Vectors of loops that compare floats or take roots; no value changes, only what nobody reads.
$(B)/src/route.o: CPPFLAGS += -fno-trapping-math -fno-math-errno

$(B)/libfp4moe.a: $(call obj,$(CORE))
$(B)/libfp4moe_io.a: $(call obj,$(IO))
$(B)/tools.a: $(call obj,$(TOOLS))
$(B)/%.a:
	$(call say,AR)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

# $(call shared,libraries): a map names its symbols, private ones for libfp4moe_io apart.
shared = $(Q)$(CC) -shared $(LDFLAGS) -Wl,-soname,$(@F).$(SOVERSION) \
           -Wl,--version-script=$(filter %.map,$^) $(filter %.o,$^) $(1) -o $@ && \
         ln -sf $(@F) $@.$(SOVERSION)
$(B)/libfp4moe.so: $(call obj,$(CORE)) src/fp4moe.map
	$(call say,LD)
	$(call shared,$(LIBS))
$(B)/libfp4moe_io.so: $(call obj,$(IO)) src/io/fp4moe_io.map $(B)/libfp4moe.so
	$(call say,LD)
	$(call shared,-L$(B) -lfp4moe $(IO_LIBS))

$(B)/fp4moe: $(call obj,src/cli/main.c) $(B)/tools.a $(B)/libfp4moe_io.a $(B)/libfp4moe.a
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) $^ $(IO_LIBS) $(PFM_LIBS) $(LIBS) -o $@
$(B)/fp4moe-autotune: $(call obj,$(TUNER)) $(B)/tools.a $(B)/libfp4moe_io.a $(B)/libfp4moe.a
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) $^ -lhwloc $(IO_LIBS) $(PFM_LIBS) $(LIBS) -o $@
# The tests stand between the library and these calls (tests/faults.h), and before a program's main.
WRAPPED  := malloc calloc realloc aligned_alloc free strdup strndup asprintf mmap open close pread \
            pwrite fsync rename flock pthread_create
FAULTY   := $(PROGRAMS:%=$(B)/faulty/%)
$(B)/check $(FAULTY): LDFLAGS += $(WRAPPED:%=-Wl,--wrap=%)
$(FAULTY): LDFLAGS += -Wl,--wrap=main
$(B)/faulty/fp4moe: $(call obj,src/cli/main.c)
$(B)/faulty/fp4moe-autotune: $(call obj,$(TUNER))
$(FAULTY): $(call obj,tests/faulty_main.c tests/faults.c) $(B)/tools.a $(B)/libfp4moe_io.a $(B)/libfp4moe.a
	$(call say,LD)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) $(filter %.o,$^) $(filter %.a,$^) $(if $(filter %autotune,$@),-lhwloc) $(IO_LIBS) $(PFM_LIBS) $(LIBS) -o $@
$(B)/check: $(call obj,$(TESTS)) $(if $(JANSSON),$(B)/libfp4moe_io.a) $(B)/libfp4moe.a
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) $^ -lcunit $(if $(HWLOC),-lhwloc) $(if $(JANSSON),$(IO_LIBS)) $(PFM_LIBS) $(LIBS) -o $@
$(B)/src/numa.o: CPPFLAGS += $(if $(NUMA),-DFP4MOE_NUMA)
SOAKED   := $(addprefix tests/,soak.c soak_deck.c layer_call.c random_layer.c quantiser.c ties.c random.c)
$(B)/soak: $(call obj,$(SOAKED)) $(B)/libfp4moe_io.a $(B)/libfp4moe.a
	$(Q)$(CC) $(LDFLAGS) $^ $(IO_LIBS) $(LIBS) -o $@
$(B)/tests/soak.o: CPPFLAGS += -DSOAK_DATA='"tests/data/layers"'
$(B)/autotune/counters.o: CPPFLAGS += $(if $(PFM),-DFP4MOE_PFM)
$(B)/tests/check.o: CPPFLAGS += $(if $(JANSSON),,-DCHECK_NO_IO) $(if $(HWLOC),,-DCHECK_NO_TOPOLOGY)

# Where things go; the programs hold the libraries and run from anywhere. Nothing is stripped: perf
# names kernels by their symbols.
PREFIX     ?= /usr/local
BINDIR     ?= $(PREFIX)/bin
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR     ?= $(PREFIX)/share/man
LIBRARIES  := libfp4moe libfp4moe_io
HEADERS    := $(notdir $(wildcard include/*.h))
PAGES      := $(notdir $(wildcard src/man/*))
INSTALLED   = $(PROGRAMS:%=$(BINDIR)/%) $(HEADERS:%=$(INCLUDEDIR)/%) \
              $(foreach e,a so so.$(SOVERSION) so.$(VERSION),$(LIBRARIES:%=$(LIBDIR)/%.$e)) \
              $(LIBRARIES:%=$(LIBDIR)/pkgconfig/%.pc) \
              $(foreach p,$(PAGES),$(MANDIR)/man$(patsubst .%,%,$(suffix $p))/$p)
in_prefix   = $(patsubst $(PREFIX)/%,$${prefix}/%,$(1))

install: D := $(DESTDIR)$(LIBDIR)
install: all
	install -d $(sort $(dir $(INSTALLED:%=$(DESTDIR)%)))
	install $(PROGRAMS:%=$(B)/%) $(DESTDIR)$(BINDIR)
	install -m 644 $(HEADERS:%=include/%) $(DESTDIR)$(INCLUDEDIR)
	install -m 644 $(LIBRARIES:%=$(B)/%.a) $D
	for l in $(LIBRARIES); do install $(B)/$$l.so $D/$$l.so.$(VERSION) && \
	  ln -sf $$l.so.$(VERSION) $D/$$l.so.$(SOVERSION) && ln -sf $$l.so.$(SOVERSION) $D/$$l.so && \
	  sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(call in_prefix,$(LIBDIR))|' \
	    -e 's|@INCLUDEDIR@|$(call in_prefix,$(INCLUDEDIR))|; s|@VERSION@|$(VERSION)|' \
	    -e 's|@LIBS@|$(LIBS)|; s|@IO_LIBS@|$(IO_LIBS)|' src/$$l.pc.in | \
	  install -m 644 /dev/stdin $D/pkgconfig/$$l.pc || exit 1; done
	for p in $(PAGES); do install -m 644 src/man/$$p $(DESTDIR)$(MANDIR)/man$${p##*.} || exit 1; done

uninstall:
	rm -f $(INSTALLED:%=$(DESTDIR)%)

# Fuzz targets (tests/fuzz/fuzz.h): over their corpus, and with clang's libFuzzer for a while each.
FUZZ     := safetensors gguf packed table
REPLAYS  := $(FUZZ:%=$(B)/replay-%)
SANITIZE := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
FUZZED   := $(patsubst %.c,$(B)/fuzz/%.o,$(filter-out kernels/%,$(CORE)) $(IO) tests/fuzz/fuzz.c)
FUZZ_SECONDS ?= 60

$(REPLAYS): $(B)/replay-%: $(B)/tests/fuzz/%.o $(call obj,tests/fuzz/fuzz.c tests/fuzz/replay.c) \
    $(B)/libfp4moe_io.a $(B)/libfp4moe.a
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) $^ $(IO_LIBS) $(LIBS) -o $@
$(B)/fuzz/%.o: %.c Makefile
	$(call say,FUZZ)
	@mkdir -p $(@D)
	$(Q)clang $(filter-out -fno-ipa-icf,$(BASE)) $(SANITIZE) -MMD -MP -c $< -o $@
$(FUZZ:%=$(B)/fuzz-%): $(B)/fuzz-%: $(B)/fuzz/tests/fuzz/%.o $(FUZZED) $(call obj,$(KERNELS))
	$(call say,LD)
	$(Q)clang -fsanitize=fuzzer,address,undefined $^ $(IO_LIBS) $(LIBS) -o $@

# What is found goes to build/found-*: mend it, and keep the input as corpus/<target>/any-<what>.
fuzz:
	@.ci/packages fuzz
	@$(MAKE) $(FUZZ:%=$(B)/fuzz-%)
	@for t in $(FUZZ); do mkdir -p $(B)/corpus-$$t && echo "== fuzz $$t, $(FUZZ_SECONDS) s" && \
	  $(B)/fuzz-$$t -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -timeout=20 \
	    -artifact_prefix=$(B)/found-$$t- -print_final_stats=1 -verbosity=0 \
	    $(B)/corpus-$$t tests/fuzz/corpus/$$t || exit 1; done

# Installs nothing and needs a compiler and CUnit; without jansson the file tests are skipped.
test: $(B)/check $(if $(JANSSON),$(REPLAYS))
	tests/run.sh $(B) check $(if $(JANSSON),fuzz)

check:
	@.ci/packages check
	@$(MAKE) all $(FAULTY) $(B)/check $(if $(JANSSON),$(B)/soak) $(REPLAYS)
	@SOAK=$(or $(SOAK),30) tests/run.sh $(B) $(CHECKS) soak

rules: all $(B)/check
	@bash tests/check_rules.sh $(B)

# Memcheck over every test of the C and AVX2 rows: some minutes, of which check runs a part.
memcheck: all $(B)/check
	tests/check_emulated.sh $(B) memcheck

# A virtual machine with two memory nodes (tests/check_vm.sh): packages that check does not want.
vm:
	@.ci/packages vm
	@$(MAKE) all $(B)/check
	@tests/run.sh $(B) vm

# ---- Proof: sanitizers and soak, each with a build directory of its own.
# GCC clears upper halves only among its expensive optimizations, which -O1 leaves out.
VZEROUPPER := -fexpensive-optimizations
# SIMD kernels are a thousand loads a function: checked by calls, and not for what loads by
# intrinsics cannot get wrong, they compile in seconds.
ASAN     := -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all
ASAN_ROW := -fno-sanitize=null,alignment,object-size,pointer-overflow \
            $(if $(IS_CLANG),,$(VZEROUPPER) --param asan-instrumentation-with-call-threshold=0)
$(B)/kernels/%.o $(B)/tests/evex_%.o: CPPFLAGS += $(ROW_FLAGS)
# Without optimization GCC's intrinsics are macros, whose conversions of masks would be ours.
$(B)/kernels/%.o: CPPFLAGS += $(if $(filter -O0,$(CFLAGS)),-Wno-sign-conversion)

SANE     := -O1 -g1 -Wno-format-truncation -Wno-conversion -Wno-maybe-uninitialized
SANITIZED = $(MAKE) B=$(B)-asan CC='$(CC) $(ASAN)' CFLAGS='$(SANE)' ROW_FLAGS='$(ASAN_ROW)'

# AddressSanitizer, LeakSanitizer and UBSan: all tests, and of the programs.
asan: asan-build
	tests/run.sh $(B)-asan check fuzz cli tuner faults
asan-build:
	+@$(SANITIZED) all $(FAULTY:$(B)/%=$(B)-asan/%) $(B)-asan/check $(REPLAYS:$(B)/%=$(B)-asan/%)

# Reload and replan beside calls, and the pool, under ThreadSanitizer.
tsan: tsan-build
	tests/run.sh $(B)-tsan threads
tsan-build:
	@$(MAKE) B=$(B)-tsan CC='$(CC) -fsanitize=thread' CFLAGS='$(SANE)' $(B)-tsan/check

# Lines that the tests reach, room by room: tests/COVERAGE.md says of what is not.
coverage:
	@.ci/packages coverage
	@tests/run.sh $(B) coverage
coverage-build:
	+@$(MAKE) B=$(B)-coverage CC='$(CC) -fprofile-arcs -fprofile-update=atomic' CFLAGS='$(SANE) -ftest-coverage' ROW_FLAGS='$(VZEROUPPER)' \
	  all $(patsubst $(B)/%,$(B)-coverage/%,$(FAULTY) $(B)/check $(REPLAYS))
	@find $(B)-coverage -name '*.gcda' -delete

# Layers of all kinds beside each other for SOAK seconds (600): bits, memory, files, threads.
soak: $(B)/soak
	$(B)/soak $(SOAK)

# Everything: what check runs, then all of it under the sanitizers, memcheck, the machine of two nodes,
# the lines that tests reach, the soak. What misses a package is skipped by name.
CHECKS   := check fuzz cli tuner faults examples rules install pages build clang profile isa qemu valgrind arm
proof:
	@.ci/packages check && .ci/packages vm && .ci/packages coverage || echo 'parts that want them are skipped by name'
	@$(MAKE) all $(FAULTY) $(B)/check $(if $(JANSSON),$(B)/soak $(REPLAYS))
	@tests/run.sh $(B) $(filter-out valgrind faults,$(CHECKS)) tsan every-fault memcheck vm asan coverage soak

# The table of this machine, then what the oracle makes of it and a layer that runs.
tune:
	$(if $(CROSS),$(error tune measures the machine it runs on: make tune there, or run $(B)/fp4moe-autotune))
	@.ci/packages tune
	@$(MAKE) all
	$(B)/fp4moe-autotune --quick
	$(B)/fp4moe explain --model gpt-oss-20b --precision bf16 --tokens 1
	$(B)/fp4moe bench --model gpt-oss-20b --precision bf16 --tokens 1,16,256

# Where a bench's time goes, kernel by kernel: README, Profiling.
PERF := --model gpt-oss-20b --precision bf16 --tokens 64
perf:
	@.ci/packages perf
	@$(MAKE) $(B)/fp4moe
	@autotune/perf.sh $(B) $(PERF)

# What results/ holds about this machine, measured anew.
results: all
	autotune/results.sh $(B) '$(CC)' '$(BASE) $(CFLAGS)'

# What llvm-mca says of the ARM kernels' loops: results/neon/.
ARM_MATMULS := $(wildcard $(foreach s,$(SUFFIXES_aarch64),kernels/gem[mv]_$(s).c))
neon-cost:
	@.ci/packages neon-cost
	@$(MAKE) CROSS=aarch64-linux-gnu- $(ARM_MATMULS:%.c=build-aarch64/%.o)
	autotune/neon_cost.sh build-aarch64

format:
	clang-format -i $(wildcard */*.[ch] src/*/*.[ch] tests/examples/*.c*)

clean:
	rm -rf $(B) $(B)-clang $(B)-asan $(B)-tsan $(B)-coverage $(B)-aarch64

.PHONY: all install uninstall test check rules fuzz memcheck vm asan asan-build tsan tsan-build \
        coverage coverage-build soak proof tune perf results neon-cost format clean
-include $(shell find $(B) -name '*.d' 2>/dev/null)
