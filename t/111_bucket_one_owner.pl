# Two databases, where the prefix of one begins with that of the other: whoever comes second is refused, as in a directory.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Bucket;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $gateway = start_gateway();
my ($node) = start_bucket($gateway, 'bucket_one_owner', conf => "audio_cleanup.max_delete_percent = 100\naudio_cleanup.orphaned_file_retention_hours = 0\n");

sub keys_left
{
	return join ' ', grep { !/\.audio_cleanup/ } @{ keys_of($gateway, 'audio') };
}

sub refused
{
	my ($database, $message, $detail) = @_;
	my $before = keys_left();

	foreach my $statement ('SELECT cleanup_all(force => true)', 'CALL cleanup_run(force => true)')
	{
		my (undef, undef, $stderr) = $node->psql($database, "\\set VERBOSITY verbose\n$statement");
		like($stderr, qr/ERROR:  55006: $message\nDETAIL:  $detail/, "$database: $statement");
	}
	is(keys_left(), $before, "$database: nothing was deleted");
	return;
}

$node->safe_psql('postgres', 'CREATE DATABASE one');
$node->safe_psql('postgres', q{ALTER DATABASE one SET audio_cleanup.upload_dir = 's3://audio/up/one'});
make_schema($node, 'one');
$node->safe_psql('one', q{INSERT INTO sessions (audio_url) VALUES ('theirs.mp3')});
put_objects($gateway, 'audio/up', 'wanted.mp3', 'one/theirs.mp3', 'one/gone.mp3', 'two/gone.mp3');

$node->safe_psql('one', 'CALL cleanup_run()');
ok(wait_for_drain($node, 'one'), 'the inner one is cleaned');
unlike(keys_left(), qr/one\/gone/, 'its orphan is gone');
refused('postgres', qr/upload directory "s3:\/\/audio\/up" contains the upload directory of another database/,
	qr/Database "one" \(OID \d+\) of this cluster, or a copy of it, has claimed "s3:\/\/audio\/up\/one"\./);

$node->safe_psql('one', 'DROP EXTENSION audio_cleanup');
expect(s3($gateway, 'DELETE', 'audio/up/one/.audio_cleanup/claim'));
$node->safe_psql('postgres', 'SET audio_cleanup.upload_dir = \'s3://audio/up/two\'; CALL cleanup_run(force => true)');
ok(wait_for_drain($node), 'a part is cleaned');
$node->safe_psql('postgres', 'CALL cleanup_run()');
ok(wait_for_drain($node), 'and the whole, with a claim of its own in it');
is(keys_left(), 'up/wanted.mp3', 'what is wanted is left');
put_objects($gateway, 'audio/up', 'one/theirs.mp3');
$node->safe_psql('one', 'CREATE EXTENSION audio_cleanup; SELECT cleanup_add_source(\'sessions\')');
refused('one', qr/upload directory "s3:\/\/audio\/up\/one" lies in the upload directory of another database/,
	qr/Database "postgres" \(OID \d+\) of this cluster, or a copy of it, has claimed "s3:\/\/audio\/up"\./);

$node->stop;
done_testing();
