/*-------------------------------------------------------------------------
 *
 * store/driver.c
 *	  Passes each call on to the kind of upload directory that is open.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include "src/store/private.h"

#define BUCKET_SCHEME	"s3://"

/* Returns the driver of a store or a walk, which begin with it. */
static inline const StoreDriver *
driver_of(const void *base)
{
	return *(const StoreDriver *const *) base;
}

void
store_release_descriptors(int n)
{
	while (n-- > 0)
		ReleaseExternalFD();
}

bool
store_acquire_descriptors(int n)
{
	for (int acquired = 0; acquired < n; acquired++)
		if (!AcquireExternalFD())
		{
			store_release_descriptors(acquired);
			errno = EMFILE;
			return false;
		}
	return true;
}

bool
store_is_local(const char *name)
{
	return strncmp(name, BUCKET_SCHEME, strlen(BUCKET_SCHEME)) != 0;
}

const char *
store_judge_name(const char *name)
{
#ifndef FRONTEND
	if (!store_is_local(name))
		return bucket_judge_name(name);
#endif
	return NULL;
}

FileStore *
store_open(const char *name)
{
#ifndef FRONTEND
	if (!store_is_local(name))
		return bucket_open(name);
#endif
	return local_open(name);
}

void
store_close(FileStore *store)
{
	if (store != NULL)
		driver_of(store)->close(store);
}

void
walk_end(TreeWalk *walk)
{
	if (walk != NULL)
		driver_of(walk)->walk_end(walk);
}

bool
store_acts_at_commit(const FileStore *store)
{
	return driver_of(store)->is_local;
}

int
store_together(const FileStore *store)
{
	return driver_of(store)->together;
}

void
store_set_stop(FileStore *store, bool (*stop) (void))
{
	((StoreBase *) store)->stop = stop;
}

void
store_set_durable(FileStore *store, bool durable)
{
	((StoreBase *) store)->durable = durable;
}

FileResult
store_put_back(FileStore *store, int64 run_id, const char *path, const FileIdentity *expected)
{
	return store_put_back_as(store, run_id, path, path, expected);
}


/* ----------
 * The functions of driver_list.h
 * ----------
 */

#define STORE_BOTH(type, name, parameters, arguments) \
type \
store_##name parameters \
{ \
	return driver_of(store)->name arguments; \
}

#define STORE_LOCAL(type, name, parameters, arguments, otherwise) \
type \
store_##name parameters \
{ \
	return driver_of(store)->name != NULL ? driver_of(store)->name arguments : otherwise; \
}

#define STORE_BUCKET STORE_LOCAL

#define STORE_WALK(type, name, parameters, base, arguments) \
type \
name parameters \
{ \
	return driver_of(base)->name arguments; \
}

#define STORE_OWN(type, name, parameters)
#include "src/store/driver_list.h"

bool
walk_has_links(const TreeWalk *walk)
{
	return ((const WalkBase *) walk)->has_links;
}
