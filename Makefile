# mlopsfs: make [VARIANT=release|debug|asan|tsan] [CC=gcc|clang] [BUILD=dir]
#
#   make           build/mlopsfs and build/mlopsfs-probe
#   make check     every suite (scripts/test)
#   make tests     the C test programs only
#   make install   DESTDIR and PREFIX are honoured
#   make bench     scripts/bench

VARIANT ?= release
PREFIX ?= /usr/local
SBINDIR ?= /sbin
VERSION := 0.1.0

ifeq ($(origin CC),default)
CC := gcc
endif

ifeq ($(VARIANT),release)
BUILD ?= build
OPT := -O2 -g -DNDEBUG -D_FORTIFY_SOURCE=2
else ifeq ($(VARIANT),debug)
BUILD ?= build/debug
OPT := -O1 -g3
else ifeq ($(VARIANT),asan)
BUILD ?= build/asan
OPT := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
else ifeq ($(VARIANT),tsan)
BUILD ?= build/tsan
OPT := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
else
$(error VARIANT is release, debug, asan or tsan)
endif

WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition \
        -Wpointer-arith -Wwrite-strings -Wundef -Wformat=2 -Wvla -Wimplicit-fallthrough -Wcast-qual \
        -Wno-unused-parameter -Wno-missing-field-initializers
CFLAGS ?=
CPPFLAGS ?=
LDFLAGS ?=

pkg = $(shell pkg-config --$(1) $(2) 2>/dev/null | sed 's/-I\//-isystem \//g')
PKGS := glib-2.0 sqlite3
CORE_PKGS := fuse3 libcurl openssl uuid expat libisal
ALL_CFLAGS := -std=gnu17 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DFUSE_USE_VERSION=314 -DMLOPSFS_VERSION='"$(VERSION)"' \
        -I. $(WARN) $(OPT) -pthread -fno-common -fstack-protector-strong -fPIE \
        $(call pkg,cflags,$(PKGS) $(CORE_PKGS)) $(CPPFLAGS) $(CFLAGS)
LIBS := $(call pkg,libs,$(PKGS) $(CORE_PKGS)) -lm -pthread
PROBE_LIBS := $(shell pkg-config --libs libavformat libavcodec libavutil libseccomp 2>/dev/null) -pthread
ALL_LDFLAGS := $(OPT) -pie -Wl,-z,relro,-z,now $(LDFLAGS)

