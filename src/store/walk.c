/*-------------------------------------------------------------------------
 *
 * store/walk.c
 *	  A bounded walk of the upload directory by descriptors.
 *
 * The walk goes depth first, with one open directory stream for each level, so
 * that the kernel remembers the entries that were not seen yet.  Each
 * directory is opened relative to its parent directory.  So a directory that
 * is renamed during the walk can neither lead out of the upload directory nor
 * into a loop: without symlinks a loop needs a mount, and mounts are not
 * crossed.
 *
 * The walk runs beside an application that creates and removes files.  A name
 * that disappears between the listing and the opening is passed over.  Any
 * other name that cannot be read ends the walk.  An existing file that was not
 * seen is no danger; but the proportions on which the brakes rely would be
 * false.
 *
 * The files of a folder come in the order of their inodes, a portion at a
 * time: most file systems have the inodes on disk in that order, so that
 * looks, renames and unlinks are cheapest in that order.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/store/private.h"

/* made by mkfs at the top of a file system, readable for root alone */
#define FSCK_DIR	"lost+found"

/*
 * Names, in any case, of folders in which a NAS, a synchroniser or an
 * operating system keeps its own files.  Folders whose names begin with a dot
 * (.stversions, .Trash-1000, .snapshot) are passed over anyway.
 */
static const char *const foreign_folders[] = {
	"#recycle", "@Recycle", "@Recently-Snapshot", "#snapshot", "@eaDir", "@tmp", "@sharebin",
	"@__thumb", "@Transcode", "SynologyWorkingDirectory", "__MACOSX", "#recycled", "Network Trash Folder", "Temporary Items", "TheVolumeSettingsFolder",
	"$RECYCLE.BIN", "RECYCLER", "RECYCLED", "System Volume Information", "FOUND.000",
	"~snapshot", "_snapshot"
};

/*
 * a portion: the most files, and bytes of names, that are read of a folder
 * before its first file is returned
 */
#define PORTION_FILES	8192
#define PORTION_BYTES	(256 * 1024)

/*
 * Most bytes of a name, with its end: an entry has its length in 16 bits.
 * NAME_MAX is no limit, because vfat, NTFS, SMB and others count characters.
 */
#define ENTRY_BYTES		(USHRT_MAX + 1)

typedef struct WalkEntry
{
	uint64		inode;
	uint32		name;			/* where the name begins in the names of the
								 * portion */
} WalkEntry;

typedef struct WalkLevel
{
	DIR		   *stream;
	size_t		path_len;		/* length of the directory's path, 0 at the
								 * top */
} WalkLevel;

struct TreeWalk
{
	WalkBase	base;
	bool		in_trash;
	const StoreVolume *volume;	/* all directories must be on this volume */
	bool		recurse;
	bool		(*stop) (void); /* see is_stopped() */
	int			errnum;			/* not 0 once the walk has failed */
	const char *failure;
	int			nlevels;		/* number of open directories */
	WalkLevel	levels[WALK_MAX_DEPTH + 1]; /* the top is depth 0 */
	char		path[STORE_PATH_MAX];

	/*
	 * files of the current directory that are read, and the entry that
	 * follows: a folder, or the end of the directory
	 */
	int			n_files;
	int			next_file;
	size_t		names_len;
	bool		has_folder;
	bool		is_over;
	bool		is_claimed;		/* the current directory; not told yet */
	uint32		folder;			/* where its name begins in `names` */
	WalkEntry	files[PORTION_FILES];
	char		names[PORTION_BYTES + ENTRY_BYTES]; /* the last name may go
													 * beyond a portion */
};

/*
 * Ends the walk with a failure; walk->path is the path of the directory to
 * blame.
 */
static WalkStep
fail_walk(TreeWalk *walk, int errnum, const char *failure)
{
	walk->errnum = errnum;
	walk->failure = failure;
	return WALK_FAILED;
}

static WalkLevel *
current_level(TreeWalk *walk)
{
	return &walk->levels[walk->nlevels - 1];
}

/* Appends a name to walk->path.  Returns false if the path would be too long. */
static bool
append_name(TreeWalk *walk, const char *name)
{
	size_t		len = current_level(walk)->path_len;
	size_t		name_len = strlen(name);

	if (len + (len > 0 ? 1 : 0) + name_len >= sizeof(walk->path))
		return false;
	if (len > 0)
		walk->path[len++] = '/';
	memcpy(walk->path + len, name, name_len + 1);
	return true;
}

