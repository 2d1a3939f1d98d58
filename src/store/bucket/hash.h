/*-------------------------------------------------------------------------
 *
 * store/bucket/hash.h
 *	  Hashes of texts, for the files of both libraries that talk to a bucket.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_BUCKET_HASH_H
#define AUDIO_CLEANUP_BUCKET_HASH_H

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "utils/builtins.h"

/* Sets `digest`, of `size` bytes, to the hash of the `len` bytes of `text`.  Returns false without memory. */
static inline bool
bucket_hash(pg_cryptohash_type type, const char *text, size_t len, uint8 *digest, size_t size)
{
	pg_cryptohash_ctx *context = pg_cryptohash_create(type);
	bool		done = context != NULL && pg_cryptohash_init(context) == 0 &&
	pg_cryptohash_update(context, (const uint8 *) text, len) == 0 &&
	pg_cryptohash_final(context, digest, size) == 0;

	pg_cryptohash_free(context);
	return done;
}

/* Writes the digest in hexadecimal, with a NUL at its end. */
static inline void
bucket_write_hex(const uint8 digest[PG_SHA256_DIGEST_LENGTH], char hex[PG_SHA256_DIGEST_STRING_LENGTH])
{
	hex[hex_encode((const char *) digest, PG_SHA256_DIGEST_LENGTH, hex)] = '\0';
}

#endif							/* AUDIO_CLEANUP_BUCKET_HASH_H */
