# A table is swapped for a new one of the same name, as many migrations do: the
# old one must not go on telling alone which files are wanted.  So is a column,
# and then the new one must not.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('table_swap');
my $dir = upload_dir($node);
make_schema($node);
put_files($dir, 'keep.mp3', 'after_the_swap.mp3');
add_rows($node, 'keep.mp3');
$node->safe_psql('postgres', q{
	BEGIN;
	CREATE TABLE sessions_new (LIKE sessions INCLUDING ALL);
	INSERT INTO sessions_new SELECT * FROM sessions;
	ALTER TABLE sessions RENAME TO sessions_old;
	ALTER TABLE sessions_new RENAME TO sessions;
	COMMIT;
	INSERT INTO sessions (audio_url) VALUES ('after_the_swap.mp3');
});
my $files = visible_files($dir);

my ($rc, $stdout, $stderr) = $node->psql('postgres', 'SELECT cleanup_all()');
isnt($rc, 0, 'a run is refused');
like($stderr, qr/sessions_old/, 'and says which source has changed its name');
is_deeply(sql_json($node, 'SELECT cleanup_status()')->{blocked_by}, ['source'], 'so says cleanup_status()');

$node->safe_psql('postgres', q{SELECT cleanup_add_source('sessions')});
$node->psql('postgres', q{SELECT cleanup_drop_source('sessions_old')});
$node->safe_psql('postgres', 'SELECT cleanup_all()');
ok(wait_for_drain($node), 'with the new table registered it can go on');
is_deeply(visible_files($dir), $files, 'the files of the new table are kept');

# ---- a column ----
sub swap
{
	my ($table, $kind, $new) = @_;

	$node->safe_psql('postgres', "BEGIN; ALTER $kind $table RENAME COLUMN audio_url TO audio_url_old; $new; COMMIT");
	return;
}

sub refused_for
{
	my ($table, $name) = @_;

	like(sql_error($node, 'SELECT cleanup_all(force => true)'),
		qr/column "audio_url" of source public\.$table is another one than before\nDETAIL:  The one that was read before is called "audio_url_old" now/,
		"$name: a run is refused");
	is_deeply(sql_json($node, 'SELECT cleanup_status()')->{blocked_by}, ['source'], "$name: so says cleanup_status()");
	is_deeply(visible_files($dir), $files, "$name: the files of the old column are there");
	return;
}

$node->safe_psql('postgres', q{
	CREATE TABLE calls (id int PRIMARY KEY, audio_url text);
	INSERT INTO calls VALUES (1, 'call.mp3');
	CREATE VIEW heard AS SELECT 'heard.mp3' AS audio_url;
	SELECT cleanup_add_source('calls', '{audio_url}'), cleanup_add_source('heard', '{audio_url}')});
put_files($dir, 'call.mp3', 'call_new.mp3', 'heard.mp3', 'heard_new.mp3');
$files = visible_files($dir);
swap('calls', 'TABLE', q{ALTER TABLE calls ADD audio_url text; INSERT INTO calls VALUES (2, NULL, 'call_new.mp3')});
refused_for('calls', 'after the registration');
$node->safe_psql('postgres', q{SELECT cleanup_add_source('calls', '{audio_url,audio_url_old}')});
swap('heard', 'VIEW', q{CREATE OR REPLACE VIEW heard AS SELECT 'heard.mp3' AS audio_url_old, 'heard_new.mp3' AS audio_url});
refused_for('heard', 'a view');
$node->safe_psql('postgres', q{SELECT cleanup_add_source('heard', '{audio_url,audio_url_old}'); SELECT cleanup_all()});
ok(wait_for_drain($node), 'with both columns registered it can go on');
is_deeply(visible_files($dir), $files, 'and keeps the files of both');

# what the last run has read counts, also where nothing was recorded before
$node->safe_psql('postgres', q{SELECT cleanup_add_source('calls', '{audio_url,audio_url_old}'); DELETE FROM cleanup_seen; SELECT cleanup_all();
	ALTER TABLE calls RENAME audio_url TO third; ALTER TABLE calls RENAME audio_url_old TO audio_url; ALTER TABLE calls RENAME third TO audio_url_old});
like(sql_error($node, 'SELECT cleanup_all()'), qr/column "audio_url" of source public\.calls is another one than before/, 'after a run');
$node->safe_psql('postgres', q{ALTER TABLE calls RENAME audio_url TO third; ALTER TABLE calls RENAME audio_url_old TO audio_url; ALTER TABLE calls RENAME third TO audio_url_old});

# a new type by a new column: what was dropped has no values any more
$node->safe_psql('postgres', q{ALTER TABLE calls ADD moved varchar; UPDATE calls SET moved = audio_url_old; ALTER TABLE calls DROP audio_url_old;
	ALTER TABLE calls RENAME moved TO audio_url_old; SELECT cleanup_all()});
ok(wait_for_drain($node), 'a column that was dropped is no matter');
is_deeply(visible_files($dir), $files, 'all files are kept');

# ---- a partition that is being detached: its rows are hidden, and the command may never end ----

$node->safe_psql('postgres', q{
	CREATE TABLE parts (id int, file_name text) PARTITION BY LIST (id);
	CREATE TABLE part_1 PARTITION OF parts FOR VALUES IN (1);
	CREATE TABLE part_2 PARTITION OF parts FOR VALUES IN (2);
	INSERT INTO parts VALUES (1, 'part_1.mp3'), (2, 'part_2.mp3');
	CREATE VIEW over_parts AS SELECT file_name FROM parts;
	SELECT cleanup_add_source('parts'), cleanup_add_source('over_parts')});
put_files($dir, 'part_1.mp3', 'part_2.mp3');
$files = visible_files($dir);
{
	my $reader = $node->background_psql('postgres');

	$reader->query_safe('BEGIN; SELECT count(*) FROM parts');
	like(sql_error($node, q{SET lock_timeout = '100ms'; ALTER TABLE parts DETACH PARTITION part_1 CONCURRENTLY}), qr/lock timeout/, 'a partition is hidden');
	$reader->quit;
}
is($node->safe_psql('postgres', q{SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = 'part_1'::regclass}), 't', 'and not yet detached');
like(sql_error($node, 'SELECT cleanup_all(force => true)'),
	qr/source public\.parts lacks partition public\.part_1, which is being detached\n.*HINT:  Register the partition itself, .* DETACH PARTITION public\.part_1 FINALIZE/s, 'a run is refused');
like(join('|', @{ sql_json($node, 'SELECT cleanup_status()')->{potential_cleanup}{errors} }), qr/source public\.over_parts lacks partition public\.part_1/, 'a view above it, too');
$node->safe_psql('postgres', q{SELECT cleanup_add_source('part_1'); ALTER TABLE parts DETACH PARTITION part_1 FINALIZE});
$node->safe_psql('postgres', 'SELECT cleanup_all()');
ok(wait_for_drain($node), 'what the hint advises works');
is_deeply(visible_files($dir), $files, 'all files are kept');

$node->stop;
done_testing();
