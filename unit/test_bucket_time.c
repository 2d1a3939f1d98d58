/*-------------------------------------------------------------------------
 *
 * test_bucket_time.c
 *	  Reads the dates that the servers of buckets tell.
 *
 * A date that is misread makes a young file old, and so every text that is not
 * plainly a time in UTC must be refused.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "src/store/bucket/http.h"
#include "tap.h"

/* date -u -d '2026-11-28 05:38:29' +%s */
#define THEN	INT64CONST(1795844309)

static const struct
{
	const char *text;
	int64		seconds;
}			good[] = {
	{"2026-11-28T05:38:29Z", THEN},
	{"2026-11-28T05:38:29.000Z", THEN},
	{"2026-11-28T05:38:29.999999999Z", THEN},
	{"2026-11-28T05:38:29+00:00", THEN},
	{"2026-11-28T05:38:29.5+00:00", THEN},
	{"2024-02-29T00:00:00Z", INT64CONST(1709164800)},
	{"2016-12-31T23:59:60Z", INT64CONST(1483228800)},
	{"2560-01-01T00:00:00.000Z", UNIX_SECONDS_MAX},
	{"9999-12-31T23:59:59Z", UNIX_SECONDS_MAX}
};

static const char *const bad[] = {
	"", "Z", "now", "0", "2026", "2026-11-28", "1795844309",
	"2026-11-28T05:38:29", "2026-11-28T05:38Z", "2026-11-28 05:38:29Z", " 2026-11-28T05:38:29Z",
	"2026-11-28T05:38:29-05:00", "2026-11-28T05:38:29+05:00", "2026-11-28T05:38:29+00:00Z", "2026-11-28T05:38:29+0000",
	"2026-11-28T05:38:29Z ", "2026-11-28T05:38:29Z2", "2026-11-28T05:38:29.000", "2026-11-28T05:38:29.Z", "2026-11-28T05:38:29,000Z",
	"2026-11-28T05:38:29UTC", "2026-11-28T05:38:29 GMT", "Sat, 28 Nov 2026 05:38:29 GMT", "28 Nov 2026",
	"2026-00-28T05:38:29Z", "2026-13-28T05:38:29Z", "2026-11-00T05:38:29Z", "2026-11-31T05:38:29Z", "2025-02-29T05:38:29Z",
	"2026-11-28T24:00:00Z", "2026-11-28T05:60:00Z", "2026-11-28T05:38:61Z",
	"2026-+1-28T05:38:29Z", "2026- 1-28T05:38:29Z", "-026-11-28T05:38:29Z",
	/* what servers write that know no date */
	"0001-01-01T00:00:00Z", "0001-01-01T00:00:59Z", "1970-01-01T00:00:00.000Z", "1969-12-31T23:59:59Z", "1900-01-01T00:00:59Z"
};

int
main(void)
{
	tap_begin();
	for (int i = 0; i < lengthof(good); i++)
		is(http_parse_time(good[i].text), good[i].seconds, good[i].text);
	for (int i = 0; i < lengthof(bad); i++)
		is(http_parse_time(bad[i]), 0, tap_text("no date: \"%s\"", bad[i]));
	return tap_end();
}
