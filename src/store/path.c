/*-------------------------------------------------------------------------
 *
 * store/path.c
 *	  Which relative paths are accepted.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include "src/store/private.h"

/*
 * Refuses ".." in a path, which would lead out of the directory, and "." and
 * the empty component, which would give a file a second name.
 */
int
store_judge_component(const char *component, size_t len)
{
	if (len == 0 || (len <= 2 && strncmp(component, "..", len) == 0))
		return EINVAL;
	return len > NAME_MAX ? ENAMETOOLONG : 0;
}

/* Returns whether the path lies in our private folder, where no file may be condemned: the claim, for example. */
static bool
is_private(const char *path)
{
	size_t		len = strlen(STORE_PRIVATE_DIR);

	/* some file systems do not tell upper from lower case */
	return strcspn(path, "/") == len && pg_strncasecmp(path, STORE_PRIVATE_DIR, len) == 0;
}

FileResult
store_split_path(const char *path, FilePath *where)
{
	const char *component = path;
	size_t		len = strlen(path);
	int			errnum = len >= STORE_PATH_MAX ? ENAMETOOLONG : is_private(path) ? EINVAL : 0;

	while (errnum == 0)
	{
		len = strcspn(component, "/");
		errnum = store_judge_component(component, len);
		if (component[len] == '\0')
			break;
		component += len + 1;
	}
	if (errnum != 0)
		return fail(errnum, "could not accept path");

	where->name = component;
	len = component > path ? component - path - 1 : 0;
	memcpy(where->dir, path, len);
	where->dir[len] = '\0';
	return come_to(FILE_OK);
}

FileResult
store_begin(StoreJob *job, FileStore *store, int64 run_id, const char *path,
			const FileIdentity *expected)
{
	job->store = store;
	job->run_id = run_id;
	job->expected = expected;
	return store_split_path(path, &job->where);
}
