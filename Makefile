# audio_cleanup: build with PGXS
#
#   make && make install && make installcheck
#
# installcheck starts temporary servers of its own (so not as root) and needs
# the installed extension.  WERROR=1 makes warnings errors.

EXTENSION = audio_cleanup
MODULE_big = audio_cleanup
DATA = audio_cleanup--1.0.sql
PGFILEDESC = "audio_cleanup - keeps uploaded audio in step with the database"

OBJS = audio_cleanup.o \
	$(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))

REGRESS = $(patsubst sql/%.sql,%,$(sort $(wildcard sql/*.sql)))
REGRESS_OPTS = --temp-instance=tmp_check_regress --temp-config=test.conf --no-locale --encoding=UTF8
ISOLATION = $(patsubst specs/%.spec,%,$(sort $(wildcard specs/*.spec)))
ISOLATION_OPTS = --temp-instance=tmp_check_iso --temp-config=test.conf --no-locale --encoding=UTF8
TAP_TESTS = 1

PG_CPPFLAGS = -I$(CURDIR)
PG_CFLAGS = -std=gnu11 -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers
ifdef WERROR
PG_CFLAGS += -Werror
endif

# what src/dashboard.c includes
TEXTS = src/dashboard.html.inc src/dashboard.sql.inc

EXTRA_CLEAN = tmp_check_regress $(TEXTS)

PG_CONFIG = pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# PGXS knows no dependencies on headers
$(OBJS): $(wildcard src/*.h)

src/dashboard.o src/dashboard.bc: $(TEXTS)

# dashboard.html becomes dashboard_html, an array of char
src/%.inc: src/%
	{ echo 'static const char $(subst .,_,$*)[] ='; sed -e 's/[\\"]/\\&/g' -e 's/.*/"&\\n"/' $<; echo ';'; } > $@
