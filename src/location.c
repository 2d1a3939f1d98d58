/*-------------------------------------------------------------------------
 *
 * location.c
 *	  Is this directory a place where files may be deleted at all?
 *
 * A mistaken upload_dir or backup_dir must not reach PostgreSQL's own files.
 * Paths are compared after realpath(), because either may be reached through
 * symlinks (pg_wal and tablespaces usually are).  That is advice, not
 * protection, in a directory that somebody else may rename; it guards against
 * mistakes of the administrator, whose settings they are.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"

#include "src/location.h"

/* One of the two directories, and what to say of it. */
typedef struct Subject
{
	const char *setting;
	const char *name;
	const char *purpose;
	const char *hint_missing;
	const char *hint_rights;
	const char *hint_place;
} Subject;

static const Subject upload = {
	"upload_dir", "upload directory", "clean",
	"Create the directory, or mount its disk, or correct audio_cleanup.upload_dir.",
	"The operating system user of the server needs read, write and search permission on it, by its group or an ACL.",
	"Set audio_cleanup.upload_dir to a directory that holds nothing but uploads."
};

static const Subject backup = {
	"backup_dir", "backup directory", "keep backups",
	"Create the directory, or mount its disk, or correct audio_cleanup.backup_dir.",
	"It must belong to the operating system user of the server, and nobody else may write to it: mode 0700.",
	"Set audio_cleanup.backup_dir to a directory of its own, or leave it empty."
};

static Brake *
file_brake(const Subject *subject, const char *path, const char *action, int errnum)
{
	switch (errnum)
	{
		case ENOENT:
			return brake_make(subject->setting, ERRCODE_UNDEFINED_FILE,
							  psprintf("%s \"%s\" does not exist", subject->name, path),
							  NULL, (char *) subject->hint_missing);
		case ENOTDIR:
			return brake_make(subject->setting, ERRCODE_WRONG_OBJECT_TYPE,
							  psprintf("%s \"%s\" is not a directory", subject->name, path),
							  NULL, (char *) subject->hint_missing);
		case EMFILE:
		case ENFILE:
			return brake_make(subject->setting, ERRCODE_INSUFFICIENT_RESOURCES,
							  psprintf("could not %s \"%s\": %s", action, path, strerror(errnum)),
							  NULL, "Raise max_files_per_process, or end the transaction between two runs.");
		case ELOOP:				/* symlinks are not followed, so it is depth */
			return brake_make(subject->setting, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
							  psprintf("directory \"%s\" is nested too deeply to be walked", path),
							  NULL, "Move it up, or out of the upload directory.");
		case EACCES:
		case EPERM:
		case EROFS:
			return brake_make(subject->setting, ERRCODE_INSUFFICIENT_PRIVILEGE,
							  psprintf("could not %s \"%s\": %s", action, path, strerror(errnum)),
							  NULL, (char *) subject->hint_rights);
		default:
			return brake_make(subject->setting, ERRCODE_IO_ERROR,
							  psprintf("could not %s \"%s\": %s", action, path, strerror(errnum)),
							  NULL, (char *) subject->hint_missing);
	}
}

Brake *
location_brake(const char *path, const char *action, int errnum)
{
	return file_brake(&upload, path, action, errnum);
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
place_brake(const Subject *subject, const char *path, const char *why, const char *other)
{
	return brake_make(subject->setting, ERRCODE_INVALID_PARAMETER_VALUE,
					  psprintf("%s \"%s\" is not a place to %s", subject->name, path, subject->purpose),
					  psprintf("It %s \"%s\".", why, other), (char *) subject->hint_place);
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
check_data_directory(const Subject *subject, const char *path)
{
	char		data[PATH_MAX];
	size_t		len;

	if (realpath(DataDir, data) == NULL)
		return file_brake(subject, DataDir, "resolve path", errno);
	if (lies_in(data, path))
		return place_brake(subject, path, "contains the data directory", data);
	len = strlen(data);
	if (lies_in(path, data) && is_reserved(path + len + 1))
		return place_brake(subject, path, "belongs to PostgreSQL; it lies in", data);
	return NULL;
}

/* A directory of PostgreSQL that is reached from the data directory by a link. */
static Brake *
check_linked(const Subject *subject, const char *path, const char *link)
{
	char		target[PATH_MAX];

	if (realpath(link, target) == NULL)
		return NULL;			/* a dangling link holds no files */
	if (lies_in(path, target))
		return place_brake(subject, path, "lies in PostgreSQL's directory", target);
	if (lies_in(target, path))
		return place_brake(subject, path, "contains PostgreSQL's directory", target);
	return NULL;
}

static Brake *
check_tablespaces(const Subject *subject, const char *path)
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
		brake = check_linked(subject, path, link);
	}
	FreeDir(dir);
	return brake;
}

