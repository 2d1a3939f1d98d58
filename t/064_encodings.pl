# Databases that are not UTF-8: names of files in ASCII are judged, and stand in values beside quotes, blanks and letters of
# whatever encoding.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use File::Path qw(make_path);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('encodings', conf => "audio_cleanup.max_delete_percent = 100\n");

# the bytes of a value, around "wanted.mp3"
my %values = (
	LATIN1 => [ "\xab%s\xbb", "\xab\xa0%s\xa0\xbb", "\xb7 %s", "\xe0%s" ],
	WIN1252 => [ "\x84%s\x93", "\x96%s\x85" ],
	LATIN9 => [ "\xa4%s\xa0" ],
	KOI8R => [ "\xc6\xc1\xca\xcc%s\xd4\xd5\xd4" ],
	EUC_JP => [ "\xa1\xd6%s\xa1\xd7", "\xa4\xb3\xa4\xec\xa4\xcf%s\xa4\xc7\xa4\xb9" ],
	EUC_KR => [ "\xa1\xb0%s\xa1\xb1" ],
	SQL_ASCII => [ "\xe2\x80\x9c%s\xe2\x80\x9d", "\xe3\x80\x8c%s\xe3\x80\x8d", "\xc2\xa0%s\xc2\xa0", "\xff%s\xfe" ],
);

foreach my $encoding (sort keys %values)
{
	my $database = lc $encoding;
	my $dir = upload_dir($node) . "-$database";
	my $n = 0;
	my @wanted;

	make_path($dir);
	$node->safe_psql('postgres', "CREATE DATABASE $database ENCODING '$encoding' LOCALE 'C' TEMPLATE template0");
	$node->safe_psql('postgres', "ALTER DATABASE $database SET audio_cleanup.upload_dir = '$dir'");
	make_schema($node, $database);
	foreach my $value (@{ $values{$encoding} })
	{
		my $name = 'wanted' . $n++ . '.mp3';
		my $bytes = unpack 'H*', sprintf $value, $name;

		push @wanted, $name;
		put_files($dir, $name, "x$name", "${name}x.mp3");
		$node->safe_psql($database, $encoding eq 'SQL_ASCII' ? "SET standard_conforming_strings = on; INSERT INTO sessions (audio_url) VALUES (E'"
			. join('', map { "\\x$_" } unpack '(A2)*', $bytes) . q{')}
			: "INSERT INTO sessions (audio_url) VALUES (convert_from('\\x$bytes', '$encoding'))");
	}
	$node->safe_psql($database, 'CALL cleanup_run()');
	ok(wait_for_drain($node, $database), "$encoding: the run ends");
	is(join(' ', sort keys %{ visible_files($dir) }), join(' ', sort @wanted), "$encoding: what is wanted is left, and nothing else");
}

$node->stop;
done_testing();
