# What PostgreSQL can be asked to store references in: each form protects its
# file, or is refused with a reason.  A row that cannot be seen is never
# taken for a row that is not there.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('forms', init => [ extra => [ '--locale=C', '--encoding=UTF8' ] ]);
my $dir = upload_dir($node);
make_schema($node);
add_rows($node, put_files($dir, 'wanted.mp3'));
$node->safe_psql('postgres', q{
	CREATE ROLE app; CREATE ROLE reporting;
	GRANT CREATE, USAGE ON SCHEMA public TO app, reporting;
	CREATE EXTENSION citext;
});

my $number = 0;

sub has_orphan
{
	return -e "$dir/orphan$number.mp3";
}

# The relation "held" is made by SQL; it refers to held.mp3.  Both kinds of run
# keep that file and delete another.
sub protects
{
	my ($name, $sql, %options) = @_;
	my $held = $options{file} || 'held.mp3';
	my $source = $options{source} || 'held';

	$number++;
	$node->safe_psql('postgres', $sql);
	$node->safe_psql('postgres', "SELECT cleanup_add_source('$source', '{file}')");
	foreach my $call ('SELECT cleanup_all()', 'CALL cleanup_run()')
	{
		put_files($dir, $held, "orphan$number.mp3");
		$node->safe_psql('postgres', $call);
		ok(-e "$dir/$held", "$name: $call keeps the file");
		ok(!has_orphan(), "$name: and takes another");
	}
	return if $options{go_on};
	drop($source);
	put_files($dir, $held);
	is(sql_json($node, 'SELECT cleanup_all(true)')->{result}{orphaned_files_count}, 1, "$name: nothing else had protected it");
	unlink "$dir/$held" or die $!;
	return;
}

# Whatever "held" was; views first.
sub drop
{
	my ($source) = @_;
	$node->safe_psql('postgres', qq{
		SELECT cleanup_drop_source('$source');
		SET client_min_messages = warning;
		DROP SCHEMA held CASCADE;
		CREATE SCHEMA held;
		GRANT ALL ON SCHEMA held TO app, reporting;});
	return;
}

