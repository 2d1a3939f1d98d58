/*-------------------------------------------------------------------------
 *
 * pg/texts.c
 *	  A list of texts that may be larger than memory.
 *
 * The list is in a temporary file, whose last block the server buffers.
 *
 * A record has the number of bytes that its text has in common with the
 * beginning of the text before, the number of bytes that follow, and these
 * bytes.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "storage/buffile.h"

#include "src/pg/texts.h"

typedef struct RecordHead
{
	uint32		shared;
	uint32		len;
} RecordHead;

struct TextList
{
	BufFile    *file;
	StringInfoData last;		/* the text that was added last, or read last */
};

TextList *
texts_begin(void)
{
	TextList   *list = palloc0(sizeof(TextList));

	list->file = BufFileCreateTemp(false);
	initStringInfo(&list->last);
	return list;
}

void
texts_end(TextList *list)
{
	BufFileClose(list->file);
	pfree(list->last.data);
	pfree(list);
}

void
texts_add(TextList *list, const char *text)
{
	RecordHead	head = {0};

	while (head.shared < (uint32) list->last.len && text[head.shared] == list->last.data[head.shared])
		head.shared++;
	head.len = (uint32) strlen(text + head.shared);
	BufFileWrite(list->file, &head, sizeof(head));
	BufFileWrite(list->file, unconstify(char *, text) + head.shared, head.len);
	list->last.len = (int) head.shared;
	appendBinaryStringInfo(&list->last, text + head.shared, (int) head.len);
}

void
texts_rewind(TextList *list)
{
	resetStringInfo(&list->last);
	if (BufFileSeek(list->file, 0, 0, SEEK_SET) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not rewind temporary file: %m")));
}

/* Reads `n` bytes.  Returns false at the end of the file, which is an ERROR unless `may_end`. */
static bool
read_bytes(TextList *list, void *bytes, Size n, bool may_end)
{
	Size		found = BufFileRead(list->file, bytes, n);

	if (found != n && (found != 0 || !may_end))
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read from temporary file")));
	return found == n;
}

const char *
texts_next(TextList *list)
{
	RecordHead	head;

	if (!read_bytes(list, &head, sizeof(head), true))
		return NULL;
	list->last.len = (int) head.shared;
	enlargeStringInfo(&list->last, (int) head.len);
	(void) read_bytes(list, list->last.data + head.shared, head.len, false);
	list->last.len += (int) head.len;
	list->last.data[list->last.len] = '\0';
	return list->last.data;
}
