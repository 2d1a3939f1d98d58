/*-------------------------------------------------------------------------
 *
 * text/list.c
 *	  Reads lists that people write into settings, and compares texts of a List.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "src/text/list.h"

char *
list_next_entry(const char **cursor, bool by_blanks)
{
	const char *start = *cursor;
	const char *end;

	while (*start == ',' || isspace((unsigned char) *start))
		start++;
	for (end = start; *end != '\0' && *end != ',' && !(by_blanks && isspace((unsigned char) *end));)
		end++;
	*cursor = end;
	while (end > start && isspace((unsigned char) end[-1]))
		end--;
	return end > start ? pnstrdup(start, end - start) : NULL;
}

int
list_compare_texts(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}
