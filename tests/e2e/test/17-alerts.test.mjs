// The alert rules, judged by Prometheus's own tool: they are rules, they fire when they should, and not when nothing has happened. The
// dashboard's queries are read by it too.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const GRAFANA = fileURLToPath(new URL('../../../docker/grafana', import.meta.url));
const PROMTOOL = fileURLToPath(new URL('../.promtool/usr/bin/promtool', import.meta.url));
const promtool = (...words) => execFileSync(PROMTOOL, words, { cwd: GRAFANA, encoding: 'utf8', timeout: 60_000 });

test('promtool accepts the alert rules', (t) => {
  const said = promtool('check', 'rules', 'alerts.yaml');
  t.diagnostic(said.match(/\d+ rules found/)?.[0] ?? said);
});

test('the alerts fire when they should, and not when nothing has happened', () => {
  assert.match(promtool('test', 'rules', 'alerts.test.yaml'), /SUCCESS/);
});

test("promtool reads every query of the dashboard", (t) => {
  const { panels } = JSON.parse(readFileSync(path.join(GRAFANA, 'bearerd-dashboard.json'), 'utf8'));
  const queries = panels.flatMap((panel) => panel.targets ?? []).map((target) => target.expr);
  const rules = queries.map((query, at) => ({ record: `q${at}`, expr: query.replaceAll('$__rate_interval', '5m') }));
  const directory = mkdtempSync(path.join(tmpdir(), 'bearerd-dashboard-'));
  try {
    const file = path.join(directory, 'rules.yaml');
    // JSON is YAML.
    writeFileSync(file, JSON.stringify({ groups: [{ name: 'dashboard', rules }] }));
    promtool('check', 'rules', file);
  } finally {
    rmSync(directory, { recursive: true });
  }
  t.diagnostic(`${queries.length} queries`);
});
