# A name without a folder means each file of that name: with many such files, and
# many failed sessions, there are more pairs of them than can be looked at.  Such
# files are kept, and a call says so; other files go.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('vague_names', conf => "audio_cleanup.max_delete_percent = 100\n");
my $dir = upload_dir($node);
my $vague = qr/1100 files are kept, because too many failed sessions share their names with too many files/;

make_schema($node);
system_or_bail('bash', '-c', "cd '$dir' && mkdir {1..1100} few{1..30} && printf '%s ' {1..1100}/audio.mp3 few{1..30}/short.mp3 one.mp3 orphan.mp3"
	. " | xargs touch -d '10 days ago'");
sql(q{INSERT INTO sessions (audio_url, status, updated_at) SELECT name, 'failed', now() - interval '9 days'
	FROM (SELECT 'audio.mp3' FROM generate_series(1, 1000) UNION ALL SELECT 'short.mp3' FROM generate_series(1, 30)
	UNION ALL VALUES ('one.mp3'), ('7/audio.mp3')) n(name)});

my $preview = sql_json($node, 'SELECT cleanup_all(dry_run => true)');
like("@{ $preview->{result}{errors} }", $vague, 'a preview says that files are kept');
is($preview->{result}{orphaned_files_count}, 1, 'it finds the orphan');
is($preview->{result}{failed_sessions_count}, 31, 'and the sessions whose names say enough');

my ($rc, undef, $error) = $node->psql('postgres', 'SELECT cleanup_all()');
is($rc, 0, 'a run comes to its end') or diag($error);
ok(wait_for_drain($node), 'and its worker');
is(scalar(keys %{ visible_files($dir) }), 1100, 'it has kept the files of that name');
is(sql(q{SELECT count(*) FROM cleanup_files WHERE state = 'deleted'}), 32, 'and no other file');
like(sql('SELECT message FROM cleanup_runs'), $vague, 'the history says so');

# fewer sessions: each pair is looked at
sql(q{DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE audio_url = 'audio.mp3' LIMIT 980)});
sql('CALL cleanup_run()');
ok(wait_for_drain($node), 'a run when most of these sessions are gone');
is_deeply(visible_files($dir), {}, 'deletes the files of the others');
$node->stop;
done_testing();