/*
 * Makes the directory `fd` the current directory.  Returns 0; or -1 with
 * errno, also if `fd` is -1, and gives back the slot that the caller has
 * acquired.
 */
static int
push_level(TreeWalk *walk, int fd)
{
	WalkLevel  *level = &walk->levels[walk->nlevels];

	level->stream = store_open_stream(fd);
	if (level->stream == NULL)
	{
		ReleaseExternalFD();
		return -1;
	}
	level->path_len = strlen(walk->path);
	walk->nlevels++;
	return 0;
}

static void
close_level(TreeWalk *walk)
{
	closedir(current_level(walk)->stream);
	ReleaseExternalFD();
	walk->nlevels--;
}

/*
 * Returns whether the walk passes over a directory that could not be opened.
 * A directory that this process may not read ends the walk, unless the
 * directory is on another file system.
 */
static bool
is_passable(const TreeWalk *walk, int parent, const char *name, int errnum)
{
	FileLook	look;

	switch (errnum)
	{
		case ENOENT:
		case ELOOP:
		case ENOTDIR:
		case EXDEV:
			return true;
		case EACCES:
		case EPERM:
			return store_look(parent, name, &look) == 0 &&
				!store_same_volume(&look.volume, walk->volume);
		default:
			return false;
	}
}

/*
 * Returns whether a folder of this name, of `len` bytes, is a foreign folder;
 * at the top, also "lost+found".
 */
static bool
is_foreign_folder(const char *name, size_t len, bool at_top)
{
	if (at_top && len == strlen(FSCK_DIR) && memcmp(name, FSCK_DIR, len) == 0)
		return true;
	for (size_t i = 0; i < lengthof(foreign_folders); i++)
		if (len == strlen(foreign_folders[i]) && pg_strncasecmp(name, foreign_folders[i], len) == 0)
			return true;
	return false;
}

/*
 * Enters the directory `name`, or passes over the directory.  Returns
 * WALK_FAILED, or WALK_FILE to go on.
 */
static WalkStep
enter_directory(TreeWalk *walk, const char *name)
{
	int			parent = dirfd(current_level(walk)->stream);
	FileLook	look;

	if (!append_name(walk, name))
		return fail_walk(walk, ENAMETOOLONG, "could not walk directory");
	if (walk->nlevels > WALK_MAX_DEPTH)
		return fail_walk(walk, ELOOP, "could not walk directory");
	if (!AcquireExternalFD())
		return fail_walk(walk, EMFILE, "could not open directory");
	if (push_level(walk, store_open_directory(walk->volume, parent, name, &look)) != 0)
	{
		int			errnum = errno;

		if (!is_passable(walk, parent, name, errnum))
			return fail_walk(walk, errnum, "could not open directory");
		/* a bind mount may show a folder that is walked elsewhere */
		walk->base.has_links |= errnum == EXDEV;
	}
	return WALK_FILE;
}

/*
 * Returns the type of an entry: DT_REG, DT_DIR, or DT_UNKNOWN for an entry that
 * the walk passes over; -1 with errno if the type could not be told.
 */
static int
tell_type(TreeWalk *walk, int parent, const struct dirent *entry)
{
	bool		is_hidden = entry->d_name[0] == '.';
	int			type = entry->d_type;
	FileLook	look;

	if (type == DT_UNKNOWN)
	{
		if (store_look(parent, entry->d_name, &look) != 0)
			return errno == ENOENT || is_hidden ? DT_UNKNOWN : -1;
		type = IFTODT(look.mode);
	}
	walk->base.has_links |= type == DT_LNK;
	if (is_hidden || (type == DT_DIR && !walk->recurse))
		return DT_UNKNOWN;
	return type == DT_REG || type == DT_DIR ? type : DT_UNKNOWN;
}

TreeWalk *
local_walk_begin(FileStore *store, bool recurse, int64 run_id)
{
	TreeWalk   *walk = palloc0(sizeof(TreeWalk));
	FileLook	look;
	int			fd;

	walk->base.driver = &local_driver;
	walk->stop = store->base.stop;
	walk->recurse = recurse;
	walk->in_trash = run_id != 0;
	walk->volume = walk->in_trash ? &store->trash.base->volume : &store->root.volume;
	if (!AcquireExternalFD())
	{
		fail_walk(walk, EMFILE, "could not open directory");
		return walk;
	}
	fd = walk->in_trash ? store_open_trash(store, run_id) :
		store_open_directory(walk->volume, store->root.fd, ".", &look);
	/* without a trash the walk is at its end */
	if (push_level(walk, fd) != 0 && !(walk->in_trash && errno == ENOENT))
		fail_walk(walk, errno, "could not open directory");
	return walk;
}

