/*-------------------------------------------------------------------------
 *
 * guard/location.c
 *	  Checks whether a directory is a place where files may be deleted at all.
 *
 * A mistaken upload_dir or backup_dir must not reach PostgreSQL's own files.
 * Paths are compared after realpath(), because either may be reached through
 * symlinks (pg_wal and tablespaces usually are).  These checks guard against
 * mistakes of the administrator, who makes the settings.  The checks do not
 * protect a directory that somebody else may rename.
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

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"

#include "src/guard/location.h"
#include "src/names/rules.h"
#include "src/pg/library.h"

/* The words for one of the two directories: messages with %s for the path, and hints. */
typedef struct Subject
{
	const char *setting;
	const char *missing;
	const char *not_directory;
	const char *misplaced;
	const char *failure_find;
	const char *hint_missing;
	const char *hint_rights;
	const char *hint_place;
} Subject;

static const Subject upload = {
	"upload_dir",
	"upload directory \"%s\" does not exist",
	"upload directory \"%s\" is not a directory",
	"upload directory \"%s\" is not a place to clean",
	"could not find upload directory",
	"Create the directory, or mount its disk, or correct audio_cleanup.upload_dir.",
	"The operating system user of the server needs read, write and search permission on it, by its group or an ACL.",
	"Set audio_cleanup.upload_dir to a directory that holds nothing but uploads."
};

static const Subject backup = {
	"backup_dir",
	"backup directory \"%s\" does not exist",
	"backup directory \"%s\" is not a directory",
	"backup directory \"%s\" is not a place to keep backups",
	"could not find backup directory",
	"Create the directory, or mount its disk, or correct audio_cleanup.backup_dir.",
	"It must belong to the operating system user of the server, and nobody else may write to it: mode 0700.",
	"Set audio_cleanup.backup_dir to a directory of its own, or leave it empty."
};

/* Makes a brake, with a hint, from the errno of the operating system's answer about a directory. */
static Brake *
file_brake(const Subject *subject, const char *path, const char *failure, int errnum)
{
	const char *message = psprintf("%s \"%s\": %s", failure, path, strerror(errnum));
	const char *hint = subject->hint_missing;
	int			sqlstate = ERRCODE_IO_ERROR;

	switch (errnum)
	{
		case ENOENT:
			sqlstate = ERRCODE_UNDEFINED_FILE;
			message = psprintf(subject->missing, path);
			break;
		case ENOTDIR:
			sqlstate = ERRCODE_WRONG_OBJECT_TYPE;
			message = psprintf(subject->not_directory, path);
			break;
		case EMFILE:
		case ENFILE:
			sqlstate = ERRCODE_INSUFFICIENT_RESOURCES;
			hint = "Raise max_files_per_process, or end the transaction between two runs.";
			break;
		case ELOOP:				/* symlinks are not followed, so the path has
								 * too many folders */
			sqlstate = ERRCODE_PROGRAM_LIMIT_EXCEEDED;
			message = psprintf("directory \"%s\" is nested too deeply to be walked", path);
			hint = "Move it up, or out of the upload directory.";
			break;
		case EROFS:
			sqlstate = ERRCODE_INSUFFICIENT_PRIVILEGE;
			hint = "Its file system is mounted read-only, perhaps after an I/O error: see the kernel's log, and mount it for reading and writing.";
			break;
		case EACCES:
		case EPERM:
			sqlstate = ERRCODE_INSUFFICIENT_PRIVILEGE;
			hint = subject->hint_rights;
			break;
	}
	return brake_make(subject->setting, sqlstate, message, NULL, hint);
}

Brake *
location_brake(const char *path, const char *failure, int errnum)
{
	return file_brake(&upload, path, failure, errnum);
}

Brake *
location_open(const char *path, FileStore **store)
{
	*store = store_open(path);
	if (*store == NULL)
		return location_brake(path, "could not open upload directory", errno);
	store_set_stop(*store, library_should_stop);
	return NULL;
}

