# on_failed => 'clear': what the table objects to costs its own sessions only,
# its code runs as its owner, and a row is known by its whole key.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('clearing', conf => "audio_cleanup.backup_retention_days = 7\n");
my $dir = upload_dir($node);
my $round = 0;

put_files($dir, 'wanted.mp3');
$node->safe_psql('postgres', q{
	CREATE EXTENSION audio_cleanup;
	CREATE PUBLICATION everything FOR ALL TABLES;
	CREATE ROLE app LOGIN; GRANT CREATE ON SCHEMA public TO app;
	CREATE TABLE wanted (id int PRIMARY KEY, audio_url text); INSERT INTO wanted VALUES (1, 'wanted.mp3');
	CREATE TABLE good (id int PRIMARY KEY, audio_url text, status text, updated_at timestamp);
	SELECT cleanup_add_source('wanted'); SELECT cleanup_add_source('good', on_failed => 'clear');
});

# A table "bad" of app's, with one failed session, objects; "good" and the orphans go on.
sub objects
{
	my ($name, $objection, $reason, %options) = @_;
	my $answer;

	$round++;
	sql(qq{SET ROLE app; CREATE TABLE bad (id int PRIMARY KEY, audio_url text, status text, updated_at timestamp);
		INSERT INTO bad VALUES (1, 'bad$round.mp3', 'failed', '2024-01-01'), (2, 'live$round.mp3', 'processed', '2024-01-01'); RESET ROLE;
		SELECT cleanup_add_source('bad', on_failed => 'clear'); SET ROLE app; $objection; RESET ROLE;
		INSERT INTO good VALUES ($round, 'good$round.mp3', 'failed', '2024-01-01')});
	put_files($dir, "bad$round.mp3", "live$round.mp3", "good$round.mp3", "orphan$round.mp3");
	$answer = sql_json($node, 'SELECT cleanup_status()');
	like(join('|', @{ $answer->{potential_cleanup}{errors} }), qr/failed sessions of source public\.bad are left alone.*$reason/s, "$name: a preview says so");
	is_deeply($answer->{potential_cleanup}{failed_sessions_cleaned}, ["$round"], "$name: and what goes");
	is(sql(q{SELECT count(*) FROM bad WHERE audio_url IS NOT NULL}), 2, "$name: it has changed nothing");
	foreach my $call ('SELECT cleanup_all()', 'CALL cleanup_run()')
	{
		$answer = sql_json($node, $call);
		ok(!$answer->{success}, "$name: $call has an error");
		like(join('|', @{ $answer->{result}{errors} }), qr/failed sessions of source public\.bad are left alone.*$reason.*on_failed => 'keep'/s, "$name: with the reason and advice");
		is($answer->{result}{error_count}, 1, "$name: one");
	}
	wait_for_drain($node);
	ok(-e "$dir/bad$round.mp3", "$name: the file of its session is kept");
	is(sql(q{SELECT DISTINCT status, errors, other_errors, message ~ '^the failed sessions of source public.bad are left alone'
		FROM (SELECT * FROM cleanup_runs ORDER BY run_id DESC LIMIT 2) r}), 'failed|0|1|t', "$name: the history of both runs says so");
	is(sql(q{SELECT count(*) FROM cleanup_runs WHERE message ~ 'not this one|Failing row'}), 0, "$name: not in the words of the code, nor with the row");
	ok(!-e "$dir/good$round.mp3" && !-e "$dir/orphan$round.mp3", "$name: other sessions and orphans go");
	is(sql(q{SELECT count(*) FROM bad WHERE audio_url IS NOT NULL}), 2, "$name: its row is as it was");
	sql(q{SELECT cleanup_drop_source('bad')}, 'DROP TABLE bad CASCADE') unless $options{go_on};
	unlink glob "$dir/*$round.mp3" unless $options{go_on};
	return;
}

objects('CHECK', q{ALTER TABLE bad ADD CONSTRAINT has_audio CHECK (audio_url IS NOT NULL)}, qr/violates check constraint "has_audio"/);
objects('NOT NULL', q{ALTER TABLE bad ALTER audio_url SET NOT NULL}, qr/null value in column "audio_url"/);
objects('a domain', q{CREATE DOMAIN has_value AS text NOT NULL; ALTER TABLE bad ALTER audio_url TYPE has_value}, qr/domain .*has_value does not allow null values/);
objects('a trigger that raises', q{CREATE FUNCTION raises() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''not this one''; END';
	CREATE TRIGGER t BEFORE UPDATE ON bad FOR EACH ROW EXECUTE FUNCTION raises()}, qr/not this one/);
