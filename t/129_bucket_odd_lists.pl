# Lists of a bucket that are not as those of AWS: a key that comes twice, a server that ignores where a range is to
# begin, other words for true and false, a version without an id.  No file gets two rows, and none is lost sight of.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Bucket;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $pages = "$FindBin::RealBin/../bench/pages.py";
plan skip_all => 'there is no bench/pages.py' unless -e $pages;

# eight folders, the first key of each is an orphan: four ranges of two pages each
my ($keys, $orphans) = (8_000, 8);
my $credentials = PostgreSQL::Test::Utils::tempdir_short() . '/credentials';
my $proxy;
write_credentials({ access_key => 'anybody', secret_key => 'anything' }, $credentials);
my $node = new_server('bucket_odd_lists', conf => bucket_conf('s3://unset', 'http://localhost:1', $credentials)
	. "audio_cleanup.file_age = 'newest'\n");
make_schema($node);

sql(q{INSERT INTO sessions (audio_url) SELECT to_char(i / 1000, 'FM000000') || '/w' || to_char(i, 'FM000000000') || '.mp3'}
	. " FROM generate_series(0, $keys - 1) i WHERE i % 1000 <> 0");

# A bucket as at the beginning.
sub start_anew
{
	my ($name) = @_;

	$proxy = start_proxy({ port => start_pages($pages, $keys, $orphans) });
	sql('DELETE FROM cleanup_files; DELETE FROM cleanup_runs; DELETE FROM cleanup_claims');
	sql("ALTER SYSTEM SET audio_cleanup.s3_endpoint = '$proxy->{endpoint}'");
	sql("ALTER SYSTEM SET audio_cleanup.upload_dir = 's3://$name/up'");
	$node->reload;
	sql('SELECT pg_sleep(0.2)');
	return;
}

sub preview { return sql_json($node, 'SELECT cleanup_all(dry_run => true)')->{result} }
sub rows { return sql('SELECT count(*) || $$ rows of $$ || count(DISTINCT file) || $$ files, $$ || string_agg(DISTINCT state, $$, $$) FROM cleanup_files') }

my $n = 0;
foreach my $case (
	[ 'as with AWS', sub { } ],
	[ 'each key comes twice', sub { rewrite($proxy, [ '(<Contents>.*?</Contents>)', '\g<1>\g<1>' ]) } ],
	[ 'start-after is ignored', sub { set_rule($proxy, match => 'start-after=', do => 'forget', what => '&start-after=[^&]*') } ],
	[ 'true is True', sub { rewrite($proxy, [ '<IsTruncated>true', '<IsTruncated>True' ], [ '<IsTruncated>false', '<IsTruncated>False' ]) } ],
	[ 'true is 1', sub { rewrite($proxy, [ '<IsTruncated>true', '<IsTruncated>1' ], [ '<IsTruncated>false', '<IsTruncated>0' ]) } ])
{
	my ($what, $begin) = @$case;

	start_anew('bucket' . $n++);
	$begin->();
	my $result = preview();
	is($result->{orphaned_files_count}, $orphans, "$what: a preview counts each orphan once");
	is(scalar @{ $result->{orphaned_files_deleted} }, $orphans, "$what: and names it once");
	sql('CALL cleanup_run()');
	is(rows(), "$orphans rows of $orphans files, deleted", "$what: each has one row, and is deleted");
	is(sql('SELECT orphaned_files FROM cleanup_runs ORDER BY run_id DESC LIMIT 1'), $orphans, "$what: the run counts it once");
}

# ---- nothing is concluded from a list that says neither

start_anew('neither');
rewrite($proxy, [ '<IsTruncated>true', '<IsTruncated>perhaps' ]);
like(sql_error($node, 'CALL cleanup_run()'), qr/the answer of the server cannot be read/, 'a list that may go on, or not, ends a run');
is(sql('SELECT count(*) FROM cleanup_files'), '0', 'nothing is condemned');

# ---- a version without an id is not deleted: the request could make one more marker

start_anew('nameless');
set_setting($node, 's3_requests', 1);
rewrite($proxy, [ '(<Key>up/00000[0-3]/o[^<]*</Key><VersionId>)v[^<]*', '\g<1>' ]);
my $said = sql_error($node, 'CALL cleanup_run()');
is(sql(q{SELECT string_agg(DISTINCT state, ', ') FROM cleanup_files WHERE file > '000004'}), 'deleted', 'files whose versions have an id are deleted');
is(sql(q{SELECT string_agg(DISTINCT state, ', ') FROM cleanup_files WHERE file < '000004'}), 'trashed', 'others are not');
like($said, qr/could not delete file: the server gave no version id/, 'and a warning says why');

$node->stop;
done_testing();