DIRS := base s3 cache catalog fs
# Programs of their own; everything else in these folders goes into the folder's archive.
PROGRAMS := fs/main.c catalog/mlopsfs-probe.c
SRCS := $(wildcard $(DIRS:%=%/*.c))
TEST_SRCS := $(wildcard tests/unit/*.c tests/store/*.c tests/cache/*.c tests/catalog/*.c tests/fs/*.c tests/mount/*.c tests/bench/*.c)
TEST_LIB_SRCS := $(wildcard tests/lib/*.c)
TESTS := $(TEST_SRCS:%.c=$(BUILD)/%)

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
archive = $(BUILD)/lib$(1).a
ARCHIVES := $(foreach d,$(DIRS),$(call archive,$(d)))

# V=1 shows the whole commands.
ifneq ($(V),1)
Q := @
say = @echo "  $(1) $(2)"
endif

all: $(BUILD)/mlopsfs $(BUILD)/mlopsfs-probe compile_commands.json

$(BUILD)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

define archive_rule
$(call archive,$(1)): $(call obj,$(filter-out $(PROGRAMS),$(wildcard $(1)/*.c)))
	@rm -f $$@
	$(call say,AR,$$@)
	$(Q)ar rcs $$@ $$^
endef
$(foreach d,$(DIRS),$(eval $(call archive_rule,$(d))))

$(BUILD)/libtest.a: $(call obj,$(TEST_LIB_SRCS))
	@rm -f $@
	$(Q)ar rcs $@ $^

# Layers, lowest last: fs → cache, catalog → s3 → base.
LINK_base := $(call archive,base)
LINK_s3 := $(call archive,s3) $(LINK_base)
LINK_catalog := $(call archive,catalog) $(LINK_s3)
LINK_cache := $(call archive,cache) $(LINK_s3)
LINK_fs := $(call archive,fs) $(call archive,cache) $(LINK_catalog)

$(BUILD)/mlopsfs: $(call obj,fs/main.c) $(LINK_fs)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

# The helper keeps sanitizers out: they do not live with seccomp and RLIMIT_AS.
PROBE_OPT := -O2 -g -D_FORTIFY_SOURCE=2
$(BUILD)/mlopsfs-probe: catalog/mlopsfs-probe.c Makefile $(wildcard catalog/*.h)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(filter-out $(OPT),$(ALL_CFLAGS)) $(PROBE_OPT) -o $@ $< -pie $(PROBE_LIBS)

# A test links what its folder may know.
define test_rule
$(BUILD)/tests/$(1)/%: $(BUILD)/obj/tests/$(1)/%.o $(2) $(if $(TEST_LIB_SRCS),$(BUILD)/libtest.a)
	@mkdir -p $$(@D)
	$(call say,LD,$$@)
	$(Q)$$(CC) $$(ALL_LDFLAGS) -o $$@ $$(filter %.o,$$^) $(if $(TEST_LIB_SRCS),$(BUILD)/libtest.a) $$(filter-out %libtest.a,$$(filter %.a,$$^)) $$(LIBS)
endef
$(eval $(call test_rule,unit,$(LINK_s3)))
$(eval $(call test_rule,store,$(LINK_s3)))
$(eval $(call test_rule,cache,$(LINK_cache)))
$(eval $(call test_rule,catalog,$(LINK_catalog)))
$(eval $(call test_rule,fs,$(LINK_fs)))
$(eval $(call test_rule,mount,$(LINK_base)))
$(eval $(call test_rule,bench,$(LINK_fs)))

tests: all $(TESTS)
.SECONDARY:

# Written anew when the list of sources has changed.
C_FILES := $(sort $(SRCS) $(TEST_SRCS) $(TEST_LIB_SRCS))
SOURCES_LIST := $(BUILD)/sources
ifneq ($(C_FILES),$(strip $(file <$(SOURCES_LIST))))
$(SOURCES_LIST): FORCE
endif
$(SOURCES_LIST):
	@mkdir -p $(@D)
	@echo '$(C_FILES)' >$@

compile_commands.json: Makefile $(SOURCES_LIST)
	@{ echo '['; first=1; for f in $(C_FILES); do \
	   [ $$first = 1 ] || echo ','; first=0; \
	   printf '{"directory":"%s","file":"%s","arguments":["%s"' "$(CURDIR)" "$$f" "$(CC)"; \
	   for a in $(subst ",\\\",$(subst ',,$(ALL_CFLAGS))); do printf ',"%s"' "$$a"; done; \
	   printf ',"-c","%s"]}' "$$f"; done; echo ']'; } >$@.$$$$ && mv $@.$$$$ $@

check:
	./scripts/test

bench: all
	./scripts/bench

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/mlopsfs $(DESTDIR)$(SBINDIR) \
	        $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/doc/mlopsfs
	install -m 755 $(BUILD)/mlopsfs $(DESTDIR)$(PREFIX)/bin/mlopsfs
	install -m 755 $(BUILD)/mlopsfs-probe $(DESTDIR)$(PREFIX)/libexec/mlopsfs/mlopsfs-probe
	install -m 644 mlopsfs.conf README.md LICENSE $(DESTDIR)$(PREFIX)/share/doc/mlopsfs/
	install -m 644 docs/mlopsfs.1 $(DESTDIR)$(PREFIX)/share/man/man1/mlopsfs.1
	ln -sf $(PREFIX)/bin/mlopsfs $(DESTDIR)$(SBINDIR)/mount.mlopsfs

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/mlopsfs $(DESTDIR)$(SBINDIR)/mount.mlopsfs $(DESTDIR)$(PREFIX)/share/man/man1/mlopsfs.1
	rm -rf $(DESTDIR)$(PREFIX)/libexec/mlopsfs $(DESTDIR)$(PREFIX)/share/doc/mlopsfs

clean:
	rm -rf build compile_commands.json

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

.PHONY: all tests check bench install uninstall clean FORCE
