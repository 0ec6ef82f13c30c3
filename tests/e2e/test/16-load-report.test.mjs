// What `make load` makes of rows and counters: percentiles, verdicts, and who was the limit. No generator, no bearerd, no plot.

import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import { IdleConnections } from '../../../benches/load/idle.mjs';
import { judge, limit } from '../../../benches/load/judge.mjs';
import { counts, parse, quantile } from '../../../benches/load/openmetrics.mjs';
import { options } from '../../../benches/load/options.mjs';
import { others } from '../../../benches/load/probe.mjs';
import { line } from '../../../benches/load/progress.mjs';
import { SCENARIOS } from '../../../benches/load/scenarios.mjs';
import { distribution, parseRows, percentile, perSecond, summary, whileSending } from '../../../benches/load/statistics.mjs';

const HEAD = 'request-start,DNS,DNS+dialup,Response-delay,request-duration,bytes,status\n';

test('percentiles are answers that were given', () => {
  const hundred = Array.from({ length: 100 }, (_, index) => 100 - index);
  assert.deepEqual(distribution(hundred), { p50: 50, p90: 90, p99: 99, p999: 100, max: 100 });
  assert.equal(percentile([7], 0.5), 7);
  assert.deepEqual(distribution([]), { p50: null, p90: null, p99: null, p999: null, max: null });
});

test('a request counts from when it was due, not from when the generator came to it', () => {
  // Due at 0.5, sent at 2.0, answered at 2.1.
  const [late] = parseRows(`${HEAD}2.0,0,0,0.1,1.6,42,200\n`, { corrected: true });
  assert.deepEqual([late.due, late.end, late.took, late.bytes, late.status].map((value) => Math.round(value * 1e6) / 1e6), [0.5, 2.1, 1.6, 42, 200]);
  // In a closed loop a large body ends long after its first byte.
  const [large] = parseRows(`${HEAD}1.0,0,0,0.1,0.9,42,200\n`, { corrected: false });
  assert.deepEqual([large.due, large.end], [1, 1.9]);
  const seconds = perSecond([late, { ...late, due: 0.7, end: 0.71, took: 0.01, status: 503 }]);
  assert.deepEqual(seconds.map(({ statuses }) => statuses), [{ 503: 1 }, {}, { 200: 1 }]);
  assert.deepEqual([seconds[0].latency.max, seconds[2].latency.max], [1600, null]);
  assert.throws(() => parseRows('start,end\n', { corrected: true }), /not what it was/);
});

test('requests without an answer are missed', () => {
  const rows = [{ due: 0, end: 1, took: 1, bytes: 5, status: 200 }];
  assert.deepEqual([summary(rows, { sent: 3, seconds: 2 }).missing, summary(rows, { sent: 3, seconds: 2 }).perSecond], [2, 0.5]);
  assert.equal(summary(rows, { sent: null }).missing, 0);
});

test('counters of /metrics add up, and their differences have quantiles', () => {
  const text = (requests, fast, all) => `# HELP bearerd_requests Requests answered.
bearerd_requests_total{client="a \\"b\\", c",upstream="graph",method="GET",status="200",origin="upstream"} ${requests}
bearerd_requests_total{client="load",upstream="graph",method="GET",status="503",origin="proxy"} 2
bearerd_upstream_401_total{outcome="healed"} 3
bearerd_request_duration_seconds_bucket{le="0.001"} ${fast}
bearerd_request_duration_seconds_bucket{le="0.5"} ${all}
bearerd_request_duration_seconds_bucket{le="+Inf"} ${all}
# EOF`;
  const [before, after] = [counts(parse(text(10, 8, 10))), counts(parse(text(110, 98, 110)))];
  assert.deepEqual([after.requests, after.ownErrors, after.statuses, after.unauthorized.healed], [112, 2, { 200: 110, 503: 2 }, 3]);
  assert.equal(quantile(before.requestBuckets, after.requestBuckets, 0.9), 0.001);
  assert.equal(quantile(before.requestBuckets, after.requestBuckets, 0.99), 0.5);
  assert.equal(quantile(after.requestBuckets, after.requestBuckets, 0.99), null);
});