/* `real` becomes the path without symlinks. */
static Brake *
check_place(const Subject *subject, const char *path, char real[PATH_MAX], struct stat *st)
{
	const char *find = psprintf("find %s", subject->name);
	char		wal[MAXPGPATH];
	Brake	   *brake;

	if (realpath(path, real) == NULL || stat(real, st) != 0)
		return file_brake(subject, path, find, errno);
	if (!S_ISDIR(st->st_mode))
		return file_brake(subject, path, find, ENOTDIR);
	if (strcmp(real, "/") == 0)
		return place_brake(subject, path, "is the root of the file system", real);
	if ((brake = check_data_directory(subject, real)) != NULL)
		return brake;
	snprintf(wal, sizeof(wal), "%s/pg_wal", DataDir);
	if ((brake = check_linked(subject, real, wal)) != NULL)
		return brake;
	return check_tablespaces(subject, real);
}

Brake *
location_check(const char *path)
{
	char		real[PATH_MAX];
	struct stat st;

	return check_place(&upload, path, real, &st);
}

static Brake *
trust_brake(const char *path)
{
	return brake_make(backup.setting, ERRCODE_INSUFFICIENT_PRIVILEGE,
					  psprintf("%s \"%s\" cannot be trusted", backup.name, path),
					  "It belongs to somebody else, or others may write to it.",
					  (char *) backup.hint_rights);
}

Brake *
location_check_backup_dir(const Settings *settings, bool to_write)
{
	const char *path = settings->backup_dir;
	char		real[PATH_MAX];
	char		uploads[PATH_MAX];
	struct stat st;
	Brake	   *brake;

	if (*path == '\0')
		return NULL;
	if ((brake = check_place(&backup, path, real, &st)) != NULL)
		return brake;
	if (realpath(settings->upload_dir, uploads) != NULL && lies_in(real, uploads))
		return place_brake(&backup, path, "lies in the upload directory", uploads);
	if (st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
		return trust_brake(path);
	if (to_write && faccessat(AT_FDCWD, real, R_OK | W_OK | X_OK, AT_EACCESS) != 0)
		return file_brake(&backup, path, "write to backup directory", errno);
	return NULL;
}

Brake *
location_set_backup_dir(FileStore *store, const Settings *settings)
{
	FileResult	result;
	Brake	   *brake;

	if (*settings->backup_dir == '\0' || settings->backup_owner == NULL)
		return NULL;
	if ((brake = location_check_backup_dir(settings, false)) != NULL)
		return brake;
	result = store_set_backup_dir(store, settings->backup_dir, settings->backup_owner);
	if (result.outcome == FILE_OK)
		return NULL;
	if (result.errnum == EPERM)
		return trust_brake(settings->backup_dir);
	return file_brake(&backup, settings->backup_dir, "open backup directory", result.errnum);
}


static bool
has_parent_component(const char *path)
{
	const char *p = path;

	while ((p = strstr(p, "..")) != NULL)
	{
		if ((p == path || p[-1] == '/') && (p[2] == '\0' || p[2] == '/'))
			return true;
		p += 2;
	}
	return false;
}

/* Without "./" and doubled slashes, which would give a file a second name. */
static char *
plain_path(const char *path)
{
	char	   *plain = palloc(strlen(path) + 1);
	char	   *end = plain;

	while (*path != '\0')
	{
		size_t		len = strcspn(path, "/");

		if (len > 0 && !(len == 1 && *path == '.'))
		{
			if (end > plain)
				*end++ = '/';
			memcpy(end, path, len);
			end += len;
		}
		path += len;
		path += strspn(path, "/");
	}
	*end = '\0';
	return plain;
}

const char *
location_relative(const Settings *settings, const char *file)
{
	size_t		len = strlen(settings->upload_dir);
	const char *name = file;

	if (strlen(file) >= STORE_PATH_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the name of a file must have 1 to %d bytes", STORE_PATH_MAX - 1)));
	if (strncmp(name, settings->upload_dir, len) == 0 && name[len] == '/')
		name += len + 1;
	if (*name == '/' || has_parent_component(name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("file \"%s\" is not below the upload directory \"%s\"",
						file, settings->upload_dir),
				 errhint("Name it by its path relative to the upload directory.")));
	name = plain_path(name);
	if (*name == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the name of a file must have 1 to %d bytes", STORE_PATH_MAX - 1)));
	return name;
}
