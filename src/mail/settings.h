/*-------------------------------------------------------------------------
 *
 * mail/settings.h
 *	  The settings of mail: recipients, server, and which runs are reported.
 *
 * No function needs SPI.
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
	MAIL_ON_PROBLEMS,			/* about runs that failed, were blocked or
								 * interrupted, or had errors */
	MAIL_ON_CHANGES,			/* also about runs that deleted files */
	MAIL_ON_ALWAYS
} MailOn;

typedef struct MailSettings
{
	MailOn		on;
	const char *url;			/* "" if not set, as the other texts */
	bool		tls;
	const char *user;
	const char *password_file;
	const char *ca_file;
	const char *from;
	const char **to;
	int			n_to;
} MailSettings;

/* Defines the settings of mail. settings_define() calls this once. */
extern void mail_settings_define(void);

/* Returns the settings in force now, allocated in the current memory context. */
extern MailSettings *mail_settings_snapshot(void);

/* Returns a text that says why no mail is wanted at all, or NULL if mail is wanted. */
extern const char *mail_settings_off(const MailSettings *settings);

/*
 * Returns a text that says which setting stops mail from being sent, or NULL
 * if no setting does.
 */
extern const char *mail_settings_lack(const MailSettings *settings);

/* Returns a text for people that says about which runs mail is sent. */
extern const char *mail_settings_about(const MailSettings *settings);

/* Adds the settings to the object of cleanup_config(), except the user and the files. */
extern void mail_settings_add_to(JsonBuilder *json);

#endif							/* AUDIO_CLEANUP_MAIL_SETTINGS_H */
