/*-------------------------------------------------------------------------
 *
 * pg/extension.h
 *	  What the server gives us: SQL, locks, roles, workers, the end of a
 *	  transaction; knows no file.
 *
 * This header has the extension as the server knows it: its schema, and its
 * owner.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_EXTENSION_H
#define AUDIO_CLEANUP_EXTENSION_H

#define EXTENSION_NAME	"audio_cleanup"

typedef struct Extension
{
	Oid			oid;
	Oid			owner;
	Oid			namespace_oid;
} Extension;

/*
 * Looks the extension up in the current database.  Returns its OIDs,
 * allocated in the current memory context.  If the extension is not
 * installed, returns NULL with `missing_ok`, and raises an ERROR without.
 * Raises an ERROR also if the extension has another version than this
 * library, which does not know the tables of other versions; and if its owner
 * is no superuser, because whoever owns our tables says which files are
 * deleted.  Needs SPI.
 */
extern Extension *extension_lookup(bool missing_ok);

/*
 * Says whether code of others runs now that the extension has called: a
 * source that is read, a trigger of a row that is cleared.  While such code
 * runs, extension_lookup() raises an ERROR: the code must not begin another
 * call of the extension within the call that waits for it.
 */
extern void extension_calls_others(bool calls);

/*
 * Returns the name that the extension's schema has now, quoted as an
 * identifier, palloc'd.  Raises an ERROR if the schema was dropped.  Does not
 * need SPI.
 */
extern const char *extension_schema(const Extension *extension);

/*
 * Returns the OID of the table or sequence `name` of the extension.  Raises an
 * ERROR if the extension has no such relation.  Does not need SPI.
 */
extern Oid	extension_relation(const Extension *extension, const char *name);

#endif							/* AUDIO_CLEANUP_EXTENSION_H */
