// Programs that nobody here wrote, against the sandbox: what a user tries first, and what applications of every age do.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { before, after, test } from 'node:test';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import GraphClient from '@microsoft/microsoft-graph-client';
import { BINARY, eventually, freePorts, launch, run } from '../harness.mjs';
import { recordSandbox } from '../recorder.mjs';

let sandbox;
let base;
let upstream;
let key;
let curlLine;
let directory;

before(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'bearerd-clients-'));
  const [port] = await freePorts(4);
  base = `http://127.0.0.1:${port}`;
  upstream = `http://127.0.0.1:${port + 3}`;
  sandbox = launch(BINARY, ['sandbox', '--port-base', `${port}`], { cwd: directory });
  await sandbox.ready(`http://127.0.0.1:${port + 1}/readyz`);
  curlLine = await eventually('the sandbox prints a curl line', 10, () => /^\W*(curl .*)$/m.exec(sandbox.output().stdout)?.[1]);
  [, key] = /alice:([\w.~-]+)/.exec(curlLine) ?? assert.fail(`no key in ${curlLine}`);
});
after(async () => {
  await recordSandbox(upstream);
  await sandbox?.stop();
  await rm(directory, { recursive: true, force: true });
});

const curl = (...args) => run('curl', ['-sS', '--noproxy', '', '--max-time', '20', '-u', `alice:${key}`, ...args]);
const ALICE = /alice/i;

// The answer is Alice's: her address or name stands in it.
function isAlice(output, what) {
  assert.equal(output.code, 0, `${what}: ${output.stderr}`);
  assert.match(output.stdout, ALICE, what);
  assert.doesNotMatch(output.stdout, /"error"/, what);
}

test('the curl line that the sandbox prints answers with Alice\'s mailbox', async (t) => {
  const said = await run('sh', ['-c', curlLine]);
  assert.equal(said.code, 0, said.stderr);
  const body = JSON.parse(said.stdout.slice(said.stdout.indexOf('{')));
  assert.ok(Array.isArray(body.value) && body.value.length > 0, said.stdout);
  assert.ok(body.value[0].subject, 'a message has a subject');
  t.diagnostic(`${body.value.length} messages for: ${curlLine.replace(key, 'KEY')}`);
});

test('the printed lines for the application itself and on behalf of Bob answer too', async (t) => {
  const lines = sandbox.output().stdout.split('\n').map((line) => line.trim());
  const asItself = lines.find((line) => line.startsWith('curl -s -u app:')) ?? assert.fail(lines.join('\n'));
  const at = lines.findIndex((line) => line.startsWith('TOKEN='));
  const everybody = await run('sh', ['-c', asItself]);
  assert.ok(JSON.parse(everybody.stdout).value.length > 1, everybody.stdout);
  const bob = await run('sh', ['-c', `${lines[at]}\n${lines[at + 1]}`]);
  assert.match(JSON.parse(bob.stdout).displayName, /^Bob/, bob.stdout);
  t.diagnostic('1 list of people without a user, 1 user by the token of a middle tier');
});

test('curl: HTTP/1.1, HTTP/1.0, HTTP/2 with prior knowledge, and as a forward proxy', async (t) => {
  const me = `${base}/v1.0/me`;
  isAlice(await curl(me), 'HTTP/1.1');
  isAlice(await curl('--http1.0', me), 'HTTP/1.0');
  isAlice(await curl('--http2-prior-knowledge', me), 'HTTP/2');
  isAlice(await curl('-x', base, `${upstream}/v1.0/me`), 'absolute-form naming the upstream');
  isAlice(await curl('-x', base, me), 'absolute-form naming the proxy');
  isAlice(await curl('-H', 'Connection: Upgrade, HTTP2-Settings', '-H', 'Upgrade: h2c', '-H', 'HTTP2-Settings: AAMAAABkAAQ', me), 'an h2c offer');
  t.diagnostic('6 ways to ask');
});

test('curl: a chunked upload with Expect: 100-continue arrives whole', async (t) => {
  const file = path.join(directory, 'upload.bin');
  const bytes = randomBytes(300_000);
  await writeFile(file, bytes);
  const target = `${base}/v1.0/me/drive/root:/e2e-upload.bin:/content`;
  const sent = await run('sh', ['-c', `cat '${file}' | curl -sS -i -u 'alice:${key}' -H 'Expect: 100-continue' -T - '${target}'`]);
  assert.equal(sent.code, 0, sent.stderr);
  assert.match(sent.stdout, /^HTTP\/1\.1 100 /, sent.stdout);
  assert.match(sent.stdout, /HTTP\/1\.1 20[01] /, sent.stdout);
  const back = path.join(directory, 'download.bin');
  const got = await curl('-L', '-o', back, target);
  assert.equal(got.code, 0, got.stderr);
  assert.ok((await readFile(back)).equals(bytes), 'the file comes back byte for byte');
  t.diagnostic(`${bytes.length} bytes there and back`);
});

