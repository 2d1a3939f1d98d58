# audio_cleanup: build with PGXS
#
#   make && make install && make installcheck
#
# To build in another folder, run make -f ../audio_cleanup/Makefile there, and
# the same with install; the tests run here.
#
# installcheck starts temporary servers of its own (so not as root) and needs
# the installed extension.  The TAP tests need much more, see script/packages;
# TAP_TESTS= leaves them out.  WERROR=1 makes warnings errors.

EXTENSION = audio_cleanup
MODULE_big = audio_cleanup
# SMTP and S3 are libraries of their own: see audio_cleanup_mail.c
MODULES = audio_cleanup_mail audio_cleanup_bucket
# this folder, as seen from the folder in which make runs
TREE := $(patsubst %/,%,$(or $(VPATH),$(dir $(firstword $(MAKEFILE_LIST)))))
# written once, in the control file
EXTVERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(TREE)/$(EXTENSION).control)
DATA = $(EXTENSION)--$(EXTVERSION).sql
DATA_built = $(EXTENSION)--1.0--1.1.sql
PGFILEDESC = "audio_cleanup - keeps uploaded audio in step with the database"

OBJS = audio_cleanup.o \
	$(filter-out $(MAIL_OBJS) $(BUCKET_OBJS),$(patsubst $(TREE)/%.c,%.o,$(sort $(wildcard $(addprefix $(TREE)/src/,*.c */*.c */*/*.c)))))
MAIL_OBJS = audio_cleanup_mail.o src/mail/smtp.o
BUCKET_OBJS = audio_cleanup_bucket.o src/store/bucket/http.o src/store/bucket/sign.o src/store/bucket/xml.o

# what is not listed is called by nobody else, and calls nobody else's namesake
SHLIB_EXPORTS = exports.txt
SHLIB_LINK = -Wl,-Bsymbolic

REGRESS = $(patsubst $(TREE)/sql/%.sql,%,$(sort $(wildcard $(TREE)/sql/*.sql)))
REGRESS_OPTS = --temp-instance=tmp_check_regress --temp-config=test.conf --no-locale --encoding=UTF8
ISOLATION = $(patsubst $(TREE)/specs/%.spec,%,$(sort $(wildcard $(TREE)/specs/*.spec)))
ISOLATION_OPTS = --temp-instance=tmp_check_iso --temp-config=test.conf --no-locale --encoding=UTF8
TAP_TESTS = 1

PG_CPPFLAGS = -DAUDIO_CLEANUP_VERSION='"$(EXTVERSION)"'
PG_CFLAGS = -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers
# what is GCC's in the flags and headers of the server
CLANG_CFLAGS = -Wno-ignored-optimization-argument -Wno-unknown-warning-option -Wno-ignored-attributes
PG_CFLAGS += $(if $(findstring clang,$(notdir $(CC))),$(CLANG_CFLAGS))
ifdef WERROR
PG_CFLAGS += -Werror
endif

# several files are unlinked at a time where liburing is there, see src/store/ring.c; LIBURING=no does without
LIBURING := $(shell pkg-config --exists 'liburing >= 2.1' 2>/dev/null && echo yes)
ifeq ($(LIBURING),yes)
PG_CPPFLAGS += -DWITH_LIBURING $(shell pkg-config --cflags liburing)
URING_LIBS := $(shell pkg-config --libs liburing)
endif

# what src/show/dashboard.c and src/mail/compose.c include
TEXTS = src/show/dashboard.html.inc src/mail/mail.html.inc src/mail/mail.txt.inc

EXTRA_CLEAN = tmp_check_regress $(TEXTS) $(MAIL_OBJS) $(BUCKET_OBJS)

PG_CONFIG = pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(shlib): SHLIB_LINK += $(URING_LIBS)

# The server's JIT must not take our functions into its own code: it finds nothing of what they call, and would end the session.
BITCODE_CFLAGS += -fno-inline

# PGXS knows no dependencies on headers
$(OBJS) $(MAIL_OBJS) $(BUCKET_OBJS): $(wildcard $(addprefix $(TREE)/src/,*.h */*.h */*/*.h))

ifneq ($(TREE),.)
$(shell mkdir -p $(sort $(dir $(OBJS) $(MAIL_OBJS) $(BUCKET_OBJS) $(TEXTS))))
endif

src/show/dashboard.o src/show/dashboard.bc src/mail/compose.o src/mail/compose.bc: $(TEXTS)

# what is changed in the tables, and then all else as the new version has it
$(EXTENSION)--1.0--1.1.sql: updates/update.awk test/$(EXTENSION)--1.0.sql updates/1.0--1.1.sql $(EXTENSION)--1.1.sql
	awk -f $^ > $@

# for the tests: servers of 1.0 are updated, and this version does not install its script
.PHONY: install-old dist
install-old:
	$(INSTALL_DATA) $(TREE)/test/$(EXTENSION)--1.0.sql '$(DESTDIR)$(datadir)/extension/'

# what is uploaded to PGXN
DIST = $(EXTENSION)-$(shell sed -n '0,/"version"/s/.*"version": "\(.*\)".*/\1/p' $(TREE)/META.json)
DIST_FOLDER = .
dist:
	git -C $(TREE) archive --format=zip --prefix=$(DIST)/ --output='$(DIST_FOLDER)/$(DIST).zip' HEAD

# of several files, which PGXS's rule for MODULES does not do, and with libraries
CURL_CONFIG = curl-config
XML2_CONFIG = xml2-config
$(MAIL_OBJS): override CPPFLAGS += $(shell $(CURL_CONFIG) --cflags)
$(BUCKET_OBJS): override CPPFLAGS += $(shell $(CURL_CONFIG) --cflags) $(shell $(XML2_CONFIG) --cflags)
audio_cleanup_mail$(DLSUFFIX): LIBRARIES = $(shell $(CURL_CONFIG) --libs)
audio_cleanup_bucket$(DLSUFFIX): LIBRARIES = $(shell $(CURL_CONFIG) --libs) $(shell $(XML2_CONFIG) --libs)
audio_cleanup_mail$(DLSUFFIX): $(MAIL_OBJS)
audio_cleanup_bucket$(DLSUFFIX): $(BUCKET_OBJS)
audio_cleanup_mail$(DLSUFFIX) audio_cleanup_bucket$(DLSUFFIX): | $(exports_file)
	$(CC) $(CFLAGS) $^ $(LDFLAGS) $(LDFLAGS_SL) $(SHLIB_LINK) -Wl,--version-script=$(exports_file) \
		-shared -o $@ $(LIBRARIES)

# dashboard.html becomes dashboard_html, an array of char
src/%.inc: src/%
	{ echo 'static const char $(subst .,_,$(notdir $*))[] ='; sed -e 's/[\\"]/\\&/g' -e 's/.*/"&\\n"/' $<; echo ';'; } > $@
