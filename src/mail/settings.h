/*-------------------------------------------------------------------------
 *
 * mail/settings.h
 *	  The settings of mail: where to, by which server, and about what.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_MAIL_SETTINGS_H
#define AUDIO_CLEANUP_MAIL_SETTINGS_H

#include "src/text/json_build.h"

typedef enum MailOn
{
	MAIL_ON_NEVER,
	MAIL_ON_PROBLEMS,			/* failed, blocked, interrupted, errors */
	MAIL_ON_CHANGES,			/* or files that went */
	MAIL_ON_ALWAYS
} MailOn;

typedef struct MailSettings
{
	MailOn		on;
	const char *url;			/* empty: not set; so are the others */
	bool		tls;
	const char *user;
	const char *password_file;
	const char *ca_file;
	const char *from;
	const char **to;
	int			n_to;
} MailSettings;

/* Defines the settings of mail; called from settings_define(). */
extern void mail_settings_define(void);

/* Returns the settings in force now, allocated in the current memory context. */
extern MailSettings *mail_settings_snapshot(void);

/* Returns why no mail is wanted at all, NULL if mail is wanted. */
extern const char *mail_settings_off(const MailSettings *settings);

/* Returns which setting keeps mail from being sent, NULL if none does. */
extern const char *mail_settings_lack(const MailSettings *settings);

/* Returns about which runs mail is sent, in words for people. */
extern const char *mail_settings_about(const MailSettings *settings);

/* Adds the settings to the object of cleanup_config(), without the user and the files. */
extern void mail_settings_add_to(JsonBuilder *json);

#endif							/* AUDIO_CLEANUP_MAIL_SETTINGS_H */
