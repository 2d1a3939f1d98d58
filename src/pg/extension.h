/*-------------------------------------------------------------------------
 *
 * pg/extension.h
 *	  The extension as the server knows it: where it was created, and who owns it.
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
 * Looks the extension up in the current database.  Returns NULL if it is not
 * installed and `missing_ok` is set; without `missing_ok` that is an ERROR.
 * ERROR also if the extension has another version than this library, which
 * would not know its tables.  Needs SPI connected; the result is allocated in
 * the current memory context.
 */
extern Extension *extension_lookup(bool missing_ok);

/* Returns the name of the extension's schema as of now, quoted as an identifier. */
extern const char *extension_schema(const Extension *extension);

/* Returns the OID of the table or sequence `name` of the extension; ERROR if it has none. */
extern Oid	extension_relation(const Extension *extension, const char *name);

#endif							/* AUDIO_CLEANUP_EXTENSION_H */
