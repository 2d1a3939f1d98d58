/*-------------------------------------------------------------------------
 *
 * tap.h
 *	  The little of TAP that the unit tests need.
 *
 * The counters live in shared memory, so that a test may fork to give up its
 * privileges and go on counting.  A child must end with _exit().
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_TAP_H
#define AUDIO_CLEANUP_TAP_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

typedef struct TapCounters
{
	int			done;
	int			failed;
} TapCounters;

static TapCounters *tap = NULL;

/* Unbuffered, because buffered output would be written again by a child. */
static void
tap_begin(void)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	tap = mmap(NULL, sizeof(TapCounters), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (tap == MAP_FAILED)
		abort();
}

static bool
pg_attribute_printf(4, 5)
tap_ok(bool passed, const char *file, int line, const char *format,...)
{
	char		text[512];
	va_list		args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);

	tap->done++;
	printf("%sok %d - %s\n", passed ? "" : "not ", tap->done, text);
	if (!passed)
	{
		tap->failed++;
		printf("#   at %s line %d\n", file, line);
	}
	return passed;
}

static inline bool
tap_is(int64 got, int64 want, const char *file, int line, const char *text)
{
	bool		passed = tap_ok(got == want, file, line, "%s", text);

	if (!passed)
		printf("#   got %lld, want %lld\n", (long long) got, (long long) want);
	return passed;
}

/* Formatted text, for the next few calls. */
static inline const char *
pg_attribute_printf(1, 2)
tap_text(const char *format,...)
{
	static char buffers[8][8192];
	static int	next = 0;
	char	   *buffer = buffers[next++ % 8];
	va_list		args;

	va_start(args, format);
	vsnprintf(buffer, sizeof(buffers[0]), format, args);
	va_end(args);
	return buffer;
}

static int
tap_end(void)
{
	printf("1..%d\n", tap->done);
	return tap->failed > 0 ? 1 : 0;
}

#define ok(passed, ...) tap_ok(passed, __FILE__, __LINE__, __VA_ARGS__)
#define is(got, want, text) tap_is(got, want, __FILE__, __LINE__, text)
#define skip(text) tap_ok(true, __FILE__, __LINE__, "# SKIP %s", text)
#define diag(...) (printf("# "), printf(__VA_ARGS__), printf("\n"))

#endif							/* AUDIO_CLEANUP_TAP_H */