test('wget, Python urllib', async () => {
  const me = `${base}/v1.0/me`;
  isAlice(await run('wget', ['-qO-', '--no-proxy', '--tries=1', '--user=alice', `--password=${key}`, '--auth-no-challenge', me]), 'wget');
  isAlice(await run('wget', ['-qO-', '--no-proxy', '--tries=1', '--user=alice', `--password=${key}`, me]), 'wget that waits for the challenge');
  const script = `
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
passwords.add_password(None, sys.argv[1], "alice", sys.argv[2])
opener.add_handler(urllib.request.HTTPBasicAuthHandler(passwords))
print(opener.open(sys.argv[1], timeout=20).read().decode())
`;
  isAlice(await run('python3', ['-c', script, me, key]), 'urllib after the challenge');
});

test('ab: HTTP/1.0 with and without keep-alive ends at once', async (t) => {
  for (const flags of [[], ['-k']]) {
    const started = Date.now();
    const ab = await run('ab', [...flags, '-n', '200', '-c', '4', '-A', `alice:${key}`, `${base}/v1.0/me`], { timeout: 25_000 });
    const seconds = (Date.now() - started) / 1000;
    assert.equal(ab.code, 0, ab.stderr);
    assert.match(ab.stdout, /Complete requests:\s+200\b/);
    assert.match(ab.stdout, /Failed requests:\s+0\b/);
    assert.doesNotMatch(ab.stdout, /Non-2xx/);
    if (flags.length) assert.match(ab.stdout, /Keep-Alive requests:\s+(19\d|200)\b/, 'the connections were kept');
    assert.ok(seconds < 10, `${seconds} s`);
    t.diagnostic(`ab ${flags.join(' ')} -n 200 -c 4: ${seconds.toFixed(2)} s`);
  }
});

test('a bare HTTP/1.0 request without a Host', async () => {
  const credential = Buffer.from(`alice:${key}`).toString('base64');
  const script = `
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
s.sendall(b"GET /v1.0/me HTTP/1.0\\r\\nAuthorization: Basic " + sys.argv[2].encode() + b"\\r\\n\\r\\n")
data = b""
while chunk := s.recv(65536): data += chunk
print(data.decode())
`;
  isAlice(await run('python3', ['-c', script, new URL(base).port, credential]), 'HTTP/1.0');
});

test('Microsoft\'s Graph client for JavaScript: /me, a message list, sending mail', async (t) => {
  // It takes away an Authorization header that is not its own; X-Api-Key is for such clients.
  const client = GraphClient.Client.init({
    baseUrl: base,
    defaultVersion: 'v1.0',
    authProvider: (done) => done(null, 'the-client-library-insists-on-a-token'),
    fetchOptions: { headers: { 'X-Api-Key': key, 'Bearerd-Account': 'alice' } },
  });
  const me = await client.api('/me').select('displayName,mail,userPrincipalName').get();
  assert.match(JSON.stringify(me), ALICE);
  const messages = await client.api('/me/messages').top(5).get();
  assert.equal(messages.value.length, 5);
  await client.api('/me/sendMail').post({
    message: {
      subject: 'From the end-to-end test',
      body: { contentType: 'Text', content: 'Hello' },
      toRecipients: [{ emailAddress: { address: 'bob@contoso.example' } }],
    },
  });
  const missing = await client.api('/me/messages/does-not-exist').get().then(() => assert.fail('found'), (error) => error);
  assert.equal(missing.statusCode, 404, 'an error of Graph is an error for the library');
  t.diagnostic(`${messages.value.length} messages, 1 mail sent, 1 error understood`);
});

test('what is ours to refuse, real clients understand', async () => {
  const wrong = await run('curl', ['-sS', '-i', '-u', 'alice:wrong', `${base}/v1.0/me`]);
  assert.match(wrong.stdout, /^HTTP\/1\.1 401 /);
  assert.match(wrong.stdout, /^www-authenticate: Basic/im);
  assert.match(wrong.stdout, /^bearerd-error: client_unauthenticated/im);
  const nobody = await run('curl', ['-sS', '-i', '-u', `nobody:${key}`, `${base}/v1.0/me`]);
  assert.match(nobody.stdout, /^HTTP\/1\.1 403 /);
  assert.match(nobody.stdout, /^bearerd-error: account_forbidden/im);
  const other = await run('curl', ['-sS', '-i', '-u', `alice:${key}`, '-H', 'Host: evil.example', `${base}/v1.0/me`]);
  assert.match(other.stdout, /^HTTP\/1\.1 421 /);
  const browser = await run('curl', ['-sS', '-i', '-u', `alice:${key}`, '-H', 'Origin: https://evil.example', `${base}/v1.0/me`]);
  assert.match(browser.stdout, /^bearerd-error: cross_site_refused/im);
});
