-- runs once, when the data directory is made; an existing one: run it by psql
CREATE EXTENSION IF NOT EXISTS audio_cleanup;
CREATE EXTENSION IF NOT EXISTS pg_cron;
