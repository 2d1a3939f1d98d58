/*-------------------------------------------------------------------------
 *
 * pg/texts.h
 *	  A list of texts that may be larger than memory.
 *
 * A text is kept without the bytes that it has in common with the beginning of
 * the text before, so a list of paths costs little more than its names.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_TEXTS_H
#define AUDIO_CLEANUP_TEXTS_H

typedef struct TextList TextList;

/*
 * Returns an empty list in the current memory context.  The list takes at most
 * `max_kb` KiB of memory.  A longer list goes to a temporary file, which is
 * gone at the end of the transaction.
 */
extern TextList *texts_begin(int max_kb);

/* Frees the list and its file. */
extern void texts_end(TextList *list);

/*
 * Appends `text`.  Must not be called any more once the list has been read.  A
 * failure to write the temporary file is an ERROR.
 */
extern void texts_add(TextList *list, const char *text);

/* Lets texts_next() begin at the first text. */
extern void texts_rewind(TextList *list);

/* Returns the next text, which is there until the next call; NULL at the end. */
extern const char *texts_next(TextList *list);

#endif							/* AUDIO_CLEANUP_TEXTS_H */
