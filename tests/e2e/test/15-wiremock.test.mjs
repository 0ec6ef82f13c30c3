// Faults on the wire, made by WireMock: the client gets a named error, or an answer that is plainly broken off; a read is repeated where that is
// safe, a write never; and the proxy lives on.

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { livingToken, run, world } from '../harness.mjs';
import { startWiremock } from '../wiremock.mjs';

const JSON_ANSWER = { status: 200, headers: { 'Content-Type': 'application/json' } };
const WELL = { ...JSON_ANSWER, jsonBody: { well: true } };
// curl: a transfer that ended early, one that did before its first byte, a connection that was reset, a stream that was.
const BROKEN_OFF = [18, 52, 56, 92];

const endings = [];
let wiremock;
let w;

before(async () => {
  const lasting = { after: (end) => endings.unshift(end) };
  wiremock = await startWiremock(lasting);
  w = await world(lasting, {
    accounts: ['alice', 'bob'],
    api: wiremock.url,
    // One worker has one pool of connections.
    env: { BEARERD_SERVER__WORKERS: '1', BEARERD_UPSTREAMS__GRAPH__TIMEOUT: '2s' },
  });
  await w.importGrants(['alice', 'bob'], livingToken);
  await wiremock.answers('/v1.0/well', WELL);
  await w.serve();
});
after(async () => {
  for (const end of endings) await end();
});

for (const fault of ['CONNECTION_RESET_BY_PEER', 'EMPTY_RESPONSE', 'RANDOM_DATA_THEN_CLOSE']) {
  test(`${fault}: a named error; a read on a kept connection is repeated once, a write never`, async (t) => {
    const target = `/v1.0/${fault}`;
    await wiremock.answers(target, { fault });
    const counts = {};
    for (const method of ['GET', 'POST']) {
      await well();
      const before = (await wiremock.requests(target)).length;
      const answer = await curl(['-X', method, ...(method === 'POST' ? ['-d', '{}'] : [])], target);
      assert.equal(answer.status, 502, answer.text);
      assert.match(answer.head, /^bearerd-error: upstream_unreachable\r?$/im);
      assert.match(answer.text, /"code":"bearerd.upstream_unreachable"/);
      assert.equal(/^bearerd-maybe-executed: 1\r?$/im.test(answer.head), method === 'POST', answer.head);
      counts[method] = (await wiremock.requests(target)).length - before;
    }
    assert.deepEqual(counts, { GET: 2, POST: 1 });
    await well();
    t.diagnostic(`${fault}: ${counts.GET} reads and ${counts.POST} write came`);
  });
}

test('a connection that dies once: the read is answered, nobody notices', async () => {
  await well();
  await wiremock.answers('/v1.0/once', { fault: 'CONNECTION_RESET_BY_PEER' }, WELL);
  const answer = await curl([], '/v1.0/once');
  assert.equal(answer.status, 200, answer.text);
  assert.equal((await wiremock.requests('/v1.0/once')).length, 2);
});

test('a malformed chunk: the answer does not look whole', async (t) => {
  await wiremock.answers('/v1.0/malformed', { ...WELL, fault: 'MALFORMED_RESPONSE_CHUNK' });
  for (const version of ['--http1.0', '--http1.1', '--http2-prior-knowledge']) {
    const answer = await curl([version], '/v1.0/malformed');
    const named = answer.status === 502 && /^bearerd-error: upstream_unreachable\r?$/im.test(answer.head);
    assert.ok(named || BROKEN_OFF.includes(answer.code), `${version}: ${JSON.stringify(answer)}`);
    t.diagnostic(`${version}: status ${answer.status}, curl ends with ${answer.code}`);
  }
  await well();
});

