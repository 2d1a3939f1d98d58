# An index that lies cannot make an orphan of a wanted file.  The lie: the file
# of each index is replaced by that of an index on an empty copy of the table.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use File::Copy qw(copy);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('index', conf => "autovacuum = off\nfull_page_writes = off\n");
my $dir = upload_dir($node);
make_schema($node);

my @wanted = map { "wanted$_.mp3" } 1 .. 20;
my @joined = map { "joined$_.mp3" } 1 .. 20;
my @failed = ('failed_live.mp3', 'failed_dead.mp3');
put_files($dir, @wanted, @joined, @failed);
add_rows($node, @wanted);

# two tables behind a view that joins by primary key, and a partial index
my $tables = q{
	CREATE TABLE %1$srecordings (id int PRIMARY KEY, file text);
	CREATE TABLE %1$suses (id int PRIMARY KEY, deleted boolean NOT NULL DEFAULT false);
	CREATE INDEX %1$suses_alive ON %1$suses (id) WHERE NOT deleted;
	CREATE INDEX %1$srecordings_file ON %1$srecordings (file);
	CREATE INDEX %1$srecordings_hash ON %1$srecordings USING hash (file);
};
$node->safe_psql('postgres', sprintf($tables, '') . q{
	INSERT INTO recordings SELECT i, 'joined' || i || '.mp3' FROM generate_series(1, 20) i;
	INSERT INTO uses SELECT generate_series(1, 20);
	CREATE VIEW used AS SELECT file FROM recordings JOIN uses USING (id) WHERE NOT deleted;
	SELECT cleanup_add_source('used', '{file}');
	INSERT INTO sessions (audio_url, status) SELECT 'padding' || i, 'completed' FROM generate_series(1, 5000) i;
	-- a failed session whose file a live one shares
	INSERT INTO sessions (audio_url, status, updated_at) VALUES ('failed_live.mp3', 'failed', now() - interval '30 days'),
		('failed_live.mp3', 'completed', now()), ('failed_dead.mp3', 'failed', now() - interval '30 days');
	CREATE INDEX sessions_audio_url ON sessions (audio_url);
	CREATE INDEX sessions_covering ON sessions (audio_url) INCLUDE (id, status, updated_at);
	CREATE INDEX sessions_not_null ON sessions (audio_url) WHERE audio_url IS NOT NULL;
	CREATE INDEX sessions_failed ON sessions (status, updated_at) WHERE status <> 'failed';
	CREATE TABLE empty_sessions (LIKE sessions INCLUDING ALL);
} . sprintf($tables, 'empty_'));
$node->safe_psql('postgres', 'VACUUM (ANALYZE) sessions, recordings, uses');

# ---- the surgery ----

# each index and the one of the same definition on the empty table
my @pairs = map { [ split /\|/ ] } split /\n/, $node->safe_psql('postgres', q{
	SELECT i.indexrelid::regclass, pg_relation_filepath(i.indexrelid), pg_relation_filepath(e.indexrelid)
	FROM pg_index i JOIN pg_index e ON e.indrelid = to_regclass('empty_' || i.indrelid::regclass)
	 AND regexp_replace(pg_get_indexdef(i.indexrelid), ' INDEX \S+ ON public\.', ' ') =
	     regexp_replace(pg_get_indexdef(e.indexrelid), ' INDEX \S+ ON public\.empty_', ' ')
	WHERE i.indrelid IN ('sessions'::regclass, 'recordings'::regclass, 'uses'::regclass)
	ORDER BY 1});
cmp_ok(scalar @pairs, '>=', 11, 'there are many indexes, each has an empty counterpart');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_index WHERE indrelid IN ('sessions'::regclass, 'recordings'::regclass, 'uses'::regclass)}),
	scalar @pairs, 'all of them');
$node->stop;
foreach my $pair (@pairs)
{
	my ($index, $file, $empty) = @$pair;
	copy($node->data_dir . "/$empty", $node->data_dir . "/$file") or die "could not copy for $index: $!";
}
$node->start;

