# What a view shows must not depend on who reads it: an operator could make a wanted file an orphan by a setting of his
# session, and so could a client that brings its own time zone.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('session_settings', conf => "audio_cleanup.max_delete_percent = 100\ndatestyle = 'ISO, YMD'\n");
my $dir = upload_dir($node);
make_schema($node);
my @wanted = ('2024-05-31/late.mp3', '31.05.2024.mp3', '\x6162.mp3', '1.1.mp3', 'tenant.mp3', 'null.mp3');
add_rows($node, 'always.mp3');
$node->safe_psql('postgres', q{
	ALTER DATABASE postgres SET timezone = 'Europe/Berlin';
	ALTER DATABASE postgres SET app.tenant = 'one';
	ALTER DATABASE postgres SET app.hide = '';
	CREATE ROLE worker LOGIN;
	SELECT cleanup_grant_access('worker', 'operator');
	CREATE TABLE takes (at timestamptz, day date, bytes bytea, number float8, tenant text);
	INSERT INTO takes VALUES ('2024-05-30 23:30+00', '2024-05-31', 'ab', 1.1, 'one');
	CREATE VIEW dated AS SELECT to_char(at, 'YYYY-MM-DD') || '/late.mp3' AS url FROM takes;
	CREATE VIEW days AS SELECT day::text || '.mp3' AS url FROM takes;
	CREATE VIEW bytes AS SELECT bytes::text || '.mp3' AS url FROM takes;
	CREATE VIEW numbers AS SELECT number::text || '.mp3' AS url FROM takes;
	CREATE VIEW tenants AS SELECT tenant || 'tenant.mp3' AS url FROM takes WHERE tenant = current_setting('app.tenant', true);
	CREATE VIEW hidden AS SELECT 'null.mp3' AS url WHERE coalesce(current_setting('app.hide', true), '') = '';
	SELECT cleanup_add_source(v, '{url}') FROM unnest('{dated,days,bytes,numbers,tenants,hidden}'::regclass[]) v;
	ALTER DATABASE postgres SET datestyle = 'German';
});
$wanted[4] = 'onetenant.mp3';
put_files($dir, 'always.mp3', @wanted);

# Each deletes what is an orphan, and nothing else, whatever is set.
my $n = 0;

