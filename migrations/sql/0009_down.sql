-- Generations stay as they were trained; who asks for a refresh meanwhile gets the reason.

DROP FUNCTION recstore.request_refresh(text);
UPDATE recstore_private.requests
SET state = 'failed', finished_at = clock_timestamp(), outcome = 'The version before 0009 refreshes nothing.'
WHERE job = 'refresh' AND state IN ('waiting', 'sent', 'running');
ALTER TABLE recstore_private.recommenders DROP COLUMN refresh_at;
