// The whole story at the most talkative log level, and then a search: no secret that was used may stand in any output.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { launchBrowser } from '../browser.mjs';
import { obtainGrant } from '../grant.mjs';
import { BINARY, eventually, launch, run, world } from '../harness.mjs';
import { cookieJar, follow } from '../pages.mjs';

test('no secret in any log, metric, page, error, process listing or store file', { timeout: 180_000 }, async (t) => {
  const trace = { RUST_LOG: 'trace', BEARERD_LOG__LEVEL: 'trace' };
  const { provider, upstream, ...w } = await world(t, { accessTokenSeconds: 12, log: 'trace', env: trace });
  const outputs = new Map();
  const keep = (name, text) => outputs.set(name, `${outputs.get(name) ?? ''}\n${text}`);
  const cli = async (...args) => {
    const done = await w.cli(args, { env: trace });
    keep(`bearerd ${args.slice(0, 2).join(' ')}`, `${done.stdout}\n${done.stderr}`);
    return done;
  };
  const server = await w.serve();

  // Alice through the pages in a browser, so that every page is seen as a browser gets it.
  const links = [await w.link('alice')];
  const browser = await launchBrowser();
  t.after(() => browser.close());
  const page = await browser.newPage();
  const states = [];
  page.on('request', (request) => {
    const { searchParams } = new URL(request.url());
    for (const name of ['state', 'nonce']) if (searchParams.get(name)) states.push(searchParams.get(name));
  });
  page.on('response', async (response) => {
    if (response.url().startsWith(w.url)) keep('page', await response.text().catch(() => ''));
  });
  await page.goto(links[0]);
  await page.click('main button[type=submit], main a[role=button]');
  await page.click('text=Sign in as alice');
  await page.waitForURL(`${w.url}/**`);
  keep('page', await page.content());
  await browser.close();

  // Bob by device code, beside the running server.
  const login = launch(BINARY, ['login', '--device', '--account', 'bob', '--config', w.config], { cwd: w.directory, env: trace });
  t.after(() => login.stop());
  const said = () => `${login.output().stdout}\n${login.output().stderr}`;
  const [, code] = await eventually('a user code', 30, () => /\b([A-Z0-9]{4}-[A-Z0-9]{4})\b/.exec(said()));
  await follow(cookieJar(), `${provider.issuer}/device?user_code=${code}`, ['', '', 'bob']);
  await login.ends('the device login');
  keep('bearerd login --device', said());

  // A grant that is imported, and one whose row is wrong.
  const imported = await obtainGrant(provider, 'carol');
  const rows = path.join(w.directory, 'rows.jsonl');
  await writeFile(rows, `${JSON.stringify({ alias: 'carol', provider: 'idp', refresh_token: imported.refresh_token })}\n`
    + `${JSON.stringify({ alias: 'dave', provider: 'idp', refresh_token: 'dead-refresh-token-0123456789abcdef' })}\n`
    + '{"alias": "eve", "provider": "idp", "refresh_token": "broken-row-0123456789abcdef", \n', { mode: 0o600 });
  const bad = await cli('accounts', 'import', rows);
  assert.equal(bad.code, 1, 'a partly failed import says so');
  await run('rm', [rows]);

  // Requests of every kind: good, refused, healed, over HTTP/2, with the key in each place.
  const curl = async (...args) => {
    const done = await run('curl', ['-sS', '-i', ...args]);
    keep('answers', done.stdout);
    return done.stdout;
  };
  assert.match(await curl('-u', `alice:${w.clientKey}`, `${w.url}/v1.0/me?$search=hello`), /200 OK/);
  await curl('--http2-prior-knowledge', '-u', `alice:${w.clientKey}`, `${w.url}/v1.0/me`);
  await curl('-H', `X-Api-Key: ${w.clientKey}`, '-H', 'Bearerd-Account: bob', `${w.url}/v1.0/me`);
  await curl('-H', `Authorization: Bearer ${w.clientKey}`, `${w.url}/as/bob/v1.0/me`);
  await curl('-H', `Authorization: Bearer ${w.clientKey}`, `${w.url}/v1.0/me`);
  await curl('-u', 'alice:a-wrong-key-0123456789abcdef', `${w.url}/v1.0/me`);
  await curl('-u', `mallory:${w.clientKey}`, `${w.url}/v1.0/me`);
  await curl('-u', `alice:${w.clientKey}`, '-H', 'Host: evil.example', `${w.url}/v1.0/me`);
  await curl('-u', `alice:${w.clientKey}`, '-H', 'Authorization: Bearer x', `${w.url}/v1.0/me`);
  await curl('-u', `alice:${w.clientKey}`, `${w.url}/nothing/here`);
  await curl(`${w.url}/.bearerd/callback/idp?code=forged-code-0123456789abcdef&state=forged-state-0123456789abcdef`);
  await curl(links[0]);
  // A token ages, so that a refresh happens; then a 401 of the API, a revoked grant, a provider that is down.
  let turns = 0;
  await eventually('a refresh ahead of need, and many requests', 60, async () => {
    await curl('-u', `alice:${w.clientKey}`, `${w.url}/v1.0/me/messages`);
    turns += 1;
    return turns >= 26 && provider.count({ type: 'success', grantType: 'refresh_token', account: 'alice' }) > 0;
  }, 250);
  await provider.revokeAccessTokens('alice');
  await curl('-u', `alice:${w.clientKey}`, '-d', 'text', `${w.url}/v1.0/me/sendMail`);
  await cli('accounts', 'refresh', 'bob');
  await cli('accounts', 'list', '--format', 'json');
  await cli('accounts', 'show', 'alice', '--format', 'json');
  await cli('config', 'print');
  await cli('check');
  await cli('accounts', 'revoke', 'bob');
  // The command ran beside the server, which hears of a revocation soon.
  await eventually('the revocation is in force', 5, async () => /signin_required/.test(await curl('-u', `bob:${w.clientKey}`, `${w.url}/v1.0/me`)));
  await provider.setOutage(503);
  await cli('accounts', 'refresh', 'alice');
  await provider.setOutage(null);

  for (const admin of ['/metrics', '/readyz', '/livez', '/nothing']) {
    keep('admin', await (await fetch(`${w.adminUrl}${admin}`)).text());
  }
  keep('/proc/PID/cmdline', await readFile(`/proc/${server.pid}/cmdline`, 'latin1'));
  keep('/proc/PID/environ', await readFile(`/proc/${server.pid}/environ`, 'latin1'));
  const storeKey = (await readFile(path.join(w.store, 'store.key'), 'utf8')).trim();
  // While the server runs (with its write-ahead log), and after it stopped.
  keepStore('store, running');
  await server.stop();
  keepStore('store, stopped');
  keep('server', `${server.output().stdout}\n${server.output().stderr}`);

  function keepStore(name) {
    for (const file of readdirSync(w.store, { recursive: true }).map((entry) => path.join(w.store, entry))) {
      if (statSync(file).isFile() && path.basename(file) !== 'store.key') keep(name, readFileSync(file, 'latin1'));
    }
  }

  const secrets = new Map([
    ...provider.secrets,
    [w.clientKey, 'client key'],
    [storeKey, 'store key'],
    ['dead-refresh-token-0123456789abcdef', 'refresh token of a bad row'],
    ['broken-row-0123456789abcdef', 'refresh token of a broken row'],
    ['a-wrong-key-0123456789abcdef', 'wrong client key'],
    ['forged-code-0123456789abcdef', 'forged code'],
    ['forged-state-0123456789abcdef', 'forged state'],
  ]);
  for (const state of states) secrets.set(state, 'state or nonce');
  for (const name of ['alice', 'bob', 'mallory']) {
    secrets.set(Buffer.from(`${name}:${w.clientKey}`).toString('base64'), 'Basic credential');
  }
  const kinds = new Set(secrets.values());
  for (const kind of ['client key', 'client secret', 'access token', 'refresh token', 'identity token', 'authorization code', 'code verifier', 'device code']) {
    assert.ok(kinds.has(kind), `no ${kind} was used: the search would prove nothing`);
  }

  const found = [];
  let searched = 0;
  for (const [name, text] of outputs) {
    assert.ok(text.length > 0, `${name} is empty`);
    for (const [secret, kind] of secrets) {
      for (const form of forms(secret)) {
        searched += 1;
        const at = text.indexOf(form);
        if (at >= 0) found.push(`${kind} in ${name}: ...${text.slice(Math.max(0, at - 120), at)}[here]`);
      }
    }
  }
  // An invitation stands in its own link and page, and nowhere else.
  for (const link of links) {
    const invite = [...new URL(link).searchParams.values(), new URL(link).pathname.split('/').pop()].filter((part) => part.length >= 16);
    assert.ok(invite.length > 0, link);
    for (const [name, text] of outputs) {
      if (['page', 'answers'].includes(name)) continue;
      for (const part of invite) if (text.includes(part)) found.push(`invitation in ${name}`);
    }
  }
  assert.ok(outputs.get('server').length > 10_000, 'the server was talkative');
  t.diagnostic(`${secrets.size} secrets in ${kinds.size} kinds, ${outputs.size} outputs of ${[...outputs.values()].join('').length} characters, `
    + `${searched} searches, ${found.length} found; ${upstream.requests.length} requests at the API`);
  assert.deepEqual([...new Set(found)].slice(0, 20), []);
});

// A secret as it could be written down: as it is, percent-encoded, in base64 at each of the three alignments, and its start.
function forms(secret) {
  const all = new Set([secret, encodeURIComponent(secret), secret.slice(0, 16)]);
  for (const shift of [0, 1, 2]) {
    const encoded = Buffer.concat([Buffer.alloc(shift), Buffer.from(secret)]).toString('base64').replace(/=+$/, '');
    // The first and last groups also hold bits of their neighbours.
    const core = encoded.slice(shift ? 4 : 0, -2);
    all.add(core).add(core.replaceAll('+', '-').replaceAll('/', '_'));
  }
  return [...all].filter((form) => form.length >= 12);
}
