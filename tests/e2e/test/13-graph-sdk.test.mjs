// Microsoft's Graph client for JavaScript in an application of its own, over TLS and over plain HTTP: every link that it gets leads it through
// the proxy again, but for those to a second origin, where it goes by itself and no token may come.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { MESSAGES, startGraph, textOf } from '../graph.mjs';
import { livingToken, run, world } from '../harness.mjs';
import { certificates } from '../tls.mjs';

const APPLICATION = fileURLToPath(new URL('../clients/sdk.mjs', import.meta.url));
const FRAGMENTS = 3;

for (const scheme of ['https', 'http']) {
  test(`Microsoft's Graph client over ${scheme}: pages, batch, upload session, download, its own retry`, async (t) => {
    const directory = await mkdtemp(path.join(tmpdir(), 'bearerd-sdk-'));
    t.after(() => rm(directory, { recursive: true, force: true }));
    const identity = await certificates(directory);
    const file = (name) => path.join(directory, name);
    const bytes = randomBytes(320 * 1024 * (FRAGMENTS - 1) + 1234);
    await writeFile(file('upload.bin'), bytes);
    const w = await world(t, {
      accounts: ['alice'],
      api: (verify) => startGraph(verify, { identity }),
      tls: scheme === 'https' ? { cert: file('server.pem'), key: file('server.key') } : undefined,
    });
    const graph = w.upstream;
    await w.importGrants(['alice'], livingToken);
    await w.serve();
    graph.fail('POST', '/v1.0/me/sendMail', 429, { 'retry-after': '1' });
    graph.fail('GET', '/v1.0/me/folders/inbox', 503, { 'retry-after': '1' });
    // In the batch: the first member's token is refused, the others depend on it.
    graph.fail('GET', '/v1.0/me', 401);

    const started = Date.now();
    const application = await run(process.execPath, [APPLICATION], {
      cwd: directory,
      env: {
        PATH: process.env.PATH, NODE_EXTRA_CA_CERTS: file('ca.pem'), BASE: w.url, KEY: w.clientKey, ACCOUNT: 'alice', FILE: file('upload.bin'),
      },
    });
    assert.equal(application.code, 0, application.stderr);
    const got = JSON.parse(application.stdout);

    // Pages: every message once, the links name the proxy, and what looks like a link in a message is as Graph wrote it.
    const { messages, link, context } = got.messages;
    assert.deepEqual(messages.map(({ subject }) => subject), Array.from({ length: MESSAGES }, (_, number) => `Message ${number}`));
    for (const named of [link, context, got.batch.link]) assert.ok(named.startsWith(`${w.url}/v1.0/`), named);
    assert.ok(messages.every(({ text }) => text === textOf(graph.url)), messages[0].text);

    assert.deepEqual(got.batch.statuses, [200, 200, 404]);
    assert.equal(got.batch.next, 'Message 2');
    const of = (end) => graph.requests.filter(({ target }) => target.endsWith(end));
    assert.equal(of('/$batch').length, 2);

    assert.equal(got.uploaded.size, bytes.length);
    assert.ok(got.uploaded.url.startsWith(graph.secondOrigin), got.uploaded.url);
    const digest = createHash('sha256').update(bytes).digest('hex');
    assert.equal(got.downloaded, digest);
    const { secondRequests } = graph;
    assert.deepEqual(secondRequests.map(({ method }) => method), [...Array(FRAGMENTS).fill('PUT'), 'GET']);
    assert.ok(secondRequests.every(({ headers }) => headers.authorization === undefined), JSON.stringify(secondRequests));

    // A mail that was throttled: the library's second attempt, and only that. A read: the proxy's own.
    assert.deepEqual(of('/sendMail').map(({ status, headers }) => [status, headers['retry-attempt']]), [[429, undefined], [202, '1']]);
    assert.equal(graph.sent.length, 1);
    assert.deepEqual(of('/folders/inbox').map(({ status, headers }) => [status, headers['retry-attempt']]), [[503, undefined], [200, undefined]]);
    assert.equal(got.read, 'inbox');
    assert.equal(got.missing, 404);
    assert.ok(graph.requests.every(({ account, headers }) => account === 'alice' && headers['x-api-key'] === undefined));
    t.diagnostic(`over ${scheme}: ${messages.length} messages, ${got.batch.statuses.length} parts of a batch, ${bytes.length} bytes there and back, `
      + `${graph.requests.length} requests at Graph, ${secondRequests.length} beside it, ${((Date.now() - started) / 1000).toFixed(1)} s`);
  });
}
