// The provider is down for two minutes, in every way that there is, while requests go on. Who has a token that lives hears
// nothing of it; the others hear `provider_unavailable`, quickly; and afterwards everything heals by itself.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually, world } from '../harness.mjs';
import { startLoad } from '../load.mjs';

const SECONDS = Number(process.env.BEARERD_E2E_OUTAGE_SECONDS ?? 120);
const WARM_UP_SECONDS = 8;
const HEALED_WITHIN = 60;
const LONG = ['user1', 'user2', 'user3', 'user4', 'user5', 'user6', 'user7', 'user8', 'user9', 'user10'];
const SHORT = LONG.map((_, index) => `user${index + 11}`);
const USERS = [...LONG, ...SHORT];
// Two workers an account, so that those who wait hold up nobody else; about 50 requests a second.
const WORKERS = 2 * USERS.length;
const PAUSE = 750;

// The answers to those whose token has expired.
const MEDIAN_MILLIS = 1000;
const P99_MILLIS = 5000;
// Requests that reach the token endpoint while it is out of order, of ten accounts that all want something of it.
const ASKED_A_MINUTE = 15;

const PHASES = {
  // What a strict provider has done with a request that got no answer, nobody can know: those ways are for the other one.
  strict: ['refuses', 503],
  same: ['refuses', 503, 'hangs', 'garbage'],
};

test(`a provider that is down for ${SECONDS} s`, { concurrency: 2, timeout: SECONDS * 1000 + 180_000 }, async (t) => {
  await Promise.all(Object.entries(PHASES).map(([rotation, phases]) => t.test(`rotation ${rotation}: ${phases.join(', ')}`, async (t) => {
    const accessTokenSeconds = (account) => (LONG.includes(account) ? 300 : 30);
    const { provider, upstream, ...w } = await world(t, { rotation, accounts: USERS, accessTokenSeconds });
    await w.serve();
    await w.importGrants(USERS);

    const refusals = [];
    const load = startLoad(t, w, {
      users: USERS, workers: WORKERS, seconds: WARM_UP_SECONDS + SECONDS + HEALED_WITHIN + 60, pause: PAUSE,
      judge: (user, answer, from) => {
        if (answer.status === 200) return answer.body.account === user ? undefined : 'somebody else';
        const tokens = provider.select({ type: 'success', grantType: 'refresh_token', account: user });
        if (tokens.some(({ issued, expires }) => issued <= from && from < expires)) return 'an error while the token lives';
        if (answer.status !== 503 || answer.error !== 'provider_unavailable') return 'another error';
        if (!(Number(answer.retryAfter) >= 1)) return 'no Retry-After';
        refusals.push({ user, phase, millis: answer.millis });
        return undefined;
      },
    });
    let phase = 'before';
    await sleep(WARM_UP_SECONDS * 1000);
    const warm = provider.count({ type: 'success', grantType: 'refresh_token' });
    const answeredWarm = load.answered;

    for (const kind of phases) {
      phase = kind;
      await provider.setOutage(kind);
      await sleep(SECONDS * 1000 / phases.length);
    }
    phase = 'after';
    const back = Date.now();
    await provider.setOutage(null);
    let healed;
    try {
      await eventually('every account is served again', HEALED_WITHIN, () => USERS.every((user) => {
        const [newest] = provider.select({ type: 'success', grantType: 'refresh_token', account: user }).slice(-1);
        return load.newest(user) === newest?.issued && newest.expires > Date.now();
      }));
      healed = Date.now() - back;
    } finally {
      await load.stop();
      report();
    }

    assert.equal(warm, USERS.length, 'one refresh each in the quiet time');
    assert.ok(answeredWarm > 0 && load.answered > SECONDS * 20, `${load.answered} answered`);
    assert.deepEqual(load.failures.slice(0, 5), []);
    assert.ok(SHORT.every((user) => refusals.some((refusal) => refusal.user === user)), 'each short token expired in the outage');
    assert.ok(refusals.every(({ user }) => SHORT.includes(user)), 'no long token did');
    for (const account of JSON.parse((await w.cli(['accounts', 'list', '--format', 'json'])).stdout)) {
      assert.equal(account.status, 'active', JSON.stringify(account));
    }
    assert.equal(provider.count({ type: 'error' }), 0);
    assert.equal(provider.count({ type: 'revoked' }), 0);
    assert.ok(upstream.requests.every((request) => request.account !== null), 'the API refused none');
    const asked = askedDuring().length;
    assert.ok(asked <= ASKED_A_MINUTE * SECONDS / 60, `the provider was asked ${asked} times`);
    const { median, p99 } = quantiles(refusals);
    assert.ok(median <= MEDIAN_MILLIS && p99 <= P99_MILLIS, `refusals took ${median} ms in the median, ${p99} ms at p99`);

    function askedDuring(kind) {
      return provider.select({ type: 'asked', endpoint: '/token' }).filter(({ outage }) => (kind ? outage === kind : outage));
    }
    function report() {
      t.diagnostic(`${load.answered} as they should be, ${load.failures.length} not; healed after ${healed ?? '?'} ms; `
        + `p50 ${quantiles(refusals).median} ms, p99 ${quantiles(refusals).p99} ms of ${refusals.length} provider_unavailable`);
      for (const kind of [...phases, 'after']) {
        const some = refusals.filter((refusal) => refusal.phase === kind);
        t.diagnostic(`${kind}: ${some.length} provider_unavailable, p50 ${quantiles(some).median} ms, p99 ${quantiles(some).p99} ms; `
          + `${kind === 'after' ? '' : `${askedDuring(kind).length} requests reached the token endpoint`}`);
      }
    }
  })));
});

function quantiles(refusals) {
  const sorted = refusals.map(({ millis }) => millis).sort((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
  return { median: at(0.5), p99: at(0.99) };
}
