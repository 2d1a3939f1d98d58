/*-------------------------------------------------------------------------
 *
 * pg/session.h
 *	  The settings of the server, where the session has others.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_SESSION_H
#define AUDIO_CLEANUP_SESSION_H

/*
 * Gives the settings that tell how values are written, and those of
 * applications, the values that the server has for this database, whatever the
 * session, its client or its role has set; until the GUC nest level of the
 * caller ends.  Needs SPI.
 */
extern void session_use_server_settings(void);

#endif							/* AUDIO_CLEANUP_SESSION_H */