objects('a trigger at the end of the transaction', q{CREATE CONSTRAINT TRIGGER t AFTER UPDATE ON bad DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION raises()},
	qr/not this one/);
objects('a trigger that lets nothing through', q{CREATE FUNCTION swallows() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE TRIGGER t BEFORE UPDATE ON bad FOR EACH ROW EXECUTE FUNCTION swallows()}, qr/1 of 1 rows of source public\.bad could not be cleared/);
objects('a trigger that takes it back', q{CREATE FUNCTION keeps() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN new.audio_url := old.audio_url; RETURN new; END';
	CREATE TRIGGER t BEFORE UPDATE ON bad FOR EACH ROW EXECUTE FUNCTION keeps()}, qr/1 of 1 rows of source public\.bad could not be cleared/);
$node->safe_psql('postgres', q{CREATE ROLE intruder; GRANT CREATE ON SCHEMA public TO intruder; CREATE TABLE intruded (role text); GRANT INSERT ON intruded TO public});
objects("somebody else's trigger", q{GRANT TRIGGER ON bad TO intruder; RESET ROLE; SET ROLE intruder;
	CREATE FUNCTION intrudes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.intruded VALUES (current_user); RETURN new; END';
	CREATE TRIGGER t BEFORE UPDATE ON bad FOR EACH ROW EXECUTE FUNCTION intrudes(); RESET ROLE; SET ROLE app},
	qr/runs function public\.intrudes\(\), which belongs to role "intruder"/);
is(sql('SELECT count(*) FROM intruded'), '0', 'its function was not called');
objects('a rule', q{CREATE RULE r AS ON UPDATE TO bad DO INSTEAD NOTHING}, qr/cannot perform UPDATE RETURNING/);
objects('a key that went', q{ALTER TABLE bad DROP CONSTRAINT bad_pkey}, qr/has no key that names one row/);

# a trigger that leaves work for the commit, for ever
objects('a trigger that goes on and on', q{CREATE TABLE again (n int);
	CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN SET CONSTRAINTS ALL DEFERRED; INSERT INTO public.again VALUES (1); RETURN NULL; END';
	CREATE CONSTRAINT TRIGGER t AFTER UPDATE ON bad DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION again();
	CREATE CONSTRAINT TRIGGER t AFTER INSERT ON again DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION again()},
	qr/cannot fire deferred trigger/);
objects('a foreign key that carries the change on',
	'ALTER TABLE bad ADD UNIQUE (audio_url); CREATE TABLE follows (audio_url text REFERENCES bad (audio_url) ON UPDATE SET NULL)',
	qr/Constraint "follows_audio_url_fkey" would change rows of public\.follows, too/);
objects('a foreign key to a generated column that carries the change on',
	'ALTER TABLE bad ADD made text GENERATED ALWAYS AS (audio_url) STORED UNIQUE; CREATE TABLE goes_along (made text REFERENCES bad (made) ON UPDATE SET NULL)',
	qr/Constraint "goes_along_made_fkey" would change rows of public\.goes_along, too/);

# ---- whose rights ----

sql(q{SET ROLE app;
	CREATE TABLE theirs (id int PRIMARY KEY, audio_url text, status text, updated_at timestamp);
	CREATE TABLE who (what text, role text, restricted text);
	CREATE FUNCTION who() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN INSERT INTO public.who VALUES (TG_NAME, current_user, current_setting('search_path')); RETURN new; END$$;
	CREATE TRIGGER before BEFORE UPDATE ON theirs FOR EACH ROW EXECUTE FUNCTION who();
	CREATE CONSTRAINT TRIGGER deferred AFTER UPDATE ON theirs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION who();
	INSERT INTO theirs VALUES (1, 'theirs.mp3', 'failed', '2024-01-01'); RESET ROLE;
	SELECT cleanup_add_source('theirs', on_failed => 'clear')});
