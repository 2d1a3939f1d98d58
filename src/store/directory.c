/*-------------------------------------------------------------------------
 *
 * store/directory.c
 *	  The folders of a store: opened step by step, kept open for the next file, and fsynced.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "src/store/private.h"

/* an attribute of a folder in the trash: see store_note_mode() */
#define MODE_ATTRIBUTE	"user.audio_cleanup.mode"

#define DIRECTORY_FLAGS \
	(O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK)

#ifdef FRONTEND
int			store_free_slots = 1000;
#endif

void
store_close_quietly(int fd)
{
	int			save_errno = errno;

	close(fd);
	errno = save_errno;
}

DIR *
store_open_stream(int fd)
{
	DIR		   *stream = fd < 0 ? NULL : fdopendir(fd);

	if (fd >= 0 && stream == NULL)
		store_close_quietly(fd);
	return stream;
}


/* ----------
 * Durability
 * ----------
 */

static void
note_sync(FileStore *store, int errnum)
{
	/*
	 * As in core, EINVAL is no failure: some file systems cannot fsync a
	 * directory, and there is no other way to make a directory durable.
	 */
	if (errnum != 0 && errnum != EINVAL && store->sync_errno == 0)
		store->sync_errno = errnum;
}

void
store_sync_directory(FileStore *store, int fd)
{
	int			save_errno = errno;

	note_sync(store, fsync(fd) == 0 ? 0 : errno);
	errno = save_errno;
}

/*
 * fsyncs the folders that owe() has kept, if the store is durable, and closes
 * the folders.
 */
static void
pay(FileStore *store)
{
	StoreCall	calls[STORE_OWED];
	int			n = store->n_owed;

	store_settle(store);
	for (int i = 0; i < n; i++)
	{
		calls[i] = (StoreCall)
		{
			.fd = store->owed[i].fd
		};
		if (store->base.durable)
			store_begin_call(store, &calls[i], n == 1);
	}
	store_end_calls(store, calls, n);
	for (int i = 0; i < n; i++)
	{
		note_sync(store, calls[i].errnum);
		close(calls[i].fd);
		ReleaseExternalFD();
	}
	store->n_owed = 0;
}

static bool
is_owed(const FileStore *store, const struct stat *st)
{
	for (int i = 0; i < store->n_owed; i++)
		if (store->owed[i].inode == st->st_ino && store->owed[i].device == st->st_dev)
			return true;
	return false;
}

/*
 * Takes the descriptor `fd` of a changed folder, to fsync and close it later,
 * together with other folders.  A journal commits once for folders that are
 * fsynced one after the other, but once for each folder if other work comes in
 * between.  Keeps errno.
 */
static void
owe(FileStore *store, int fd)
{
	int			save_errno = errno;
	struct stat st = {0};

	if (fstat(fd, &st) != 0 || !is_owed(store, &st))
	{
		if (store->n_owed == STORE_OWED)
			pay(store);
		if (AcquireExternalFD())
		{
			store->owed[store->n_owed++] = (OwedSync)
			{
				.fd = fd,.device = st.st_dev,.inode = st.st_ino
			};
			fd = -1;
		}
		else
		{
			store_settle(store);
			store_sync_directory(store, fd);
		}
	}
	if (fd >= 0)
	{
		store_settle(store);
		close(fd);
	}
	errno = save_errno;
}

static void
sync_if_dirty(FileStore *store, Folder *folder)
{
	store_settle(store);
	if (folder->fd >= 0 && folder->dirty && store->base.durable)
		store_sync_directory(store, folder->fd);
	folder->dirty = false;
}

FileResult
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
	return errnum == 0 ? come_to(FILE_OK) : fail(errnum, "could not fsync directory");
}

int
local_sync(FileStore *store)
{
	int			errnum;

	store_leave_all(store);
	pay(store);
	sync_if_dirty(store, &store->backup);
	sync_if_dirty(store, &store->root);
	errnum = store->sync_errno;
	store->sync_errno = 0;
	return errnum;
}

void
store_leave(FileStore *store, Folder *folder)
{
	if (folder->fd < 0)
		return;
	if (folder->dirty && store->base.durable)
		owe(store, folder->fd);
	else
	{
		store_settle(store);
		close(folder->fd);
	}
	folder->dirty = false;
	folder->fd = -1;
}

