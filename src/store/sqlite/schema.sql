-- The embedded store, format 3, with keys.sql, audit.sql and tallies.sql. Times are milliseconds since the Unix epoch; blobs named
-- rt, prev_rt, token, payload and sealed are sealed values, the others are keyed digests.

-- A sealed value that everybody knows: it opens with the right keys only.
CREATE TABLE key_check (id INTEGER PRIMARY KEY CHECK (id = 1), sealed BLOB NOT NULL) STRICT;

-- One row per identity, for ever: a removed account leaves its counters. Long columns stand last.
CREATE TABLE grants (
  id INTEGER PRIMARY KEY,
  provider TEXT NOT NULL,
  tenant TEXT NOT NULL,
  subject TEXT NOT NULL,
  alias TEXT UNIQUE, -- NULL: removed
  epoch INTEGER NOT NULL DEFAULT 0,
  version INTEGER NOT NULL DEFAULT 0,
  fence INTEGER NOT NULL DEFAULT 0,
  status TEXT NOT NULL DEFAULT 'revoked' CHECK (status IN ('active', 'uncertain', 'reauth', 'revoked')),
  reason_dead INTEGER,
  reason_text TEXT,
  reason_claims TEXT,
  reason_since INTEGER,
  rt_fp BLOB,
  parent_fp BLOB,
  parent_fence INTEGER NOT NULL DEFAULT 0,
  committed_fence INTEGER NOT NULL DEFAULT 0,
  intent_fence INTEGER,
  intent_fp BLOB,
  intent_deadline INTEGER,
  intent_holder TEXT,
  intent_last_resort INTEGER,
  last_resort_epoch INTEGER NOT NULL DEFAULT 0,
  fail_count INTEGER NOT NULL DEFAULT 0,
  next_try INTEGER,
  created_at INTEGER NOT NULL,
  signed_in_at INTEGER NOT NULL,
  refreshed_at INTEGER,
  prev_until INTEGER,
  username TEXT,
  scopes TEXT NOT NULL DEFAULT '',
  parked TEXT, -- JSON; NULL: nothing waits for a sign-in
  rt BLOB,
  prev_rt BLOB,
  -- As it is counted: an active grant of which something waits for a sign-in is among those that wait.
  state TEXT AS (CASE WHEN status = 'active' AND parked IS NOT NULL THEN 'reauth' ELSE status END) VIRTUAL,
  UNIQUE (provider, tenant, subject)
) STRICT;
CREATE INDEX grants_by_use ON grants (provider, max(signed_in_at, coalesce(refreshed_at, signed_in_at)))
  WHERE alias IS NOT NULL AND status = 'active' AND rt_fp IS NOT NULL;
CREATE INDEX grants_to_forget_previous ON grants (prev_until) WHERE prev_until IS NOT NULL;
CREATE INDEX grants_to_forget_dead ON grants (reason_since) WHERE reason_dead = 1 AND rt IS NOT NULL;

CREATE TABLE access (
  grant_id INTEGER NOT NULL,
  scope_set TEXT NOT NULL,
  expires INTEGER NOT NULL,
  obtained INTEGER NOT NULL,
  refresh_after INTEGER,
  claims TEXT,
  token BLOB NOT NULL,
  PRIMARY KEY (grant_id, scope_set)
) STRICT;

-- The newest change of each grant under each alias that it ever had.
CREATE TABLE changes (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  grant_id INTEGER NOT NULL,
  alias TEXT NOT NULL,
  UNIQUE (grant_id, alias)
) STRICT;

CREATE TABLE tickets (
  digest BLOB PRIMARY KEY,
  expires INTEGER NOT NULL,
  payload BLOB NOT NULL
) STRICT;
CREATE INDEX tickets_to_forget ON tickets (expires);