put_files($dir, 'theirs.mp3');
sql('SELECT cleanup_all()');
is(sql('SELECT count(*), count(DISTINCT what), min(role), max(role) FROM who'), '2|2|app|app', 'triggers run as the owner of the table, deferred ones too');
is(sql('SELECT audio_url IS NULL FROM theirs'), 't', 'the row is cleared');
sql('TRUNCATE who', q{UPDATE cleanup_files SET state = state}, 'SELECT cleanup_restore((SELECT max(run_id) FROM cleanup_runs))');
is(sql('SELECT audio_url FROM theirs'), 'theirs.mp3', 'and filled again');
is(sql(q{SELECT count(DISTINCT what), min(role), max(role) FROM who}), '2|app|app', 'so they do then');
sql(q{SELECT cleanup_drop_source('theirs')});

# deferrable constraints in schemas that an operator may not use, and in another session's pg_temp, do not concern an operator
sql(q{CREATE ROLE oper LOGIN; SELECT cleanup_grant_access('oper', 'operator'); CREATE ROLE nobody LOGIN; CREATE SCHEMA closed AUTHORIZATION nobody;
	SET ROLE nobody; CREATE TABLE closed.t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)});
{
	my $session = $node->background_psql('postgres', extra_params => [ '-U', 'nobody' ]);

	$session->query_safe('CREATE TEMP TABLE t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)');
	put_files($dir, 'operated.mp3');
	sql(q{INSERT INTO good VALUES (100, 'operated.mp3', 'failed', '2024-01-01')});
	my ($rc, $stdout, $stderr) = $node->psql('postgres', q{SELECT cleanup_all() #> '{result,errors}'}, extra_params => [ '-U', 'oper' ]);
	is($stdout, '[]', 'an operator clears, whatever constraints others have') or diag($stderr);
	is(sql('SELECT audio_url IS NULL FROM good WHERE id = 100'), 't', 'and the row is cleared');
	$session->quit;
}

# an expression of a trigger, that PL/pgSQL has evaluated in this transaction for a role, runs no function of that role as the table's owner
sql(q{CREATE ROLE third LOGIN; SELECT cleanup_grant_access('third', 'operator'); GRANT CREATE ON SCHEMA public TO third;
	SET ROLE third; CREATE FUNCTION third(what text) RETURNS text LANGUAGE plpgsql AS
	$$BEGIN INSERT INTO public.prize VALUES (current_user); RETURN what; EXCEPTION WHEN insufficient_privilege THEN RETURN what; END$$;
	SET ROLE app; CREATE TABLE prize (role text);
	CREATE TABLE asked (id int PRIMARY KEY, audio_url text, status text, updated_at timestamp);
	INSERT INTO asked VALUES (1, 'asked.mp3', 'failed', '2024-01-01'), (2, NULL, 'processed', '2024-01-01');
	CREATE FUNCTION asks() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN new.status := public.third(new.status); RETURN new; END';
	CREATE TRIGGER asks BEFORE UPDATE ON asked FOR EACH ROW EXECUTE FUNCTION asks();
	GRANT SELECT, UPDATE ON asked TO third; RESET ROLE; SELECT cleanup_add_source('asked', on_failed => 'clear')});
put_files($dir, 'asked.mp3');
{
	my ($rc, $stdout, $stderr) = $node->psql('postgres', q{SET search_path = pg_catalog, pg_temp; BEGIN; UPDATE public.asked SET status = status WHERE id = 2;
		SELECT public.cleanup_failed_sessions(force => true) #>> '{result,errors,0}'; COMMIT}, extra_params => [ '-U', 'third' ]);
	like($stdout, qr/source public\.asked are left alone.*function public\.third\(.*belongs to role "third"/, 'a function of a third is refused, evaluated before or not') or diag($stderr);
	is(sql('SELECT count(*) FROM prize'), '0', 'and has not run as the owner');
}
sql(q{SELECT cleanup_drop_source('asked')});
unlink "$dir/asked.mp3";

# a view of another role over it: the table's triggers are not run as that role, nor without the right to update
sql(q{CREATE ROLE viewer_of; GRANT CREATE ON SCHEMA public TO viewer_of; GRANT SELECT, UPDATE (status) ON theirs TO viewer_of; TRUNCATE who;
	SET ROLE viewer_of; CREATE VIEW seen AS SELECT id AS session, audio_url AS recording, status, updated_at FROM theirs});
{
	my ($rc, $stdout, $stderr) = $node->psql('postgres', q{SELECT cleanup_add_source('seen', '{recording}', 'session', 'status', on_failed => 'clear')});

	isnt($rc, 0, 'a view does not clear what its owner may not update');
	like($stderr, qr/may not update column "audio_url" of public\.theirs/, 'and says so');
}
sql(q{GRANT UPDATE (audio_url) ON theirs TO viewer_of; SELECT cleanup_add_source('seen', '{recording}', 'session', 'status', on_failed => 'clear');
	UPDATE cleanup_files SET finished_at = '2024-01-01'});
put_files($dir, 'theirs.mp3');
sql('SELECT cleanup_all(force => true)');
wait_for_drain($node);
is(sql(q{SELECT audio_url IS NULL FROM theirs}), 't', 'a view clears the table below');
is(sql(q{SELECT DISTINCT role FROM who}), 'app', 'as the owner of that table');
sql('SELECT cleanup_restore((SELECT max(run_id) FROM cleanup_runs))');
is(sql('SELECT audio_url FROM theirs'), 'theirs.mp3', 'and fills it again');
wait_for_drain($node);
sql(q{SELECT cleanup_drop_source('seen')});
unlink "$dir/theirs.mp3";

# ---- views of several tables, and of views ----

sql(q{CREATE TABLE calls (call_id int PRIMARY KEY, status text, updated_at timestamp);
	CREATE TABLE takes (take_id int PRIMARY KEY, call_id int, file_name text, ctid_of text);
	CREATE VIEW joined AS SELECT t.take_id AS id, t.file_name, c.status, c.updated_at FROM calls c JOIN takes t USING (call_id);
	CREATE VIEW nested AS SELECT id, file_name, status, updated_at FROM (SELECT * FROM joined) j WHERE id > 0;
	CREATE VIEW outer_joined AS SELECT t.take_id AS id, t.file_name, c.status, c.updated_at FROM calls c LEFT JOIN takes t USING (call_id);
	CREATE VIEW lowered AS SELECT id, lower(file_name) AS file_name, status, updated_at FROM joined;
	INSERT INTO calls VALUES (1, 'failed', '2024-01-01'), (2, 'done', '2024-01-01');
	INSERT INTO takes VALUES (10, 1, 'take10.mp3'), (11, 1, 'take11.mp3'), (20, 2, 'take20.mp3')});
foreach my $view ('joined', 'nested')
{
	sql(qq{SELECT cleanup_add_source('$view', id_column => 'id', status_column => 'status', on_failed => 'clear')});
	put_files($dir, 'take10.mp3', 'take11.mp3', 'take20.mp3');
	is_deeply(sql_json($node, 'SELECT cleanup_all(force => true)')->{result}{failed_sessions_cleaned}, [ '10', '11' ], "$view: sessions are found");
	wait_for_drain($node);
	is(sql('SELECT string_agg(file_name, $$,$$) FROM takes'), 'take20.mp3', "$view: and cleared");
	sql('SELECT cleanup_restore((SELECT max(run_id) FROM cleanup_runs))');
	is(sql('SELECT string_agg(file_name, $$,$$ ORDER BY take_id) FROM takes'), 'take10.mp3,take11.mp3,take20.mp3', "$view: and filled again");
	wait_for_drain($node);
	sql(qq{SELECT cleanup_drop_source('$view'); UPDATE cleanup_files SET finished_at = '2024-01-01'});
}
{
	my ($rc, $stdout, $stderr) = $node->psql('postgres', q{SELECT cleanup_add_source('outer_joined', status_column => 'status')});

	like($stderr, qr/rows of source public\.outer_joined cannot be locked/, 'an outer join has no row to lock');
	($rc, $stdout, $stderr) = $node->psql('postgres', q{SELECT cleanup_add_source('lowered', id_column => 'id', status_column => 'status', on_failed => 'clear')});
	like($stderr, qr/Column "file_name" is not a column of a table/, 'an expression cannot be cleared');
}
unlink glob "$dir/take*.mp3";

# ---- whole keys ----

foreach my $table ('tenants (tenant text, id int, audio_url text, status text, updated_at timestamp, PRIMARY KEY (tenant, id))',
	'tenants (tenant text NOT NULL, id int NOT NULL, audio_url text, status text, updated_at timestamp, UNIQUE (id, tenant))',
	'tenants (tenant text, id int, audio_url text, status text, updated_at timestamp, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant); CREATE TABLE tenants_a PARTITION OF tenants FOR VALUES IN (\'a\'); CREATE TABLE tenants_rest PARTITION OF tenants DEFAULT')
{
	my $before;
	my $run;

	sql("CREATE TABLE $table", q{INSERT INTO tenants VALUES ('a', 7, 'a.mp3', 'failed', '2024-01-01'), ('b', 7, 'b.mp3', 'failed', '2024-01-01'),
		('c', 7, NULL, 'failed', '2024-01-01'), ('d', 7, 'wanted.mp3', 'processed', now()), ('e "x,y"', 7, 'e.mp3', 'failed', '2024-01-01')});
	# the publication of all tables asks for that where there is no primary key
	sql('ALTER TABLE tenants REPLICA IDENTITY FULL');
	sql(q{SELECT cleanup_add_source('tenants', id_column => 'id', on_failed => 'clear')});
	$before = sql('SELECT tenant, audio_url FROM tenants ORDER BY 1');
	put_files($dir, 'a.mp3', 'b.mp3', 'e.mp3');
	my $answer = sql_json($node, 'SELECT cleanup_all(force => true)');
	is_deeply($answer->{result}{errors}, [], "$table: no errors");
	is_deeply($answer->{result}{failed_sessions_cleaned}, [ '7', '7', '7' ], "$table: three sessions of one id");
	is(sql(q{SELECT string_agg(tenant, ' ' ORDER BY tenant) FROM tenants WHERE audio_url IS NOT NULL}), 'd', 'their rows are cleared, and no other');
	wait_for_drain($node);
	$run = sql('SELECT max(run_id) FROM cleanup_runs');
	is(sql_json($node, "SELECT cleanup_restore($run)")->{result}{files_count}, 3, 'all come back');
	wait_for_drain($node);
	is(sql('SELECT tenant, audio_url FROM tenants ORDER BY 1'), $before, 'each path in its own row, and none in another');
	is(sql(q{SELECT count(*) FROM cleanup_cleared WHERE source = 'public.tenants'}), 0, 'nothing is left to be remembered');
	sql(q{SELECT cleanup_drop_source('tenants')}, 'DROP TABLE tenants');
	unlink "$dir/$_.mp3" foreach 'a', 'b', 'e';
	sql(q{UPDATE cleanup_files SET finished_at = '2024-01-01' WHERE state = 'restored'});
}

foreach my $table ('(id int, audio_url text, status text, updated_at timestamp)', '(id int UNIQUE, audio_url text, status text, updated_at timestamp)',
	'(id int NOT NULL, audio_url text, status text, updated_at timestamp); CREATE UNIQUE INDEX ON keyless (id) WHERE id > 0',
	'(id int NOT NULL, audio_url text, status text, updated_at timestamp); CREATE UNIQUE INDEX ON keyless ((id + 1))',
	'(id int NOT NULL UNIQUE DEFERRABLE, audio_url text, status text, updated_at timestamp)')
{
	sql("CREATE TABLE keyless $table");
	my ($rc, $stdout, $stderr) = $node->psql('postgres', q{SELECT cleanup_add_source('keyless', id_column => 'id', status_column => 'status', on_failed => 'clear')});
	isnt($rc, 0, "$table: cannot be registered");
	like($stderr, qr/source public\.keyless cannot be cleared.*has no key that names one row.*HINT:  Give it a primary key/s, 'with a reason and a hint');
	sql(q{SELECT cleanup_add_source('keyless', id_column => 'id', status_column => 'status')}, q{SELECT cleanup_drop_source('keyless')}, 'DROP TABLE keyless');
}

# ---- a publication of all tables ----

# ---- a file of two sources ----

# both keep it where one of them cannot be cleared, whichever comes first
foreach my $cannot ('one', 'two')
{
	sql(map { (qq{CREATE TABLE $_ (id int PRIMARY KEY, audio_url text, recording_url text, status text, updated_at timestamp)},
		qq{INSERT INTO $_ VALUES (1, 'shared.mp3', NULL, 'failed', '2024-01-01')}, qq{SELECT cleanup_add_source('$_', on_failed => 'clear')}) } 'one', 'two');
	sql(qq{ALTER TABLE $cannot ADD CHECK (audio_url IS NOT NULL)});
	put_files($dir, 'shared.mp3');
	sql('CALL cleanup_run(force => true)');
	wait_for_drain($node);
	ok(-e "$dir/shared.mp3", "$cannot cannot be cleared: the file is kept");
	is(sql('SELECT audio_url FROM one UNION ALL SELECT audio_url FROM two'), "shared.mp3\nshared.mp3", '... and both rows refer to it');
	sql(map { (qq{SELECT cleanup_drop_source('$_')}, "DROP TABLE $_") } 'one', 'two');
}

# in batches, a row is cleared with the last of its files
sql(map { (qq{CREATE TABLE $_ (id int PRIMARY KEY, audio_url text, recording_url text, status text, updated_at timestamp)},
	qq{INSERT INTO $_ VALUES (1, 'shared.mp3', 'alone_$_.mp3', 'failed', '2024-01-01')}, qq{SELECT cleanup_add_source('$_', on_failed => 'clear')}) } 'one', 'two');
sql(q{CREATE TABLE seen_then (source text, n bigint)},
	q{CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.seen_then
		SELECT TG_TABLE_NAME, count(*) FROM public.cleanup_files WHERE file = 'shared.mp3' AND condemned_at > now() - interval '1 hour' AND run_id = (SELECT max(run_id) FROM public.cleanup_runs);
		RETURN new; END$$},
	map { "CREATE TRIGGER t BEFORE UPDATE ON $_ FOR EACH ROW EXECUTE FUNCTION see()" } 'one', 'two');
put_files($dir, 'shared.mp3', 'alone_one.mp3', 'alone_two.mp3');
sql('SET audio_cleanup.batch_size = 1', 'CALL cleanup_run(force => true)');
wait_for_drain($node);
is(sql('SELECT source, n FROM seen_then ORDER BY 1'), "one|0\ntwo|1", 'the second row is cleared when the batch of the shared file is over, with its own file');
is(sql('SELECT count(*) FROM one, two WHERE one.audio_url IS NULL AND two.recording_url IS NULL'), '1', 'in the end both are');
ok(!-e "$dir/shared.mp3" && !-e "$dir/alone_one.mp3" && !-e "$dir/alone_two.mp3", 'and no file is left');
sql(map { (qq{SELECT cleanup_drop_source('$_')}, "DROP TABLE $_") } 'one', 'two');

# ---- one file comes back ----

sql(q{CREATE TABLE tenants (tenant int, id int, audio_url text, file_name text, status text, updated_at timestamp, PRIMARY KEY (tenant, id))},
	q{INSERT INTO tenants SELECT t, 7, 'tenant' || t || '.mp3', 'Talk of ' || t, 'failed', '2024-01-01' FROM generate_series(1, 2) t},
	q{SELECT cleanup_add_source('tenants', '{audio_url,file_name}', id_column => 'id', on_failed => 'clear')});
put_files($dir, 'tenant1.mp3', 'tenant2.mp3');
sql('SELECT cleanup_all(force => true)');
wait_for_drain($node);
is(sql('SELECT count(*) FROM tenants WHERE audio_url IS NULL AND file_name IS NULL'), '2', 'rows of one id are cleared');
sql(q{SELECT cleanup_restore('tenant1.mp3')});
is(sql('SELECT tenant, audio_url FROM tenants ORDER BY 1'), "1|tenant1.mp3\n2|", 'one file is restored: the cell that refers to it comes back, and no other one');
is(sql('SELECT file_name FROM tenants WHERE tenant = 1'), 'Talk of 1', 'what refers to no file comes back as well');
wait_for_drain($node);
sql(q{SELECT cleanup_restore('tenant2.mp3')});
is(sql('SELECT tenant, audio_url, file_name FROM tenants ORDER BY 1'), "1|tenant1.mp3|Talk of 1\n2|tenant2.mp3|Talk of 2", 'and then the other one');
wait_for_drain($node);
sql(q{SELECT cleanup_drop_source('tenants')});

# ---- a trigger that means a table, and finds one that the operator has put in its place ----

sql('CREATE ROLE curious LOGIN', q{SELECT cleanup_grant_access('curious', 'operator')},
	'CREATE TABLE diaries (id int PRIMARY KEY, audio_url text, status text, updated_at timestamp, secret text)',
	q{CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO noted VALUES (old.secret); RETURN new; END$$},
	'CREATE TRIGGER note BEFORE UPDATE ON diaries FOR EACH ROW EXECUTE FUNCTION note()',
	q{INSERT INTO diaries VALUES (1, 'diary.mp3', 'failed', '2020-01-01', 'the secret')},
	q{SELECT cleanup_add_source('diaries', on_failed => 'clear')});
put_file($dir, 'diary.mp3');
foreach my $path ('pg_catalog, public', 'public')
{
	sql("ALTER FUNCTION note() SET search_path = $path");
	is($node->safe_psql('postgres', q{CREATE TEMP TABLE noted (t text); GRANT INSERT ON noted TO PUBLIC;
		DO 'BEGIN PERFORM cleanup_all(force => true); END'; TABLE noted}, extra_params => [ '-U', 'curious' ]),
		'', "search_path $path: the operator gets no row");
	wait_for_drain($node);
	is(sql('SELECT audio_url FROM diaries'), 'diary.mp3', 'the session stays');
	ok(-e "$dir/diary.mp3", 'and its file');
}
sql('ALTER FUNCTION note() RESET search_path');
is($node->safe_psql('postgres', q{CREATE TEMP TABLE noted (t text); GRANT INSERT ON noted TO PUBLIC;
	DO 'BEGIN PERFORM cleanup_all(force => true); END'; TABLE noted}, extra_params => [ '-U', 'curious' ]), '', 'nor without a search_path');
sql(q{SELECT cleanup_drop_source('diaries')});

# the same with a domain, whose constraint would run as the table's owner
sql('CREATE ROLE author', 'CREATE SCHEMA diary', 'GRANT USAGE ON SCHEMA diary TO author', 'GRANT CREATE ON SCHEMA public TO curious',
	'CREATE DOMAIN diary.flavour AS text',
	'CREATE TABLE diary.pages (id int PRIMARY KEY, audio_url text, status text, updated_at timestamp, secret text)',
	q{SET search_path = diary; CREATE FUNCTION diary.note() RETURNS trigger LANGUAGE plpgsql AS $$DECLARE f flavour := old.secret; BEGIN RETURN new; END$$; RESET search_path},
	'CREATE TRIGGER note BEFORE UPDATE ON diary.pages FOR EACH ROW EXECUTE FUNCTION diary.note()',
	q{INSERT INTO diary.pages VALUES (1, 'diary.mp3', 'failed', '2020-01-01', 'the secret')},
	'ALTER TABLE diary.pages OWNER TO author', 'ALTER FUNCTION diary.note() OWNER TO author',
	q{SELECT cleanup_add_source('diary.pages', on_failed => 'clear')});
is($node->safe_psql('postgres', q{CREATE TABLE loot (who text, what text); GRANT INSERT ON loot TO PUBLIC;
	CREATE FUNCTION evil(text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.loot VALUES (current_user, $1); RETURN true; END$$;
	CREATE DOMAIN pg_temp.flavour AS text CHECK (public.evil(value));
	DO 'BEGIN PERFORM cleanup_all(force => true); END'; TABLE loot}, extra_params => [ '-U', 'curious' ]), '', "an operator's domain does not run as the owner");
wait_for_drain($node);
is(sql('SELECT audio_url FROM diary.pages'), 'diary.mp3', 'the session stays');
sql(q{SELECT cleanup_drop_source('diary.pages')});

is(sql(q{SELECT count(*) FROM pg_depend d JOIN pg_class c ON c.oid = d.objid JOIN pg_extension e ON e.oid = d.refobjid
	WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e' AND e.extname = 'audio_cleanup' AND c.relkind = 'r'
	AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)}), 0, 'every table of ours has a primary key');
ok(sql_json($node, 'SELECT cleanup_purge_backups()')->{success}, 'backups can be purged');

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|signal \d+/, 'no process has died');
done_testing();
