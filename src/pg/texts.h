/*-------------------------------------------------------------------------
 *
 * pg/texts.h
 *	  What the server gives us: a list of texts that may be larger than memory.
 *
 * A text is kept without what it has in common with the beginning of the text
 * before it, so a list of paths costs little more than its names.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_TEXTS_H
#define AUDIO_CLEANUP_TEXTS_H

typedef struct TextList TextList;

/*
 * Returns an empty list in the current memory context.  It takes `max_kb` KiB
 * of memory, and goes to a temporary file beyond that, which is gone at the end
 * of the transaction.
 */
extern TextList *texts_begin(int max_kb);

/* Frees the list and its file. */
extern void texts_end(TextList *list);

/* Appends `text`; not any more once the list has been read.  What the disk does not take is an ERROR. */
extern void texts_add(TextList *list, const char *text);

/* Lets texts_next() begin at the first text. */
extern void texts_rewind(TextList *list);

/* Returns the next text, which is there until the next call; NULL at the end. */
extern const char *texts_next(TextList *list);

#endif							/* AUDIO_CLEANUP_TEXTS_H */
