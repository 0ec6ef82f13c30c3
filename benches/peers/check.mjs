// Whether a contender does the job, byte for byte: a wrong proxy is fast. What is found wrong ends the run.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { Connection } from './client.mjs';
import { KEY, TARGETS, basic, token, user } from './world.mjs';

// Answers how many requests that took.
export async function check(world, contender) {
  const connection = new Connection(contender.port);
  let asked = 0;
  const ask = async (number, target, options = {}) => {
    asked += 1;
    const headers = { ...contender.headers(number), ...options.headers };
    const answer = await connection.ask(target, { ...options, headers });
    assert.ok(answer.status < 300, `${contender.name}: ${answer.status} for ${target}: ${answer.body.subarray(0, 300)}`);
    return answer;
  };
  try {
    for (const number of [0, 7, 999]) headIsRight(contender, number, await ask(number, TARGETS.echo));
    for (const kind of ['message', 'page', 'file']) bodyIsRight(world, contender, kind, await ask(7, TARGETS[kind]));
    const body = createHash('sha512').update('upload').digest();
    const upload = Buffer.alloc(1 << 20, body);
    const answer = await ask(7, TARGETS.echo, { method: 'POST', headers: { 'Content-Type': 'application/octet-stream' }, body: upload });
    headIsRight(contender, 7, answer);
    assert.ok(answer.body.subarray(answer.body.indexOf('\r\n\r\n') + 4).equals(upload), `${contender.name}: the upload changed on its way`);
    const stored = await ask(7, TARGETS.file, { method: 'PUT', headers: { 'Content-Type': 'application/octet-stream' }, body: upload });
    assert.equal(stored.status, 201);
    if (contender.name === 'bearerd') asked += await isOnGuard(contender, connection, asked);
  } finally {
    connection.close();
  }
  return asked;
}

// What the upstream saw: this user's bearer once, our Host once, and nothing that was meant for the proxy.
function headIsRight(contender, number, { body }) {
  const head = body.subarray(0, body.indexOf('\r\n\r\n')).toString('latin1');
  const values = (name) => head.split('\r\n').slice(1)
    .map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()])
    .filter(([each]) => each === name).map(([, value]) => value);
  assert.deepEqual(values('authorization'), [`Bearer ${token(number)}`], `${contender.name}: Authorization of ${user(number)}`);
  assert.deepEqual(values('host'), [contender.upstream.authority], `${contender.name}: Host`);
  assert.deepEqual(values('x-user'), [], `${contender.name}: x-user`);
  assert.deepEqual(values('prefer'), ['odata.maxpagesize=50'], `${contender.name}: a header of the client`);
  assert.ok(!head.includes(KEY) && !head.includes(basic(number)), `${contender.name}: the client's credential reached the upstream`);
}

// The upstream's bytes; bearerd's with its own origin in the links.
function bodyIsRight(world, contender, kind, { headers, body }) {
  const sent = world.bodies[contender.up][kind];
  const rewritten = () => Buffer.from(sent.toString().replaceAll(contender.upstream.origin, `http://127.0.0.1:${contender.port}`));
  const expected = contender.name === 'bearerd' && kind !== 'file' ? rewritten() : sent;
  assert.ok(body.equals(expected), `${contender.name}: the ${kind} changed on its way (${body.length} of ${expected.length} bytes)`);
  for (const name of ['content-type', 'request-id', 'x-ms-ags-diagnostic', 'odata-version']) {
    assert.ok(headers[name], `${contender.name}: ${name} is missing in the answer`);
  }
}

// The credential is checked, a rule decides, each request is counted and in the access log. Answers how many more were asked.
async function isOnGuard(contender, connection, before) {
  const wrong = `Basic ${Buffer.from(`${user(7)}:bk_wrong`).toString('base64')}`;
  assert.equal((await connection.ask(TARGETS.message, { headers: { Authorization: wrong } })).status, 401);
  assert.equal((await connection.ask('/v1.0/me/mailFolders/inbox', { headers: contender.headers(7) })).status, 403);
  const admin = new Connection(contender.adminPort);
  const { body } = await admin.ask('/metrics');
  admin.close();
  const counted = [...body.toString().matchAll(/^bearerd_requests_total\{.*\} (\d+)$/gm)].reduce((sum, [, count]) => sum + Number(count), 0);
  assert.equal(counted, before + 2, 'metrics count each request');
  const lines = contender.readLog().split('\n').filter((line) => line.includes('bearerd::access')).length;
  assert.equal(lines, before + 2, 'the access log has a line for each request');
  return 2;
}
