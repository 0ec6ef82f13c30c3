-- Who did what: records are added at the end, and leave at the beginning when their time is over. `link` is a keyed digest of the record
-- and of the link before it. A store of format 2 is given this table when it is opened.

CREATE TABLE audit (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  event TEXT NOT NULL,
  who TEXT NOT NULL,
  account TEXT,
  account_id TEXT,
  outcome TEXT NOT NULL,
  why TEXT,
  request_id TEXT,
  peer TEXT,
  count INTEGER NOT NULL,
  intent INTEGER, -- the record that was written before the effect
  link BLOB NOT NULL
) STRICT;
CREATE INDEX audit_by_time ON audit (at);
CREATE INDEX audit_by_account ON audit (account_id, sequence) WHERE account_id IS NOT NULL;
