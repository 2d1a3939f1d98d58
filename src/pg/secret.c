/*-------------------------------------------------------------------------
 *
 * pg/secret.c
 *	  Reading a secret from a file that nobody else can read.
 *
 * The rights are read from the open file (fstat), because another file may
 * have the name a moment later.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/pg/secret.h"

static const char *
check_rights(int fd)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return strerror(errno);
	if (!S_ISREG(st.st_mode))
		return "it is not a regular file";
	if (st.st_uid != geteuid())
		return "it does not belong to the operating system user of the server";
	if ((st.st_mode & (S_IRWXG | S_IRWXO)) != 0)
		return "its group or others have rights to it (it must be mode 0600 or less)";
	return NULL;
}

/* Reads at most `size` bytes into `text`, and sets *length to their number. */
static const char *
read_secret_bytes(int fd, char *text, size_t size, size_t *length)
{
	ssize_t		n;

	while (*length < size && (n = read(fd, text + *length, size - *length)) != 0)
	{
		if (n < 0 && errno != EINTR)
			return strerror(errno);
		*length += Max(n, 0);
	}
	return NULL;
}

static const char *
read_secret_file(const char *path, char *text, size_t size, size_t *length)
{
	/* opening a FIFO must not make us wait */
	int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	const char *error;

	*length = 0;
	if (fd < 0)
		return strerror(errno);
	error = check_rights(fd);
	if (error == NULL)
		error = read_secret_bytes(fd, text, size, length);
	close(fd);
	return error;
}

const char *
secret_read(const char *path, char *secret, size_t size)
{
	size_t		length;
	const char *error = read_secret_file(path, secret, size, &length);

	if (error != NULL)
		return error;
	if (length == size && memchr(secret, '\n', length) == NULL)
		return "its first line is too long";
	secret[Min(length, size - 1)] = '\0';
	secret[strcspn(secret, "\r\n")] = '\0';
	return *secret == '\0' ? "its first line is empty" : NULL;
}

const char *
secret_read_whole(const char *path, char *secret, size_t size)
{
	size_t		length;
	const char *error = read_secret_file(path, secret, size, &length);

	secret[Min(length, size - 1)] = '\0';
	return error == NULL && length == size ? "it is too long" : error;
}
