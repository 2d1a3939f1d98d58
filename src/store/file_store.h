/*-------------------------------------------------------------------------
 *
 * store/file_store.h
 *	  What file_ops.c, file_copy.c, claim_file.c and tree_walk.c share of an open upload
 *	  directory: descriptors, and the rules by which a directory below it is
 *	  opened.
 *
 * Private to those files.  Whatever else includes this would have to be
 * rewritten for another kind of store.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_FILE_STORE_H
#define AUDIO_CLEANUP_FILE_STORE_H

#include <limits.h>
#include <sys/stat.h>
#include <sys/types.h>

#ifndef FRONTEND
#include "storage/fd.h"
#endif

#include "src/store/file_ops.h"

/*
 * Outside the server nobody keeps count of descriptors.  Inside, a slot is
 * asked for before the open() and given back after the close().
 */
#ifdef FRONTEND
#define AcquireExternalFD() true
#define ReleaseExternalFD() ((void) 0)
#endif

/*
 * Where a directory lives.  The mount id tells a bind mount of the same file
 * system apart, which the device number does not; it needs Linux 5.8.
 */
typedef struct StoreVolume
{
	dev_t		device;
	uint64		mount_id;
	bool		mount_known;
} StoreVolume;

/* All that one look at a name tells. */
typedef struct FileLook
{
	mode_t		mode;
	uid_t		owner;
	gid_t		group;
	StoreVolume volume;
	FileIdentity identity;
} FileLook;

/* A directory kept open because the next file is probably in it too. */
typedef struct HeldDir
{
	int			fd;				/* -1 if none is held */
	bool		dirty;			/* an fsync is owed */
	bool		chain_synced;	/* none is owed for the way to it */
	bool		mode_noted;		/* of its counterpart, see note_mode() */
	bool		copies;			/* what is in it are copies: see is_expected() */
	bool		ours;			/* it is in a trash: see is_expected() */
	bool		access_known;	/* see store_check_folder() */
	int			access_errno;
	const StoreVolume *volume;	/* where it is; all below it must be there */
	char		path[STORE_PATH_MAX];	/* relative to what it was opened from */
} HeldDir;

/* A place that files are captured into: a folder, with one for each run. */
typedef struct Trash
{
	HeldDir    *base;			/* what `path` is relative to */
	char		path[NAME_MAX + 1]; /* of the folder */
	bool		copies;			/* for now, what is in it are copies */
	HeldDir		run;			/* the trash of one run */
	HeldDir		dir;			/* a directory below run */
} Trash;

struct FileStore
{
	HeldDir		root;			/* the upload directory */
	HeldDir		source;			/* a directory below root */
	HeldDir		backup;			/* see store_set_backup_dir() */
	Trash		trash;			/* where captured files are */
	Trash		passage;		/* in the upload directory, what a capture
								 * passes through if the trash is elsewhere */
	StoreVolume volume;			/* of root */
	StoreVolume backup_volume;
	mode_t		mode;			/* permissions of root */
	mode_t		make_mode;		/* of directories that are made */
	bool		(*stop) (void); /* see store_set_stop(), or NULL */
	struct ClaimLock *lock;		/* see store_lock(); NULL if it has none */
	bool		durable;		/* see store_set_durable() */
	int			sync_errno;		/* first failure of an fsync, or 0 */
};

/*
 * Look at `name` in the directory `fd`, or with "" at the directory itself.
 * Never follows a symlink, opens nothing.  Returns 0, or -1 with errno.
 */
extern int	store_look(int fd, const char *name, FileLook *look);

/*
 * Open the directory `name` in the directory `parent` (not a path: one
 * component, or "."), and look at it.  Returns a descriptor, or -1 with errno:
 * ELOOP or ENOTDIR if it is anything but a directory, EXDEV if something else
 * is mounted there.
 */
extern int	store_open_directory(const FileStore *store, int parent,
								 const char *name, FileLook *look);

/*
 * Open the trash of a run, or with 0 the folder with all of them, for reading.
 * Returns a descriptor, or -1 with errno; *volume becomes where it is.
 */
extern int	store_open_trash(FileStore *store, int64 run_id, const StoreVolume **volume);

/* store_open_directory() on any volume. */
extern int	store_open_directory_on(const StoreVolume *volume, int parent,
									const char *name, FileLook *look);

/*
 * Open our private directory, making it if `make`.  Returns a descriptor, or
 * -1 with errno and *action (static text): EPERM if it is not to be trusted.
 */
extern int	store_open_private(const FileStore *store, bool make, const char **action);

/* Is this a directory of the store's own file system and mount? */
extern bool store_same_volume(const StoreVolume *a, const StoreVolume *b);

#endif							/* AUDIO_CLEANUP_FILE_STORE_H */
