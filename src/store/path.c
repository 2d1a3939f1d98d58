/*-------------------------------------------------------------------------
 *
 * store/path.c
 *	  Which relative paths are accepted.
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

#include <limits.h>

#include "src/store/private.h"


/*
 * errno for a component that must not be used, or 0.  ".." would lead out of
 * the directory; the empty one and "." would give a file a second name.
 */
int
store_judge_component(const char *component, size_t len)
{
	if (len == 0 || (len == 1 && component[0] == '.') ||
		(len == 2 && component[0] == '.' && component[1] == '.'))
		return EINVAL;
	return len > NAME_MAX ? ENAMETOOLONG : 0;
}

/* Our own directory is no place for uploads: a claim is not to be condemned. */
static bool
is_private(const char *path)
{
	size_t		len = strcspn(path, "/");

	/* some file systems do not tell upper from lower case */
	return len == strlen(STORE_PRIVATE_DIR) &&
		pg_strncasecmp(path, STORE_PRIVATE_DIR, len) == 0;
}

/* Returns 0 or an errno. */
int
store_split_path(const char *path, FilePath *where)
{
	const char *component = path;
	size_t		len;
	int			errnum;

	if (strlen(path) >= STORE_PATH_MAX)
		return ENAMETOOLONG;
	if (is_private(path))
		return EINVAL;

	for (;;)
	{
		len = strcspn(component, "/");
		errnum = store_judge_component(component, len);
		if (errnum != 0)
			return errnum;
		if (component[len] == '\0')
			break;
		component += len + 1;
	}

	where->name = component;
	len = component > path ? component - path - 1 : 0;
	memcpy(where->dir, path, len);
	where->dir[len] = '\0';
	return 0;
}
