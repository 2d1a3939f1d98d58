/*-------------------------------------------------------------------------
 *
 * store/store.h
 *	  One upload directory: outcomes; no SQL, no ERROR.
 *
 * What may be done to one file of it: look at it, capture it into the trash,
 * put it back, destroy it.
 *
 * A FileStore is an open upload directory.  Everything happens relative to
 * the descriptors it holds: no path is ever resolved from the root of the
 * file system after store_open(), no symlink below the directory is followed
 * and no mount point is crossed.  Callers see names relative to the upload
 * directory ("2024/05/a.mp3") and outcomes, never a descriptor, so that
 * another kind of store can take this place.
 *
 * Nothing here raises an error, uses SPI or reads a setting.  The functions
 * marked "commit-safe" do not allocate memory either: they are called from
 * the transaction commit callback, where an ERROR would be a PANIC.
 *
 * The trash is <upload_dir>/.audio_cleanup/trash/<run>/<relative path>, or
 * <backup_dir>/<owner>/<run>/<relative path>: see store_set_backup_dir().  In
 * a bucket files stay where they are, hidden, and what lies in that place are
 * lists of them: see bucket/manifest.c.
 * Its directories are created on first use, mode 0700, and are trusted only
 * if they belong to the server's OS user and nobody else may write to them.
 *
 * A path is relative, in its plainest form: no "." or "..", no empty
 * component, nothing in .audio_cleanup.  Any other is FILE_FAILED with EINVAL
 * or ENAMETOOLONG.  What lies on another device or mount is FILE_FAILED with
 * EXDEV; a path whose directory is missing or is a symlink, FILE_VANISHED.
 *
 * The directory of the last file is held open: callers should come with their
 * files sorted by path.  An open store counts as seven descriptors, as four
 * more with a backup directory, as one more after store_destroy_many(), and
 * while it is durable as up to 32 more that wait for store_sync(), if there are
 * so many; they are not given back by an error, so close it in a PG_FINALLY or
 * a callback.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_STORE_H
#define AUDIO_CLEANUP_STORE_H

/* the one name below the upload directory that is ours; hidden, so never walked */
#define STORE_PRIVATE_DIR	".audio_cleanup"
#define STORE_TRASH_DIR		"trash"

/* longest relative path that is handled, terminating NUL included (PATH_MAX) */
#define STORE_PATH_MAX		4096

typedef struct FileStore FileStore;

/*
 * What makes a file this very file.  Times are nanoseconds since the Unix
 * epoch, PG_INT64_MIN or PG_INT64_MAX for what lies beyond.  A rename changes ctime, so it takes part in the comparison only
 * before a file is captured.
 */
typedef struct FileIdentity
{
	uint64		inode;
	int64		size;			/* bytes, st_size */
	int64		mtime_ns;
	int64		ctime_ns;
	int64		btime_ns;		/* 0 where the file system has no birth time;
								 * compared only if both are known */
	uint32		nlink;			/* not part of the identity; more than one
								 * frees nothing */
	int64		space;			/* nor is this: bytes that removing its last
								 * name gives back, at most its size */
	bool		captured;		/* it is known to have been captured and
								 * verified: size and mtime tell it then, for
								 * a trash that was copied, with its disk or
								 * by cp -a, has other inodes; never so for a
								 * capture */
} FileIdentity;

typedef enum FileOutcome
{
	FILE_OK,					/* done */
	FILE_VANISHED,				/* no such file (any more) */
	FILE_NOT_REGULAR,			/* a directory, symlink, fifo, ... has that
								 * name */
	FILE_REPLACED,				/* there is a file, but it is another one; it
								 * was left, or put back, where it was */
	FILE_OCCUPIED,				/* put back: its name, or that of a directory
								 * on the way to it, is taken again */
	FILE_NO_SPACE,				/* capture: the trash cannot take it: ENOSPC
								 * or EDQUOT; or EXDEV, where a file system
								 * does not rename from one folder into
								 * another, as between project quotas; nothing
								 * changed */
	FILE_FAILED					/* anything else: see errnum; nothing changed
								 * unless said otherwise */
} FileOutcome;

typedef struct FileResult
{
	FileOutcome outcome;
	int			errnum;			/* errno where outcome is FILE_FAILED or
								 * FILE_NO_SPACE, else 0 */
	const char *action;			/* static text for "could not %s", e.g.
								 * "rename file"; NULL when there was no
								 * failure */
} FileResult;

