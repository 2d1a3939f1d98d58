/*-------------------------------------------------------------------------
 *
 * store/bucket/versions.c
 *	  The versions of one key, and which of them is the file that is meant.
 *
 * A file is told by its version id, which the server gives once and never
 * again, with the ETag and the time, because what was written while a bucket
 * kept no versions has the id "null", again and again.  FileIdentity holds a
 * digest of the three in `inode`, so that the tables need no column that only
 * a bucket fills: whoever removes a version lists the versions of its key
 * before, and so knows the id in full.  The digest has 64 bits of SHA-256.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "src/store/bucket/bucket.h"

#define NS_PER_SECOND	INT64CONST(1000000000)

void
bucket_identify_entry(const BucketEntry *entry, FileIdentity *identity)
{
	char		text[2 * BUCKET_ID_SIZE + 32];

	snprintf(text, sizeof(text), "%s\n%s\n" INT64_FORMAT, entry->version, entry->etag, entry->modified);
	memset(identity, 0, sizeof(*identity));
	identity->inode = bucket_digest(text);
	identity->size = identity->space = entry->size;
	identity->nlink = 1;
	identity->mtime_ns = entry->modified * NS_PER_SECOND;
	/* the last moment that a time in whole seconds may stand for */
	identity->ctime_ns = identity->mtime_ns + NS_PER_SECOND - 1;
}

static bool
is_file(const BucketEntry *entry, const FileIdentity *expected)
{
	FileIdentity found;

	if (entry->is_marker)
		return false;
	bucket_identify_entry(entry, &found);
	return found.inode == expected->inode && found.size == expected->size &&
		found.mtime_ns == expected->mtime_ns;
}

/* The answer repeats the prefix, and a server may write a control character as it is, which no XML may hold. */
static bool
encode_prefix(char *query, size_t size, const char *key)
{
	char		prefix[BUCKET_KEY_MAX + 1];
	size_t		n = 0;

	while (key[n] != '\0' && ((unsigned char) key[n] >= 0x20 || key[n] == '\t' || key[n] == '\n'))
		n++;
	strlcpy(prefix, key, n + 1);
	return bucket_encode(query, size, prefix);
}

/* Other keys that begin with the prefix come before those of this one, or behind them. */
static void
select_versions(const BucketAnswer *answer, const char *key, const FileIdentity *expected,
				KeyVersions *versions)
{
	int			first = 0;
	int			i;

	while (first < answer->n_entries && strcmp(answer->entries[first].key, key) != 0)
		first++;
	versions->entries = answer->entries + first;
	versions->n = 0;
	versions->at = -1;
	for (i = first; i < answer->n_entries && strcmp(answer->entries[i].key, key) == 0; i++)
	{
		if (expected != NULL && versions->at < 0 && is_file(&answer->entries[i], expected))
			versions->at = versions->n;
		versions->n++;
	}
	versions->more = answer->truncated && first + versions->n == answer->n_entries;
}

int
bucket_list_versions(Bucket *bucket, const char *key, const FileIdentity *expected,
					 KeyVersions *versions)
{
	char		query[3 * BUCKET_KEY_MAX + 64] = "encoding-type=url&max-keys=1000&prefix=";
	const BucketCall call = {"GET", NULL, query};
	const BucketAnswer *answer;
	int			errnum;

	if (!encode_prefix(query, sizeof(query), key))
		return bucket_note(bucket, ENAMETOOLONG, strerror(ENAMETOOLONG));
	strlcat(query, "&versions=", sizeof(query));
	if ((errnum = bucket_call(bucket, &call, &answer)) != 0)
		return errnum;
	if (answer->status != 200)
		return bucket_note(bucket, EIO, answer->error);
	select_versions(answer, key, expected, versions);
	if (versions->n > 0 && !versions->entries[0].is_latest)
		return bucket_note(bucket, EIO, "the server does not list the newest version first");
	/* what is not found may come later, so nothing may be concluded */
	if (versions->more && versions->at < 0)
		return bucket_note(bucket, EFBIG, "its versions are not among the first 1000 of the list");
	return 0;
}

int
bucket_remove_version(Bucket *bucket, const char *key, const char *version)
{
	char		query[3 * BUCKET_ID_SIZE + 16] = "versionId=";
	const BucketCall call = {"DELETE", key, query};
	const BucketAnswer *answer;
	int			errnum;

	if (version[0] == '\0' || !bucket_encode(query, sizeof(query), version))
		return bucket_note(bucket, EINVAL, "the server gave no version id");
	errnum = bucket_call(bucket, &call, &answer);
	if (errnum == 0 && answer->status >= 300 && answer->status != 404)
		return bucket_note(bucket, EIO, answer->error);
	return errnum;
}