/* The text of the bucket's server tells more than the name of the errno. */
Brake *
location_store_brake(FileStore *store, const char *path, const char *failure, int errnum)
{
	const char *text = store_error_text(store, errnum);

	CHECK_FOR_INTERRUPTS();
	if (store_is_local(path))
		return location_brake(path, failure, errnum);
	return brake_make(upload.setting, errnum == EACCES ? ERRCODE_INSUFFICIENT_PRIVILEGE : ERRCODE_IO_ERROR,
					  psprintf("%s \"%s\": %s", failure, path, text), NULL,
					  "See audio_cleanup.s3_endpoint, s3_region and s3_credentials_file; docs/buckets.md has the rights that are needed.");
}

Brake *
location_reach(FileStore *store, const char *path)
{
	int			errnum = store_reach(store);

	return errnum == 0 ? NULL : location_store_brake(store, path, "could not reach upload directory", errnum);
}

Brake *
location_check_undo(FileStore *store, const Settings *settings, bool may_write)
{
	bool		proven = !may_write;
	int			errnum;

	if (store_can_undo(store))
		return NULL;
	if (may_write && (errnum = store_prove(store, &proven)) != 0)
		return location_store_brake(store, settings->upload_dir, "could not try a deletion in upload directory", errnum);
	if (proven && settings->backup_retention_days == 0)
		return NULL;
	return brake_make("unversioned", ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
					  psprintf("upload directory \"%s\" keeps no versions of its files", settings->upload_dir),
					  proven ? "What is deleted in it cannot be put back." :
					  "What is deleted in it could not be told from what has replaced it, nor be put back.",
					  proven ? "Turn versioning on for the bucket, or set audio_cleanup.backup_retention_days to 0." :
					  "Turn versioning on for the bucket.");
}

/*
 * Makes the brake of a directory at a wrong place.  `detail` is a sentence
 * with %s for the other directory.
 */
static Brake *
place_brake(const Subject *subject, const char *path, const char *detail, const char *other)
{
	return brake_make(subject->setting, ERRCODE_INVALID_PARAMETER_VALUE, psprintf(subject->misplaced, path),
					  psprintf(detail, other), subject->hint_place);
}

/* Returns whether `inside`, a path in the data directory, belongs to PostgreSQL. */
static bool
is_reserved(const char *inside)
{
	static const char *const reserved[] = {"base", "global", "log"};
	size_t		len = strcspn(inside, "/");

	if (strncmp(inside, "pg_", 3) == 0)
		return true;
	for (int i = 0; i < lengthof(reserved); i++)
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
		return file_brake(subject, DataDir, "could not resolve path", errno);
	if (path_is_prefix_of_path(path, data))
		return place_brake(subject, path, "It contains the data directory \"%s\".", data);
	len = strlen(data);
	if (path_is_prefix_of_path(data, path) && is_reserved(path + len + 1))
		return place_brake(subject, path, "It belongs to PostgreSQL; it lies in \"%s\".", data);
	return NULL;
}

/* Checks a directory of PostgreSQL that the data directory reaches by the symlink `link`. */
static Brake *
check_linked(const Subject *subject, const char *path, const char *link)
{
	char		target[PATH_MAX];

	if (realpath(link, target) == NULL)
		return NULL;			/* a dangling link holds no files */
	if (strcmp(target, "/") == 0 || path_is_prefix_of_path(target, path))
		return place_brake(subject, path, "It lies in PostgreSQL's directory \"%s\".", target);
	if (path_is_prefix_of_path(path, target))
		return place_brake(subject, path, "It contains PostgreSQL's directory \"%s\".", target);
	return NULL;
}