typedef enum FilePlace
{
	PLACE_NOWHERE,				/* neither here nor there */
	PLACE_UPLOAD,				/* where it belongs, identity matches */
	PLACE_TRASH,				/* in the run's trash, identity matches */
	PLACE_OTHER,				/* at its place is another file, and the trash
								 * does not have it */
	PLACE_UNFINISHED,			/* a capture was killed half-way: somebody is
								 * to store_locate() with `mend` */
	PLACE_UNKNOWN				/* could not be told: see errnum */
} FilePlace;

/*
 * Does the name mean a directory of this machine, and not "s3://bucket/prefix"?
 */
extern bool store_is_local(const char *name);

/* Returns NULL, or what is wrong with a name: a sentence for a detail. */
extern const char *store_judge_name(const char *name);

/*
 * Open the directory `path` (absolute) as a store.  A symlink as the last
 * component of `path` itself is followed: that one is the administrator's.
 * Returns NULL with errno set (ENOENT, ENOTDIR, EACCES, ...) on failure.
 * Needs read and search permission on the directory; see store_check_writable.
 */
extern FileStore *store_open(const char *name);

/*
 * Close all descriptors, unlock and free the store.  NULL is allowed.
 * Commit-safe.
 */
extern void store_close(FileStore *store);

/*
 * Can files be touched by the commit callback?  In a bucket they cannot: no
 * commit waits for a network, and nothing is asked of it there.  Commit-safe.
 */
extern bool store_acts_at_commit(const FileStore *store);

/* Has it folders, so that a file may stand in the way of another one's path?  A bucket has none. */
extern bool store_has_folders(const FileStore *store);

/*
 * Asks whether the directory can be reached, where store_open() did not:
 * returns 0 or an errno.  Then store_can_undo() tells whether a captured file
 * can be put back: a bucket must keep versions.
 */
extern int	store_reach(FileStore *store);
extern bool store_can_undo(FileStore *store);

/*
 * Where nothing can be put back: *proven becomes whether a file is deleted only
 * if it still is the one that is expected.  That is tried with a file of ours.
 * Returns 0, or an errno if it could not be tried.
 */
extern int	store_prove(FileStore *store, bool *proven);

/*
 * Returns what the last call on this store that failed with `errnum` says for
 * people; valid until the next call on it.
 */
extern const char *store_error_text(FileStore *store, int errnum);

/*
 * Is the directory writable for this process (so that a rename could work)?
 * Changes nothing.  Returns 0 or an errno (EACCES, EROFS, ...).
 */
extern int	store_check_writable(FileStore *store);

/*
 * From now on the trash of this store is <path>/<owner>: `path` an absolute
 * name of a directory that exists, is ours, and that nobody else may write
 * to; `owner` a name, the same for the same upload directory and for no
 * other, so that several may share it.  To be called before the first file.
 *
 * If it is on the same file system and mount as the upload directory, then a
 * capture is a rename as before.  Else it is a copy, which is fsynced, read
 * back and compared before the original is removed; put back the same way.
 * A copy keeps content, permissions, mtime, and what it can of owner, group
 * and extended attributes.  A hard link becomes a file of its own.
 *
 * A copy is recognized by size and mtime, for it has neither the inode nor
 * the ctime of the original.  That suffices: nobody else can put a file into
 * that folder, and we give a file its name there only when it is complete, a
 * copy of the very file that was `expected`, ctime included; under that name
 * in that run's folder there has never been another one.
 *
 * FILE_OK; FILE_FAILED, with EINVAL for a path or owner that is no such
 * thing, EPERM ("trust directory") if it is not ours alone, or ENOENT,
 * ENOTDIR, ...; then the store is as it was.
 */
extern FileResult store_set_backup_dir(FileStore *store, const char *path,
									   const char *owner);

/*
 * Is a capture a rename?  Otherwise it copies the file, which the commit
 * callback must not wait for.  Commit-safe.
 */
extern bool store_is_quick(const FileStore *store);

/*
 * Ask `stop` now and then while a file is copied: if it says true, the copy is
 * given up, and the file left where it was: FILE_FAILED with EINTR.
 */
extern void store_set_stop(FileStore *store, bool (*stop) (void));

/*
 * Bytes that this process may still write in the directory's file system, and
 * its size.  Returns 0 or an errno.
 */
extern int	store_space(FileStore *store, int64 *free_bytes, int64 *size_bytes);

