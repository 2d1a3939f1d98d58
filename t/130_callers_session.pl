# A source's code runs in the session of whoever calls: it cannot read, move or close the caller's cursors, nor take or
# give back locks of that session, nor hide in a function that it reads another server.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('callers_session');
my $dir = upload_dir($node);
make_schema($node);
put_file($dir, 'wanted.mp3');
add_rows($node, 'wanted.mp3');

# The owner of the source has no right but to his own tables.
sql(q{CREATE EXTENSION dblink; CREATE ROLE app LOGIN; CREATE SCHEMA app AUTHORIZATION app});
$node->safe_psql('postgres', q{
	CREATE TABLE app.files (file_name text);
	INSERT INTO app.files VALUES ('wanted.mp3');
	CREATE TABLE app.todo (what text);
	INSERT INTO app.todo VALUES ('nothing');
	CREATE FUNCTION app.evil() RETURNS boolean LANGUAGE plpgsql AS $$
	DECLARE
		c refcursor := 'secrets';
		r record;
	BEGIN
		CASE (SELECT what FROM app.todo)
			WHEN 'fetch' THEN FETCH c INTO r;
			WHEN 'fetch by SQL' THEN EXECUTE 'FETCH secrets' INTO r;
			WHEN 'move' THEN MOVE FORWARD ALL IN c;
			WHEN 'close' THEN CLOSE c;
			WHEN 'fetch, and catch it' THEN
				BEGIN
					FETCH c INTO r;
				EXCEPTION WHEN OTHERS THEN NULL;
				END;
			WHEN 'lock' THEN PERFORM pg_advisory_lock(4711);
			WHEN 'try to lock' THEN PERFORM pg_try_advisory_lock_shared(47, 11);
			WHEN 'lock, and catch it' THEN
				BEGIN
					PERFORM pg_advisory_lock(4711);
				EXCEPTION WHEN OTHERS THEN NULL;
				END;
			WHEN 'unlock' THEN PERFORM pg_advisory_unlock(1);
			WHEN 'unlock all' THEN PERFORM pg_advisory_unlock_all();
			WHEN 'lock for the statement' THEN PERFORM pg_advisory_xact_lock(4711);
			WHEN 'a cursor of his own' THEN
				OPEN c FOR SELECT 1;
				FETCH c INTO r;
				CLOSE c;
			ELSE NULL;
		END CASE;
		RETURN true;
	END $$;
	CREATE VIEW app.watched AS SELECT file_name FROM app.files WHERE app.evil();
}, extra_params => [ '-U', 'app' ]);
sql(q{SELECT cleanup_add_source('app.watched')});

sub todo { return sql("UPDATE app.todo SET what = '$_[0]'") }

# What psql says, errors included, while it goes on after errors.
sub say_all
{
	my ($sql) = @_;
	my ($out, $error);

	$node->psql('postgres', $sql, stdout => \$out, stderr => \$error, on_error_stop => 0);
	return ($out, $error);
}

my $my_locks = q{SELECT 'locks: ' || coalesce(string_agg(objid::text, ','), 'none') FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()};

# ---- cursors

foreach my $what ('fetch', 'fetch by SQL', 'move', 'close', 'fetch, and catch it')
{
	todo($what);
	foreach my $call ('SELECT cleanup_status()', q{SELECT cleanup_explain('wanted.mp3')}, 'SELECT cleanup_all()')
	{
		my ($out, $error) = say_all(qq{BEGIN; DECLARE secrets CURSOR FOR SELECT 'secret ' || g FROM generate_series(1, 3) g; SAVEPOINT s;
			$call;
			ROLLBACK TO s;
			FETCH ALL FROM secrets;
			COMMIT;});

		is(join(',', $out =~ /secret (\d)/g), '1,2,3', "$what: $call: the caller's cursor is as before");
		like($error, qr/secrets|55000/, "$what: $call: there is an error") or diag "$out\n$error";
	}
	my ($out) = say_all(q{DECLARE secrets CURSOR WITH HOLD FOR SELECT 'secret ' || g FROM generate_series(1, 3) g;
		SELECT cleanup_status();
		FETCH ALL FROM secrets;});
	is(join(',', $out =~ /secret (\d)/g), '1,2,3', "$what: a cursor that is held is as before");
}
todo('nothing');
{
	my ($out, $error) = say_all(q{BEGIN; DECLARE secrets CURSOR FOR SELECT 'secret ' || g FROM generate_series(1, 3) g;
		FETCH secrets;
		SELECT 'success: ' || (cleanup_all() ->> 'success');
		FETCH ALL FROM secrets;
		COMMIT;
		DO $$ DECLARE r record; n int := 0; BEGIN FOR r IN SELECT g FROM generate_series(1, 3) g LOOP
			PERFORM public.cleanup_status(); n := n + r.g; END LOOP; RAISE NOTICE 'sum %', n; END $$;});

	is(join(',', $out =~ /secret (\d)/g), '1,2,3', 'a caller may go on with cursors');
	like($out, qr/success: true/, 'a run does its work meanwhile');
	like($error, qr/sum 6/, 'so may a loop that calls');
}
todo('a cursor of his own');
is(sql(q{SELECT cleanup_status() ->> 'success'}), 'true', 'a view may use a cursor of its own');

