/*-------------------------------------------------------------------------
 *
 * store/claim_file.c
 *	  The claim in the private directory.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/store/claim_file.h"
#include "src/store/private.h"

#define CLAIM_NEW_NAME	"claim.new"

/* A file that is longer is not ours, and not read to its end. */
static FileResult
read_all(int fd, char *text)
{
	size_t		len = 0;

	while (len < STORE_CLAIM_MAX - 1)
	{
		ssize_t		n = read(fd, text + len, STORE_CLAIM_MAX - 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_or_no_space(errno, "read claim");
		if (n == 0)
			break;
		len += n;
	}
	text[len] = '\0';
	return come_to(FILE_OK);
}

FileResult
store_read_claim(FileStore *store, char text[STORE_CLAIM_MAX])
{
	const char *action;
	FileResult	result;
	int			private = store_open_private(store, false, &action);
	int			fd;

	text[0] = '\0';
	if (private < 0)
		return vanished_or_failed(errno, action);
	fd = openat(private, CLAIM_NAME, O_RDONLY | CLAIM_FLAGS);
	if (fd < 0)
		result = vanished_or_failed(errno, "open claim");
	else
	{
		result = read_all(fd, text);
		close(fd);
	}
	close(private);
	return result;
}

static FileResult
write_all(int fd, const char *text)
{
	size_t		len = strlen(text);

	while (len > 0)
	{
		ssize_t		n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_or_no_space(errno, "write claim");
		text += n;
		len -= n;
	}
	return come_to(FILE_OK);
}

static FileResult
write_new(int private, const char *text)
{
	FileResult	result;
	int			fd;

	/* what a crash has left of an earlier attempt */
	(void) unlinkat(private, CLAIM_NEW_NAME, 0);
	fd = openat(private, CLAIM_NEW_NAME,
				O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR);
	if (fd < 0)
		return fail_or_no_space(errno, "create claim");
	result = write_all(fd, text);
	/* a claim that a crash leaves empty would lock its owner out */
	if (result.outcome == FILE_OK && fsync(fd) != 0)
		result = fail_or_no_space(errno, "fsync claim");
	if (close(fd) != 0 && result.outcome == FILE_OK)
		result = fail_or_no_space(errno, "close claim");
	return result;
}

/* Give the new claim its name.  A hard link, unlike a rename, replaces nothing. */
static FileResult
put_in_place(int private, bool replace)
{
	FileResult	result = come_to(FILE_OK);

	if (replace)
	{
		if (renameat(private, CLAIM_NEW_NAME, private, CLAIM_NAME) != 0)
			result = fail_or_no_space(errno, "rename claim");
		return result;
	}
	if (renameat2(private, CLAIM_NEW_NAME, private, CLAIM_NAME, RENAME_NOREPLACE) == 0)
		return result;
	if ((errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP) &&
		linkat(private, CLAIM_NEW_NAME, private, CLAIM_NAME, 0) == 0)
		return result;
	if (errno == EEXIST)
		result.outcome = FILE_OCCUPIED;
	else
		result = fail_or_no_space(errno, "name claim");
	return result;
}

FileResult
store_write_claim(FileStore *store, const char *text, bool replace)
{
	const char *action;
	FileResult	result;
	int			private = store_open_private(store, true, &action);

	if (private < 0)
		return fail_or_no_space(errno, action);
	result = write_new(private, text);
	if (result.outcome == FILE_OK)
		result = put_in_place(private, replace);
	if (result.outcome == FILE_OK &&
		(fsync(private) != 0 || fsync(store->root.fd) != 0))
		result = fail_or_no_space(errno, "fsync claim");
	/* gone already, unless something failed or it was linked */
	(void) unlinkat(private, CLAIM_NEW_NAME, 0);
	close(private);
	return result;
}
