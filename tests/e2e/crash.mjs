// The process dies at one named point of the refresh protocol, comes back, and requests come: rounds of that, each with a grant
// of its own, against a provider that saw everything.

import assert from 'node:assert/strict';
import { readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { eventually, FAULTY_BINARY, launch, livingToken, within, world } from './harness.mjs';
import { cookieJar, follow } from './pages.mjs';

// `rotated`: the provider had used the refresh token up when the process died. `durable`: its successor was stored. The provider
// makes the points that lie on the wire, by what it does with the request; the others are in the program.
export const POINTS = {
  fp01: { where: 'before the claim', rotated: false },
  fp02: { where: 'claimed in the store, nobody knows yet', rotated: false },
  fp03: { where: 'after the claim, before the request', rotated: false },
  fp04: { where: 'the request is sent, and never read', rotated: false, wire: true },
  fp05: { where: 'the request is done, its reply is lost', rotated: true, wire: true },
  fp06: { where: 'the reply is read, nothing is stored', rotated: true },
  fp07: { where: 'before the commit', rotated: true },
  fp08: { where: 'committed in the store, nobody knows yet', rotated: true, durable: true },
  fp09: { where: 'after the commit', rotated: true, durable: true },
  fp10: { where: 'before those who wait are told', rotated: true, durable: true },
};

// Requests that come at once, before and after each death.
const CONCURRENT = 4;
// How long bearerd believes that a token of an `ageing` round lives.
const AGEING_MILLIS = 2500;

// A command works on the store itself where no server has written down its address: ours is forgotten, the rest of its file stays.
const aloneOn = async (directory) => {
  const holders = path.join(directory, 'data', 'holders');
  for (const name of await readdir(holders)) {
    const file = path.join(holders, name);
    const text = await readFile(file, 'utf8').catch((error) => (error.code === 'ENOENT' ? '' : Promise.reject(error)));
    if (text.includes('\n')) await truncate(file, text.indexOf('\n') + 1);
  }
};

// How many rounds of each kind. `waiting`: the server dies while requests wait for their first token. `ageing`: it dies in a refresh
// that nobody waits for, while the old token lives. `command`: `accounts refresh` dies beside the server, which lives on.
export async function crashes(t, { point, rotation = 'strict', waiting, ageing, command }) {
  const { rotated, durable = false, wire = false } = POINTS[point];
  const strict = rotation === 'strict';
  const lost = strict && rotated && !durable;
  const names = (kind, count, first) => Array.from({ length: count }, (_, index) => ({ kind, user: `user${first + index}` }));
  const rounds = [...names('waiting', waiting, 1), ...names('ageing', ageing, 101), ...names('command', command, 201)];
  const users = rounds.map(({ user }) => user);
  const { provider, ...w } = await world(t, { rotation, accounts: users, accessTokenSeconds: 600 });
  const refreshes = (user, type) => provider.count({ type, grantType: 'refresh_token', ...(user && { account: user }) });

  // The process dies where the marker is missing, and makes it.
  const marker = path.join(w.directory, 'disarmed');
  await writeFile(marker, '');
  const serve = () => w.serve({ binary: FAULTY_BINARY, env: wire ? {} : { BEARERD_FAULT_POINT: `${point}:once:${marker}` } });
  let server = await serve();

  // Lets `process` die at the point, on the way that `start` sets out on.
  const die = async (process, start, { arm = !wire } = {}) => {
    const arrives = provider.next((entry) => (rotated
      ? entry.type === 'success' && entry.grantType === 'refresh_token' : entry.type === 'asked' && entry.endpoint === '/token'));
    if (wire && rotated) provider.holdAnswers();
    if (wire && !rotated) await provider.setOutage('hangs', '/token');
    if (arm) await rm(marker, { force: true });
    const way = start();
    if (wire) {
      await within(10, `the provider is asked (${point})`, arrives);
      await process().kill();
      provider.releaseAnswers();
      await provider.setOutage(null);
    }
    const { signal } = await within(10, `the process dies at ${point}`, process().exit);
    assert.equal(signal, 'SIGKILL');
    return way;
  };

  // What those hear who ask at once.
  const ask = (user) => Promise.all(Array.from({ length: CONCURRENT }, () => w.ask(user)));
  const firstLink = {};
  const judge = (user, answers) => {
    for (const answer of answers) {
      assert.equal(answer.error, lost ? 'signin_required' : undefined, `${user}: ${JSON.stringify(answer)}`);
      assert.equal(answer.status, lost ? 403 : 200, `${user}: ${JSON.stringify(answer)}`);
      if (lost) assert.ok(answer.signinUrl?.startsWith(w.url), `${user}: no link: ${JSON.stringify(answer)}`);
      else assert.equal(answer.body.account, user);
    }
    if (lost && !firstLink.url) Object.assign(firstLink, { user, url: answers[0].signinUrl });
  };

  const play = {
    async waiting(user) {
      const cutOff = await die(() => server, () => Promise.allSettled(Array.from({ length: CONCURRENT }, () => w.ask(user))));
      assert.ok(cutOff.every(({ status }) => status === 'rejected'), `answered by a dead process: ${JSON.stringify(cutOff)}`);
      server = await serve();
      judge(user, await ask(user));
    },

    async ageing(user) {
      const until = Date.now() + AGEING_MILLIS;
      await w.importGrants([user], ({ access_token }) => ({ access_token, expires_at: new Date(until).toISOString() }));
      const served = (answer) => assert.equal(answer.status, 200, `${user}, while its token lives: ${JSON.stringify(answer)}`);
      await die(() => server, () => eventually('the death', 10, async () => {
        await w.ask(user).then(served, (error) => { if (error.code === 'ERR_ASSERTION') throw error; });
        return server.gone();
      }, 20));
      server = await serve();
      // With the token from before the crash, where the last resort has not ended that too.
      const answer = await w.ask(user);
      if (Date.now() < until && answer.error !== 'signin_required') served(answer);
      const last = await eventually(`${user}: the outcome`, 15, async () => {
        const next = await w.ask(user);
        if (lost) return next.error === 'signin_required' ? next : served(next);
        served(next);
        const [refreshed] = provider.select({ type: 'success', grantType: 'refresh_token', account: user });
        return refreshed && next.body.tokenIssued >= refreshed.issued && next;
      });
      judge(user, [last]);
    },

    async command(user) {
      const [before] = await ask(user);
      assert.equal(before.status, 200, JSON.stringify(before));
      let process;
      await aloneOn(w.directory);
      await die(() => process, () => {
        const args = ['accounts', 'refresh', user, '--config', w.config];
        process = launch(FAULTY_BINARY, args, { cwd: w.directory, env: wire ? {} : { BEARERD_FAULT_POINT: point } });
        t.after(() => process.stop());
      }, { arm: false });
      // The server lives, and so does the token that it has.
      const [alive] = await ask(user);
      assert.equal(alive.status, 200, JSON.stringify(alive));
      if (durable) {
        const [{ issued }] = provider.select({ type: 'success', grantType: 'refresh_token', account: user });
        await eventually(`${user}: the server hears of the new token`, 5, async () => (await w.ask(user)).body.tokenIssued === issued);
      } else {
        await provider.revokeAccessTokens(user);
      }
      judge(user, await ask(user));
    },
  };

  // Rounds that ask for nothing but a refresh token can be prepared together.
  const grants = (kind, tokens) => {
    const some = rounds.filter((round) => round.kind === kind).map(({ user }) => user);
    return some.length > 0 ? w.importGrants(some, tokens) : undefined;
  };
  await grants('waiting');
  await grants('command', livingToken);
  for (const { kind, user } of rounds) await play[kind](user);

  // What the provider saw, of each account: one refresh, and where that was lost, the last resort.
  for (const user of users) {
    const seen = { success: refreshes(user, 'success'), error: refreshes(user, 'error') };
    assert.deepEqual(seen, { success: !strict && rotated && !durable ? 2 : 1, error: lost ? 1 : 0 }, user);
  }
  // And the state says so.
  const listed = await w.cli(['accounts', 'list', '--format', 'json']);
  const states = new Map(JSON.parse(listed.stdout).map((account) => [account.alias, account]));
  for (const user of users) {
    const { status, reason } = states.get(user);
    assert.equal(status, lost ? 'reauth' : 'active', user);
    if (lost) assert.ok(reason.text.length > 10 && reason.dead, JSON.stringify(reason));
  }
  if (lost) {
    const { user, url } = firstLink;
    assert.match((await follow(cookieJar(), url, ['', user])).text, /signed in/i);
    const [mended] = await ask(user);
    assert.equal(mended.status, 200, JSON.stringify(mended));
    assert.equal((await w.account(user)).status, 'active');
  }
  const reasons = new Set(lost ? users.map((user) => states.get(user).reason.text) : []);
  return {
    point,
    rounds: rounds.length,
    lived: users.filter((user) => states.get(user).status === 'active').length,
    lost: users.filter((user) => states.get(user).status !== 'active').length,
    refreshes: refreshes(null, 'success'),
    refused: refreshes(null, 'error'),
    reasons: [...reasons].join(' / '),
  };
}

// `accounts revoke` dies at fp11, when the store knows it and no server does: with and without a refresh under way. Answers the
// same counts.
export async function revocationCrashes(t, { rounds }) {
  const users = Array.from({ length: rounds }, (_, index) => `user${index + 1}`);
  const { provider, ...w } = await world(t, { accounts: users, accessTokenSeconds: 600 });
  await w.serve();
  // Half of them have a token; the others get one when they ask.
  await w.importGrants(users, (grant, user) => (Number(user.slice(4)) % 2 ? {} : livingToken(grant)));
  let link;
  for (const [index, user] of users.entries()) {
    let waits = Promise.resolve();
    if (index % 2) {
      assert.equal((await w.ask(user)).status, 200);
    } else {
      provider.holdAnswers();
      const rotates = provider.next((entry) => entry.type === 'success' && entry.account === user);
      waits = w.ask(user);
      await within(10, 'a refresh is under way', rotates);
    }
    const env = { BEARERD_FAULT_POINT: 'fp11' };
    await aloneOn(w.directory);
    const died = await w.cli(['accounts', 'revoke', user], { binary: FAULTY_BINARY, env });
    assert.equal(died.signal, 'SIGKILL', died.stderr);
    provider.releaseAnswers();
    const late = await waits;
    // A token that came after the revocation is dropped.
    if (late) assert.equal(late.error, 'signin_required', JSON.stringify(late));
    const answer = await eventually(`${user}: the revocation is in force`, 5, async () => {
      const next = await w.ask(user);
      return next.status !== 200 && next;
    });
    assert.equal(answer.error, 'signin_required', JSON.stringify(answer));
    assert.equal((await w.account(user)).status, 'revoked');
    link ??= { user, url: answer.signinUrl };
  }
  for (const user of users) assert.equal((await w.ask(user)).error, 'signin_required', 'it stays so');
  assert.match((await follow(cookieJar(), link.url, ['', link.user])).text, /signed in/i);
  assert.equal((await w.ask(link.user)).status, 200);
  return {
    point: 'fp11',
    rounds,
    revoked: rounds,
    refreshes: provider.count({ type: 'success', grantType: 'refresh_token' }),
    refused: provider.count({ type: 'error' }),
  };
}

// Where `keys rotate` may die, and whether a key was made by then.
export const ROTATION_POINTS = {
  fp12: 'records are sealed anew, nothing is committed',
  fp13: 'a slice of records is committed',
  fp14: 'the new key is in the ring',
  fp15: 'the new key seals',
};

// `keys rotate` dies at each point, again and again, beside a server that serves and refreshes; then a run comes to its end. The provider
// ends a grant whose refresh token comes twice. Answers what was counted.
export async function rotationCrashes(t, { accounts }) {
  const users = Array.from({ length: accounts }, (_, index) => `user${index + 1}`);
  const { provider, ...w } = await world(t, { accounts: users, accessTokenSeconds: 600 });
  await w.serve();
  await w.importGrants(users);
  const status = async () => JSON.parse((await w.cli(['keys', 'status', '--format', 'json'])).stdout);
  // Whose first token is fetched in which round: each refresh falls into another state of the rotation.
  const points = ['fp14', 'fp14', 'fp15', 'fp12', 'fp12', 'fp13', 'fp13', 'fp12'];
  const share = Math.floor(users.length / (points.length + 2));
  const refresh = async (round) => {
    for (const user of users.slice(round * share, (round + 1) * share)) {
      const answer = await w.ask(user);
      assert.equal(answer.status, 200, `${user}: ${JSON.stringify(answer)}`);
    }
  };
  await refresh(0);
  for (const [round, point] of points.entries()) {
    const died = w.cli(['keys', 'rotate'], { binary: FAULTY_BINARY, env: { BEARERD_FAULT_POINT: point } });
    await refresh(round + 1);
    const { signal, code, stderr } = await died;
    // A key that is there already is not made again: the second run goes past fp14 and to the end of the rotation.
    if (round === 1) assert.equal(signal ?? code, 0, stderr);
    else assert.equal(signal, 'SIGKILL', `${point}: ${stderr}`);
    const { rotating } = await status();
    assert.equal(rotating, round !== 1, point);
  }
  const done = await w.cli(['keys', 'rotate']);
  assert.equal(done.code, 0, done.stderr);
  const { keys, rotating } = await status();
  assert.deepEqual([keys.map(({ id, state }) => [id, state]), rotating], [[[3, 'active']], false]);
  // Everybody still has a token, and a refresh token that is good.
  for (const user of users) assert.equal((await w.ask(user)).status, 200, user);
  for (const user of users.slice(0, share)) assert.equal((await w.cli(['accounts', 'refresh', user])).code, 0, user);
  const listed = JSON.parse((await w.cli(['accounts', 'list', '--format', 'json'])).stdout);
  for (const { alias, status: state } of listed) assert.equal(state, 'active', alias);
  assert.equal(provider.count({ type: 'error', grantType: 'refresh_token' }), 0, 'no token came twice');
  return {
    point: 'keys rotate',
    rounds: points.length,
    lived: listed.length,
    lost: 0,
    refreshes: provider.count({ type: 'success', grantType: 'refresh_token' }),
    refused: 0,
  };
}
