// Clients of every age that nobody here wrote, each with the same story: all pages by the links that it got, a batch, an upload, a download
// from another origin, a throttled read, a throttled mail.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { CLIENTS, GRAPH_BY_PROXY, startClient } from '../clients.mjs';
import { MESSAGES, startGraph, textOf } from '../graph.mjs';
import { run, world } from '../harness.mjs';

const JSON_BODY = 'application/json';
// One account each: nobody waits for what somebody else did.
const users = CLIENTS.map((_, index) => `user${index + 1}`);
const endings = [];
let w;
let graph;
let directory;

before(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'bearerd-old-'));
  const lasting = { after: (end) => endings.unshift(end) };
  // Some clients tell hosts apart by their names alone.
  const api = (verify) => startGraph(verify, { secondHost: 'localhost' });
  w = await world(lasting, { accounts: ['user*'], api, hosts: [new URL(GRAPH_BY_PROXY).host] });
  graph = w.upstream;
  await w.importGrants(users);
  await w.serve();
});
after(async () => {
  for (const end of endings) await end();
  await rm(directory, { recursive: true, force: true });
});

for (const [index, client] of CLIENTS.entries()) {
  test(`${client.name}: pages, batch, upload, download, throttled`, async (t) => {
    const [user, started] = [users[index], Date.now()];
    const { base, ask } = startClient(t, client, { url: w.url, user, key: w.clientKey, directory });
    const at = (rest) => `${base}/v1.0${rest}`;
    const seen = (end) => graph.requests.filter(({ account, target }) => account === user && target.endsWith(end));

    // Pages, by nothing but the links.
    const messages = [];
    let pages = 0;
    for (let link = at('/me/messages?$top=10'); link; pages += 1) {
      const page = await json(200, ask('GET', link));
      messages.push(...page.value);
      link = page['@odata.nextLink'];
      for (const named of [page['@odata.context'], ...(link ? [link] : [])]) assert.ok(named.startsWith(`${base}/v1.0/`), named);
    }
    assert.deepEqual(messages.map(({ subject }) => subject), Array.from({ length: MESSAGES }, (_, number) => `Message ${number}`));
    assert.ok(messages.every(({ body }) => body.content === textOf(graph.url)), 'the text of a message is as it was');

    // A batch: a member that names us, one with a link in its answer, one that fails.
    const requests = [
      { id: 'me', method: 'GET', url: at('/me') },
      { id: 'page', method: 'GET', url: '/me/messages?$top=2' },
      { id: 'none', method: 'GET', url: '/me/nothing' },
    ];
    const { responses } = await json(200, ask('POST', at('/$batch'), { media: JSON_BODY, file: await kept('batch.json', { requests }) }));
    const member = (id) => responses.find((response) => response.id === id);
    assert.deepEqual(requests.map(({ id }) => member(id).status), [200, 200, 404]);
    assert.equal(member('me').body.displayName, user);
    const next = await json(200, ask('GET', member('page').body['@odata.nextLink']));
    assert.equal(next.value[0].subject, 'Message 2');

    // Up, and down again from the other origin.
    const bytes = randomBytes(300_000);
    const content = at(`/me/drive/root:/${user}.bin:/content`);
    const up = await json(201, ask('PUT', content, { media: 'application/octet-stream', file: await kept('upload.bin', bytes) }));
    assert.equal(up.size, bytes.length);
    assert.ok(graph.files.get(`${user}.bin`).equals(bytes), 'Graph has the file');
    const down = await ask('GET', content);
    assert.equal(down.status, 200, down.body.toString());
    assert.ok(down.body.equals(bytes), 'the file comes back byte for byte');

    // Throttled once: the proxy repeats what may be repeated, a mail is for the client.
    graph.fail('GET', `/v1.0/me/folders/${user}`, 429, { 'retry-after': '1' });
    assert.equal((await json(200, ask('GET', at(`/me/folders/${user}`)))).id, user);
    assert.deepEqual(seen(`/me/folders/${user}`).map(({ status }) => status), [429, 200]);
    graph.fail('POST', '/v1.0/me/sendMail', 429, { 'retry-after': '1' });
    const mail = await ask('POST', at('/me/sendMail'), { media: JSON_BODY, file: await kept('mail.json', { message: { subject: user } }) });
    assert.equal(mail.status, client.retries ? 202 : 429);
    assert.deepEqual(seen('/me/sendMail').map(({ status }) => status), client.retries ? [429, 202] : [429]);
    t.diagnostic(`${client.name}: ${messages.length} messages in ${pages} pages, ${responses.length} parts of a batch, `
      + `${bytes.length} bytes there and back, ${seen('').length} requests, ${((Date.now() - started) / 1000).toFixed(1)} s`);
  });
}

test('nghttp: an offer to upgrade to HTTP/2 is passed over, prior knowledge is not', async () => {
  const ask = (...flags) => run('nghttp', [...flags, '-v', '-t', '20', '-H', `authorization: ${w.basic('user1')}`, `${w.url}/v1.0/me`]);
  const known = await ask();
  assert.match(known.stdout, /"displayName":"user1"/, known.stdout);
  const offered = await ask('-u');
  assert.match(offered.stdout, /HTTP\/1\.1 200/, `${offered.stdout}\n${offered.stderr}`);
});

test('what went to the second origin carried no token', () => {
  const went = graph.secondRequests;
  assert.equal(went.length, CLIENTS.length);
  assert.ok(went.every(({ headers }) => headers.authorization === undefined), JSON.stringify(went));
});

async function kept(name, what) {
  const file = path.join(directory, name);
  await writeFile(file, Buffer.isBuffer(what) ? what : JSON.stringify(what));
  return file;
}

async function json(status, asked) {
  const answer = await asked;
  assert.equal(answer.status, status, answer.body.toString());
  return JSON.parse(answer.body.toString());
}
