/*-------------------------------------------------------------------------
 *
 * text/list.h
 *	  Reads lists that people write into settings, and compares texts of a List.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_TEXT_LIST_H
#define AUDIO_CLEANUP_TEXT_LIST_H

#include "nodes/pg_list.h"

/*
 * Returns the next entry of a list separated by commas, or with `by_blanks` also
 * by white space, palloc'd and without white space at its ends.  Moves *cursor
 * behind the entry.  Returns NULL at the end of the list.  Needs no SPI; the only
 * ERROR is out of memory.
 */
extern char *list_next_entry(const char **cursor, bool by_blanks);

/* For list_sort(): compares two texts (char *) of a list by their bytes. */
extern int	list_compare_texts(const ListCell *a, const ListCell *b);

#endif							/* AUDIO_CLEANUP_TEXT_LIST_H */
