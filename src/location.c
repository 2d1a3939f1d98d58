/*-------------------------------------------------------------------------
 *
 * location.c
 *	  Is this directory a place where files may be deleted at all?
 *
 * A mistaken upload_dir must not reach PostgreSQL's own files.  Paths are
 * compared after realpath(), because either may be reached through symlinks
 * (pg_wal and tablespaces usually are).  That is advice, not protection, in
 * a directory that somebody else may rename; it guards against mistakes of
 * the administrator, whose setting it is.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#include <sys/stat.h>

#include "miscadmin.h"
#include "storage/fd.h"

#include "src/location.h"

static const char *const hint_missing =
"Create the directory, or mount its disk, or correct audio_cleanup.upload_dir.";
static const char *const hint_rights =
"The operating system user of the server needs read, write and search permission on it, by its group or an ACL.";
static const char *const hint_place =
"Set audio_cleanup.upload_dir to a directory that holds nothing but uploads.";

Brake *
location_brake(const char *path, const char *action, int errnum)
{
	switch (errnum)
	{
		case ENOENT:
			return brake_make("upload_dir", ERRCODE_UNDEFINED_FILE,
							  psprintf("upload directory \"%s\" does not exist", path),
							  NULL, (char *) hint_missing);
		case ENOTDIR:
			return brake_make("upload_dir", ERRCODE_WRONG_OBJECT_TYPE,
							  psprintf("upload directory \"%s\" is not a directory", path),
							  NULL, (char *) hint_missing);
		case EMFILE:
		case ENFILE:
			return brake_make("upload_dir", ERRCODE_INSUFFICIENT_RESOURCES,
							  psprintf("could not %s \"%s\": %s", action, path, strerror(errnum)),
							  NULL, "Raise max_files_per_process, or end the transaction between two runs.");
		case ELOOP:				/* symlinks are not followed, so it is depth */
			return brake_make("upload_dir", ERRCODE_PROGRAM_LIMIT_EXCEEDED,
							  psprintf("directory \"%s\" is nested too deeply to be walked", path),
							  NULL, "Move it up, or out of the upload directory.");
		case EACCES:
		case EPERM:
		case EROFS:
			return brake_make("upload_dir", ERRCODE_INSUFFICIENT_PRIVILEGE,
							  psprintf("could not %s \"%s\": %s", action, path, strerror(errnum)),
							  NULL, (char *) hint_rights);
		default:
			return brake_make("upload_dir", ERRCODE_IO_ERROR,
							  psprintf("could not %s \"%s\": %s", action, path, strerror(errnum)),
							  NULL, (char *) hint_missing);
	}
}

/* Is `path` the directory `root` or below it?  Both canonical. */
static bool
lies_in(const char *path, const char *root)
{
	size_t		len = strlen(root);

	if (strcmp(root, "/") == 0)
		return true;
	return strncmp(path, root, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

static Brake *
place_brake(const char *path, const char *why, const char *other)
{
	return brake_make("upload_dir", ERRCODE_INVALID_PARAMETER_VALUE,
					  psprintf("upload directory \"%s\" is not a place to clean", path),
					  psprintf("It %s \"%s\".", why, other), (char *) hint_place);
}

/* Directories of the data directory that are ours to stay away from. */
static bool
is_reserved(const char *inside)
{
	static const char *const reserved[] = {"base", "global", "log"};
	size_t		len = strcspn(inside, "/");
	int			i;

	if (strncmp(inside, "pg_", 3) == 0)
		return true;
	for (i = 0; i < lengthof(reserved); i++)
		if (len == strlen(reserved[i]) && strncmp(inside, reserved[i], len) == 0)
			return true;
	return false;
}

static Brake *
check_data_directory(const char *path)
{
	char		data[PATH_MAX];
	size_t		len;

	if (realpath(DataDir, data) == NULL)
		return location_brake(DataDir, "resolve path", errno);
	if (lies_in(data, path))
		return place_brake(path, "contains the data directory", data);
	len = strlen(data);
	if (lies_in(path, data) && is_reserved(path + len + 1))
		return place_brake(path, "belongs to PostgreSQL; it lies in", data);
	return NULL;
}

/* A directory of PostgreSQL that is reached from the data directory by a link. */
static Brake *
check_linked(const char *path, const char *link)
{
	char		target[PATH_MAX];

	if (realpath(link, target) == NULL)
		return NULL;			/* a dangling link holds no files */
	if (lies_in(path, target))
		return place_brake(path, "lies in PostgreSQL's directory", target);
	if (lies_in(target, path))
		return place_brake(path, "contains PostgreSQL's directory", target);
	return NULL;
}

static Brake *
check_tablespaces(const char *path)
{
	char		tablespaces[MAXPGPATH];
	char		link[MAXPGPATH + NAMEDATALEN];
	DIR		   *dir;
	struct dirent *entry;
	Brake	   *brake = NULL;

	snprintf(tablespaces, sizeof(tablespaces), "%s/pg_tblspc", DataDir);
	dir = AllocateDir(tablespaces);
	while (brake == NULL && (entry = ReadDir(dir, tablespaces)) != NULL)
	{
		if (entry->d_name[0] == '.')
			continue;
		snprintf(link, sizeof(link), "%s/%.*s", tablespaces, NAMEDATALEN - 1, entry->d_name);
		brake = check_linked(path, link);
	}
	FreeDir(dir);
	return brake;
}

Brake *
location_check(const char *path)
{
	char		real[PATH_MAX];
	char		wal[MAXPGPATH];
	struct stat st;
	Brake	   *brake;

	if (realpath(path, real) == NULL)
		return location_brake(path, "find upload directory", errno);
	if (stat(real, &st) != 0)
		return location_brake(path, "find upload directory", errno);
	if (!S_ISDIR(st.st_mode))
		return location_brake(path, "open upload directory", ENOTDIR);
	if (strcmp(real, "/") == 0)
		return place_brake(path, "is the root of the file system", real);
	if ((brake = check_data_directory(real)) != NULL)
		return brake;
	snprintf(wal, sizeof(wal), "%s/pg_wal", DataDir);
	if ((brake = check_linked(real, wal)) != NULL)
		return brake;
	return check_tablespaces(real);
}