/*
 * The caller will store_identify() these `n` paths, store_together() at most
 * as a rule.  Where a look takes long, all of them are looked at now, and
 * remembered until the next store_expect(); n of 0 forgets them.  The paths
 * must stay where they are until then.
 */
extern void store_expect(FileStore *store, const char *const *paths, int n);

/*
 * Identity of the regular file at `path`.  Commit-safe.
 * FILE_OK, FILE_VANISHED, FILE_NOT_REGULAR or FILE_FAILED.  With _durably, the
 * next store_sync() makes sure that the file stays where it was found, whoever
 * has put it there.
 */
extern FileResult store_identify(FileStore *store, const char *path,
								 FileIdentity *identity);
extern FileResult store_identify_durably(FileStore *store, const char *path,
										 FileIdentity *identity);

/*
 * Do both have one inode, size, mtime and birth time; and one ctime, if
 * `with_ctime` is set and the file has but one link?
 */
extern bool store_same_file(const FileIdentity *a, const FileIdentity *b,
							bool with_ctime);

/*
 * Are the renames and unlinks of this store to survive a crash of the system?
 * True after store_open().  While false, no fsync is done and none is owed:
 * for the commit callback, which has to be quick, and after which somebody
 * else will store_locate() and store_sync() before anything is recorded.
 * Switch it before the first file.  Commit-safe.
 */
extern void store_set_durable(FileStore *store, bool durable);

/*
 * Capture: rename the file at `path` into the trash of run `run_id`, if it
 * still is `expected` (looked at before, with ctime, and verified after the
 * rename without).  What turns out to be another file is put back, and if its
 * name was taken in that instant, beside it as "<name>.audio_cleanup-<run>":
 * FILE_REPLACED.  If even that fails ("put back file"), it stays in the trash,
 * where it is not destroyed, not being `expected`; store_locate() tries again.
 * FILE_FAILED with EEXIST: the trash has that name already, from a run of the
 * same number on another timeline.  EPERM, "trust directory": see above.
 * Commit-safe.  FILE_OK, FILE_VANISHED, FILE_NOT_REGULAR, FILE_REPLACED,
 * FILE_NO_SPACE, FILE_FAILED.
 *
 * Of a store that is not quick: the copy is durable before the original is
 * touched, so a store that is not durable fails with EXDEV.  If a copy was
 * finished, but not the capture, it is compared again, and used or replaced.
 */
extern FileResult store_capture(FileStore *store, int64 run_id, const char *path,
								const FileIdentity *expected);

/* A condemned file that is to be captured, and what has become of it. */
typedef struct StoreCondemned
{
	const char *path;
	const FileIdentity *expected;
	FilePlace	place;			/* set: where it was, see store_locate() */
	FileResult	result;			/* set: of PLACE_UPLOAD, see store_capture();
								 * of PLACE_UNKNOWN, why */
	bool		destroyed;		/* set: with FILE_OK, it was destroyed in its
								 * place, because there is no trash */
} StoreCondemned;

/*
 * Finds `n` condemned files of the run `run_id`, mends what was left
 * unfinished, and captures those that are in their place.  Each has its own
 * result.  FILE_FAILED with EINTR: somebody wanted us to stop.  Where there is
 * no trash they are destroyed in their place, but only if that is what is wanted,
 * `for_good`: no backup was promised.  Not commit-safe.
 */
extern void store_capture_many(FileStore *store, int64 run_id, StoreCondemned *files, int n,
							   bool for_good);

/*
 * Returns how many files should be looked at, captured or destroyed by one
 * call, where that is quicker than one after the other; else 1.
 */
extern int	store_together(const FileStore *store);

/*
 * store_capture() by a copy, which is durable and compared before the original
 * is unlinked in its place: for a file that cannot be renamed into the trash
 * (FILE_NO_SPACE with EXDEV).  Not for a store that is not durable.
 */
extern FileResult store_capture_by_copy(FileStore *store, int64 run_id, const char *path,
										const FileIdentity *expected);

/*
 * May this process remove names from the folder of the file `path`?  Returns
 * 0, or an errno (EACCES, EROFS, ...).  Changes nothing.
 */
extern int	store_check_folder(FileStore *store, const char *path);