void
store_forget_syncs(FileStore *store)
{
	store->base.durable = false;
	store_leave_all(store);
	pay(store);
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
 * Opening
 * ----------
 */

int
store_open_directory(const StoreVolume *volume, int parent, const char *name, FileLook *look)
{
	int			fd = openat(parent, name, DIRECTORY_FLAGS);

	if (fd < 0)
		return -1;
	if (store_look(fd, "", look) == 0)
	{
		if (store_same_volume(&look->volume, volume))
			return fd;
		errno = EXDEV;
	}
	store_close_quietly(fd);
	return -1;
}

/*
 * Makes a folder with the mode `mode`, whatever the server's umask is: a
 * folder of the application that is made again must be as open as the upload
 * directory.  A chmod() afterwards might change another folder that was moved
 * there.
 */
static int
make_directory(int parent, const char *name, mode_t mode)
{
	mode_t		save_umask = umask(0);
	int			rc = mkdirat(parent, name, mode);

	umask(save_umask);
	return rc;
}

int
store_insist_on_trust(FileStore *store, int fd, const FileLook *look)
{
	/* nobody else can put a file into the folder, or take a file out */
	if (fd >= 0 && look->owner == geteuid() && (look->mode & (S_IWGRP | S_IWOTH)) == 0)
		return fd;
	if (fd < 0 && errno != ELOOP && errno != ENOTDIR && errno != EXDEV)
		return -1;

	if (fd >= 0)
		close(fd);
	store->failure = "could not trust directory";
	errno = EPERM;
	return -1;
}

/* Notes that the folder `fd`, which is `from` or was reached from `from`, must be fsynced.  Keeps errno. */
static void
owe_sync(FileStore *store, Folder *from, int fd)
{
	int			save_errno = errno;
	int			copy = -1;

	if (fd == from->fd)
		from->dirty = true;
	else if (store->base.durable && (copy = fcntl(fd, F_DUPFD_CLOEXEC, 0)) < 0)
		store_sync_directory(store, fd);
	if (copy >= 0)
		owe(store, copy);
	errno = save_errno;
}

int
store_step_down(FileStore *store, Folder *from, int parent, const char *name, int flags)
{
	FileLook	look;
	bool		made = false;
	int			fd = store_open_directory(&from->volume, parent, name, &look);

	store->failure = "could not open directory";
	if (fd < 0 && errno == ENOENT && (flags & DIR_MAKE))
	{
		made = make_directory(parent, name, (flags & DIR_TRUST) ? S_IRWXU : store->make_mode) == 0;
		if (!made && errno != EEXIST)
		{
			store->failure = "could not create directory";
			return -1;
		}
		fd = store_open_directory(&from->volume, parent, name, &look);
	}
	if (flags & DIR_TRUST)
		fd = store_insist_on_trust(store, fd, &look);
	if (made || (fd >= 0 && (flags & DIR_SYNC)))
		owe_sync(store, from, parent);
	return fd;
}

/* Opens the folder at `path`, which is not "", below `from`.  `flags`: DIR_... */
static int
descend(FileStore *store, Folder *from, const char *path, int flags)
{
	char		name[NAME_MAX + 1];
	int			fd = from->fd;

	for (;;)
	{
		size_t		len = strcspn(path, "/");
		int			child;

		memcpy(name, path, len);
		name[len] = '\0';
		child = store_step_down(store, from, fd, name, flags);
		if (fd != from->fd)
			store_close_quietly(fd);
		if (child < 0 || path[len] == '\0')
			return child;
		fd = child;
		path += len + 1;
	}
}

int
store_open_private(FileStore *store, bool make)
{
	return store_step_down(store, &store->root, store->root.fd, STORE_PRIVATE_DIR,
						   make ? DIR_TRUST | DIR_MAKE : DIR_TRUST);
}

#define RUN_PATH_MAX	(NAME_MAX + 32)

static void
make_run_path(const Trash *trash, int64 run_id, char *path)
{
	snprintf(path, RUN_PATH_MAX, "%s/" INT64_FORMAT, trash->path, run_id);
}

int
store_open_trash(FileStore *store, int64 run_id)
{
	char		path[RUN_PATH_MAX];

	make_run_path(&store->trash, run_id, path);
	return descend(store, store->trash.base, run_id == 0 ? store->trash.path : path, DIR_TRUST);
}


/* ----------
 * Folders that are kept open
 * ----------
 */

/*
 * Returns the open folder at `path` below `from`: `from` itself for "", else
 * `folder`, which is opened there unless it is open already.  Returns NULL
 * with errno on failure.
 */
static Folder *
reach(FileStore *store, Folder *folder, Folder *from, const char *path, int flags)
{
	if (!store->base.durable)
		flags &= ~DIR_SYNC;
	if (path[0] == '\0')
		return from;
	if (folder->fd >= 0 && strcmp(folder->path, path) == 0 &&
		(folder->chain_synced || !(flags & DIR_SYNC)))
		return folder;

	store_leave(store, folder);
	folder->fd = descend(store, from, path, flags);
	if (folder->fd < 0)
		return NULL;
	folder->chain_synced = (flags & DIR_SYNC) != 0;
	folder->mode_noted = folder->access_known = false;
	folder->volume = from->volume;
	strlcpy(folder->path, path, sizeof(folder->path));
	return folder;
}

/*
 * Returns the open folder of the file.  FILE_VANISHED if the folder is
 * missing, or is no folder any more: then the file is not there either.
 * FILE_OCCUPIED with DIR_MAKE, if somebody has taken the name of the folder.
 */
Folder *
store_reach_home(FileStore *store, const FilePath *where, int flags, FileResult *result)
{
	Folder	   *home = reach(store, &store->home, &store->root, where->dir, flags);

	if (home != NULL)
		return home;
	if (errno == ELOOP || errno == ENOTDIR)
		*result = come_to((flags & DIR_MAKE) ? FILE_OCCUPIED : FILE_VANISHED);
	else if (errno == ENOENT && !(flags & DIR_MAKE))
		*result = come_to(FILE_VANISHED);
	else
		*result = fail(errno, store->failure);
	return NULL;
}

static Folder *
reach_run(FileStore *store, Trash *trash, int64 run_id, int flags)
{
	char		path[RUN_PATH_MAX];

	make_run_path(trash, run_id, path);
	/* a folder below another run's trash is of no use for this run */
	if (trash->run.fd >= 0 && strcmp(trash->run.path, path) != 0)
		store_leave(store, &trash->dir);
	return reach(store, &trash->run, trash->base, path, flags);
}

Folder *
store_reach_trash(const StoreJob *job, Trash *trash, int flags, FileResult *result)
{
	FileStore  *store = job->store;
	Folder	   *folder = reach_run(store, trash, job->run_id, flags | DIR_TRUST);

	if (folder != NULL)
		folder = reach(store, &trash->dir, folder, job->where.dir, flags | DIR_TRUST);
	if (folder != NULL)
	{
		folder->ours = true;
		folder->copies = trash->copies || trash->base->copies;
	}
	else if (errno == ENOENT && !(flags & DIR_MAKE))
		*result = come_to(FILE_VANISHED);
	else
		*result = fail_or_no_space(errno, store->failure);
	return folder;
}

/*
 * Notes the mode of the folder `home` in an attribute of the folder in the
 * trash.  The folder in the trash is ours alone, and so has another mode.  If
 * `home` is removed one day, it is made again with the noted mode.  A file
 * system without extended attributes forgets the mode.
 */
void
store_note_mode(const Folder *home, Folder *trash, const FilePath *where)
{
	char		text[16];
	struct stat st;

	if (trash->mode_noted || where->dir[0] == '\0' || fstat(home->fd, &st) != 0)
		return;
	trash->mode_noted = true;
	snprintf(text, sizeof(text), "%o", (unsigned int) (st.st_mode & 0777));
	(void) fsetxattr(trash->fd, MODE_ATTRIBUTE, text, strlen(text), XATTR_CREATE);
}

Folder *
store_reach_target(FileStore *store, const Folder *trash, const FilePath *target,
				   int flags, FileResult *result)
{
	char		text[16] = "";
	unsigned int mode;
	Folder	   *home;

	/*
	 * a folder is made with the mode that store_note_mode() has noted, else
	 * with the mode of the upload directory
	 */
	if (fgetxattr(trash->fd, MODE_ATTRIBUTE, text, sizeof(text) - 1) > 0 &&
		sscanf(text, "%o", &mode) == 1)
		store->make_mode = mode & 0777;
	home = store_reach_home(store, target, DIR_MAKE | flags, result);
	store->make_mode = store->mode;
	return home;
}