#define ST_SORT sort_by_inode
#define ST_ELEMENT_TYPE WalkEntry
#define ST_COMPARE(a, b) ((a)->inode < (b)->inode ? -1 : (a)->inode > (b)->inode)
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/*
 * Keeps a name of any length.  Returns where the name begins in the names of
 * the portion.
 */
static uint32
add_name(TreeWalk *walk, const char *name)
{
	size_t		begin = walk->names_len;
	size_t		size = strlen(name) + 1;

	memcpy(walk->names + begin, name, size);
	walk->names_len += size;
	return begin;
}

/*
 * Keeps the entry if the walk needs it.  Returns WALK_FAILED, or WALK_FILE to
 * go on.
 */
static WalkStep
keep_entry(TreeWalk *walk, const struct dirent *entry)
{
	if (walk->nlevels > 1 && !walk->in_trash && strcmp(entry->d_name, STORE_PRIVATE_DIR) == 0)
		walk->is_claimed = true;
	switch (tell_type(walk, dirfd(current_level(walk)->stream), entry))
	{
		case DT_REG:
			walk->files[walk->n_files++] = (WalkEntry)
			{
				.inode = entry->d_ino,.name = add_name(walk, entry->d_name)
			};
			return WALK_FILE;
		case DT_DIR:
			/* in the trash the name is a part of a path */
			walk->has_folder = walk->in_trash ||
				!is_foreign_folder(entry->d_name, strlen(entry->d_name), walk->nlevels == 1);
			if (walk->has_folder)
				walk->folder = add_name(walk, entry->d_name);
			return WALK_FILE;
		case -1:
			return fail_walk(walk, errno, "could not stat file");
		default:
			return WALK_FILE;
	}
}

/*
 * Reads files of the current directory, up to its next folder or its end.
 * After readdir() only errno distinguishes the end from an error.  The caller
 * gets files only.  Somebody may have made a million empty folders, or a
 * million names that begin with a dot: so stop() is called behind an entry that
 * is no file.
 */
static WalkStep
read_portion(TreeWalk *walk)
{
	bool		passed_over = false;	/* the last entry was no file */

	walk->n_files = walk->next_file = 0;
	walk->names_len = 0;
	while (!walk->has_folder && !walk->is_over && walk->n_files < PORTION_FILES && walk->names_len <= PORTION_BYTES)
	{
		int			n_files = walk->n_files;
		struct dirent *entry;

		if (passed_over && is_stopped(walk->stop))
			return fail_walk(walk, EINTR, "could not walk directory");
		errno = 0;
		entry = readdir(current_level(walk)->stream);
		if (entry == NULL && errno != 0)
			return fail_walk(walk, errno, "could not read directory");
		if (entry == NULL)
			walk->is_over = true;
		else if (keep_entry(walk, entry) == WALK_FAILED)
			return WALK_FAILED;
		passed_over = walk->n_files == n_files;
	}
	sort_by_inode(walk->files, walk->n_files);
	return WALK_FILE;
}

/* Goes where the files of the portion end: into the folder, or out of the directory, which is over. */
static WalkStep
leave_portion(TreeWalk *walk)
{
	if (walk->has_folder)
	{
		walk->has_folder = false;
		return enter_directory(walk, walk->names + walk->folder);
	}
	walk->is_over = false;
	close_level(walk);
	return WALK_FILE;
}

WalkStep
local_walk_next(TreeWalk *walk, const char **path)
{
	*path = NULL;
	if (walk->errnum != 0)
		return WALK_FAILED;

	while (walk->nlevels > 0)
	{
		/* the path of the current directory again */
		walk->path[current_level(walk)->path_len] = '\0';
		if (walk->is_claimed)
		{
			walk->is_claimed = false;
			*path = walk->path;
			return WALK_CLAIMED;
		}
		if (walk->next_file < walk->n_files)
		{
			if (!append_name(walk, walk->names + walk->files[walk->next_file++].name))
				return fail_walk(walk, ENAMETOOLONG, "could not walk directory");
			*path = walk->path;
			return WALK_FILE;
		}
		if ((walk->has_folder || walk->is_over ? leave_portion(walk) : read_portion(walk)) == WALK_FAILED)
			return WALK_FAILED;
	}
	return WALK_END;
}

const char *
local_walk_failure(TreeWalk *walk, int *errnum, const char **failure)
{
	*errnum = walk->errnum;
	*failure = walk->failure;
	return walk->path[0] == '\0' ? "." : walk->path;
}

