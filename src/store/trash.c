/*-------------------------------------------------------------------------
 *
 * store/trash.c
 *	  The trash: its files are destroyed, its folders listed, tidied and renamed.
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

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/store/private.h"

/* deeper directories of the trash are left alone by store_tidy() */
#define TIDY_MAX_DEPTH	64

FileResult
store_unlink(FileStore *store, Folder *dir, const char *name,
			 const FileIdentity *expected, bool with_ctime, int64 *freed)
{
	FileIdentity found;
	FileResult	result;

	/* if it is gone already, an unlink of ours may not be durable yet */
	store_mark_dirty(store, dir);
	result = store_recognize(dir, name, expected, with_ctime, &found);
	if (result.outcome != FILE_OK)
		return result;
	if (unlinkat(dir->fd, name, 0) != 0)
		return errno == ENOENT ? come_to(FILE_VANISHED) :
			fail(errno, "remove file");
	*freed = store_space_of(&found);
	return come_to(FILE_OK);
}


FileResult
store_destroy(FileStore *store, int64 run_id, const char *path,
			  const FileIdentity *expected, int64 *freed)
{
	FilePath	where;
	FileResult	result;
	Folder	   *trash;
	int			errnum = store_split_path(path, &where);

	*freed = 0;
	if (errnum != 0)
		return fail(errnum, "accept path");
	trash = store_reach_trash(store, &store->trash, run_id, &where, 0, &result);
	if (trash == NULL)
		return result;
	result = store_unlink(store, trash, where.name, expected, false, freed);
	if (result.outcome == FILE_NOT_REGULAR)
		return come_to(FILE_REPLACED);
	return result;
}

/*
 * The one place where a file is removed that was not captured first.  There
 * is no system call that unlinks an inode, so a file that takes its name
 * between two system calls goes in its stead; on a disk without room for a
 * directory entry that is the best there is.
 */
FileResult
store_destroy_in_place(FileStore *store, const char *path,
					   const FileIdentity *expected, int64 *freed)
{
	FilePath	where;
	FileResult	result;
	Folder	   *home;
	int			errnum = store_split_path(path, &where);

	*freed = 0;
	if (errnum != 0)
		return fail(errnum, "accept path");
	home = store_reach_home(store, &where, 0, &result);
	if (home == NULL)
		return result;
	return store_unlink(store, home, where.name, expected, true, freed);
}


int
store_open_trash(FileStore *store, int64 run_id, const StoreVolume **volume)
{
	const char *action;
	Folder	   *folder;
	FileLook	look;

	if (run_id != 0)
		folder = store_reach_run(store, &store->trash, run_id, DIR_TRUST, &action);
	else
	{
		/* nothing is held by that name */
		int			fd = store_descend(store, store->trash.base, store->trash.path, DIR_TRUST, &action);

		*volume = store->trash.base->volume;
		return fd;
	}
	if (folder == NULL)
		return -1;
	*volume = folder->volume;
	return store_open_directory_on(folder->volume, folder->fd, ".", &look);
}

/* A name that store_reach_run() would give, and nothing else. */
static bool
parse_run(const char *name, int64 *run_id)
{
	char		again[32];
	char	   *end;

	errno = 0;
	*run_id = strtoll(name, &end, 10);
	snprintf(again, sizeof(again), INT64_FORMAT, *run_id);
	return errno == 0 && *run_id > 0 && strcmp(name, again) == 0;
}

int
store_trash_runs(FileStore *store, int64 *runs, int max)
{
	const StoreVolume *volume;
	struct dirent *entry;
	int64		run_id;
	DIR		   *dir;
	int			n = 0;
	int			fd;

	if (!AcquireExternalFD())
		return -1;
	fd = store_open_trash(store, 0, &volume);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir != NULL)
	{
		while ((entry = readdir(dir)) != NULL)
			if (parse_run(entry->d_name, &run_id) && n++ < max)
				runs[n - 1] = run_id;
		closedir(dir);
	}
	else if (fd >= 0)
		close(fd);
	else if (errno != ENOENT)
		n = -1;
	ReleaseExternalFD();
	return n;
}

int
store_renumber_trash(FileStore *store, int64 run_id, int64 as)
{
	const StoreVolume *volume;
	char		from[32];
	char		to[32];
	int			errnum = 0;
	int			fd;

	snprintf(from, sizeof(from), INT64_FORMAT, run_id);
	snprintf(to, sizeof(to), INT64_FORMAT, as);
	/* nothing may be held by a name that becomes another's */
	store_leave_all(store);
	fd = store_open_trash(store, 0, &volume);
	if (fd < 0)
		return errno;
	if (store_rename_into_trash(fd, from, fd, to) != 0)
		errnum = errno;
	else
		store_sync_directory(store, fd);
	close(fd);
	return errnum;
}