static Brake *
check_tablespaces(const Subject *subject, const char *path)
{
	const char *tablespaces = psprintf("%s/pg_tblspc", DataDir);
	DIR		   *dir = AllocateDir(tablespaces);
	struct dirent *entry;
	Brake	   *brake = NULL;

	while (brake == NULL && (entry = ReadDir(dir, tablespaces)) != NULL)
		if (entry->d_name[0] != '.')
			brake = check_linked(subject, path, psprintf("%s/%s", tablespaces, entry->d_name));
	FreeDir(dir);
	return brake;
}

/* Checks the place of `path`, and sets `real` to the path without symlinks. */
static Brake *
check_place(const Subject *subject, const char *path, char real[PATH_MAX], struct stat *st)
{
	Brake	   *brake;

	/*
	 * a path of postgresql.conf may have any bytes, but a dump of rows that
	 * are not valid in the encoding cannot be restored
	 */
	if (!pg_verifymbstr(path, (int) strlen(path), true))
		return brake_make(subject->setting, ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
						  psprintf(subject->misplaced, settings_showable(path)),
						  psprintf("Its name is not valid in the encoding \"%s\" of this database.", GetDatabaseEncodingName()),
						  "Rename it, or name it by a symlink whose own path has ASCII letters only.");
	if (realpath(path, real) == NULL || stat(real, st) != 0)
		return file_brake(subject, path, subject->failure_find, errno);
	if (!S_ISDIR(st->st_mode))
		return file_brake(subject, path, subject->failure_find, ENOTDIR);
	if (strcmp(real, "/") == 0)
		return place_brake(subject, path, "It is the root of the file system \"%s\".", real);
	if ((brake = check_data_directory(subject, real)) != NULL)
		return brake;
	if ((brake = check_linked(subject, real, psprintf("%s/pg_wal", DataDir))) != NULL)
		return brake;
	return check_tablespaces(subject, real);
}

Place
location_place(const Settings *settings, const char *backup_owner)
{
	Place		place = {settings->upload_dir, settings->backup_dir, backup_owner};

	return place;
}

Place
location_of_run(const char *upload_dir, Jsonb *recorded)
{
	return location_place(settings_of_run(upload_dir, recorded), settings_backup_owner(recorded));
}

Brake *
location_check(const char *path)
{
	/*
	 * the check hook has checked only the name in the setting, not one that a
	 * run has recorded
	 */
	const char *wrong = store_judge_name(path);
	char		real[PATH_MAX];
	struct stat st;

	if (store_is_local(path))
		return check_place(&upload, path, real, &st);
	return wrong == NULL ? NULL :
		brake_make(upload.setting, ERRCODE_INVALID_PARAMETER_VALUE,
				   psprintf("upload directory \"%s\" cannot be opened", path), wrong,
				   "Write a bucket as \"s3://bucket/prefix\".");
}

static Brake *
trust_brake(const char *path)
{
	return brake_make(backup.setting, ERRCODE_INSUFFICIENT_PRIVILEGE,
					  psprintf("backup directory \"%s\" cannot be trusted", path),
					  "It belongs to somebody else, or others may write to it.",
					  backup.hint_rights);
}

