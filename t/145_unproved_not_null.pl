# A unique column that may have a NULL names no row, so it is no key; nor is it one by a constraint
# NOT NULL that is NOT VALID (PostgreSQL 18), which proves nothing of the rows that are there.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('unproved', conf => "audio_cleanup.backup_retention_days = 7\n");
my $dir = upload_dir($node);
my $can_be_unproved = $node->safe_psql('postgres', 'SHOW server_version_num') >= 180000;

put_files($dir, 'wanted.mp3', 'odd.mp3');
sql(q{
	CREATE EXTENSION audio_cleanup;
	CREATE TABLE wanted (id int PRIMARY KEY, audio_url text); INSERT INTO wanted VALUES (1, 'wanted.mp3');
	CREATE TABLE odd (id text, n int UNIQUE NOT NULL, audio_url text, status text, updated_at timestamp);
	SELECT cleanup_add_source('wanted'); SELECT cleanup_add_source('odd', on_failed => 'clear');
	ALTER TABLE odd ALTER n DROP NOT NULL;
	INSERT INTO odd VALUES ('one', NULL, 'odd.mp3', 'failed', '2024-01-01');
});
sql('ALTER TABLE odd ADD CONSTRAINT proved NOT NULL n NOT VALID') if $can_be_unproved;

foreach my $call ('SELECT cleanup_status()', 'SELECT cleanup_all()', 'CALL cleanup_run()')
{
	my $answer = sql_json($node, $call);

	like(join('|', @{ ($answer->{result} || $answer->{potential_cleanup})->{errors} }),
		qr/failed sessions of source public\.odd are left alone.*has no key that names one row/, "$call: a row without a key is not cleared");
}
ok(-e "$dir/odd.mp3", 'its file is kept');
unlike(slurp_file($node->logfile), qr/terminated by signal/, 'nothing has crashed');

sql('UPDATE odd SET n = 1', $can_be_unproved ? 'ALTER TABLE odd VALIDATE CONSTRAINT proved' : 'ALTER TABLE odd ALTER n SET NOT NULL',
	'SELECT cleanup_all()');
ok(wait_for_drain($node), 'the worker has done its work');
is(sql('SELECT audio_url IS NULL FROM odd'), 't', 'once the column has no NULL, the row is cleared');
sql('SELECT cleanup_restore((SELECT max(run_id) FROM cleanup_runs))');
is(sql('SELECT audio_url FROM odd'), 'odd.mp3', 'and filled again');

done_testing();
