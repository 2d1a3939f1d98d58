/*-------------------------------------------------------------------------
 *
 * store/directory.c
 *	  The folders of a store: opened step by step, kept open for the next file, and fsynced.
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
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "src/store/private.h"

/* of a folder in the trash: see store_note_mode() */
#define MODE_ATTRIBUTE	"user.audio_cleanup.mode"

#define DIRECTORY_FLAGS \
	(O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK)

/* Keeps errno. */
void
store_sync_directory(FileStore *store, int fd)
{
	int			save_errno = errno;

	/*
	 * As in core: some file systems cannot fsync a directory, and say so by
	 * EINVAL.  There is nothing else we could do there.
	 */
	if (fsync(fd) != 0 && errno != EINVAL && store->sync_errno == 0)
		store->sync_errno = errno;
	errno = save_errno;
}

void
store_mark_dirty(const FileStore *store, Folder *folder)
{
	if (store->durable)
		folder->dirty = true;
}

static void
sync_if_dirty(FileStore *store, Folder *folder)
{
	if (folder->fd >= 0 && folder->dirty && store->durable)
		store_sync_directory(store, folder->fd);
	folder->dirty = false;
}

void
store_leave(FileStore *store, Folder *folder)
{
	if (folder->fd < 0)
		return;
	sync_if_dirty(store, folder);
	close(folder->fd);
	folder->fd = -1;
}

void
store_leave_all(FileStore *store)
{
	store_leave(store, &store->home);
	store_leave(store, &store->trash.dir);
	store_leave(store, &store->trash.run);
	store_leave(store, &store->passage.dir);
	store_leave(store, &store->passage.run);
}


/* ----------
 * Directories
 * ----------
 */

void
store_close_quietly(int fd)
{
	int			save_errno = errno;

	close(fd);
	errno = save_errno;
}

int
store_open_directory_on(const StoreVolume *volume, int parent, const char *name,
						FileLook *look)
{
	int			fd = openat(parent, name, DIRECTORY_FLAGS);

	if (fd < 0)
		return -1;
	if (store_look(fd, "", look) != 0)
	{
		store_close_quietly(fd);
		return -1;
	}
	if (!store_same_volume(&look->volume, volume))
	{
		close(fd);
		errno = EXDEV;
		return -1;
	}
	return fd;
}

int
store_open_directory(const FileStore *store, int parent, const char *name,
					 FileLook *look)
{
	return store_open_directory_on(&store->volume, parent, name, look);
}

/*
 * The server's umask is no business of the application's: a directory that is
 * made again must be as open as the upload directory.  A chmod() afterwards
 * might hit another directory that was moved there; hence the umask.
 */
static int
make_directory(int parent, const char *name, mode_t mode)
{
	mode_t		save_umask = umask(0);
	int			rc = mkdirat(parent, name, mode);

	umask(save_umask);
	return rc;
}