# Refused now, by all calls, with the reason.
sub blocked
{
	my ($name, $state, $reason) = @_;
	my ($rc, $stdout, $stderr, $answer);

	put_files($dir, 'held.mp3', "orphan$number.mp3");
	foreach my $call ('SELECT cleanup_all(force => true)', 'CALL cleanup_run(force => true)')
	{
		($rc, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$call");
		isnt($rc, 0, "$name: $call is refused");
		like($stderr, qr/ERROR:  $state: .*$reason/s, "$name: with a reason");
		like($stderr, qr/HINT:  /, "$name: and a hint");
	}
	$answer = sql_json($node, 'SELECT cleanup_all(true)');
	ok(!$answer->{success}, "$name: a dry run has no success");
	is_deeply($answer->{blocked_by}, ['source'], "$name: for want of a source");
	like($answer->{result}{errors}[0] // '', $reason, "$name: with the reason");
	ok(-e "$dir/held.mp3" && has_orphan(), "$name: nothing is deleted");
	return;
}

sub not_registered
{
	my ($name, $sql, $state, $reason, %options) = @_;
	my ($rc, $stdout, $stderr);

	$node->safe_psql('postgres', $sql);
	($rc, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT cleanup_add_source('held.held', '{file}')");
	isnt($rc, 0, "$name cannot be registered");
	like($stderr, qr/ERROR:  $state: .*$reason/s, "$name: with a reason");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM cleanup_sources'), 1, "$name: nor is it");
	$node->safe_psql('postgres', 'SET client_min_messages = warning; DROP SCHEMA held CASCADE; CREATE SCHEMA held; GRANT ALL ON SCHEMA held TO app, reporting;');
	return;
}

$node->safe_psql('postgres', 'CREATE SCHEMA held; GRANT ALL ON SCHEMA held TO app, reporting;');
my $insert = q{INSERT INTO held.held (file) VALUES ('held.mp3');};
my $source = 'held.held';

# ---- row-level security ----

my $hiding = q{ALTER TABLE held.held OWNER TO app; ALTER TABLE held.held ENABLE ROW LEVEL SECURITY;
	CREATE POLICY p ON held.held USING (false);};

protects('RLS', "CREATE TABLE held.held (file text); $insert $hiding", source => $source, go_on => 1);
is($node->safe_psql('postgres', 'GRANT SELECT ON held.held TO reporting; SET ROLE reporting; SELECT count(*) FROM held.held'), 0, 'RLS: it does hide the row');
$node->safe_psql('postgres', 'ALTER TABLE held.held FORCE ROW LEVEL SECURITY');
blocked('FORCE RLS', '42501', qr/row-level security hides rows of source held\.held from its own owner/);
$node->safe_psql('postgres', 'ALTER TABLE held.held NO FORCE ROW LEVEL SECURITY');
$node->safe_psql('postgres', 'CALL cleanup_run()');
ok(-e "$dir/held.mp3" && !has_orphan(), 'RLS, not forced any more: works again');
drop($source);
unlink "$dir/held.mp3";

# the caller's row_security and his role make no difference
$node->safe_psql('postgres', q{CREATE ROLE operator LOGIN; SELECT cleanup_grant_access('operator', 'operator')});
$node->safe_psql('postgres', "CREATE TABLE held.held (file text); $insert $hiding SELECT cleanup_add_source('$source', '{file}')");
put_files($dir, 'held.mp3', "orphan$number.mp3");
$node->safe_psql('postgres', 'SET ROLE operator; SET row_security = on; SELECT cleanup_all()');
ok(-e "$dir/held.mp3" && !has_orphan(), 'RLS: a role that sees no row cleans as well as any');
# FORCE for an owner that bypasses it
$node->safe_psql('postgres', 'ALTER TABLE held.held FORCE ROW LEVEL SECURITY; ALTER ROLE app BYPASSRLS');
put_files($dir, "orphan$number.mp3");
$node->safe_psql('postgres', 'CALL cleanup_run()');
ok(-e "$dir/held.mp3" && !has_orphan(), 'FORCE RLS: an owner with BYPASSRLS sees all');
$node->safe_psql('postgres', 'ALTER ROLE app NOBYPASSRLS');
blocked('FORCE RLS again', '42501', qr/row-level security hides rows/);
drop($source);
unlink "$dir/held.mp3";

# a view that reads a table of somebody else under a policy
$node->safe_psql('postgres', qq{
	CREATE TABLE held.t (file text); INSERT INTO held.t VALUES ('held.mp3');
	ALTER TABLE held.t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON held.t USING (false);
	GRANT SELECT ON held.t TO reporting;
	CREATE VIEW held.held AS SELECT file FROM held.t; ALTER VIEW held.held OWNER TO reporting;
	INSERT INTO cleanup_sources (source, source_name, file_columns) VALUES ('held.held', 'held.held', '{file}')});
blocked('a view under a policy', '42501', qr/could not read source held\.held: .*row-level security/);
drop($source);
unlink "$dir/held.mp3";

# ---- views ----

protects('a view', q{CREATE TABLE held.t (name text); INSERT INTO held.t VALUES ('held.mp3');
	CREATE VIEW held.held AS SELECT 'uploads/' || name AS file FROM held.t}, source => $source, file => 'uploads/held.mp3');
protects('views over views', q{CREATE TABLE held.t (name text); INSERT INTO held.t VALUES ('held.mp3');
	CREATE VIEW held.v1 AS SELECT name FROM held.t; CREATE VIEW held.v2 AS SELECT name AS n FROM held.v1 WHERE name IS NOT NULL;
	CREATE VIEW held.held AS SELECT n AS file FROM held.v2 UNION ALL SELECT 'nobody.mp3'}, source => $source);
protects('a view of another owner', q{CREATE TABLE held.t (file text); INSERT INTO held.t VALUES ('held.mp3');
	ALTER TABLE held.t OWNER TO app; GRANT SELECT ON held.t TO reporting;
	CREATE VIEW held.held AS SELECT file FROM held.t; ALTER VIEW held.held OWNER TO reporting},
	source => $source, go_on => 1);
$node->safe_psql('postgres', 'REVOKE SELECT ON held.t FROM reporting');
blocked('a view whose owner has lost his right', '42501', qr/could not read source held\.held: permission denied for table t/);
$node->safe_psql('postgres', 'GRANT SELECT ON held.t TO reporting');
# in flight, in a table two views down
$node->safe_psql('postgres', q{CREATE VIEW held.top AS SELECT file FROM held.held; ALTER VIEW held.top OWNER TO app; GRANT SELECT ON held.held TO app;
	SELECT cleanup_drop_source('held.held'); SELECT cleanup_add_source('held.top', '{file}'); DELETE FROM held.t;});
put_files($dir, 'held.mp3');
my $writer = begin_session($node, q{INSERT INTO held.t VALUES ('held.mp3')});
my ($rc, $stdout, $stderr) = $node->psql('postgres', q{SET audio_cleanup.writer_wait = '200ms'; SELECT cleanup_all()});
isnt($rc, 0, 'a run waits for a writer of a table below two views');
like($stderr, qr/gave up waiting for a transaction that writes to "t".*Nothing was deleted/s, 'and says so');
ok(-e "$dir/held.mp3", 'and deletes nothing');
end_session($writer);
$node->safe_psql('postgres', 'CALL cleanup_run()');
ok(-e "$dir/held.mp3", 'then its row protects the file');
drop('held.top');
unlink "$dir/held.mp3";
protects('an updatable view with a security barrier', q{CREATE TABLE held.t (file text); INSERT INTO held.t VALUES ('held.mp3');
	CREATE VIEW held.held WITH (security_barrier) AS SELECT file FROM held.t WITH CHECK OPTION}, source => $source);
protects('a security_invoker view', q{CREATE TABLE held.t (file text); INSERT INTO held.t VALUES ('held.mp3');
	CREATE VIEW held.held WITH (security_invoker) AS SELECT file FROM held.t}, source => $source);
protects('a recursive view', q{CREATE TABLE held.t (id int, parent int, file text); INSERT INTO held.t VALUES (1, NULL, 'a'), (2, 1, 'held.mp3');
	CREATE RECURSIVE VIEW held.held (id, file) AS SELECT id, file FROM held.t WHERE parent IS NULL
	UNION ALL SELECT t.id, t.file FROM held.t JOIN held ON t.parent = held.id}, source => $source);

# ---- partitions and inheritance ----

my $partitioned = q{CREATE TABLE held.held (file text, day int) PARTITION BY RANGE (day);
	CREATE TABLE held.p1 PARTITION OF held.held FOR VALUES FROM (0) TO (10);
	CREATE TABLE held.p2 PARTITION OF held.held FOR VALUES FROM (10) TO (20) PARTITION BY LIST (day);
	CREATE TABLE held.p2a PARTITION OF held.p2 DEFAULT;
	INSERT INTO held.held VALUES ('other.mp3', 1), ('held.mp3', 11);};
protects('a partition of a partition', $partitioned, source => $source);
protects('an inherited table', q{CREATE TABLE held.held (file text); CREATE TABLE held.child () INHERITS (held.held);
	CREATE TABLE held.grandchild () INHERITS (held.child); INSERT INTO held.grandchild VALUES ('held.mp3')}, source => $source);
protects('partitions with RLS of their own', $partitioned . q{ALTER TABLE held.p2a ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;},
	source => $source);
$node->safe_psql('postgres', q{CREATE TABLE held.held (file text); CREATE UNLOGGED TABLE held.child () INHERITS (held.held);
	INSERT INTO cleanup_sources (source, source_name, file_columns) VALUES ('held.held', 'held.held', '{file}')});
blocked('an unlogged child', '42809', qr/source held\.held reads held\.child, which cannot be relied on/);
drop($source);
unlink "$dir/held.mp3";

# The parent changes while a run waits for a writer (of another source): STATEMENT goes on meanwhile.
sub changed_during_run
{
	my ($name, $setup, $statement) = @_;
	my ($holder, $run);

	$number++;
	$node->safe_psql('postgres', "$setup SELECT cleanup_add_source('$source', '{file}')");
	put_files($dir, 'held.mp3', "orphan$number.mp3");
	$holder = begin_session($node, q{INSERT INTO sessions (audio_url) VALUES ('nothing.mp3')});
	$run = $node->background_psql('postgres', on_error_stop => 0);
	$run->query_until(qr/^asked$/m, "\\echo asked\nSET audio_cleanup.writer_wait = '60s'; SELECT cleanup_all();\n");
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
		WHERE query ~ '^SELECT cleanup_all' AND wait_event_type = 'Lock' AND wait_event = 'virtualxid'}), "$name: a run waits");
	($rc, $stdout, $stderr) = $node->psql('postgres', "SET lock_timeout = '500ms'; $statement");
	note("$name: " . ($rc ? $stderr : 'went through'));
	end_session($holder, 'ROLLBACK');
	$run->quit;
	ok(wait_for_drain($node), "$name: the run is over");
	return $rc;
}

