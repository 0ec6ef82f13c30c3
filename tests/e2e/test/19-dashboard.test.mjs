// An operator at the dashboard in a real browser: finds an account, sees why it is not fresh, sends a link, revokes. Every page is looked at by
// axe-core, in both themes and on a phone.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { test } from 'node:test';
import { launchBrowser, screenshots } from '../browser.mjs';
import { world } from '../harness.mjs';

const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const SIZES = { phone: { width: 360, height: 780 }, desktop: { width: 1280, height: 800 } };

// A page of Chromium that notes what it asks elsewhere for, and what its own policy forbids.
async function operator(t, browser, { adminUrl }, options = {}) {
  const context = await browser.newContext(options);
  t.after(() => context.close());
  const page = await context.newPage();
  const [foreign, complaints] = [[], []];
  page.on('request', (request) => { if (!request.url().startsWith(`${adminUrl}/`) && !request.url().startsWith('data:')) foreign.push(request.url()); });
  page.on('console', (message) => complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(error.message));
  return { page, context, foreign, complaints };
}

// Nothing that axe calls serious or critical, no sideways scrolling, and a picture; in both themes, wide and narrow.
async function examine(page, shots, name, counts) {
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    for (const [size, viewport] of Object.entries(SIZES)) {
      await page.setViewportSize(viewport);
      await page.screenshot({ path: path.join(shots, `${name}-${size}-${colorScheme}.png`), fullPage: true });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(wide, 0, `${name} is ${wide} px too wide on a ${size}`);
      await page.evaluate(AXE);
      const { violations, passes } = await page.evaluate(() => globalThis.axe.run(document, { preload: false }));
      const bad = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
      assert.deepEqual(bad.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`), [], `${name}, ${size}, ${colorScheme}`);
      counts.checks += passes.length;
      counts.pages += 1;
    }
  }
  await page.emulateMedia({ colorScheme: 'light' });
  await page.setViewportSize(SIZES.desktop);
}

test('dashboard: find an account, see why it is not fresh, send a link, revoke', async (t) => {
  const { provider, ...w } = await world(t);
  await w.serve();
  await w.signIn('alice');
  await w.signIn('bob');
  for (const target of ['/v1.0/me', '/v1.0/me/messages', '/v1.0/nothing']) await w.ask('alice', target);
  const shots = await screenshots();
  const counts = { pages: 0, checks: 0 };
  const browser = await launchBrowser();
  t.after(() => browser.close());
  const { page, foreign, complaints } = await operator(t, browser, w);

  // The grant dies at the provider.
  const [{ refreshToken }] = provider.select({ type: 'success', grantType: 'authorization_code', account: 'alice' });
  const killed = await fetch(`${provider.issuer}/token/revocation`, {
    method: 'POST', body: new URLSearchParams({ token: refreshToken, client_id: provider.clientId, client_secret: provider.clientSecret }),
  });
  assert.equal(killed.status, 200, await killed.text());

  await page.goto(`${w.adminUrl}/`);
  assert.match(await page.innerText('main'), /\d+ requests in the last hour/);
  await examine(page, shots, '1-overview', counts);

  await page.click('nav >> text=Accounts');
  await examine(page, shots, '2-accounts', counts);
  await page.fill('#search', 'ALI');
  await page.click('button:has-text("Show")');
  assert.equal(await page.locator('tbody tr').count(), 1);
  await page.click('tbody a');
  assert.match(await page.innerText('main'), /It is fresh/);
  await examine(page, shots, '3-fresh', counts);

  await page.click('button:has-text("Refresh now")');
  assert.match(await page.innerText('[role=alert]'), /The refresh failed/);
  assert.match(await page.innerText('main'), /Why it is not fresh[\s\S]*does not accept the refresh token any more[\s\S]*What to do/);
  await examine(page, shots, '4-not-fresh', counts);
  assert.notEqual((await w.ask('alice')).status, 200);

  // Its history says the same. What the provider said is recorded beside the refresh, maybe after its answer.
  const refreshes = page.locator('section[aria-labelledby=refreshes] .records > li');
  while (!(await refreshes.count())) await page.goto(page.url().replace(/\/refresh$/, ''));
  assert.match(await refreshes.first().innerText(), /invalid_grant[\s\S]*Failed/);
  const failed = page.locator('section[aria-labelledby=events] .records > li', { hasText: 'Refresh failed' }).first();
  await failed.locator('summary').click();
  assert.match(await failed.innerText(), /Outcome[\s\S]*failed/);
  await examine(page, shots, '4-why', counts);
  await page.click('a:has-text("All records of alice")');
  assert.match(await page.innerText('.records'), /Refresh failed[\s\S]*Sign-in/);
  await page.selectOption('#event', 'refresh_failed');
  await page.selectOption('#outcome', 'failed');
  await page.click('button:has-text("Show")');
  assert.equal(await page.locator('.records > li').count(), 1);
  await page.click('.records a:has-text("alice")');
  assert.match(await page.innerText('h1'), /alice/);

  await page.click('button:has-text("Make a sign-in link")');
  const link = await page.inputValue('#link');
  assert.ok(link.startsWith(`${w.url}/.bearerd/`), link);
  assert.match(await page.innerText('main'), /Send it to[\s\S]*works once, until/);
  await examine(page, shots, '5-link', counts);

  // Alice, in her own browser.
  const hers = await (await browser.newContext()).newPage();
  await hers.goto(link);
  await hers.click('main button[type=submit]');
  await hers.click('text=Sign in as alice');
  await hers.waitForURL(`${w.url}/**`);
  assert.match(await hers.innerText('body'), /You are signed in/);
  assert.equal((await w.ask('alice')).status, 200);

  await page.click('text=Back to alice');
  assert.match(await page.innerText('main'), /It is fresh/);
  await page.click('a:has-text("Revoke")');
  await examine(page, shots, '6-confirm', counts);
  assert.equal((await w.ask('alice')).status, 200, 'nothing is done before the confirmation');
  await page.click('button:has-text("Revoke alice")');
  assert.match(await page.innerText('[role=status]'), /Revoked/);
  assert.equal((await w.ask('alice')).error, 'signin_required');
  assert.equal((await w.ask('bob')).status, 200);
  await examine(page, shots, '7-revoked', counts);

  await page.click('nav >> text=Audit');
  assert.match(await page.innerText('.records'), /Revocation[\s\S]*alice[\s\S]*Done/);
  await examine(page, shots, '8-audit', counts);
  for (const [name, target] of [['8-clients', '/clients'], ['9-configuration', '/configuration'], ['10-missing', '/accounts/0a']]) {
    await page.goto(w.adminUrl + target);
    await examine(page, shots, name, counts);
  }
  assert.deepEqual(foreign, [], 'nothing is asked for elsewhere');
  // Chromium notes each answer that is none of success.
  const said = complaints.filter((text) => !/^Failed to load resource: the server responded with a status of (404|409|502)/.test(text));
  assert.deepEqual(said, [], 'nothing is against the policy');
  t.diagnostic(`${counts.pages} views, ${counts.checks} checks of axe-core passed, none failed; screenshots in ${shots}`);
});

test('dashboard: signed in with the token, by keyboard alone and without scripts', async (t) => {
  const token = 'the-token-of-the-operators';
  const w = await world(t);
  await w.serve({ env: { BEARERD_ADMIN__TOKEN: token } });
  await w.signIn('alice');
  const shots = await screenshots();
  const browser = await launchBrowser();
  t.after(() => browser.close());
  const counts = { pages: 0, checks: 0 };
  const looked = await operator(t, browser, w);
  await looked.page.goto(`${w.adminUrl}/`);
  await examine(looked.page, shots, '11-signin', counts);

  const { page, context, foreign } = await operator(t, browser, w, { javaScriptEnabled: false });
  await page.goto(`${w.adminUrl}/accounts`);
  const press = async (...keys) => { for (const key of keys) await page.keyboard.press(key); };
  // What has the focus: its text, or its name where it is a field.
  const focused = async () => {
    const one = page.locator(':focus');
    return (await one.count()) ? (await one.getAttribute('id')) ?? (await one.innerText()).trim() : '';
  };
  const tabTo = async (name) => {
    for (let step = 0; step < 30; step += 1) {
      if ((await focused()).startsWith(name)) return;
      await press('Tab');
    }
    assert.fail(`no way to ${name} by Tab on ${page.url()}; at ${await focused()}`);
  };
  const enter = (name) => tabTo(name).then(() => Promise.all([page.waitForNavigation(), press('Enter')]));

  await tabTo('token');
  await page.keyboard.type('a guess');
  await Promise.all([page.waitForNavigation(), press('Enter')]);
  assert.match(await page.innerText('[role=alert]'), /wrong/);
  await tabTo('token');
  await page.keyboard.type(token);
  await Promise.all([page.waitForNavigation(), press('Enter')]);
  assert.equal(page.url(), `${w.adminUrl}/accounts`, 'what was asked for first');
  const [cookie] = await context.cookies(w.adminUrl);
  assert.deepEqual([cookie.httpOnly, cookie.sameSite, cookie.value.includes(token)], [true, 'Strict', false]);

  // The first stop is the way past the navigation.
  await press('Tab');
  assert.match(await focused(), /Skip to the content/);
  const outline = await page.locator(':focus').evaluate((one) => getComputedStyle(one).outlineStyle);
  assert.equal(outline, 'solid', 'the focus is seen');
  await press('Enter');
  await tabTo('search');
  await page.keyboard.type('ali');
  await Promise.all([page.waitForNavigation(), press('Enter')]);
  await enter('alice');
  assert.match(await page.innerText('h1'), /alice/);
  await tabTo('Record');
  await press('Enter');
  assert.equal(await page.locator('details[open]').count(), 1, 'a record opens by keyboard');
  await enter('Revoke');
  await enter('Keep it');
  await enter('Revoke');
  await enter('Revoke alice');
  assert.match(await page.innerText('[role=status]'), /Revoked/);
  assert.equal((await w.ask('alice')).error, 'signin_required');
  await enter('Sign out');
  assert.match(await page.innerText('h1'), /Sign in/);
  await page.goto(`${w.adminUrl}/accounts`);
  assert.match(await page.innerText('h1'), /Sign in/);
  assert.deepEqual(foreign, []);

  // A page elsewhere on this machine can't post the forms of the dashboard.
  const stranger = await operator(t, browser, w);
  await stranger.page.route('http://localhost:9/**', (route) => route.fulfill({
    contentType: 'text/html', body: `<form method="post" action="${w.adminUrl}/sign-in"><input name="token" value="${token}"><button>go</button></form>`,
  }));
  await stranger.page.goto('http://localhost:9/');
  const [answer] = await Promise.all([stranger.page.waitForNavigation(), stranger.page.click('button')]);
  assert.equal(answer.status(), 403);
  assert.deepEqual(await stranger.context.cookies(w.adminUrl), []);
  t.diagnostic(`signed in, revoked and signed out by keyboard; ${counts.pages} views examined`);
});
