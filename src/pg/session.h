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

#endif							/* AUDIO_CLEANUP_SESSION_H */
