/*-------------------------------------------------------------------------
 *
 * pg/session.h
 *	  The settings of the server, where the session has other settings.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_SESSION_H
#define AUDIO_CLEANUP_SESSION_H

/*
 * Gives settings the values that the server has for this database, whatever
 * the session, its client or its role has set, until the GUC nest level of the
 * caller ends.  These are the settings that tell how values are written, and
 * the settings of applications.  Needs SPI.
 */
extern void session_use_server_settings(void);

/*
 * Returns the setting of this name (of `len` bytes), or with NULL any setting,
 * that only the session has; NULL if there is none.  Such a setting gets an empty
 * value, but cannot be taken away, and in other sessions there is none.  Answers
 * what the last session_use_server_settings() has found.
 */
extern const char *session_own_setting(const char *name, size_t len);

/* A temporary table or type whose name is that of a permanent one, which it hides. */
typedef struct Shadow
{
	char		name[NAMEDATALEN];	/* empty: there is none */
	bool		is_table;
} Shadow;

/* Sets *shadow to one of this session.  Needs SPI. */
extern void session_find_shadow(Shadow *shadow);

#endif							/* AUDIO_CLEANUP_SESSION_H */