Brake *
location_check_backup_dir(const Place *place, bool to_write)
{
	const char *path = place->backup_dir;
	char		real[PATH_MAX];
	char		uploads[PATH_MAX];
	struct stat st;
	Brake	   *brake;

	if (*path == '\0')
		return NULL;
	if (!store_is_local(place->upload_dir))
		return brake_make(backup.setting, ERRCODE_INVALID_PARAMETER_VALUE,
						  psprintf("upload directory \"%s\" cannot have a backup directory", place->upload_dir),
						  "Its server keeps the versions that are backups.",
						  "Leave audio_cleanup.backup_dir empty.");
	if ((brake = check_place(&backup, path, real, &st)) != NULL)
		return brake;
	if (realpath(place->upload_dir, uploads) != NULL && path_is_prefix_of_path(uploads, real))
		return place_brake(&backup, path, "It lies in the upload directory \"%s\".", uploads);
	if (st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
		return trust_brake(path);
	if (to_write && faccessat(AT_FDCWD, real, R_OK | W_OK | X_OK, AT_EACCESS) != 0)
		return file_brake(&backup, path, "could not write to backup directory", errno);
	return NULL;
}

Brake *
location_set_backup_dir(FileStore *store, const Place *place)
{
	FileResult	result;
	Brake	   *brake;

	if (*place->backup_dir == '\0' || place->backup_owner == NULL)
		return NULL;
	if ((brake = location_check_backup_dir(place, false)) != NULL)
		return brake;
	result = store_set_backup_dir(store, place->backup_dir, place->backup_owner);
	if (result.outcome == FILE_OK)
		return NULL;
	if (result.errnum == EPERM)
		return trust_brake(place->backup_dir);
	return file_brake(&backup, place->backup_dir, "could not open backup directory", result.errnum);
}

Brake *
location_check_backups(const Place *place)
{
	const char *path = place->backup_dir;
	struct stat st;

	if (*path == '\0' || place->backup_owner == NULL ||
		stat(psprintf("%s/%s", path, place->backup_owner), &st) == 0 || (errno != ENOENT && errno != ENOTDIR))
		return NULL;
	return brake_make(backup.setting, ERRCODE_UNDEFINED_FILE,
					  psprintf("backup directory \"%s\" does not have the backups of this database", path),
					  psprintf("It has no folder \"%s\". Another disk may be mounted there.", place->backup_owner),
					  "Mount the disk that has the folder. If the backups are lost, make an empty folder of that name, with mode 0700.");
}

const char *
location_relative(const Settings *settings, const char *file)
{
	size_t		len = strlen(settings->upload_dir);
	const char *name = file;
	bool		is_outside;
	char	   *plain;
	char	   *next;
	char	   *component;

	if (strncmp(name, settings->upload_dir, len) == 0 && name[len] == '/')
		name += len + 1;
	is_outside = *name == '/';
	next = pstrdup(name);
	while ((component = strsep(&next, "/")) != NULL)
		is_outside |= strcmp(component, "..") == 0;
	/* "./" and doubled slashes would give a file a second name */
	plain = pstrdup(name);
	canonicalize_path(plain);
	if (strlen(file) >= STORE_PATH_MAX || (!is_outside && (*plain == '\0' || strcmp(plain, ".") == 0)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the name of a file must have 1 to %d bytes", STORE_PATH_MAX - 1)));
	if (is_outside)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("file \"%s\" is not below the upload directory \"%s\"",
						file, settings->upload_dir),
				 errhint("Name it by its path relative to the upload directory.")));
	return plain;
}


/* ------------------------------------------------------------- restored names --- */

/*
 * First and last code points of characters that are invisible in a name, or
 * that change its direction.
 */
static const pg_wchar invisible[][2] = {
	{0x0000, 0x001F}, {0x007F, 0x009F}, {0x00AD, 0x00AD}, {0x034F, 0x034F}, {0x061C, 0x061C},
	{0x115F, 0x1160}, {0x17B4, 0x17B5}, {0x180B, 0x180F}, {0x200B, 0x200F}, {0x2028, 0x202E},
	{0x2060, 0x206F}, {0x3164, 0x3164}, {0xFE00, 0xFE0F}, {0xFEFF, 0xFEFF}, {0xFFA0, 0xFFA0},
	{0xFFF0, 0xFFFB}, {0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A}, {0xE0000, 0xE0FFF}
};

/* Blanks.  Some file systems cut off a blank at the end of a name. */
static const pg_wchar blanks[][2] = {
	{0x0020, 0x0020}, {0x00A0, 0x00A0}, {0x1680, 0x1680}, {0x2000, 0x200A}, {0x202F, 0x202F},
	{0x205F, 0x205F}, {0x3000, 0x3000}
};

/* Characters that some file system or program folds into a dot, a slash or a backslash of ASCII. */
static const pg_wchar lookalikes[][2] = {
	{0x2024, 0x2026}, {0x2044, 0x2044}, {0x2215, 0x2215}, {0x29F8, 0x29F8}, {0xFE52, 0xFE52},
	{0xFE68, 0xFE68}, {0xFF0E, 0xFF0F}, {0xFF1A, 0xFF1A}, {0xFF3C, 0xFF3C}
};

static bool
is_within(pg_wchar c, const pg_wchar ranges[][2], int n)
{
	for (int i = 0; i < n; i++)
		if (c >= ranges[i][0] && c <= ranges[i][1])
			return true;
	return false;
}

/*
 * Returns the next character of a name whose encoding was verified, and moves
 * *name behind the character.
 */
static pg_wchar
next_character(const char **name)
{
	const unsigned char *p = (const unsigned char *) *name;

	if (!IS_HIGHBIT_SET(*p) || GetDatabaseEncoding() != PG_UTF8)
	{
		(*name)++;
		return *p;
	}
	*name += pg_utf_mblen(p);
	return utf8_to_unicode(p);
}

/*
 * Returns a sentence that says why one component of a restored name is
 * refused, or NULL if it is allowed.
 */
static const char *
judge_restored_component(const char *component)
{
	const char *p = component;
	pg_wchar	c = 0;

	if (*component == '.')
		return "A name that begins with a dot is private to whoever made it.";
	while (*p != '\0')
	{
		bool		first = p == component;

		c = next_character(&p);
		if (is_within(c, invisible, lengthof(invisible)))
			return "It contains a control character or an invisible character.";
		if (c == '\\' || c == ':' || is_within(c, lookalikes, lengthof(lookalikes)))
			return "It contains a character that some file systems take for a separator or a dot.";
		if (first && is_within(c, blanks, lengthof(blanks)))
			return "A name must not begin with a blank.";
	}
	if (c == '.' || is_within(c, blanks, lengthof(blanks)))
		return "A name must not end in a blank or a dot, which some file systems cut off.";
	/* the short name that some file systems give to our private folder */
	if (pg_strncasecmp(component, "audio_~", strlen("audio_~")) == 0)
		return "It is the short name of a private folder.";
	return NULL;
}

/* Returns the part of the name behind its last dot, or "" without a dot. */
static const char *
extension_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *dot = strrchr(slash ? slash + 1 : path, '.');

	return dot != NULL ? dot + 1 : "";
}

