/*-------------------------------------------------------------------------
 *
 * mail/settings.c
 *	  The settings of mail: recipients, server, and which runs are reported.
 *
 * The settings are PGC_SUSET, so that each database may have its own.  The
 * password is not a setting but stands in a file, because settings can be
 * seen in pg_settings, in postgresql.conf, in dumps and in the server log.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "src/mail/settings.h"
#include "src/text/list.h"

MailSettings mail_settings = {.total_seconds = 60};

static bool
is_recipient(const MailSettings *settings, const char *address)
{
	for (int i = 0; i < settings->n_to; i++)
		if (strcmp(settings->to[i], address) == 0)
			return true;
	return false;
}

MailSettings *
mail_settings_snapshot(void)
{
	MailSettings *settings = palloc(sizeof(MailSettings));
	const char *cursor = mail_settings.recipients;
	char	   *address;

	*settings = mail_settings;
	settings->url = pstrdup(settings->url);
	settings->user = pstrdup(settings->user);
	settings->password_file = pstrdup(settings->password_file);
	settings->ca_file = pstrdup(settings->ca_file);
	settings->from = pstrdup(settings->from);
	settings->to = palloc(sizeof(char *) * (strlen(cursor) / 2 + 1));
	while ((address = list_next_entry(&cursor, false)) != NULL)
		if (!is_recipient(settings, address))
			settings->to[settings->n_to++] = address;
	return settings;
}

const char *
mail_settings_off(const MailSettings *settings)
{
	if (settings->n_to == 0)
		return "audio_cleanup.mail_to is empty";
	if (settings->on == MAIL_ON_NEVER)
		return "audio_cleanup.mail_on is never";
	return NULL;
}

const char *
mail_settings_lack(const MailSettings *settings)
{
	if (settings->n_to == 0)
		return "audio_cleanup.mail_to is not set";
	if (*settings->url == '\0')
		return "audio_cleanup.smtp_url is not set";
	if (*settings->from == '\0')
		return "audio_cleanup.mail_from is not set";
	if (*settings->user == '\0')
		return NULL;
	if (*settings->password_file == '\0')
		return "audio_cleanup.smtp_user is set, and audio_cleanup.smtp_password_file is not";
	if (!settings->tls && pg_strncasecmp(settings->url, "smtps:", 6) != 0)
		return "audio_cleanup.smtp_user is set, and audio_cleanup.smtp_tls is off: a password is never sent in the clear";
	return NULL;
}