# ---- locks of the session

foreach my $what ('lock', 'try to lock', 'lock, and catch it', 'unlock', 'unlock all')
{
	todo($what);
	foreach my $call ('SELECT cleanup_status()', 'CALL cleanup_run()')
	{
		my ($out, $error) = say_all("SELECT pg_advisory_lock(1);\n$call;\n$my_locks;");

		like($out, qr/^locks: 1$/m, "$what: $call: the session has its own locks");
		like($error, qr/may not change the locks of the session|has caught error/, "$what: $call: there is an error") or diag "$out\n$error";
	}
}
todo('lock for the statement');
{
	my ($out, $error) = say_all("SELECT pg_advisory_lock(1);\nSELECT 'success: ' || (cleanup_status() ->> 'success');\n$my_locks;");

	like($out, qr/success: true.*^locks: 1$/ms, 'a lock that ends by itself may be taken');
}
sql(q{SELECT cleanup_drop_source('app.watched')});

# ---- the same in a trigger, while a failed session is cleared

$node->safe_psql('postgres', q{
	CREATE TABLE app.sessions (id int PRIMARY KEY, file_name text, status text, failed_at timestamptz);
	INSERT INTO app.sessions VALUES (1, 'dead.mp3', 'failed', now() - interval '30 days');
	CREATE FUNCTION app.updated() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM app.evil(); RETURN new; END';
	CREATE TRIGGER updated BEFORE UPDATE ON app.sessions FOR EACH ROW EXECUTE FUNCTION app.updated();
}, extra_params => [ '-U', 'app' ]);
put_file($dir, 'dead.mp3');
sql(q{SELECT cleanup_add_source('app.sessions', '{file_name}', 'id', 'status', '{failed}', 'failed_at', on_failed => 'clear')});
foreach my $what ('fetch', 'close', 'unlock all')
{
	todo($what);
	my ($out, $error) = say_all(qq{SELECT pg_advisory_lock(1);
		BEGIN; DECLARE secrets CURSOR FOR SELECT 'secret ' || g FROM generate_series(1, 3) g;
		SELECT 'errors: ' || (cleanup_all() #>> '{result,errors}');
		FETCH ALL FROM secrets;
		COMMIT;
		$my_locks;});

	is(join(',', $out =~ /secret (\d)/g), '1,2,3', "$what by a trigger: the caller's cursor is as before");
	like($out, qr/^locks: 1$/m, "$what by a trigger: the session has its own locks");
	like($out, qr/^errors: .*app\.sessions are left alone, because they cannot be cleared/m, "$what by a trigger: the run has an error") or diag "$out\n$error";
	ok(-e "$dir/dead.mp3", "$what by a trigger: the session keeps its file");
}
todo('nothing');
sql('SELECT cleanup_all()');
ok(wait_until(sub { !-e "$dir/dead.mp3" }), 'a trigger that does nothing of that is no hindrance');
sql(q{SELECT cleanup_drop_source('app.sessions')});

# ---- what the session has said, and has open

foreach my $what ("current_query() <> ''", 'EXISTS (SELECT FROM pg_cursors)', 'EXISTS (SELECT FROM pg_prepared_statements)', 'app.asks()')
{
	$node->safe_psql('postgres', qq{
		CREATE OR REPLACE FUNCTION app.asks() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN EXISTS (SELECT FROM pg_cursors); END';
		CREATE OR REPLACE VIEW app.watched AS SELECT file_name FROM app.files WHERE $what}, extra_params => [ '-U', 'app' ]);
	like(sql_error($node, q{SELECT cleanup_add_source('app.watched')}), qr/shows other rows to others/, "$what: a view that asks for it is refused");
}

# ---- another server, behind a function

my $there = 'host=' . $node->host . ' port=' . $node->port . ' dbname=postgres';
sql(qq{CREATE FUNCTION far() RETURNS SETOF text LANGUAGE plpgsql AS \$\$
	BEGIN RETURN QUERY SELECT f FROM public.dblink('$there', 'SELECT file_name FROM app.files') AS t(f text); END \$\$;
	CREATE VIEW far_files AS SELECT far AS file_name FROM far()});
sql(q{SELECT cleanup_add_source('far_files')});
like(sql_error($node, 'CALL cleanup_run()'), qr/0A000: .*dblink.*reads another server.*cannot be waited for/s,
	'a run is refused if a function reads another server by dblink');
ok(-e "$dir/wanted.mp3", 'the wanted file is there');

$node->stop;
done_testing();
