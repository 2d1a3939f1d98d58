/*-------------------------------------------------------------------------
 *
 * pg/texts.c
 *	  A list of texts that may be larger than memory.
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
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "src/pg/texts.h"

typedef struct RecordHead
{
	uint32		shared;
	uint32		len;
} RecordHead;

struct TextList
{
	MemoryContext context;
	ResourceOwner owner;		/* of the file */
	Size		max_bytes;
	Size		size;			/* of `records` */
	Size		used;
	Size		at;				/* where the next text begins */
	char	   *records;		/* NULL once the records are in the file */
	BufFile    *file;
	StringInfoData last;		/* the text that was added last, or read last */
};

#define RECORDS_MIN		1024	/* bytes */

TextList *
texts_begin(int max_kb)
{
	TextList   *list = palloc0(sizeof(TextList));

	list->context = CurrentMemoryContext;
	list->owner = CurrentResourceOwner;
	list->max_bytes = Min((Size) max_kb * 1024, MaxAllocSize);
	list->size = RECORDS_MIN;
	list->records = palloc(list->size);
	initStringInfo(&list->last);
	return list;
}

void
texts_end(TextList *list)
{
	if (list->file != NULL)
		BufFileClose(list->file);
	if (list->records != NULL)
		pfree(list->records);
	pfree(list->last.data);
	pfree(list);
}

/*
 * Makes the file of the list.  The file must outlive the subtransaction in
 * which the memory of the list is used up.
 */
static void
write_to_file(TextList *list)
{
	MemoryContext caller = MemoryContextSwitchTo(list->context);
	ResourceOwner owner = CurrentResourceOwner;

	CurrentResourceOwner = list->owner;
	list->file = BufFileCreateTemp(false);
	CurrentResourceOwner = owner;
	MemoryContextSwitchTo(caller);
	BufFileWrite(list->file, list->records, list->used);
	pfree(list->records);
	list->records = NULL;
}

/* Makes room for a record of so many bytes, in memory or in the file. */
static void
make_room(TextList *list, Size bytes)
{
	if (list->used + bytes > list->max_bytes)
	{
		write_to_file(list);
		return;
	}
	while (list->size < list->used + bytes)
		list->size = Min(list->size * 2, list->max_bytes);
	list->records = repalloc(list->records, list->size);
}

static void
append_bytes(TextList *list, const void *bytes, Size n)
{
	if (list->records == NULL)
		BufFileWrite(list->file, unconstify(void *, bytes), n);
	else
		memcpy(list->records + list->used, bytes, n);
	list->used += n;
}

void
texts_add(TextList *list, const char *text)
{
	RecordHead	head = {0};
	Size		bytes;

	while (head.shared < (uint32) list->last.len && text[head.shared] == list->last.data[head.shared])
		head.shared++;
	head.len = (uint32) strlen(text + head.shared);
	bytes = sizeof(head) + head.len;
	if (list->records != NULL && list->used + bytes > list->size)
		make_room(list, bytes);
	append_bytes(list, &head, sizeof(head));
	append_bytes(list, text + head.shared, head.len);
	list->last.len = (int) head.shared;
	appendBinaryStringInfo(&list->last, text + head.shared, (int) head.len);
}

void
texts_rewind(TextList *list)
{
	list->at = 0;
	resetStringInfo(&list->last);
	if (list->file != NULL && BufFileSeek(list->file, 0, 0, SEEK_SET) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not rewind temporary file: %m")));
}

static void
read_bytes(TextList *list, void *bytes, Size n)
{
	if (list->records != NULL)
		memcpy(bytes, list->records + list->at, n);
	else if (BufFileRead(list->file, bytes, n) != n)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read from temporary file")));
	list->at += n;
}

const char *
texts_next(TextList *list)
{
	RecordHead	head;

	if (list->at >= list->used)
		return NULL;
	read_bytes(list, &head, sizeof(head));
	list->last.len = (int) head.shared;
	enlargeStringInfo(&list->last, (int) head.len);
	read_bytes(list, list->last.data + head.shared, head.len);
	list->last.len += (int) head.len;
	list->last.data[list->last.len] = '\0';
	return list->last.data;
}
