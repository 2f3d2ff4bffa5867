-- Definitions have new settings, each with a default; those of earlier versions stay as they are stored.

SELECT;
