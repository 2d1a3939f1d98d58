/*-------------------------------------------------------------------------
 *
 * claim_file.c
 *	  The claim in the private directory, and the file system's clock.
 *
 * The private directory is trusted only if it is ours (see file_ops.c), so
 * nobody else can have written the claim; he may have moved it out of the
 * way with the whole directory, and a missing claim is for the caller to
 * judge.  A claim is replaced by a rename, so it is never seen half written.
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

#include "src/file_ops.h"
#include "src/file_store.h"

#define CLAIM_NAME		"claim"
#define CLAIM_NEW_NAME	"claim.new"

static FileResult
done(void)
{
	FileResult	result = {FILE_OK, 0, NULL};

	return result;
}

static FileResult
failed(int errnum, const char *action)
{
	FileResult	result = {FILE_FAILED, errnum, action};

	if (errnum == ENOSPC || errnum == EDQUOT)
		result.outcome = FILE_NO_SPACE;
	return result;
}

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
			return failed(errno, "read claim");
		if (n == 0)
			break;
		len += n;
	}
	text[len] = '\0';
	return done();
}

FileResult
store_read_claim(FileStore *store, char text[STORE_CLAIM_MAX])
{
	const FileResult vanished = {FILE_VANISHED, 0, NULL};
	const char *action;
	FileResult	result;
	int			private = store_open_private(store, false, &action);
	int			fd;

	text[0] = '\0';
	if (private < 0)
		return errno == ENOENT ? vanished : failed(errno, action);
	fd = openat(private, CLAIM_NAME, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		result = errno == ENOENT ? vanished : failed(errno, "open claim");
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
			return failed(errno, "write claim");
		text += n;
		len -= n;
	}
	return done();
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
		return failed(errno, "create claim");
	result = write_all(fd, text);
	/* a claim that a crash leaves empty would lock its owner out */
	if (result.outcome == FILE_OK && fsync(fd) != 0)
		result = failed(errno, "fsync claim");
	if (close(fd) != 0 && result.outcome == FILE_OK)
		result = failed(errno, "close claim");
	return result;
}

/* Give the new claim its name.  A hard link, unlike a rename, replaces nothing. */
static FileResult
put_in_place(int private, bool replace)
{
	FileResult	result = done();

	if (replace)
	{
		if (renameat(private, CLAIM_NEW_NAME, private, CLAIM_NAME) != 0)
			result = failed(errno, "rename claim");
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
		result = failed(errno, "name claim");
	return result;
}

FileResult
store_write_claim(FileStore *store, const char *text, bool replace)
{
	const char *action;
	FileResult	result;
	int			private = store_open_private(store, true, &action);

	if (private < 0)
		return failed(errno, action);
	result = write_new(private, text);
	if (result.outcome == FILE_OK)
		result = put_in_place(private, replace);
	if (result.outcome == FILE_OK &&
		(fsync(private) != 0 || fsync(store->root.fd) != 0))
		result = failed(errno, "fsync claim");
	/* gone already, unless something failed or it was linked */
	(void) unlinkat(private, CLAIM_NEW_NAME, 0);
	close(private);
	return result;
}

FileResult
store_clock(FileStore *store, int64 *now_ns)
{
	FileLook	look;
	FileResult	result = done();
	int			fd = openat(store->root.fd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC,
							S_IRUSR | S_IWUSR);

	if (fd < 0)
		return failed(errno, "create temporary file");
	if (write(fd, "", 1) != 1 || store_look(fd, "", &look) != 0)
		result = failed(errno, "stat temporary file");
	else
		*now_ns = look.identity.mtime_ns;
	close(fd);
	return result;
}