const stream = (rows, more = {}) => ({
  name: 'requests', rate: 10, seconds: 10, right: ({ status }) => status === 200, rows, summary: summary(rows, { sent: rows.length, seconds: 10 }), ...more,
});
const answers = (statuses, gap = 0.1) => statuses.map((status, index) => ({ due: index * gap, end: index * gap + 0.01, took: 0.01, bytes: 1, status }));
const USED = { bearerdCores: 0.5, sandboxCores: 0.5, generatorCores: 0.9, machineBusy: 0.95 };
const verdict = (streams, more = {}) => judge({ streams, used: USED, cores: 2, ...more });

test('a verdict names what was not as it should be', () => {
  const fine = Array(100).fill(200);
  assert.equal(verdict([stream(answers(fine))]).mark, 'good');
  const two = verdict([stream(answers([...fine.slice(2), 500, 502]))]);
  assert.deepEqual([two.mark, two.wrong], ['bad', { 500: 1, 502: 1 }]);
  assert.match(two.words[0], /1 × 500/);
  const cut = stream(answers(fine), { right: ({ bytes }) => bytes === 2 });
  assert.deepEqual(verdict([cut]).wrong, { '200 that was not complete': 100 });
  const missing = stream(answers(fine), { summary: { ...summary(answers(fine), { sent: 101, seconds: 10 }) } });
  assert.deepEqual(verdict([missing]).wrong, { 'no answer at all': 1 });
  assert.equal(verdict([stream(answers(fine))], { died: true }).mark, 'bad');
  assert.equal(verdict([stream(answers(fine))], { probed: { wrong: { 'an answer that is another account\'s': 1 } } }).mark, 'bad');
  assert.equal(verdict([stream(answers(fine))], { interrupted: true }).mark, 'warn');
  assert.equal(verdict([stream([])]).mark, 'warn');
  const idle = verdict([stream(answers(fine))], { own: { words: ['0 healed.'], idle: 'Nothing was revoked.' } });
  assert.deepEqual([idle.mark, idle.words[1]], ['warn', 'Nothing was revoked.']);
});

test('refusals that are passed on are tolerated up to their part', () => {
  const passedOn = { passedOn: ({ status }) => status === 429, tolerated: 0.02 };
  const some = (count) => [...Array(100 - count).fill(200), ...Array(count).fill(429)];
  assert.equal(verdict([stream(answers(some(2)), passedOn)]).mark, 'good');
  assert.deepEqual(verdict([stream(answers(some(3)), passedOn)]).wrong, { 429: 3 });
});

test('the limit is named: the generator, the machine, or what they waited for', () => {
  const fine = Array(100).fill(200);
  assert.equal(limit(stream(answers(fine)), USED, 2), null);
  assert.match(limit(stream(answers(fine, 0.2)), USED, 2).text, /^The generator was the limit: it meant to send 10 .* came to 5/);
  const late = answers(fine).map((row) => ({ ...row, end: row.end + 10 }));
  assert.match(limit(stream(late), USED, 2).text, /not reached, 5 were answered: all 2 cores were full/);
  assert.match(limit(stream(late), { ...USED, machineBusy: 0.3 }, 2).text, /waited for something else/);
  assert.match(limit(stream(answers(fine), { rate: undefined }), USED, 2).text, /bearerd 0.50, the sandbox 0.50, the generator 0.90/);
});

test('what was used is what was used while requests were sent', () => {
  const sample = (at, bearerdCores) => ({ at, bearerdCores, sandboxCores: null, generatorCores: 1 - bearerdCores, machineBusy: 1 });
  // A trial, its rows; the stream from 2.5 to 5.5; its rows.
  const samples = [0.5, 0, 0.25, 0.75, 0.75, 0.25, 0].map((cores, index) => sample(index + 1, cores));
  const sent = { from: 2.5, rows: [{ end: 5.5 }, { end: 3 }] };
  assert.deepEqual(whileSending(samples, [sent]), { bearerdCores: 0.75, sandboxCores: null, generatorCores: 0.25, machineBusy: 1 });
  // Too short for a whole sample: better than nothing is all.
  assert.equal(whileSending([sample(1, 0.5)], [{ from: 0, rows: [{ end: 0.7 }] }]).bearerdCores, 0.5);
  assert.equal(whileSending([], [{ from: 0, rows: [] }]).bearerdCores, null);
});

