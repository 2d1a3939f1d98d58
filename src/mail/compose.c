/*-------------------------------------------------------------------------
 *
 * mail/compose.c
 *	  Composes the mail about a run.
 *
 * A function of the extension's script, cleanup_mail_figures(), returns the
 * figures as one object, as for the dashboard.  The figures fill the
 * templates mail.txt and mail.html, which the Makefile turns into arrays of
 * char.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "src/mail/compose.h"
#include "src/mail/mail.html.inc"
#include "src/mail/mail.txt.inc"
#include "src/pg/compat.h"
#include "src/pg/sql.h"
#include "src/text/json_build.h"
#include "src/text/template.h"

#define SUBJECT \
	"audio_cleanup on {{host}}/{{database}}:{{#test}} test mail{{/test}}{{^test}}{{#end}} {{end}},{{/end}} " \
	"{{gone|count}} file{{gone|s}}, {{bytes|size}} freed" \
	"{{#errors}}, {{errors|count}} error{{errors|s}}{{/errors}}{{/test}}"

/* Returns the name by which people know this server. */
static const char *
server_name(void)
{
	const char *cluster = GetConfigOption("cluster_name", true, false);
	char		host[256];

	if (cluster != NULL && *cluster != '\0')
		return cluster;
	if (gethostname(host, sizeof(host)) != 0)
		return "localhost";
	host[sizeof(host) - 1] = '\0';
	return pstrdup(host);
}

/* Returns the mail.  Its ID is unique in the world, and the same in every try to send the mail. */
static Message *
make_message(const MailSettings *settings, const char *const *to, int n_to, TimestampTz created_at, int64 number,
			 Jsonb *values)
{
	Message    *message = palloc0(sizeof(Message));
	const char *domain = strrchr(settings->from, '@');
	pg_time_t	seconds = timestamptz_to_time_t(created_at);
	char		date[64];

	message->to = to;
	message->n_to = n_to;
	message->id = psprintf("%llx.%u.%lld.%lld.audio_cleanup%s", (unsigned long long) GetSystemIdentifier(),
						   MyDatabaseId, (long long) created_at, (long long) number, domain ? domain : "");
	/* in English, whatever the locale, and in UTC */
	(void) pg_strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S +0000", pg_gmtime(&seconds));
	message->date = pstrdup(date);
	message->subject = template_fill(SUBJECT, values, false);
	message->text = template_fill(mail_txt, values, false);
	message->html = template_fill(mail_html, values, true);
	return message;
}


/* -------------------------------------------------------------------- runs --- */

Message *
mail_report_make(const Extension *extension, const OutboxMail *mail, const MailSettings *settings)
{
	Datum		figures = owner_value(extension, SQL_ARGS(SQL_INT8(mail->run_id), SQL_TEXT(server_name())),
									  "SELECT @extschema@.cleanup_mail_figures($1, $2)");

	return figures == 0 ? NULL :
		make_message(settings, mail->to, mail->n_to, mail->created_at, mail->run_id,
					 DatumGetJsonbP(figures));
}


/* -------------------------------------------------------------------- test --- */

static char *
join_recipients(const MailSettings *settings, const bool *wanted)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < settings->n_to; i++)
		if (wanted == NULL || wanted[i])
			appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "", settings->to[i]);
	return list.data;
}

static Jsonb *
make_test_values(const MailSettings *settings)
{
	JsonBuilder json;

	json_begin(&json);
	json_add_boolean(&json, "test", true);
	json_add_text(&json, "host", server_name());
	json_add_text(&json, "database", get_database_name(MyDatabaseId));
	json_add_text(&json, "to", join_recipients(settings, NULL));
	return json_end(&json);
}

char *
mail_report_send_test(void)
{
	MailSettings *settings = mail_settings_snapshot();
	Message    *message = make_message(settings, settings->to, settings->n_to, GetCurrentTimestamp(), MyProcPid,
									   make_test_values(settings));
	const MailResult *result = mailer_send(settings, message);
	const char *refused = result->refused ? join_recipients(settings, result->refused) : "";

	if (result->error != NULL)
		ereport(ERROR,
				(errcode(result->outcome == MAIL_UNREACHABLE ? ERRCODE_CONNECTION_FAILURE :
						 ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not send the test mail: %s", result->error),
				 *refused ? errdetail("Refused: %s.", refused) : 0));
	return psprintf("%s has taken a test mail for %s", settings->url, join_recipients(settings, NULL));
}
