// A person signs in through the pages in a real browser; afterwards curl with a Basic password acts as that person.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { launchBrowser, screenshots, shoot } from '../browser.mjs';
import { livingToken, run, world } from '../harness.mjs';
import { cookieJar, follow, submit, visit } from '../pages.mjs';

test('sign-in: code flow with PKCE through the pages in Chromium, then curl as alice', async (t) => {
  const { provider, upstream, ...w } = await world(t);
  await w.serve();
  const shots = await screenshots();
  const browser = await launchBrowser();
  t.after(() => browser.close());
  const page = await browser.newPage();
  const foreign = [];
  page.on('request', (request) => {
    const { origin } = new URL(request.url());
    if (![w.url, provider.issuer].includes(origin)) foreign.push(request.url());
  });

  const link = await w.link('alice');
  await page.goto(link);
  await shoot(page, shots, '1-before');
  const before = await page.innerText('body');
  for (const words of ['bearerd', 'alice', 'User.Read', 'Mail.Read']) assert.ok(before.includes(words), `${words}: ${before}`);

  await page.click('main button[type=submit], main a[role=button]');
  await page.waitForURL(`${provider.issuer}/**`);
  await page.click('text=Sign in as alice');
  await page.waitForURL(`${w.url}/**`);
  await shoot(page, shots, '2-after');
  const after = await page.innerText('body');
  assert.match(after, /signed in/i);
  assert.match(after, /alice/);
  assert.doesNotMatch(page.url(), /code=|state=/, 'the code stays out of the history');

  const pkce = provider.select({ type: 'success', grantType: 'authorization_code' });
  assert.equal(pkce.length, 1);

  // What a legacy application does.
  const mail = await run('curl', ['-sS', '-u', `alice:${w.clientKey}`, `${w.url}/v1.0/me/messages?$top=5`]);
  assert.equal(JSON.parse(mail.stdout).account, 'alice');
  assert.equal(upstream.requests.length, 1);
  assert.equal(upstream.requests[0].target, '/v1.0/me/messages?$top=5');
  assert.match(upstream.requests[0].headers.authorization, /^Bearer /);

  const account = await w.account('alice');
  assert.equal(account.alias, 'alice');
  assert.equal(account.status, 'active');

  // The link has done its work.
  await page.goto(link);
  await shoot(page, shots, '3-used-link');
  assert.match(await page.innerText('body'), /already|used|no longer|expired/i);
  assert.equal(await page.locator('form, a[role=button]').count(), 0, 'nothing to press on a dead link');

  assert.deepEqual(foreign, [], 'the pages load nothing from elsewhere');
  t.diagnostic(`1 authorization code, ${upstream.requests.length} request at the API; screenshots in ${shots}`);
});

test('sign-in: without scripts, and the wrong person is turned away', async (t) => {
  const { provider, upstream, ...w } = await world(t);
  await w.serve();
  assert.match((await w.signIn('alice')).text, /signed in/i);
  const before = await w.account('alice');

  // Bob opens the link that was made for Alice's account.
  const browser = await launchBrowser();
  t.after(() => browser.close());
  const context = await browser.newContext({ javaScriptEnabled: false });
  const page = await context.newPage();
  await page.goto(await w.link('alice'));
  await page.click('main button[type=submit], main a[role=button]');
  await page.click('text=Sign in as bob');
  await page.waitForURL(`${w.url}/**`);
  const refused = await page.innerText('body');
  await shoot(page, await screenshots(), '4-somebody-else');
  assert.match(refused, /somebody else|another|not alice|different/i);
  assert.doesNotMatch(refused, /you are signed in/i);

  const answer = await fetch(`${w.url}/v1.0/me`, { headers: { authorization: w.basic('alice') } });
  assert.equal((await answer.json()).account, 'alice');
  assert.deepEqual(await w.account('alice'), before, 'the grant is as it was');
  assert.ok(upstream.requests.every((request) => request.account === 'alice'));
  t.diagnostic(`${provider.count({ type: 'success' })} sign-ins at the provider, 1 account, ${upstream.requests.length} request as alice`);
});

test('sign-in: a changed state, another browser, and a second use of the answer are refused', async (t) => {
  const { provider, ...w } = await world(t);
  await w.serve();
  // Up to the provider's answer, which is then in our hands.
  const arrive = async (jar, link) => {
    const last = await follow(jar, link, ['', 'alice'], (location) => location.startsWith(`${w.url}/.bearerd/callback/`));
    return new URL(last.url);
  };

  const jar = cookieJar();
  const callback = await arrive(jar, await w.link('alice'));
  const changed = new URL(callback);
  const state = changed.searchParams.get('state');
  changed.searchParams.set('state', `${state.slice(0, -1)}${state.endsWith('A') ? 'B' : 'A'}`);
  const tampered = await visit(jar, changed);
  assert.ok(tampered.status >= 400 && tampered.status < 500, `${tampered.status}`);

  const stranger = await visit(cookieJar(), callback);
  assert.ok(stranger.status >= 400 && stranger.status < 500, `${stranger.status}`);
  assert.equal(provider.count({ grantType: 'authorization_code' }), 0, 'no code was redeemed');

  const second = cookieJar();
  const good = await arrive(second, await w.link('alice'));
  const done = await follow(second, good.href, []);
  assert.match(done.text, /signed in/i);
  const again = await visit(second, good);
  assert.ok(again.status >= 400 && again.status < 500, `${again.status}`);
  assert.equal(provider.count({ grantType: 'authorization_code' }), 1, 'one code was redeemed, once');
  t.diagnostic('3 answers refused, 1 code redeemed');
});

test('a revoked token: 16 concurrent POSTs of 64 KiB heal with one refresh, bodies intact', async (t) => {
  const { provider, upstream, ...w } = await world(t);
  await w.serve();
  // A token that came from the provider less than ten seconds ago is believed to be refused for another reason. Of one that was
  // imported nobody knows when it came.
  await w.importGrants(['alice'], livingToken);
  assert.equal((await w.ask('alice')).status, 200);
  assert.equal(await provider.revokeAccessTokens('alice'), 1);

  const bodies = Array.from({ length: 16 }, () => randomBytes(65_536));
  const answers = await Promise.all(bodies.map(async (body) => {
    const answer = await fetch(`${w.url}/v1.0/me/sendMail`, { method: 'POST', body, headers: { authorization: w.basic('alice') } });
    return { status: answer.status, ...await answer.json() };
  }));
  answers.forEach((answer, index) => {
    assert.equal(answer.status, 200);
    assert.equal(answer.sha256, createHash('sha256').update(bodies[index]).digest('hex'));
  });
  assert.equal(provider.count({ grantType: 'refresh_token' }), 1);
  const refused = upstream.requests.filter((request) => request.status === 401);
  assert.ok(refused.length > 0 && refused.length <= 16 && upstream.requests.length === 1 + 16 + refused.length, 'at most two attempts each');
  t.diagnostic(`16 successes, ${refused.length} refused attempts, 1 refresh`);
});