FileResult
store_identify_captured(FileStore *store, int64 run_id, const char *path,
						FileIdentity *identity)
{
	FilePath	where;
	FileResult	result;
	Folder	   *trash;
	int			errnum = store_split_path(path, &where);

	if (errnum != 0)
		return fail(errnum, "accept path");
	trash = store_reach_trash(store, &store->trash, run_id, &where, 0, &result);
	return trash == NULL ? result : store_identify_in(trash, where.name, identity);
}


static bool
may_be_directory(const struct dirent *entry)
{
	if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
		return false;
	return entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN;
}

static DIR *
open_for_pruning(const FileStore *store, const StoreVolume *volume, int parent,
				 const char *name)
{
	const char *action;
	bool		made;
	int			fd = store_step_down(store, volume, parent, name, DIR_TRUST, &made, &action);
	DIR		   *dir;

	if (fd < 0)
		return NULL;
	dir = fdopendir(fd);
	if (dir == NULL)
		close(fd);
	return dir;
}

/*
 * Remove a directory of the trash and those below it, as far as they are
 * empty.  Errors are ignored, here and in store_tidy(): ENOTEMPTY is the
 * ordinary case, and an empty directory that stays does no harm and is met
 * again by the next tidying.  For the same reason nothing is fsynced.
 */
static void
prune(const FileStore *store, const StoreVolume *volume, int parent,
	  const char *name, int depth)
{
	struct dirent *entry;
	DIR		   *dir;

	if (unlinkat(parent, name, AT_REMOVEDIR) == 0)
		return;
	if (depth >= TIDY_MAX_DEPTH || !AcquireExternalFD())
		return;

	dir = open_for_pruning(store, volume, parent, name);
	if (dir != NULL)
	{
		while ((entry = readdir(dir)) != NULL)
			if (may_be_directory(entry))
				prune(store, volume, dirfd(dir), entry->d_name, depth + 1);
		closedir(dir);
		(void) unlinkat(parent, name, AT_REMOVEDIR);
	}
	ReleaseExternalFD();
}

/* Remove an empty folder; one that holds something, or is no ordinary one, stays. */
static bool
remove_folder(FileStore *store, const char *path)
{
	FilePath	where;
	FileLook	look;
	FileResult	ignored;
	Folder	   *parent;

	if (store_split_path(path, &where) != 0 || where.name[0] == '.')
		return false;
	parent = store_reach_home(store, &where, 0, &ignored);
	if (parent == NULL || store_look(parent->fd, where.name, &look) != 0 ||
		!S_ISDIR(look.mode) || !store_same_volume(&look.volume, &store->volume) ||
		unlinkat(parent->fd, where.name, AT_REMOVEDIR) != 0)
		return false;
	store_mark_dirty(store, parent);
	return true;
}

int
store_remove_folders(FileStore *store, const char *path)
{
	char		folder[STORE_PATH_MAX];
	char	   *slash;
	int			n = 0;

	if (strlen(path) >= sizeof(folder))
		return 0;
	strlcpy(folder, path, sizeof(folder));
	while (remove_folder(store, folder))
	{
		n++;
		slash = strrchr(folder, '/');
		if (slash == NULL)
			break;
		*slash = '\0';
	}
	return n;
}

/* What a copy that was killed has left. */
static void
remove_unfinished(int workshop)
{
	FileLook	look;

	if (store_look(workshop, COPY_NAME, &look) == 0)
		(void) unlinkat(workshop, COPY_NAME, 0);
}

/* In the directory `parent`: the run, and the trash `name` itself. */
static void
tidy_trash(const FileStore *store, const StoreVolume *volume, int parent,
		   const char *name, int64 run_id)
{
	const char *action;
	bool		made;
	char		run[32];
	int			trash = store_step_down(store, volume, parent, name, DIR_TRUST,
										&made, &action);

	if (trash < 0)
		return;
	snprintf(run, sizeof(run), INT64_FORMAT, run_id);
	prune(store, volume, trash, run, 0);
	remove_unfinished(trash);
	close(trash);
	(void) unlinkat(parent, name, AT_REMOVEDIR);
}

void
store_tidy(FileStore *store, int64 run_id)
{
	const char *action;
	int			private;

	store_leave_all(store);
	if (store->backup.fd >= 0)
		tidy_trash(store, &store->backup_volume, store->backup.fd,
				   store->trash.path, run_id);
	private = store_open_private(store, false, &action);
	if (private < 0)
		return;
	tidy_trash(store, &store->volume, private, STORE_TRASH_DIR, run_id);
	remove_unfinished(private);
	close(private);

	/* stays while there is a claim in it */
	(void) unlinkat(store->root.fd, STORE_PRIVATE_DIR, AT_REMOVEDIR);
}
