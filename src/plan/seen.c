/*-------------------------------------------------------------------------
 *
 * plan/seen.c
 *	  The identities that the survey has seen of files that are looked at again.
 *
 * A look is not repeated while other transactions may wait for locks of ours:
 * the capture finds out whether the file still is the one that the survey has
 * seen.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/buffile.h"

#include "src/plan/private.h"

struct Seen
{
	BufFile    *file;
	int64		count;
	int64		next;			/* number at the current position of the file */
};

Seen *
seen_begin(void)
{
	Seen	   *seen = palloc0(sizeof(Seen));

	seen->file = BufFileCreateTemp(false);
	return seen;
}

static void
go_to(Seen *seen, int64 number)
{
	if (number != seen->next &&
		BufFileSeek(seen->file, 0, (off_t) (number * sizeof(FileIdentity)), SEEK_SET) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not seek in a temporary file of files that were seen: %m")));
	seen->next = number + 1;
}

void
seen_add(Seen *seen, const FileIdentity *identity)
{
	go_to(seen, seen->count++);
	BufFileWrite(seen->file, unconstify(FileIdentity *, identity), sizeof(FileIdentity));
}

void
seen_get(Seen *seen, int64 number, FileIdentity *identity)
{
	go_to(seen, number);
	if (BufFileRead(seen->file, identity, sizeof(FileIdentity)) != sizeof(FileIdentity))
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read from a temporary file of files that were seen: %m")));
}

void
seen_end(Seen *seen)
{
	if (seen == NULL)
		return;
	BufFileClose(seen->file);
	pfree(seen);
}