void
local_walk_end(TreeWalk *walk)
{
	while (walk->nlevels > 0)
		close_level(walk);
	pfree(walk);
}


/* ----------
 * What is not walked
 * ----------
 */

const char *
walk_reason_text(WalkReason reason)
{
	static const char *const texts[] = {
		[WALK_REACHED] = NULL,
		[WALK_HIDDEN] = "a name that begins with a dot is private to whoever made it",
		[WALK_FOREIGN] = "a folder of this name belongs to a NAS, a synchroniser or the operating system",
		[WALK_NOT_RECURSIVE] = "audio_cleanup.recurse is off",
		[WALK_TOO_DEEP] = "its folders are nested too deeply",
		[WALK_SYMLINK] = "symlinks are not followed",
		[WALK_MOUNT] = "another file system is mounted there",
		[WALK_SUBVOLUME] = "it is in another subvolume of the file system",
		[WALK_NOT_A_FILE] = "it is not a regular file",
		[WALK_NOT_PLAIN] = "a key with an empty part, or with a part that is \".\" or \"..\", is no path of a file",
	};

	return texts[reason];
}

/* Judges the volume of a folder.  A subvolume has a device number of its own, but no mount. */
static WalkReason
judge_volume(const StoreVolume *found, const StoreVolume *ours)
{
	if (store_same_volume(found, ours))
		return WALK_REACHED;
	if (found->mount_known && ours->mount_known && found->mount_id == ours->mount_id)
		return WALK_SUBVOLUME;
	return WALK_MOUNT;
}

/* Judges a look at a folder on the way, or at the file at its end (`is_last`). */
static WalkReason
judge_look(const FileStore *store, const FileLook *look, bool is_last)
{
	if (S_ISLNK(look->mode))
		return WALK_SYMLINK;
	if (is_last && !S_ISREG(look->mode))
		return WALK_NOT_A_FILE;
	if (!is_last && !S_ISDIR(look->mode))
		return WALK_REACHED;	/* the file is not there */
	/* overlayfs shows the device of a lower layer for a file */
	if (is_last && look->volume.mount_id == store->root.volume.mount_id)
		return WALK_REACHED;
	return judge_volume(&look->volume, &store->root.volume);
}

WalkReason
store_judge_walk(const char *path, bool recurse, size_t *len)
{
	const char *component = path;
	int			depth = 0;

	for (;; depth++)
	{
		size_t		n = strcspn(component, "/");

		*len = component + n - path;
		if (component[0] == '.')
			return WALK_HIDDEN;
		if (component[n] == '\0')
			break;
		if (!recurse)
			return WALK_NOT_RECURSIVE;
		if (is_foreign_folder(component, n, depth == 0))
			return WALK_FOREIGN;
		component += n + 1;
	}
	return depth > WALK_MAX_DEPTH ? WALK_TOO_DEEP : WALK_REACHED;
}

/*
 * Judges the component of `len` bytes in the directory *fd.  If the component
 * is a folder that the walk enters, opens the folder, and *fd becomes its
 * descriptor; else *fd becomes -1.
 */
static WalkReason
look_further(FileStore *store, int *fd, const char *component, size_t len)
{
	bool		is_last = component[len] == '\0';
	char		name[NAME_MAX + 1];
	WalkReason	reason = WALK_REACHED;
	FileLook	look;
	int			child = -1;

	if (len <= NAME_MAX)
	{
		memcpy(name, component, len);
		name[len] = '\0';
		if (store_look(*fd, name, &look) == 0)
		{
			reason = judge_look(store, &look, is_last);
			if (reason == WALK_REACHED && !is_last && S_ISDIR(look.mode))
				child = store_open_directory(&store->root.volume, *fd, name, &look);
		}
	}
	if (*fd != store->root.fd)
		close(*fd);
	*fd = child;
	return reason;
}

WalkReason
local_walk_why_not(FileStore *store, const char *path, bool recurse, size_t *len)
{
	WalkReason	reason = store_judge_walk(path, recurse, len);
	const char *component = path;
	int			fd = store->root.fd;

	if (reason != WALK_REACHED || !AcquireExternalFD())
		return reason;
	while (fd >= 0 && reason == WALK_REACHED)
	{
		size_t		n = strcspn(component, "/");

		*len = component + n - path;
		reason = look_further(store, &fd, component, n);
		component += n + (component[n] == '/');
	}
	if (fd >= 0 && fd != store->root.fd)
		close(fd);
	ReleaseExternalFD();
	if (reason == WALK_REACHED)
		*len = 0;
	return reason;
}
