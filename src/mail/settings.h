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
	int			on;				/* a MailOn */
	char	   *recipients;		/* addresses, separated by commas */
	char	   *from;			/* "" if not set, as the other texts */
	char	   *url;
	bool		tls;
	char	   *user;
	char	   *password_file;
	char	   *ca_file;
	int			total_seconds;	/* that sending a mail may take; no setting */
	const char **to;			/* only in a snapshot: the addresses */
	int			n_to;
} MailSettings;

/* The variables of the settings, which settings.c defines.  Their texts change when the configuration is read. */
extern MailSettings mail_settings;

/* Returns the settings in force now, allocated in the current memory context. */
extern MailSettings *mail_settings_snapshot(void);

/* Returns a text that says why no mail is wanted at all, or NULL if mail is wanted. */
extern const char *mail_settings_off(const MailSettings *settings);

/*
 * Returns a text that says which setting stops mail from being sent, or NULL
 * if no setting does.
 */
extern const char *mail_settings_lack(const MailSettings *settings);

#endif							/* AUDIO_CLEANUP_MAIL_SETTINGS_H */
