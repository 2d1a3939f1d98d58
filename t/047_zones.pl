# The schedule's hour in the time zones of the world: where clocks are set
# forward or back, by whole hours or by half of one, over midnight too, and
# where a whole day was skipped.
#
# The schedule's clock is replaced; nothing here waits for a real hour.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Test::More;

my $node = new_server('zones', start => 0, conf => <<'END');
shared_preload_libraries = 'audio_cleanup'
audio_cleanup.databases = 'postgres'
audio_cleanup.max_delete_percent = 100
END
$node->start;
make_schema($node);
put_files(upload_dir($node), 'wanted.mp3');
$node->safe_psql('postgres', q{INSERT INTO sessions (audio_url) VALUES ('wanted.mp3')});

# ---- when it fires next, all times in UTC ----

foreach my $case (
	[ 'UTC', 0, '2026-12-31 00:00:30', '2027-01-01 00:00' ],
	[ 'UTC', 3, '2028-02-28 12:00:00', '2028-02-29 03:00' ],

	# an hour that is skipped fires when the clocks skip it
	[ 'Europe/Berlin', 2, '2026-03-28 12:00:00', '2026-03-29 01:00' ],
	[ 'Europe/Berlin', 3, '2026-03-28 12:00:00', '2026-03-29 01:00' ],
	[ 'Europe/Berlin', 2, '2026-03-29 01:00:30', '2026-03-30 00:00' ],
	[ 'America/New_York', 2, '2026-03-08 00:00:00', '2026-03-08 07:00' ],

	# an hour that comes twice fires the second time
	[ 'Europe/Berlin', 2, '2026-10-25 00:00:30', '2026-10-25 01:00' ],
	[ 'Europe/Berlin', 2, '2026-10-25 01:00:30', '2026-10-26 01:00' ],
	[ 'America/New_York', 1, '2026-11-01 05:00:30', '2026-11-01 06:00' ],

	# by half an hour: from 02:00 to 02:30, and from 02:00 back to 01:30
	[ 'Australia/Lord_Howe', 2, '2026-10-03 12:00:00', '2026-10-03 15:30' ],
	[ 'Australia/Lord_Howe', 3, '2026-10-03 12:00:00', '2026-10-03 16:00' ],
	[ 'Australia/Lord_Howe', 1, '2026-04-04 12:00:00', '2026-04-04 14:00' ],
	[ 'Australia/Lord_Howe', 2, '2026-04-04 12:00:00', '2026-04-04 15:30' ],

	# midnight is skipped, or comes twice
	[ 'America/Havana', 0, '2022-03-12 12:00:00', '2022-03-13 05:00' ],
	[ 'America/Havana', 0, '2022-11-06 04:00:30', '2022-11-06 05:00' ],
	[ 'Asia/Beirut', 0, '2022-03-26 12:00:00', '2022-03-26 22:00' ],
	[ 'America/St_Johns', 0, '1993-10-30 12:00:00', '1993-10-31 03:30' ],
	[ 'America/Nuuk', 23, '2024-03-30 12:00:00', '2024-03-31 01:00' ],
	[ 'America/Nuuk', 23, '2024-03-31 01:00:30', '2024-04-01 00:00' ],

	# a day that never was
	[ 'Pacific/Apia', 3, '2011-12-29 12:00:00', '2011-12-29 13:00' ],
	[ 'Pacific/Apia', 3, '2011-12-29 13:00:30', '2011-12-30 13:00' ],
	[ 'Pacific/Apia', 3, '2011-12-30 13:00:30', '2011-12-31 13:00' ],
	[ 'Pacific/Kwajalein', 0, '1993-08-20 13:00:00', '1993-08-21 12:00' ],

	# far from UTC, and by quarters of an hour
	[ 'Pacific/Kiritimati', 0, '2026-04-30 09:00:00', '2026-04-30 10:00' ],
	[ 'Etc/GMT+12', 23, '2027-01-01 10:00:00', '2027-01-01 11:00' ],
	[ 'Asia/Kathmandu', 23, '2026-05-01 12:00:00', '2026-05-01 17:15' ],
	[ 'Pacific/Chatham', 3, '2025-12-31 12:00:00', '2025-12-31 13:15' ],
	[ 'AAA-24', 3, '2026-04-30 02:00:00', '2026-04-30 03:00' ])
{
	my ($zone, $hour, $now, $next) = @$case;

	set_schedule_clock($node, $now, 'audio_cleanup.timezone' => $zone, 'audio_cleanup.cleanup_schedule_hour' => $hour);
	ok($node->poll_query_until('postgres', "SELECT next_run = '$next:00+00' AND timezone = '$zone'"
			  . q{ AND reason = to_char(current_setting('audio_cleanup.cleanup_schedule_hour')::int, '"every day at "FM00":00"')}
			  . ' FROM cleanup_next_run()'), "$zone: on $now, $hour o'clock comes at $next")
	  or diag($node->safe_psql('postgres', 'SELECT * FROM cleanup_next_run()'));
}

# ---- each date that there was has one run, of its own date ----

foreach my $case (
	[ 'Pacific/Apia', 3, '2011-12-28 13:01:00', '2011-12-29 13:00:00 2011-12-29 14:00:00 2011-12-30 13:00:00 2011-12-30 14:00:00'
		  . ' 2011-12-31 13:00:00', '2011-12-29 2011-12-31 2012-01-01' ],
	[ 'Europe/Berlin', 2, '2026-10-24 00:01:00', '2026-10-25 00:30:00 2026-10-25 01:00:00 2026-10-25 01:30:00 2026-10-26 01:00:00',
		'2026-10-25 2026-10-26' ],
	[ 'America/Nuuk', 23, '2024-03-30 01:01:00', '2024-03-31 01:00:00 2024-03-31 02:00:00 2024-04-01 00:00:00',
		'2024-03-30 2024-03-31' ])
{
	my ($zone, $hour, $begin, $moments, $dates) = @$case;

	set_schedule_clock($node, $begin, 'audio_cleanup.timezone' => $zone, 'audio_cleanup.cleanup_schedule_hour' => $hour);
	ok($node->poll_query_until('postgres', "SELECT timezone = '$zone' FROM cleanup_schedule"), "$zone is in force");
	ok($node->poll_query_until('postgres',
			q{SELECT query ~ '^sleeping' FROM pg_stat_activity WHERE backend_type = 'audio_cleanup launcher'}),
		"$zone: nothing is under way");
	$node->safe_psql('postgres', 'TRUNCATE cleanup_runs');
	foreach my $moment ($moments =~ /(\S+ \S+)/g)
	{
		set_schedule_clock($node, $moment);
		ok($node->poll_query_until('postgres', q{SELECT query = 'sleeping until ' || next_run
			FROM pg_stat_activity, cleanup_next_run() WHERE backend_type = 'audio_cleanup launcher'}),
			"$zone: the launcher has looked at $moment");
	}
	is_deeply(runs($node), [ map { "schedule $_ done" } split / /, $dates ], "$zone: a run for each date");
}

done_testing();