/*
 * Where is this file now?  Commit-safe.  *errnum is set for PLACE_UNKNOWN,
 * else 0.  If the trash has another file under its name, and its own place is
 * empty, then a capture was killed before it could verify: with `mend` that
 * file is put back, and the answer is PLACE_OTHER; else nothing is done, and
 * the answer is PLACE_UNFINISHED.  With a copy in the trash and the
 * original in its place, the answer is PLACE_UPLOAD: it is not captured yet.
 */
extern FilePlace store_locate(FileStore *store, int64 run_id, const char *path,
							  const FileIdentity *expected, bool mend, int *errnum);

/* A file that is looked for, and what is found: see store_locate(). */
typedef struct StoreLocated
{
	const char *path;
	const FileIdentity *expected;
	FilePlace	place;			/* set */
	int			errnum;			/* set */
} StoreLocated;

/*
 * Where are these `n` files of the run `run_id` now?  Mends nothing.  Several
 * are looked for at a time, where that is quicker.  Not commit-safe.
 */
extern void store_locate_many(FileStore *store, int64 run_id, StoreLocated *files, int n);

/*
 * Put a captured file back to its own place; never overwrites.  Missing
 * directories on the way are created, see store_put_back_as().  Where
 * the file system knows neither RENAME_NOREPLACE nor hard links, it fails.
 * FILE_OK, FILE_VANISHED (not in the trash), FILE_OCCUPIED, FILE_REPLACED
 * (what is in the trash is not `expected`), FILE_FAILED.
 */
extern FileResult store_put_back(FileStore *store, int64 run_id, const char *path,
								 const FileIdentity *expected);

/*
 * Puts a captured file back under another name, `as`; see store_put_back().
 * Folders that are made again have the mode of the one that the file was
 * captured in, where that is known.
 */
extern FileResult store_put_back_as(FileStore *store, int64 run_id, const char *path,
									const char *as, const FileIdentity *expected);

/* A captured file that is to be put back under the name `as`, and what has become of it. */
typedef struct StoreReturned
{
	const char *path;
	const char *as;
	const FileIdentity *expected;
	FileResult	result;			/* set: see store_put_back() */
} StoreReturned;

/*
 * Puts `n` captured files of the run `run_id` back, several at a time, where
 * that is quicker.  Each has its own result.  Not commit-safe.
 */
extern void store_put_back_many(FileStore *store, int64 run_id, StoreReturned *files, int n);

/*
 * Fills `runs` with the ids of at most `max` runs that have a folder in the
 * trash.  Returns how many there are; -1 with errno if that cannot be told.
 */
extern int	store_trash_runs(FileStore *store, int64 *runs, int max);

/*
 * Gives the trash of the run `run_id` another number, `as`, which has no trash
 * yet.  Returns 0, or an errno.
 */
extern int	store_renumber_trash(FileStore *store, int64 run_id, int64 as);

/*
 * By its rows, no file of the run `run_id` lies in the trash any more, nor will
 * one: removes what the store remembers of the run, where that is more than its
 * files in the trash.  With `look` only if there are none indeed: files of a
 * recovered database may have lost their rows.  What cannot be removed now
 * stays until the next call.  Not commit-safe.
 */
extern void store_forget_run(FileStore *store, int64 run_id, bool look);

/*
 * Tells the identity of the file that the run `run_id` captured from `path`.
 * FILE_OK, FILE_VANISHED (the trash does not have it), FILE_NOT_REGULAR or
 * FILE_FAILED.
 */
extern FileResult store_identify_captured(FileStore *store, int64 run_id, const char *path,
										  FileIdentity *identity);

/*
 * Do both have one size and one mtime?  A file system or an archive that knows
 * whole seconds only may have cut the mtime of `found`.
 */
extern bool store_same_copy(const FileIdentity *found, const FileIdentity *expected);

/* Returns the bytes that destroying this file gives back: 0 while another link stands. */
extern int64 store_space_of(const FileIdentity *identity);

/*
 * Remove the folder `path`, below the upload directory, if it is empty, and
 * then those above it that are.  Mount points, subvolumes and what is no
 * folder stay.  Returns how many went.  Commit-safe.
 */
extern int	store_remove_folders(FileStore *store, const char *path);

/*
 * Unlink a captured file for good.  *freed becomes the bytes given back to
 * the file system: see store_space_of().
 * FILE_OK, FILE_VANISHED, FILE_REPLACED, FILE_FAILED.
 */
extern FileResult store_destroy(FileStore *store, int64 run_id, const char *path,
								const FileIdentity *expected, int64 *freed);