static bool
may_have_extension(const Settings *settings, const char *own, const char *as)
{
	const char *extension = extension_of(as);

	if (pg_strcasecmp(extension, extension_of(own)) == 0)
		return true;
	for (int i = 0; i < settings->rules->n_extensions; i++)
		if (pg_strcasecmp(extension, settings->rules->extensions[i]) == 0)
			return true;
	return false;
}

void
location_check_restored(const Settings *settings, const char *own, const char *as)
{
	char	   *next = pstrdup(as);
	char	   *component;
	const char *wrong = NULL;

	if (strcmp(own, as) == 0)
		return;
	if (!pg_verify_mbstr(GetDatabaseEncoding(), as, strlen(as), true))
		wrong = "It is not valid in the encoding of the database.";
	while (wrong == NULL && (component = strsep(&next, "/")) != NULL)
		wrong = judge_restored_component(component);
	if (wrong != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("file \"%s\" cannot be put back as \"%s\"", own, as),
				 errdetail("%s", wrong),
				 errhint("Choose a plain name, such as \"restored/name.mp3\".")));
	if (!may_have_extension(settings, own, as))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("file \"%s\" cannot be put back as \"%s\"", own, as),
				 errdetail("Its extension is neither the file's own nor one of audio_cleanup.audio_extensions."),
				 errhint("Keep the extension \"%s\".", extension_of(own))));
}