test('a body that dribbles in, cut anywhere: it arrives whole, its links name the proxy', async () => {
  const page = { '@odata.nextLink': `${wiremock.url}/v1.0/dribble?$skip=1`, value: Array.from({ length: 40 }, (_, id) => ({ id })) };
  await wiremock.answers('/v1.0/dribble', { ...JSON_ANSWER, jsonBody: page, chunkedDribbleDelay: { numberOfChunks: 15, totalDuration: 600 } });
  const answer = await curl([], '/v1.0/dribble');
  assert.equal(answer.status, 200);
  assert.deepEqual(JSON.parse(answer.text), { ...page, '@odata.nextLink': `${w.url}/v1.0/dribble?$skip=1` });
});

test('a slow answer is waited for, one that is too slow is a named error', async () => {
  await wiremock.answers('/v1.0/slow', { ...WELL, fixedDelayMilliseconds: 500 });
  assert.equal((await curl([], '/v1.0/slow')).status, 200);
  await wiremock.answers('/v1.0/too-slow', { ...WELL, fixedDelayMilliseconds: 20_000 });
  const read = await curl([], '/v1.0/too-slow');
  assert.equal(read.status, 504, read.text);
  assert.match(read.head, /^bearerd-error: upstream_timeout\r?$/im);
  const write = await curl(['-d', '{}'], '/v1.0/too-slow');
  assert.equal(write.status, 504, write.text);
  assert.match(write.head, /^bearerd-maybe-executed: 1\r?$/im);
  assert.equal((await wiremock.requests('/v1.0/too-slow')).length, 2);
  await well();
});

test('429 with Retry-After, then 200: a read is repeated, of a write the client is told', async () => {
  const throttled = { status: 429, headers: { 'Retry-After': '1', 'Content-Type': 'application/json' }, jsonBody: { error: { code: 'TooManyRequests' } } };
  await wiremock.answers('/v1.0/throttled', throttled, WELL);
  assert.equal((await curl([], '/v1.0/throttled')).status, 200);
  const [first, second, ...more] = await wiremock.requests('/v1.0/throttled');
  assert.deepEqual(more, []);
  assert.ok(second.loggedDate - first.loggedDate >= 1000, 'as it was told');
  await wiremock.answers('/v1.0/throttled-write', throttled, WELL);
  const write = await curl(['-d', '{}'], '/v1.0/throttled-write');
  assert.equal(write.status, 429);
  assert.match(write.head, /^retry-after: 1\r?$/im);
  assert.equal((await wiremock.requests('/v1.0/throttled-write')).length, 1);
});

test('401, then 200: a new token, and the write is sent again with its body', async () => {
  const refused = { status: 401, headers: { 'WWW-Authenticate': 'Bearer error="invalid_token"' } };
  await wiremock.answers('/v1.0/refused', refused, WELL);
  const body = path.join(w.directory, 'body.json');
  await writeFile(body, JSON.stringify({ filling: 'x'.repeat(100_000) }));
  const answer = await curl(['-X', 'POST', '--data-binary', `@${body}`], '/v1.0/refused', 'bob');
  assert.equal(answer.status, 200, answer.text);
  const [first, second, ...more] = await wiremock.requests('/v1.0/refused');
  assert.deepEqual(more, []);
  assert.equal(second.body, first.body);
  assert.notEqual(second.headers.Authorization, first.headers.Authorization);
});

// All is well, and a connection to the upstream is kept.
async function well() {
  const answer = await curl([], '/v1.0/well');
  assert.equal(answer.status, 200, answer.text);
}

async function curl(flags, target, alias = 'alice') {
  const head = path.join(w.directory, 'head');
  const done = await run('curl', [
    '-sS', '--noproxy', '*', '--max-time', '30', '-D', head, '-w', '\n%{http_code}', '-u', `${alias}:${w.clientKey}`, ...flags, `${w.url}${target}`,
  ]);
  const [, text, status] = /^([^]*)\n(\d+)$/.exec(done.stdout);
  return { code: done.code, status: Number(status), head: await readFile(head, 'utf8'), text };
}