test('a connection that was closed while it was silent is asked for again, and known', async (t) => {
  const server = http.createServer((_, answer) => answer.end('ok')).listen(0, '127.0.0.1');
  t.after(() => server.close());
  await new Promise((resolve) => { server.once('listening', resolve); });
  const connections = new IdleConnections({ url: `http://127.0.0.1:${server.address().port}/`, headers: {} });
  t.after(() => connections.close());
  const never = () => false;
  assert.deepEqual(await connections.open(3, never), { open: 3, failures: {} });
  assert.deepEqual(await connections.askAgain(never), { answered: 3, reused: 3, failures: {} });
  // Whether or not the client knows already.
  server.closeIdleConnections();
  assert.deepEqual(await connections.askAgain(never), { answered: 3, reused: 0, failures: {} });
});

test('what ends silent connections is a fact of a deployment, and a fault where no limit ends them', () => {
  const { look } = SCENARIOS.find(({ name }) => name === 'idle');
  const run = { opened: { open: 10, failures: {} }, again: { answered: 9, reused: 4, failures: { ECONNREFUSED: 1 } }, memoryBefore: null };
  const failed = { 'idle connections whose second request failed (ECONNREFUSED)': 1 };
  const [own, theirs] = [look({ ...run, sandbox: {} }), look({ ...run, sandbox: null })];
  assert.deepEqual(own.wrong, { ...failed, 'idle connections that bearerd had closed': 5 });
  assert.deepEqual(theirs.wrong, failed);
  assert.deepEqual([own, theirs].map(({ facts }) => facts['closed while silent']), [[5, ''], [5, '']]);
  assert.match(theirs.words.join(' '), /4 of them answered again; 5 had been closed meanwhile .*header_timeout/);
});

test("another account's answer is known by its mail in the sandbox, and by a changed id elsewhere", () => {
  const sandbox = others({ sandbox: true });
  assert.deepEqual([{ mail: 'alice@contoso.com' }, { mail: 'bob@contoso.com' }, {}].map((me) => sandbox('alice', me)), [false, true, true]);
  const deployment = others({ sandbox: false });
  const seen = [['alice', 1], ['bob', 2], ['alice', 1], ['alice', 2], ['bob', 2], ['bob', undefined]];
  assert.deepEqual(seen.map(([account, id]) => deployment(account, { id })), [false, false, false, true, false, true]);
});

test('wishes are understood or refused', () => {
  const known = { names: ['fresh', 'storm', 'max', 'large'], forDeployments: ['fresh'], forDeploymentsIfNamed: ['max', 'large'] };
  const wanted = (environment) => options(environment, known);
  assert.deepEqual([wanted({}).scenarios, wanted({}).seconds, wanted({}).rate], [known.names, 20, 500]);
  assert.deepEqual(wanted({ ONLY: 'storm, fresh', SECONDS_EACH: '5' }).scenarios, ['fresh', 'storm']);
  assert.deepEqual([wanted({ URL: 'https://proxy.example' }).scenarios, wanted({ URL: 'https://proxy.example' }).rate], [['fresh'], 20]);
  assert.deepEqual(wanted({ URL: 'https://proxy.example', ONLY: 'max' }).scenarios, ['max']);
  for (const [environment, complaint] of [
    [{ ONLY: 'quick' }, /no scenario "quick"/], [{ SECONDS_EACH: 'long' }, /SECONDS_EACH must be a number/], [{ SECONDS_EACH: '0' }, /from 1 to/],
    [{ URL: 'https://proxy.example/x' }, /must be an origin/], [{ URL: 'https://proxy.example', ONLY: 'storm' }, /needs a sandbox/],
    [{ URL: 'https://proxy.example', ONLY: 'large' }, /LARGE_PATH/], [{ REQUEST_PATH: 'v1.0/me' }, /must begin with/],
  ]) assert.throws(() => wanted(environment), complaint);
});

test('the line of progress leaves out what is not known', () => {
  const nothing = { at: 3.2, requests: null, errors: null, p99: null, refreshes: null, bearerdCores: null, rss: null, generatorCores: 0.256 };
  assert.equal(line(nothing, 30), '3/30 s  generator 0.26 cores');
  assert.match(line({ ...nothing, requests: 499.6, p99: 0.0025, rss: 3e7 }, 30), /^3\/30 s {2}500 req\/s {2}p99 ≤ 2.5 ms {2}30 MB/);
});