sub cleaned
{
	my ($name, %options) = @_;
	my $orphan = 'orphan' . $n++ . '.mp3';

	put_file($dir, $orphan);
	local $ENV{PGOPTIONS} = $options{client} || '';
	local $ENV{PGTZ} = $options{zone} if $options{zone};
	foreach my $statement ('SELECT cleanup_status()', 'CALL cleanup_run(force => true)')
	{
		my ($rc, $stdout, $stderr) = $node->psql('postgres', ($options{set} || '') . "\n$statement", extra_params => [ '-U', 'worker' ]);
		is($rc, 0, "$name: $statement") or diag($stderr);
		if ($statement =~ /status/)
		{
			my ($answer) = $stdout =~ /^(\{.*)/m;
			is_deeply(JSON::PP::decode_json($answer)->{potential_cleanup}{orphaned_files_deleted}, [$orphan], "$name: the preview names the orphan");
		}
	}
	ok(wait_for_drain($node), "$name: it ends");
	is(join(' ', sort keys %{ visible_files($dir) }), join(' ', sort 'always.mp3', @wanted), "$name: what is wanted stays");
	return;
}

cleaned('as it is');
cleaned('a time zone', set => q{SET timezone = 'America/Los_Angeles';});
cleaned('a style of dates', set => q{SET datestyle = 'ISO, MDY';});
cleaned('a style of bytes', set => q{SET bytea_output = 'escape';});
cleaned('digits', set => q{SET extra_float_digits = -14;});
cleaned('a setting of the application', set => q{SET app.tenant = 'two'; SET app.hide = 'yes';});
cleaned('within a transaction', set => q{BEGIN; SET LOCAL timezone = 'America/Los_Angeles'; COMMIT; SET SESSION app.tenant = '';});
cleaned('the client brings a time zone', zone => 'America/Los_Angeles');
cleaned('the client brings all of them',
	client => '-c timezone=America/Los_Angeles -c datestyle=ISO -c bytea_output=escape -c app.tenant=two -c app.hide=yes');
foreach my $setting (q{timezone = 'America/Los_Angeles'}, q{datestyle = 'SQL'})
{
	is(sql_error($node, "ALTER ROLE worker SET $setting", extra_params => [ '-U', 'worker' ]), '', "a role gives itself $setting");
}
cleaned('the role has them');

# the session has its own again
is($node->safe_psql('postgres', q{SET timezone = 'Asia/Tokyo'; SET app.tenant = 'x'; DO 'BEGIN PERFORM cleanup_status(); END';
	SELECT current_setting('timezone') || current_setting('app.tenant')}), 'Asia/Tokyox', 'the settings of the session are as before');

# a setting of the files counts, where the database has none
$node->safe_psql('postgres', q{ALTER DATABASE postgres RESET datestyle; ALTER DATABASE postgres RESET timezone});
rename "$dir/31.05.2024.mp3", "$dir/2024-05-31.mp3" or die;
rename "$dir/2024-05-31", "$dir/2024-05-30" or die;
$wanted[0] = '2024-05-30/late.mp3';
$wanted[1] = '2024-05-31.mp3';
cleaned('a setting of the server', set => q{SET datestyle = 'German';}, zone => 'Asia/Tokyo');

# what cannot be given back to the server is refused
$node->safe_psql('postgres', q{
	CREATE FUNCTION asks() RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN Session_User; END';
	CREATE FUNCTION asks_in_sql() RETURNS text LANGUAGE sql STABLE AS $$SELECT current_setting( 'role')$$;
	CREATE FUNCTION asks_atomic() RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC SELECT current_setting('application_name', true); END;
	CREATE FUNCTION asks_below() RETURNS text LANGUAGE sql STABLE AS 'SELECT public.asks()';
	CREATE FUNCTION asks_deeper() RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN public.asks_below(); END'});
foreach my $question ('session_user', '"session_user"()', q{current_setting('Application_Name')}, q{current_setting('role', true)},
	'inet_client_addr()::text', 'asks()', 'asks_in_sql()', 'asks_atomic()')
{
	like(sql_error($node, qq{BEGIN; CREATE VIEW mine AS SELECT tenant AS url FROM takes WHERE $question = 'postgres'; SELECT cleanup_add_source('mine', '{url}')}),
		qr/source public\.mine shows other rows to others\nDETAIL:  It asks for session_user, or for something else/, "$question is refused");
}
like(sql_error($node, q{BEGIN; CREATE VIEW mine AS SELECT tenant AS url FROM takes WHERE asks_below() = 'postgres'; SELECT cleanup_add_source('mine', '{url}')}),
	qr/function public\.asks\(\) returns other values to others/, 'so is a function that a function calls');

# where a registration does not see it, the reading does
$node->safe_psql('postgres', q{CREATE VIEW mine AS SELECT 'mine.mp3' AS url FROM takes WHERE asks_deeper() = 'postgres'; SELECT cleanup_add_source('mine', '{url}')});
put_file($dir, 'mine.mp3');
foreach my $role ('worker', 'postgres')
{
	like(sql_error($node, 'SELECT cleanup_all(force => true)', extra_params => [ '-U', $role ]),
		qr/function public\.asks\(\) returns other values to others/, "a run of $role is refused");
}
wait_for_drain($node);
ok(-e "$dir/mine.mp3", 'and what only one of them sees stays');

# a temporary table of the caller comes before one of the same name, where a function does not put pg_temp last
$node->safe_psql('postgres', q{
	SELECT cleanup_drop_source('mine');
	CREATE SCHEMA app;
	CREATE TABLE app.uploads AS SELECT 'mine.mp3' AS url;
	CREATE FUNCTION app.list() RETURNS SETOF text LANGUAGE plpgsql STABLE SET search_path = app AS 'BEGIN RETURN QUERY SELECT url FROM uploads; END';
	CREATE FUNCTION app.list_in_sql() RETURNS SETOF text LANGUAGE sql STABLE SET search_path = app AS 'SELECT url FROM uploads';
	CREATE VIEW mine_too AS SELECT list AS url FROM app.list();
	SELECT cleanup_add_source('mine_too', '{url}')});
foreach my $function ('list', 'list_in_sql')
{
	$node->safe_psql('postgres', "CREATE OR REPLACE VIEW mine_too AS SELECT $function AS url FROM app.$function()");
	like(sql_error($node, q{CREATE TEMP TABLE uploads (url text); GRANT SELECT ON uploads TO PUBLIC; SELECT cleanup_all(force => true)},
			extra_params => [ '-U', 'worker' ]),
		qr/table "uploads" is temporary\nDETAIL:  What a source shows or does must not depend on the session/, "$function: a temporary table is not read");
	wait_for_drain($node);
	ok(-e "$dir/mine.mp3", "$function: nor is the file deleted");
}
is(sql_error($node, 'SELECT cleanup_all(force => true)', extra_params => [ '-U', 'worker' ]), '', 'without one it can be read');
wait_for_drain($node);
ok(-e "$dir/mine.mp3", 'and protects its file');

# ---- types and functions that the session has looked up ----

# Each of the calls comes after $prepare, in one session.
sub keeps
{
	my ($name, $prepare, $reason) = @_;

	put_files($dir, 'mine.mp3', 'gone.mp3');
	my ($rc, $stdout, $stderr) = $node->psql('postgres', "$prepare\nCALL cleanup_run(force => true)", extra_params => [ '-U', 'worker' ], on_error_stop => 1);
	wait_for_drain($node);
	ok(-e "$dir/mine.mp3", "$name: what is wanted stays");
	if ($reason)
	{
		like($stderr, $reason, "$name: a run is refused");
	}
	else
	{
		is($rc, 0, "$name: a run works") or diag($stderr);
		ok(!-e "$dir/gone.mp3", "$name: and deletes the orphan");
	}
	return;
}

sub define
{
	my ($how) = @_;
	$node->safe_psql('postgres', "CREATE OR REPLACE FUNCTION app.name_of(url text) RETURNS text STABLE $how");
	return;
}

$node->safe_psql('postgres', q{
	SELECT cleanup_drop_source('mine_too');
	GRANT USAGE ON SCHEMA app TO PUBLIC;
	CREATE SCHEMA lent;
	CREATE DOMAIN lent.text AS "char";
	GRANT USAGE ON SCHEMA lent TO worker;
	CREATE TABLE app.takes AS SELECT 'https://host/mine.mp3' AS url;
	CREATE TABLE app.kinds (name text);
	CREATE DOMAIN app.file AS text});
define(q{LANGUAGE plpgsql AS $$DECLARE v text; BEGIN v := split_part(url, '/', 4); RETURN v; END$$});
$node->safe_psql('postgres', q{CREATE VIEW app.named AS SELECT app.name_of(url) AS url FROM app.takes; SELECT cleanup_add_source('app.named', '{url}')});

keeps('a function that was called before', q{SELECT app.name_of('https://host/other.mp3');});
keeps('a variable\'s type is in pg_temp when the function is compiled', q{CREATE DOMAIN pg_temp.text AS "char"; SELECT app.name_of('https://host/other.mp3');},
	qr/type "text" is temporary\nDETAIL:  What a source shows or does must not depend on the session/);
keeps('a variable\'s type is in another schema when the function is compiled',
	q{SET search_path = lent, pg_catalog, public; SELECT app.name_of('https://host/other.mp3');});
define(q{LANGUAGE plpgsql SET search_path = app AS $$DECLARE v kinds.name%TYPE; BEGIN v := split_part(url, '/', 4); RETURN v; END$$});
keeps('a variable has the type of a temporary table\'s column, and the table is gone by now',
	q{CREATE TEMP TABLE kinds (name "char"); SELECT app.name_of('https://host/other.mp3'); DROP TABLE kinds;});
define(q{LANGUAGE sql SET search_path = app AS $$SELECT split_part(url, '/', 4)::file$$});
keeps('a temporary domain', q{CREATE DOMAIN pg_temp.file AS varchar(1);}, qr/type "file" is temporary/);
keeps('a temporary table that hides no other one', q{CREATE TEMP TABLE of_mine (a int);});
# a function that comes late: the rows before it have been passed on
define(q{LANGUAGE plpgsql AS $$DECLARE v text; BEGIN v := split_part(url, '/', 4); RETURN v; END$$});
$node->safe_psql('postgres', q{CREATE OR REPLACE VIEW app.named AS SELECT CASE WHEN n < 9 THEN 'none.mp3' ELSE app.name_of(url) END AS url FROM app.takes, generate_series(1, 9) n});
my $again = q{SET search_path = lent, pg_catalog, public; SELECT app.name_of('https://host/other.mp3');};
keeps('a function that comes late', $again, qr/this session has called a function of source app\.named before\n.*\nHINT:  Call again: the function is compiled anew/);
keeps('a function that comes late, again', "$again \\set ON_ERROR_STOP 0\nCALL cleanup_run(force => true); \\set ON_ERROR_STOP 1");
$node->safe_psql('postgres', 'CREATE OR REPLACE VIEW app.named AS SELECT app.name_of(url) AS url FROM app.takes');

# the owner of another view may not choose the types either: his view is read first, in the same session
$node->safe_psql('postgres', q{
	CREATE ROLE other;
	CREATE SCHEMA other AUTHORIZATION other;
	GRANT USAGE ON SCHEMA lent TO other;
	SET ROLE other;
	CREATE FUNCTION other.compiles() RETURNS text LANGUAGE plpgsql SET search_path = lent, pg_catalog
	AS $$BEGIN PERFORM app.name_of('https://host/other.mp3'); RETURN 'none.mp3'; END$$;
	CREATE VIEW other.first AS SELECT other.compiles() AS url;
	RESET ROLE;
	SELECT cleanup_drop_source('app.named');
	SELECT cleanup_add_source('other.first', '{url}');
	SELECT cleanup_add_source('app.named', '{url}')});
keeps('another owner\'s view has compiled the function', '');
$node->safe_psql('postgres', q{SELECT cleanup_drop_source('other.first')});

# nor what a trigger's function means, when sessions are cleared
$node->safe_psql('postgres', q{
	CREATE TABLE app.calls (id int PRIMARY KEY, audio_url text, notes text, status text, updated_at timestamp);
	INSERT INTO app.calls VALUES (1, 'failed.mp3', 'https://host/notes', 'failed', '2020-01-01');
	CREATE FUNCTION app.shorten() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.notes := app.name_of(NEW.notes); RETURN NEW; END$$;
	CREATE TRIGGER shorten BEFORE UPDATE ON app.calls FOR EACH ROW EXECUTE FUNCTION app.shorten();
	SELECT cleanup_drop_source('app.named');
	SELECT cleanup_add_source('app.calls', on_failed => 'clear')});
foreach my $catches ('', 'EXCEPTION WHEN OTHERS THEN RETURN NEW;')
{
	$node->safe_psql('postgres', qq{
		CREATE OR REPLACE FUNCTION app.shorten() RETURNS trigger LANGUAGE plpgsql
		AS \$\$BEGIN NEW.notes := app.name_of('https://host/notes'); RETURN NEW; $catches END\$\$;
		UPDATE app.calls SET audio_url = 'failed.mp3'});
	put_file($dir, 'failed.mp3');
	my ($rc, $stdout, $stderr) = $node->psql('postgres', q{SET search_path = lent, pg_catalog, public;
		SELECT app.name_of('https://host/other.mp3'); CALL cleanup_run(force => true)}, extra_params => [ '-U', 'worker' ]);
	like($stdout, qr/"failed_sessions_cleaned": \["1"\]/, "$catches a session is cleared") or diag($stderr);
	is($node->safe_psql('postgres', 'SELECT audio_url IS NULL, notes FROM app.calls'), 't|notes', 'and its trigger means its own types');
}
$node->safe_psql('postgres', q{
	SELECT cleanup_drop_source('app.calls');
	SELECT cleanup_add_source('app.named', '{url}')});

# ---- errors that a function catches ----

$node->safe_psql('postgres', q{INSERT INTO app.kinds VALUES ('mine.mp3')});
define(q{LANGUAGE plpgsql SET search_path = app AS $$BEGIN RETURN (SELECT k.name FROM kinds k); EXCEPTION WHEN OTHERS THEN RETURN NULL; END$$});
keeps('a function that catches all errors', '');
$node->safe_psql('postgres', q{
	CREATE FUNCTION lent.tidy(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
	ALTER FUNCTION lent.tidy(text) OWNER TO worker});
define(q{LANGUAGE plpgsql AS $$BEGIN RETURN lent.tidy('mine.mp3'); EXCEPTION WHEN insufficient_privilege THEN RETURN NULL; END$$});
keeps('it catches that a function is refused', '', qr/source app\.named has caught error 42501\nDETAIL:  So it may have shown fewer rows than there are/);
define(q{LANGUAGE plpgsql SET search_path = app AS $$BEGIN RETURN (SELECT k.name FROM kinds k); EXCEPTION WHEN OTHERS THEN RETURN NULL; END$$});
{
	my $locker = $node->background_psql('postgres');

	$locker->query_safe('BEGIN; LOCK TABLE app.kinds');
	$node->safe_psql('postgres', q{ALTER DATABASE postgres SET audio_cleanup.writer_wait = '100ms'});
	keeps('it catches that a lock is not to be had', '', qr/source app\.named has caught error 55P03\nDETAIL:  So it may have shown fewer rows than there are.*\nHINT:  Let its functions catch certain conditions only/);
	end_session($locker);
	$node->safe_psql('postgres', q{ALTER DATABASE postgres RESET audio_cleanup.writer_wait});
}
# a caller who is deep in procedures leaves no room on the stack
define(q{LANGUAGE plpgsql SET max_stack_depth = '100kB' AS $$BEGIN RETURN 'mine.mp3' || repeat(' ', app.depth(100)); EXCEPTION WHEN OTHERS THEN RETURN NULL; END$$});
$node->safe_psql('postgres', q{
	CREATE FUNCTION app.depth(n int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN CASE WHEN n = 0 THEN 0 ELSE app.depth(n - 1) END; END'});
keeps('it catches that the stack is full', '', qr/source app\.named has caught error 54001/);
define(q{LANGUAGE plpgsql AS $$BEGIN RETURN url::int; EXCEPTION WHEN invalid_text_representation THEN RETURN url; END$$});
keeps('it catches what it means to catch', '');

# ---- a setting that the server lacks: in other sessions it is NULL, and here it is empty ----

$node->safe_psql('postgres', q{
	SELECT cleanup_drop_source('app.named');
	CREATE FUNCTION app.of() RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN RETURN current_setting('app.of', true); END$$;
	CREATE FUNCTION app.of(name text) RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN RETURN current_setting('app.' || name, true); END$$;
	CREATE VIEW app.mine AS SELECT 'mine.mp3' AS url WHERE current_setting('app.of', true) IS NULL;
	SELECT cleanup_add_source('app.mine', '{url}')});
foreach my $question (q{current_setting('app.of', true)}, q{current_setting('app.' || lower('OF'), true)}, 'app.of()', q{app.of('of')})
{
	$node->safe_psql('postgres', "CREATE OR REPLACE VIEW app.mine AS SELECT 'mine.mp3' AS url WHERE $question IS NULL");
	keeps("$question: nobody has it", '');
	keeps("$question: the session has it", "$_;", qr/(source app\.mine shows other rows|function app\.of\(.*\) returns other values) to others\nDETAIL:  It asks for setting app\.of, which this session has, and other sessions have not\.\nHINT:  Call in a new session, or give all sessions a value: ALTER DATABASE postgres SET app\.of = /)
	  foreach q{SET app.of = 'x'}, q{SET app.of = 'x'; RESET app.of}, q{BEGIN; SET LOCAL app.of = 'x'; COMMIT};
}

$node->stop;
done_testing();