is(changed_during_run('attach', $partitioned . q{DELETE FROM held.held; CREATE TABLE held.p3 (file text, day int); INSERT INTO held.p3 VALUES ('held.mp3', 21);},
		'ALTER TABLE held.held ATTACH PARTITION held.p3 FOR VALUES FROM (20) TO (30)'), 0, 'a partition is attached during a run');
ok(-e "$dir/held.mp3", 'its rows protect files');
ok(!has_orphan(), 'and the run works');
drop($source);
is(changed_during_run('inherit', q{CREATE TABLE held.held (file text); CREATE TABLE held.child (file text); INSERT INTO held.child VALUES ('held.mp3');},
		'ALTER TABLE held.child INHERIT held.held'), 0, 'a table becomes a child during a run');
ok(-e "$dir/held.mp3", 'its rows protect files');
ok(!has_orphan(), 'and the run works');
drop($source);
changed_during_run('detach', $partitioned, 'ALTER TABLE held.held DETACH PARTITION held.p2');
ok(-e "$dir/held.mp3", 'a partition that is (or would be) detached during a run has protected its files');
ok(!has_orphan(), 'and the run works');
drop($source);
changed_during_run('drop', $partitioned, 'DROP TABLE held.p2');
ok(-e "$dir/held.mp3", 'one that is (or would be) dropped, too');
ok(!has_orphan(), 'and the run works');
$node->safe_psql('postgres', 'ALTER TABLE held.held DETACH PARTITION held.p2');
is(sql_json($node, 'SELECT cleanup_all(true)')->{result}{orphaned_files_count}, 1, 'after the detachment its rows protect no more');
drop($source);
unlink "$dir/held.mp3";