/* Nobody else can put anything into it, or take anything out. */
static bool
is_trusted(const FileLook *look)
{
	return look->owner == geteuid() && (look->mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* Pass on the descriptor of a trusted directory, close any other: EPERM. */
int
store_insist_on_trust(int fd, const FileLook *look, const char **action)
{
	if (fd >= 0 && is_trusted(look))
		return fd;
	if (fd < 0 && errno != ELOOP && errno != ENOTDIR && errno != EXDEV)
		return -1;

	if (fd >= 0)
		close(fd);
	*action = "trust directory";
	errno = EPERM;
	return -1;
}

/*
 * Open the directory `name` in `parent`, one step of store_descend().  Returns a
 * descriptor, or -1 with errno and *action.
 */
int
store_step_down(const FileStore *store, const StoreVolume *volume, int parent,
				const char *name, int flags, bool *made, const char **action)
{
	FileLook	look;
	int			fd;

	*made = false;
	*action = "open directory";
	fd = store_open_directory_on(volume, parent, name, &look);
	if (fd < 0 && errno == ENOENT && (flags & DIR_MAKE))
	{
		mode_t		mode = (flags & DIR_TRUST) ? S_IRWXU : store->make_mode;

		if (make_directory(parent, name, mode) == 0)
			*made = true;
		else if (errno != EEXIST)
		{
			*action = "create directory";
			return -1;
		}
		fd = store_open_directory_on(volume, parent, name, &look);
	}
	if (flags & DIR_TRUST)
		fd = store_insist_on_trust(fd, &look, action);
	return fd;
}

int
store_open_private(const FileStore *store, bool make, const char **action)
{
	bool		made;

	return store_step_down(store, &store->volume, store->root.fd, STORE_PRIVATE_DIR,
						   make ? DIR_TRUST | DIR_MAKE : DIR_TRUST, &made, action);
}

/* The directory `fd`, reached from `from`, has got a new entry. */
static void
owe_sync(FileStore *store, Folder *from, int fd)
{
	if (fd == from->fd)
		store_mark_dirty(store, from);
	else if (store->durable)
		store_sync_directory(store, fd);	/* will not be held, so now or
											 * never */
}

/*
 * Open the directory at `path` (not empty) below `from`.  Returns a
 * descriptor, or -1 with errno and *action.
 */
int
store_descend(FileStore *store, Folder *from, const char *path, int flags,
			  const char **action)
{
	char		name[NAME_MAX + 1];
	int			fd = from->fd;

	for (;;)
	{
		size_t		len = strcspn(path, "/");
		bool		made;
		int			child;

		memcpy(name, path, len);
		name[len] = '\0';
		child = store_step_down(store, from->volume, fd, name, flags, &made, action);
		if (made || (child >= 0 && (flags & DIR_SYNC)))
			owe_sync(store, from, fd);
		if (fd != from->fd)
			store_close_quietly(fd);
		if (child < 0 || path[len] == '\0')
			return child;
		fd = child;
		path += len + 1;
	}
}

/*
 * Have the directory at `path` below `from` open, in `held` unless it is
 * `from` itself.  Returns NULL with errno and *action on failure.
 */
static Folder *
reach(FileStore *store, Folder *folder, Folder *from, const char *path,
	  int flags, const char **action)
{
	if (!store->durable)
		flags &= ~DIR_SYNC;
	if (path[0] == '\0')
		return from;
	if (folder->fd >= 0 && strcmp(folder->path, path) == 0 &&
		(folder->chain_synced || !(flags & DIR_SYNC)))
		return folder;

	store_leave(store, folder);
	folder->fd = store_descend(store, from, path, flags, action);
	if (folder->fd < 0)
		return NULL;
	folder->chain_synced = (flags & DIR_SYNC) != 0;
	folder->mode_noted = folder->access_known = false;
	folder->copies = from->copies;
	folder->volume = from->volume;
	strlcpy(folder->path, path, sizeof(folder->path));
	return folder;
}

/*
 * The directory a file belongs into.  If it is not there, or is no directory
 * any more, then the file that we knew is not there either; and if it was to
 * be made, somebody has taken its name.
 */
Folder *
store_reach_home(FileStore *store, const FilePath *where, int flags,
				 FileResult *result)
{
	const char *action;
	Folder	   *folder = reach(store, &store->home, &store->root, where->dir,
							   flags, &action);

	if (folder != NULL)
		return folder;
	if (errno == ELOOP || errno == ENOTDIR)
		*result = come_to((flags & DIR_MAKE) ? FILE_OCCUPIED : FILE_VANISHED);
	else if (errno == ENOENT && !(flags & DIR_MAKE))
		*result = come_to(FILE_VANISHED);
	else
		*result = fail(errno, action);
	return NULL;
}

Folder *
store_reach_run(FileStore *store, Trash *trash, int64 run_id, int flags,
				const char **action)
{
	char		path[NAME_MAX + 32];

	snprintf(path, sizeof(path), "%s/" INT64_FORMAT, trash->path, run_id);

	/* what is held below another run's trash is of no use for this one */
	if (trash->run.fd >= 0 && strcmp(trash->run.path, path) != 0)
		store_leave(store, &trash->dir);
	return reach(store, &trash->run, trash->base, path, flags, action);
}

/* Its counterpart in the trash.  FILE_VANISHED if there is none. */
Folder *
store_reach_trash(FileStore *store, Trash *trash, int64 run_id,
				  const FilePath *where, int flags, FileResult *result)
{
	const char *action;
	Folder	   *folder;

	flags |= DIR_TRUST;
	folder = store_reach_run(store, trash, run_id, flags, &action);
	if (folder != NULL)
		folder = reach(store, &trash->dir, folder, where->dir, flags, &action);
	if (folder != NULL)
	{
		folder->ours = true;
		folder->copies = trash->copies || trash->base->copies;
		return folder;
	}
	if (errno == ENOENT && !(flags & DIR_MAKE))
		*result = come_to(FILE_VANISHED);
	else
		*result = fail_or_no_space(errno, action);
	return NULL;
}


/*
 * A folder of the trash is ours alone, so it cannot have the mode of the one
 * whose files it keeps; should that be gone one day, it is to be made again as
 * it was.  A file system without extended attributes forgets it.
 */
void
store_note_mode(const Folder *home, Folder *trash, const FilePath *where)
{
#ifdef __linux__
	char		text[16];
	struct stat st;

	if (trash->mode_noted || where->dir[0] == '\0' || fstat(home->fd, &st) != 0)
		return;
	trash->mode_noted = true;
	snprintf(text, sizeof(text), "%o", (unsigned int) (st.st_mode & 0777));
	(void) fsetxattr(trash->fd, MODE_ATTRIBUTE, text, strlen(text), XATTR_CREATE);
#endif
}

/* What store_note_mode() has noted, else the mode of the upload directory. */
static mode_t
noted_mode(const FileStore *store, const Folder *trash)
{
#ifdef __linux__
	char		text[16];
	ssize_t		len = fgetxattr(trash->fd, MODE_ATTRIBUTE, text, sizeof(text) - 1);
	unsigned int mode;

	if (len > 0)
	{
		text[len] = '\0';
		if (sscanf(text, "%o", &mode) == 1)
			return mode & 0777;
	}
#endif
	return store->mode;
}

/* The directory that a captured file is put back into, made if need be. */
Folder *
store_reach_target(FileStore *store, const Folder *trash, const FilePath *target,
				   int flags, FileResult *result)
{
	Folder	   *folder;

	store->make_mode = noted_mode(store, trash);
	folder = store_reach_home(store, target, DIR_MAKE | flags, result);
	store->make_mode = store->mode;
	return folder;
}

/* The errno of an fsync of these directories that was owed, or 0. */
int
store_sync_now(FileStore *store, Folder *a, Folder *b, Folder *c)
{
	int			earlier = store->sync_errno;
	int			errnum;

	store->sync_errno = 0;
	sync_if_dirty(store, a);
	sync_if_dirty(store, b);
	sync_if_dirty(store, c);
	errnum = store->sync_errno;
	if (earlier != 0)
		store->sync_errno = earlier;
	return errnum;
}
int
store_sync(FileStore *store)
{
	int			errnum;

	store_leave_all(store);
	sync_if_dirty(store, &store->backup);
	sync_if_dirty(store, &store->root);
	errnum = store->sync_errno;
	store->sync_errno = 0;
	return errnum;
}