/* A captured file that is to be destroyed, and what has become of it. */
typedef struct StoreDoomed
{
	const char *path;
	const FileIdentity *expected;
	FileResult	result;			/* set: see store_destroy() */
	int64		freed;			/* set, in bytes: see store_destroy() */
} StoreDoomed;

/*
 * Destroys `n` captured files of the run `run_id`, several at a time where the
 * kernel can do that (io_uring): those of one folder should stand side by side.
 * Each file is looked at before its unlink, as by store_destroy(), and has its
 * own result.  All unlinks are over when it returns, and an interrupt has to
 * wait so long.  Not commit-safe.
 */
extern void store_destroy_many(FileStore *store, int64 run_id, StoreDoomed *files, int n);

/*
 * Unlink the file at its own place, if it still is `expected` (ctime
 * included): for a disk so full that the capture found no space.
 * FILE_OK, FILE_VANISHED, FILE_NOT_REGULAR, FILE_REPLACED, FILE_FAILED.
 */
extern FileResult store_destroy_in_place(FileStore *store, const char *path,
										 const FileIdentity *expected, int64 *freed);

/*
 * Tells the time of the file system, in nanoseconds since 1970, by a file that
 * never has a name.  FILE_OK; FILE_NO_SPACE; FILE_FAILED, also where the file
 * system has no nameless files.
 */
extern FileResult store_clock(FileStore *store, int64 *now_ns);

/*
 * Make the renames and unlinks done so far durable: fsync every directory
 * touched since the last call.  To be called before they are recorded as
 * done.  store_locate() marks the directory in which it found the file, or did
 * not find it, as touched too, with those on the way: whoever renamed the file
 * may have died before his fsync.
 * Returns 0 or the errno of the first failure since the last call; then none
 * of what was done since may be recorded.
 */
extern int	store_sync(FileStore *store);

/*
 * Remove the trash of a run as far as it is empty, and the (empty) trash and
 * private directories above it.  Anything that is not empty stays.  Reads
 * every directory of that trash, so once a run is enough.
 */
extern void store_tidy(FileStore *store, int64 run_id);

/* What an examination of a store has found. */
typedef struct StoreFinding
{
	const char *check;			/* what was looked at, a word */
	bool		is_fine;
	const char *detail;
	const char *hint;			/* NULL: nothing is to be done */
} StoreFinding;

/*
 * Examines how the upload directory is reached, step by step: passes to
 * `sink` a finding for each, the last of which is the first that is not fine.
 * Returns whether all is fine.  Changes nothing; a directory of this machine
 * has no findings.  EINTR is no finding: whoever calls serves the interrupt.
 */
typedef void (*StoreFindingSink) (const StoreFinding *finding, void *arg);
extern bool store_examine(FileStore *store, StoreFindingSink sink, void *arg);

/*
 * Writes, deletes, puts back and destroys a file of our own in the private
 * folder, and passes the finding to `sink`.  To be called after
 * store_examine().  Returns whether all is fine.
 */
extern bool store_examine_canary(FileStore *store, StoreFindingSink sink, void *arg);

/*
 * An upload that was begun and is not completed.  Nobody can read it, no walk
 * sees it, and what has come of it takes space.
 */
typedef struct StoreUpload
{
	const char *path;			/* that the file will have */
	const char *id;
	int64		begun_ns;		/* since 1970, by the clock of the store */
} StoreUpload;

/*
 * Passes each such upload below the upload directory to `sink`, which must not
 * call the store, but for walk_why_not(), and may raise an ERROR.  Returns 0; ENOTSUP if this kind of
 * upload directory has none; or another errno, when not all of them were
 * passed.  Not commit-safe.
 */
typedef void (*StoreUploadSink) (const StoreUpload *upload, void *arg);
extern int	store_list_uploads(FileStore *store, StoreUploadSink sink, void *arg);

/*
 * Ends the upload `id` of `path`, unless something has come of it after
 * `quiet_since_ns` (nanoseconds since 1970).  *freed becomes the bytes that had come of it.
 * FILE_OK; FILE_VANISHED: it was completed, or ended by somebody;
 * FILE_REPLACED: something has come since; FILE_OCCUPIED: somebody else works
 * in the upload directory; FILE_FAILED.  Not commit-safe.
 */
extern FileResult store_end_upload(FileStore *store, const char *path, const char *id,
								   int64 quiet_since_ns, int64 *freed);

#endif							/* AUDIO_CLEANUP_STORE_H */
