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

#include <ctype.h>

#include "utils/guc.h"

#include "src/mail/message.h"
#include "src/mail/settings.h"
#include "src/pg/session.h"
#include "src/text/list.h"

static const struct config_enum_entry mail_on_options[] = {
	{"never", MAIL_ON_NEVER, false},
	{"problems", MAIL_ON_PROBLEMS, false},
	{"changes", MAIL_ON_CHANGES, false},
	{"always", MAIL_ON_ALWAYS, false},
	{NULL, 0, false}
};

static int	mail_on;
static char *mail_from;
static char *mail_to;
static char *smtp_url;
static bool smtp_tls;
static char *smtp_user;
static char *smtp_password_file;
static char *smtp_ca_file;


/* ---------------------------------------------------------------- checks --- */

static bool
check_recipients(char **newval, void **extra, GucSource source)
{
	const char *cursor = *newval;
	char	   *address;

	while ((address = list_next_entry(&cursor, false)) != NULL)
	{
		if (!message_is_address(address))
		{
			GUC_check_errdetail("\"%s\" is not a mail address.", address);
			GUC_check_errhint("Addresses are separated by commas: dba@example.com, boss@example.com.");
			return false;
		}
		pfree(address);
	}
	return true;
}

static bool
check_sender(char **newval, void **extra, GucSource source)
{
	return **newval == '\0' || message_is_address(*newval) ||
		session_refuse_value("It is not a mail address, such as postgres@db1.example.com.", NULL);
}

static bool
check_url(char **newval, void **extra, GucSource source)
{
	const char *url = *newval;
	const char *p;

	if (*url == '\0')
		return true;
	if (pg_strncasecmp(url, "smtp://", 7) != 0 && pg_strncasecmp(url, "smtps://", 8) != 0)
		return session_refuse_value("It must begin with smtp:// or smtps://.", NULL);
	if (strchr(url, '@') != NULL)
		return session_refuse_value("It must not hold a user or a password.",
									"See audio_cleanup.smtp_user and audio_cleanup.smtp_password_file.");
	for (p = url; *p != '\0'; p++)
		if (*p <= ' ' || *p > '~')
			return session_refuse_value("It must be of printable ASCII characters without spaces.", NULL);
	return true;
}

/* Checks smtp_user, which becomes a part of a line of SMTP, encoded or not. */
static bool
check_user(char **newval, void **extra, GucSource source)
{
	const char *p;

	for (p = *newval; *p != '\0'; p++)
		if (iscntrl((unsigned char) *p))
			return session_refuse_value("It must not hold control characters.", NULL);
	return true;
}

static bool
check_file(char **newval, void **extra, GucSource source)
{
	return **newval == '\0' || is_absolute_path(*newval) ||
		session_refuse_value("The file must be named by an absolute path.", NULL);
}


/* ----------------------------------------------------------- definitions --- */

static void
define_text(const char *name, const char *description, char **variable, int flags,
			GucStringCheckHook check)
{
	DefineCustomStringVariable(name, description, NULL, variable, "", PGC_SUSET, flags,
							   check, NULL, NULL);
}

void
mail_settings_define(void)
{
	DefineCustomEnumVariable("audio_cleanup.mail_on",
							 "About which runs mail is sent.",
							 "problems: failed, blocked, interrupted, or with errors; "
							 "changes: these, and those by which files went; always: all.",
							 &mail_on, MAIL_ON_PROBLEMS, mail_on_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	define_text("audio_cleanup.mail_to",
				"Addresses that mail is sent to, separated by commas; empty sends none.",
				&mail_to, 0, check_recipients);
	define_text("audio_cleanup.mail_from", "Address that mail comes from.",
				&mail_from, 0, check_sender);
	define_text("audio_cleanup.smtp_url",
				"Mail server: smtp://host:port or smtps://host:port.",
				&smtp_url, 0, check_url);
	DefineCustomBoolVariable("audio_cleanup.smtp_tls",
							 "Mail goes encrypted, or not at all.",
							 "If off, smtp:// is not encrypted, and nobody logs in.",
							 &smtp_tls, true, PGC_SUSET, 0, NULL, NULL, NULL);
	define_text("audio_cleanup.smtp_user", "User of the mail server; empty does not log in.",
				&smtp_user, GUC_SUPERUSER_ONLY, check_user);
	define_text("audio_cleanup.smtp_password_file",
				"File whose first line is that user's password.",
				&smtp_password_file, GUC_SUPERUSER_ONLY, check_file);
	define_text("audio_cleanup.smtp_ca_file",
				"Certificates by which the mail server's is verified; empty is the system's.",
				&smtp_ca_file, GUC_SUPERUSER_ONLY, check_file);
}


/* ------------------------------------------------------------- snapshots --- */

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
	MailSettings *settings = palloc0(sizeof(MailSettings));
	const char *cursor = mail_to;
	char	   *address;

	settings->on = mail_on;
	settings->url = pstrdup(smtp_url);
	settings->tls = smtp_tls;
	settings->user = pstrdup(smtp_user);
	settings->password_file = pstrdup(smtp_password_file);
	settings->ca_file = pstrdup(smtp_ca_file);
	settings->from = pstrdup(mail_from);
	settings->to = palloc(sizeof(char *) * (strlen(mail_to) / 2 + 1));
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

const char *
mail_settings_about(const MailSettings *settings)
{
	if (settings->on == MAIL_ON_PROBLEMS)
		return "problems";
	return settings->on == MAIL_ON_CHANGES ? "problems and changes" : "every run";
}

void
mail_settings_add_to(JsonBuilder *json)
{
	json_add_text(json, "mail_on", GetConfigOption("audio_cleanup.mail_on", false, false));
	json_add_text(json, "mail_to", mail_to);
	json_add_text(json, "mail_from", mail_from);
	json_add_text(json, "smtp_url", smtp_url);
	json_add_boolean(json, "smtp_tls", smtp_tls);
}
