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

#include "nodes/pg_list.h"

/*
 * Gives the settings of applications, and the settings that tell how values
 * are written, the values that the server has for this database, whatever the
 * session, its client or its role has set.  The values last until the GUC nest
 * level of the caller ends.  Needs SPI.
 */
extern void session_use_server_settings(void);

/*
 * Returns the setting of this name (of `len` bytes), or with NULL any setting,
 * that only the session has; NULL if there is no such setting.  Such a setting
 * gets an empty value, but cannot be removed, and other sessions do not have
 * the setting.  Returns the findings of the last
 * session_use_server_settings().
 */
extern const char *session_own_setting(const char *name, size_t len);

/* Returns whether there is a setting of this name that the configuration file could set to the value.  Needs no SPI. */
extern bool session_may_set(const char *name, const char *value);

/*
 * Finds a setting whose name begins with `prefix`, in lower case, and that the
 * configuration files, ALTER DATABASE or ALTER ROLE give to this session, but
 * that cannot be used: there is no setting of this name, or the value is not
 * valid.  The server then has the default in force, and says so in a WARNING
 * only.  Returns its name, or NULL if there is none.  Needs SPI.
 */
extern const char *session_find_unusable(const char *prefix);

/*
 * For the check hook of a setting: says why the value is refused, with a hint or
 * NULL, and returns false.  Needs no SPI.
 */
extern bool session_refuse_value(const char *detail, const char *hint);

/* A temporary table or type that hides a permanent table or type of the same name. */
typedef struct Shadow
{
	char		name[NAMEDATALEN];	/* empty: no shadow was found */
	bool		is_table;
} Shadow;

/*
 * Sets *shadow to a shadow of this session, or to an empty name.  Needs SPI.
 */
extern void session_find_shadow(Shadow *shadow);

/*
 * Returns the names (char *) of the session's open cursors that nobody uses now.
 * Needs SPI.
 */
extern List *session_list_cursors(void);

/*
 * With `shut`, makes each use of these cursors, which were listed in this
 * instant, an ERROR; without, undoes that.
 * Code of others must not read rows from a cursor of the caller, nor move or
 * close the cursor.  The caller makes both calls, the second also after an
 * ERROR.  Never raises an ERROR.
 */
extern void session_shut_cursors(List *cursors, bool shut);

#endif							/* AUDIO_CLEANUP_SESSION_H */
