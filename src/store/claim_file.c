/*-------------------------------------------------------------------------
 *
 * store/claim_file.c
 *	  The claim in the private directory.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/store/private.h"

#define CLAIM_NEW_NAME	"claim.new"

FileResult
local_read_claim(FileStore *store, char text[STORE_CLAIM_MAX])
{
	FileResult	result = come_to(FILE_OK);
	int			private = store_open_private(store, false);
	int			fd;

	text[0] = '\0';
	if (private < 0)
		return vanished_or_failed(errno, store->failure);
	fd = openat(private, CLAIM_NAME, O_RDONLY | COPY_FLAGS);
	if (fd < 0)
		result = vanished_or_failed(errno, "could not open claim");
	else
	{
		/* a longer file is no claim, and is not read to its end */
		ssize_t		n = copy_read(fd, text, STORE_CLAIM_MAX - 1, 0);

		if (n < 0)
			result = fail(errno, "could not read claim");
		else
			text[n] = '\0';
		close(fd);
	}
	close(private);
	return result;
}

/* Writes the file CLAIM_NEW_NAME, durably. */
static FileResult
write_new(int private, const char *text)
{
	FileResult	result = come_to(FILE_OK);
	int			errnum;
	int			fd;

	/* a crash may have left the file of an earlier attempt */
	(void) unlinkat(private, CLAIM_NEW_NAME, 0);
	fd = openat(private, CLAIM_NEW_NAME, O_WRONLY | O_CREAT | O_EXCL | COPY_FLAGS, S_IRUSR | S_IWUSR);
	if (fd < 0)
		return fail_or_no_space(errno, "could not create claim");
	errnum = copy_write(fd, text, strlen(text), 0);
	if (errnum != 0)
		result = fail_or_no_space(errnum, "could not write claim");
	/* a claim that is empty after a crash would lock its owner out */
	else if (fsync(fd) != 0)
		result = fail_or_no_space(errno, "could not fsync claim");
	if (close(fd) != 0 && result.outcome == FILE_OK)
		result = fail_or_no_space(errno, "could not close claim");
	return result;
}

FileResult
local_write_claim(FileStore *store, const char *text, bool replace)
{
	FileResult	result;
	int			private = store_open_private(store, true);
	int			rc;

	if (private < 0)
		return fail_or_no_space(errno, store->failure);
	result = write_new(private, text);
	if (result.outcome == FILE_OK)
	{
		rc = replace ? renameat(private, CLAIM_NEW_NAME, private, CLAIM_NAME) :
			store_rename_out_of_trash(private, CLAIM_NEW_NAME, private, CLAIM_NAME);
		if (rc != 0)
			result = !replace && errno == EEXIST ? come_to(FILE_OCCUPIED) :
				fail_or_no_space(errno, "could not rename claim");
		else if (fsync(private) != 0 || fsync(store->root.fd) != 0)
			result = fail_or_no_space(errno, "could not fsync claim");
	}
	/* the file is gone already, unless something failed */
	(void) unlinkat(private, CLAIM_NEW_NAME, 0);
	close(private);
	return result;
}
