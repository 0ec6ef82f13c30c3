// `login --device`: the operator's terminal shows a code, the person enters it at the provider.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BINARY, eventually, launch, world } from '../harness.mjs';
import { cookieJar, follow } from '../pages.mjs';

test('device flow: login --device beside a running server, then requests as bob', async (t) => {
  const { provider, upstream, ...w } = await world(t);
  await w.serve();
  const login = launch(BINARY, ['login', '--device', '--account', 'bob', '--config', w.config], { cwd: w.directory });
  t.after(() => login.stop());

  const shown = () => `${login.output().stdout}\n${login.output().stderr}`;
  const [, code] = await eventually('a user code', 30, () => /\b([A-Z0-9]{4}-[A-Z0-9]{4})\b/.exec(shown()) ?? (login.gone() && assert.fail(shown())));
  assert.ok(shown().includes(`${provider.issuer}/device`), shown());

  const jar = cookieJar();
  const last = await follow(jar, `${provider.issuer}/device?user_code=${code}`, ['', '', 'bob']);
  assert.match(last.text, /id="done"/);
  const { code: exitCode } = await login.ends('the device login');
  assert.equal(exitCode, 0, shown());

  const answer = await fetch(`${w.url}/v1.0/me`, { headers: { authorization: w.basic('bob') } });
  assert.equal((await answer.json()).account, 'bob');
  assert.equal((await w.account('bob')).status, 'active');
  assert.equal(provider.count({ type: 'success', grantType: 'device_code', account: 'bob' }), 1);
  t.diagnostic(`${provider.count({ grantType: 'device_code' })} polls, 1 grant, ${upstream.requests.length} request as bob`);
});