# ---- types ----

my $icu = $node->safe_psql('postgres', q{SELECT count(*) > 0 FROM pg_collation WHERE collprovider = 'i'});
is($icu, 't', 'the server has ICU');
protects('a generated column', q{CREATE TABLE held.held (id text, file text GENERATED ALWAYS AS (id || '.mp3') STORED);
	INSERT INTO held.held VALUES ('held')}, source => $source);
protects('citext', "CREATE TABLE held.held (file citext); $insert", source => $source);
protects('citext in another case', q{CREATE TABLE held.held (file citext UNIQUE); INSERT INTO held.held VALUES ('HELD.MP3')}, source => $source);
protects('a non-deterministic collation', qq{
	CREATE COLLATION held.ci (provider = icu, locale = 'und-u-ks-level1', deterministic = false);
	CREATE TABLE held.held (file text COLLATE held.ci PRIMARY KEY); $insert}, source => $source);
protects('a domain', "CREATE DOMAIN held.name AS text CHECK (value <> ''); CREATE TABLE held.held (file held.name); $insert", source => $source);
protects('a domain over a domain over varchar', "CREATE DOMAIN held.a AS varchar(100); CREATE DOMAIN held.b AS held.a NOT NULL;
	CREATE TABLE held.held (file held.b); $insert", source => $source);
protects('char(n)', "CREATE TABLE held.held (file char(40)); $insert", source => $source);
protects('name', "CREATE TABLE held.held (file name); $insert", source => $source);
protects('a name that needs quotes', qq{CREATE TABLE held."He ld" (file text); INSERT INTO held."He ld" VALUES ('held.mp3')}, source => 'held."He ld"');
protects('a value out of line', q{CREATE TABLE held.held (file text); ALTER TABLE held.held ALTER file SET STORAGE EXTERNAL;
	INSERT INTO held.held VALUES ('https://host/held.mp3?sig=' || repeat('0123456789abcdef', 10000))}, source => $source);

not_registered('text[]', q{CREATE TABLE held.held (file text[]); INSERT INTO held.held VALUES ('{held.mp3}')},
	'42804', qr/column "file" of source held\.held does not hold text.*text\[\].*view/s);
not_registered('jsonb', q{CREATE TABLE held.held (file jsonb); INSERT INTO held.held VALUES ('{"a": "held.mp3"}')},
	'42804', qr/column "file" of source held\.held does not hold text.*jsonb.*view/s);
not_registered('uuid', q{CREATE TABLE held.held (file uuid)}, '42804', qr/column "file" of source held\.held does not hold text.*uuid.*view/s);
not_registered('a domain over text[]', q{CREATE DOMAIN held.names AS text[]; CREATE TABLE held.held (file held.names)}, '42804', qr/does not hold text/s);
not_registered('bytea', q{CREATE TABLE held.held (file bytea)}, '42804', qr/does not hold text.*bytea/s);
not_registered('"char"', q{CREATE TABLE held.held (file "char")}, '42804', qr/does not hold text/s);
not_registered('a materialized view', q{CREATE TABLE held.t (file text); CREATE MATERIALIZED VIEW held.held AS SELECT file FROM held.t},
	'42809', qr/source held\.held is a materialized view.*does not show what was written since it was refreshed/s);
not_registered('a view over a materialized view', q{CREATE TABLE held.t (file text); CREATE MATERIALIZED VIEW held.m AS SELECT file FROM held.t;
	CREATE VIEW held.held AS SELECT file FROM held.m}, '42809', qr/source held\.held reads held\.m, which cannot be relied on/s);
not_registered('an unlogged table', q{CREATE UNLOGGED TABLE held.held (file text)}, '42809', qr/source held\.held is unlogged/s);
not_registered('an index', q{CREATE TABLE held.t (file text); CREATE INDEX held ON held.t (file)}, '42809', qr/is an index|not a table or view/s);
not_registered('a system column', q{CREATE TABLE held.held (name text)}, '42703', qr/column "file" of source held\.held does not exist/s);

# what the hints advise does work
protects('a view of text[]', q{CREATE TABLE held.t (files text[]); INSERT INTO held.t VALUES ('{a.mp3,held.mp3}');
	CREATE VIEW held.held AS SELECT unnest(files) AS file FROM held.t}, source => $source);
protects('a view of jsonb', q{CREATE TABLE held.t (doc jsonb); INSERT INTO held.t VALUES ('{"audio": [{"file": "held.mp3"}]}');
	CREATE VIEW held.held AS SELECT jsonb_path_query(doc, '$.audio[*].file') #>> '{}' AS file FROM held.t}, source => $source);
protects('a view of uuid', q{CREATE TABLE held.t (id uuid); INSERT INTO held.t VALUES ('6a1f0d9e-0000-4000-8000-000000000001');
	CREATE VIEW held.held AS SELECT id::text AS file FROM held.t}, source => $source, file => '6a1f0d9e-0000-4000-8000-000000000001.mp3');

# a source of a type that changes
$node->safe_psql('postgres', "CREATE TABLE held.held (file text); $insert SELECT cleanup_add_source('$source', '{file}');
	ALTER TABLE held.held ALTER file TYPE jsonb USING to_jsonb(file)");
blocked('a column that has become jsonb', '42804', qr/column "file" of source held\.held does not hold text/);
drop($source);

ok(-e "$dir/wanted.mp3", 'all the while the first source was read');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|signal \d+/, 'no process has died');
done_testing();