# ---- the lie ----

my $by_index = 'SET enable_seqscan = off; SET enable_bitmapscan = off;';
my $seq = 'SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off;';
foreach my $query (q{SELECT count(*) FROM sessions WHERE audio_url = 'wanted7.mp3'},
	q{SELECT count(*) FROM recordings WHERE file = 'joined7.mp3'},
	q{SELECT count(*) FROM recordings JOIN uses USING (id) WHERE NOT deleted AND id = 7},
	q{SELECT count(*) FROM uses WHERE NOT deleted AND id = 7})
{
	like($node->safe_psql('postgres', "$by_index EXPLAIN $query"), qr/Index/, "by an index: $query");
	is($node->safe_psql('postgres', "$by_index $query"), 0, 'it finds nothing');
	is($node->safe_psql('postgres', "$seq $query"), 1, 'though the row is there');
}
is($node->safe_psql('postgres', "$by_index SET enable_hashjoin = off; SET enable_mergejoin = off; SELECT count(*) FROM used"), 0,
	'the view is empty, by its indexes');

# ---- and whatever the settings of a session or database, nobody believes it ----

foreach my $settings ('', $by_index,
	'SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET random_page_cost = 0; SET cpu_index_tuple_cost = 0;')
{
	my $name = $settings || 'as usual';

	foreach my $call ('SELECT cleanup_all()', 'CALL cleanup_run()')
	{
		put_files($dir, 'orphan.mp3', 'failed_dead.mp3');
		my $preview = sql_json($node, "$settings SELECT cleanup_all(true)");
		is_deeply($preview->{result}{orphaned_files_deleted}, ['orphan.mp3'], "$name: only the orphan would go");
		is_deeply(sql_json($node, "$settings SELECT cleanup_status()")->{blocked_by} || [], [], "$name: nothing is amiss");
		$node->safe_psql('postgres', "$settings $call");
		is_deeply([ sort keys %{ visible_files($dir) } ], [ sort @wanted, @joined, 'failed_live.mp3' ],
			"$name: $call deletes the orphan and the audio of the failed session, and nothing else");
		ok(wait_for_drain($node), "$name: to the end");
	}
	like($node->safe_psql('postgres', "$settings SELECT cleanup_explain('joined7.mp3')"), qr/used/, "$name: cleanup_explain() finds the row");
}

# what the drain looks up again, a worker under the settings of the database
put_files($dir, 'failed_dead.mp3', 'late.mp3');
$node->safe_psql('postgres', 'ALTER DATABASE postgres SET enable_seqscan = off');
$node->append_conf('postgresql.conf', 'max_prepared_transactions = 2');
$node->restart;
$node->safe_psql('postgres', q{BEGIN; SELECT cleanup_all(); PREPARE TRANSACTION 'p'});
$node->safe_psql('postgres', q{COMMIT PREPARED 'p'});
$node->safe_psql('postgres', q{INSERT INTO recordings VALUES (21, 'late.mp3'); INSERT INTO uses VALUES (21)});
$node->stop;
foreach my $pair (@pairs)
{
	my ($index, $file, $empty) = @$pair;
	copy($node->data_dir . "/$empty", $node->data_dir . "/$file") or die "could not copy for $index: $!";
}
$node->start;
is($node->safe_psql('postgres', "$by_index SELECT count(*) FROM recordings WHERE file = 'late.mp3'"), 0, 'a row that came after its file was condemned, and no index shows');
$node->safe_psql('postgres', 'SELECT cleanup_all()');
ok(wait_for_drain($node), 'the next run drains');
is_deeply([ sort keys %{ visible_files($dir) } ], [ sort @wanted, @joined, 'failed_live.mp3', 'late.mp3' ], 'and lets that file live');

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|signal \d+/, 'no process has died');
done_testing();
