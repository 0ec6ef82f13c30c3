// The scenarios, in the order in which they run. Each says which accounts it needs, which streams of requests come, what happens meanwhile,
// which answers are as they should be, and what its figures tell.
//
//     limits()                  lines for `[server.limits]`, over those of all scenarios
//     accounts(settings)        `{ count, row }`: so many of the sandbox's users; `row(row, index)` may change what is imported of one
//     streams(run)              what `generate` takes, and `name`, `after` (seconds), `right(row)`: whether an answer is as it should be
//     meanwhile(run)            turns the sandbox's switches while the streams run
//     look(run, result)         `{ facts, wrong, words, idle }` of its own; `facts` are `{ name: [value, unit] }`, `idle` says that
//                               what the scenario is about did not happen
//
// `run`: `{ world, sandbox, settings, seconds, clock, wait, mark, accounts, open }`.

import path from 'node:path';
import { writeFile } from 'node:fs/promises';
import { IdleConnections } from './idle.mjs';
import { ME } from './probe.mjs';
import { distribution } from './statistics.mjs';

const MAIL = '/v1.0/me/messages?$top=10';
const MEGABYTE = 1e6;
const LARGE = 10_000_000;
const GOOD = (row) => row.status === 200;

// URLs of some of the accounts; of the user's deployment whatever it has.
const urls = ({ world, accounts }, target, [from, to] = [0, Infinity]) =>
  (accounts.length ? accounts.slice(from, to) : [undefined]).map((account) => world.target(account, target));
// Enough connections for a rate whose answers take so many milliseconds, with room for worse.
const enough = (rate, milliseconds) => Math.min(1024, Math.max(16, Math.ceil((rate * milliseconds * 3) / 1000)));
const cold = ({ access_token: _, expires_at: __, ...row }) => row;

// What `overload` calls a full house.
const SEATS = 50;
const SERVICE_MS = 100;
const CAPACITY = (SEATS * 1000) / SERVICE_MS;
const SERVED_OR_REFUSED = (row) => GOOD(row) || row.status === 503;
// Of the best goodput, what has to be left.
const KEPT = 0.9;

export const SCENARIOS = [
  {
    name: 'fresh',
    title: 'Fresh token, steady rate',
    about: 'Every account has a token that lives: the normal case. Requests are due at a steady rate, whether or not earlier ones were answered; half '
      + 'ask for a small object, half for a page of mail whose links are rewritten.',
    onDeployment: true,
    accounts: () => ({ count: 200 }),
    streams: (run) => [{
      name: 'requests', rate: run.settings.rate, connections: enough(run.settings.rate, 40), right: GOOD,
      urls: run.sandbox ? [...urls(run, ME), ...urls(run, MAIL)] : urls(run, run.settings.path),
    }],
    look: perRequest,
  },
  {
    name: 'max',
    title: 'Maximum rate',
    about: '64 connections ask for a small object as fast as they are answered. This closed loop shows capacity; its latencies are those of '
      + 'full load, and say nothing about a load that you choose.',
    onDeployment: 'named',
    accounts: () => ({ count: 200 }),
    streams: (run) => [{ name: 'requests', connections: 64, right: GOOD, urls: urls(run, run.sandbox ? ME : run.settings.path) }],
    look: perRequest,
  },
  {
    name: 'storm',
    title: 'Expiry storm',
    about: 'After a quiet time come requests for many accounts whose tokens have lapsed, or do so in these seconds: each needs one call of the provider, '
      + 'and no more. Requests for other accounts, whose tokens live, shall hardly notice.',
    accounts: ({ seconds }) => {
      const now = Date.now() / 1000;
      return {
        count: 100 + Math.min(10_000, Math.round(seconds * 167)),
        row: (row, index) => (index < 100 ? row : { ...row, expires_at: Math.round(now + 5 + seconds * (0.25 + (index % 50) / 100)) }),
      };
    },
    streams: (run) => [
      { name: 'unaffected accounts', rate: 100, connections: 32, right: GOOD, urls: urls(run, ME, [0, 100]) },
      { name: 'lapsing accounts', rate: 180, connections: 256, after: run.seconds * 0.25, right: GOOD, urls: urls(run, ME, [100]) },
    ],
    meanwhile: async (run) => {
      await run.wait(run.seconds * 0.25);
      run.mark('the storm begins');
    },
    look: async (run, { streams }) => {
      const calls = new Map();
      for (const { user, grant_type: grant } of await run.sandbox.tokenRequests()) if (grant === 'refresh_token') calls.set(user, (calls.get(user) ?? 0) + 1);
      const total = [...calls.values()].reduce((sum, count) => sum + count, 0);
      const repeated = [...calls.values()].filter((count) => count > 1).length;
      const begin = run.seconds * 0.25;
      const p99 = (rows) => distribution(rows.map((row) => row.took * 1000)).p99;
      const [quiet, stormy] = [p99(streams[0].rows.filter((row) => row.due < begin)), p99(streams[0].rows.filter((row) => row.due >= begin))];
      return {
        facts: {
          'accounts refreshed': [calls.size, ''], 'provider calls per account': [calls.size ? total / calls.size : null, ''],
          'unaffected p99, quiet': [quiet, 'ms'], 'unaffected p99, in the storm': [stormy, 'ms'],
        },
        idle: calls.size === 0 && 'No account needed a refresh.',
        wrong: repeated ? { 'accounts for which the provider was asked more than once': repeated } : {},
        words: [`${calls.size} accounts were refreshed with ${total} calls of the provider.`,
          quiet && stormy ? `Accounts whose tokens live had a p99 of ${quiet.toFixed(1)} ms before the storm and ${stormy.toFixed(1)} ms in it.` : ''],
      };
    },
  },
  {
    name: 'revoked',
    title: 'Revoked tokens',
    about: 'Four times a second Graph revokes the tokens of four accounts. The next request of each is answered 401, which bearerd heals by one refresh and a '
      + 'replay, also of a request with a body: the application shall see none of it.',
    accounts: () => ({ count: 400 }),
    streams: async (run) => {
      const bodyFile = path.join(run.sandbox.directory, 'body');
      await writeFile(bodyFile, 'x'.repeat(10_000));
      return [
        { name: 'reads', rate: 200, connections: 64, right: GOOD, urls: urls(run, ME) },
        { name: 'writes of 10 KB', rate: 50, connections: 32, right: GOOD, urls: urls(run, '/v1.0/echo'), method: 'POST', bodyFile },
      ];
    },
    meanwhile: async (run) => {
      for (let next = 0; await run.wait(0.25);) {
        for (const stop = next + 4; next < stop; next += 1) await run.sandbox.revokeAccess(run.accounts[next % run.accounts.length]);
      }
    },
    look: (run, { grown }) => ({
      facts: { '401 healed': [grown.unauthorized.healed ?? 0, ''], refreshes: [grown.refreshes, ''] },
      words: [`${grown.unauthorized.healed ?? 0} answers of 401 were healed.`],
      idle: !grown.unauthorized.healed && 'No request met a revoked token.',
    }),
  },
  {
    name: 'throttled',
    title: 'Throttled upstream',
    about: 'Graph refuses every 20th request, with 429 and 503 in turn, and wants a second of peace. bearerd waits and asks again on behalf of the '
      + 'application, which sees slow answers instead of errors. What is refused time after time is passed on; up to 1 % is no fault here.',
    accounts: () => ({ count: 400 }),
    tolerated: 0.01,
    streams: (run) => [{
      name: 'requests', rate: 200, connections: 512, urls: urls(run, ME), right: GOOD, passedOn: (row) => [429, 503].includes(row.status),
    }],
    meanwhile: async (run) => {
      await run.wait(run.seconds * 0.2);
      run.mark('throttling begins');
      await run.sandbox.fault('graph:flaky=20*');
      await run.wait(run.seconds * 0.6);
      await run.sandbox.calm();
      run.mark('throttling ends');
    },
    look: (run, { grown, streams }) => ({
      facts: { retries: [grown.retries, ''], pauses: [grown.pauses, ''] },
      words: [`bearerd asked ${grown.retries} times again; ${streams[0].passedOn} refusals were passed on.`],
      idle: !grown.retries && streams[0].passedOn === 0 && 'Graph refused nothing meanwhile.',
    }),
  },
  {
    name: 'outage',
    title: 'Provider outage',
    about: 'Entra ID refuses connections for a while. Accounts whose tokens live shall be served as if nothing had happened; those that need a new '
      + 'token get 503 with Retry-After, and are served by themselves once the provider is back.',
    accounts: ({ seconds }) => ({ count: 100 + Math.min(10_000, seconds * 100), row: (row, index) => (index < 100 ? row : cold(row)) }),
    streams: (run) => [
      { name: 'living tokens', rate: 200, connections: 64, right: GOOD, urls: urls(run, ME, [0, 100]) },
      {
        name: 'accounts without a token', rate: 50, connections: 128, urls: urls(run, ME, [100]),
        // The breaker's pause may be as long as the outage was, and a request may have waited for its turn.
        right: (row) => GOOD(row) || (row.status === 503 && row.end >= run.outage?.from && row.due <= run.outage?.to * 2 - run.outage?.from + 6),
      },
    ],
    meanwhile: async (run) => {
      await run.wait(run.seconds * 0.2);
      const length = Math.min(60, run.seconds * 0.3);
      run.mark('provider away');
      // The generator counts from a moment after we started it: as much earlier its answers seem to come.
      run.outage = { from: run.clock() - 1, to: Infinity };
      await run.sandbox.fault(`token:down=${Math.round(length * 1000)}`);
      // It begins with the first request for a token.
      run.outage.to = run.clock() + length + 0.5;
      await run.wait(length);
      run.mark('provider back');
    },
    look: (run, { streams }) => {
      const refused = streams[1].rows.filter((row) => row.status === 503);
      const last = refused.reduce((latest, row) => Math.max(latest, row.end), 0);
      const took = run.outage ? Math.max(0, last - run.outage.to + 0.5) : 0;
      return {
        facts: { 'last refusal after the provider is back': [refused.length ? took : null, 's'], 'refused meanwhile': [refused.length, ''] },
        words: [`The last refusal came ${took.toFixed(1)} s after the provider was back; ${refused.length} requests were told to come back later.`],
        idle: refused.length === 0 && 'No request needed a token meanwhile.',
      };
    },
  },
  {
    name: 'slow',
    title: 'Slow upstream',
    about: 'Graph takes half a second for every answer. Many requests are under way at a time; bearerd shall add next to nothing.',
    accounts: () => ({ count: 400 }),
    streams: (run) => [{ name: 'requests', rate: 200, connections: 512, right: GOOD, urls: urls(run, ME) }],
    before: (run) => run.sandbox.fault('graph:slow=500*'),
    look: (run, { grown }) => {
      const added = grown.requests ? ((grown.requestSeconds - grown.upstreamSeconds) / grown.requests) * 1000 : null;
      return { facts: { 'added by bearerd, mean': [added, 'ms'] }, words: added === null ? [] : [`On average bearerd added ${added.toFixed(2)} ms to what Graph took.`] };
    },
  },
  {
    name: 'overload',
    title: 'Three times too much',
    about: 'bearerd has 50 seats and Graph takes 100 ms: 500 requests a second fill the house. After half of the time 1,500 come, whether or not any '
      + 'is answered. As many shall be served as before; the others are told at once, or soon, when to come back, and reach nobody.',
    accounts: () => ({ count: 400 }),
    limits: () => `requests = ${SEATS}`,
    streams: (run) => [
      { name: 'as many as there is room for', rate: CAPACITY, connections: 256, right: SERVED_OR_REFUSED, urls: urls(run, ME) },
      { name: 'twice as many more', rate: CAPACITY * 2, connections: 512, after: run.seconds / 2, right: SERVED_OR_REFUSED, urls: urls(run, ME) },
    ],
    before: (run) => run.sandbox.fault(`graph:slow=${SERVICE_MS}*`),
    meanwhile: async (run) => {
      if (await run.wait(run.seconds / 2)) run.mark('three times too much');
    },
    look: overloaded,
  },
  {
    name: 'large',
    title: 'Large files',
    about: 'Files of 10 MB, downloads on four connections and uploads on two, as fast as they go. They stream: memory shall not follow their size, and '
      + 'each must arrive in full length.',
    onDeployment: 'named',
    accounts: () => ({ count: 50 }),
    streams: async (run) => {
      if (!run.sandbox) return [{ name: 'downloads', connections: 4, right: GOOD, urls: urls(run, run.settings.largePath) }];
      const bodyFile = path.join(run.sandbox.directory, 'file');
      await writeFile(bodyFile, Buffer.alloc(LARGE, 'b'));
      return [
        { name: 'downloads', connections: 4, right: (row) => GOOD(row) && row.bytes === LARGE, urls: urls(run, `/v1.0/blob?bytes=${LARGE}`) },
        { name: 'uploads', connections: 2, right: GOOD, urls: urls(run, '/v1.0/echo'), method: 'POST', bodyFile, sends: LARGE },
      ];
    },
    look: (run, { streams, total, samples }) => {
      const seconds = Math.max(...streams.map((stream) => stream.lasted));
      const moved = streams.reduce((sum, stream) => sum + stream.bytes + stream.answered * (stream.sends ?? 0), 0);
      const gigabytes = moved / 1e9;
      const grown = samples.length > 1 && samples[0].rss ? (Math.max(...samples.map((sample) => sample.rss)) - samples[0].rss) / MEGABYTE : null;
      // Its CPU counts from the first trial on, the bytes do not: what the trials moved is as fast, so that both go by the second.
      const perGigabyte = total.bearerdCpu !== null && gigabytes ? (total.bearerdCpu / total.seconds) / (gigabytes / seconds) : null;
      return {
        facts: { moved: [gigabytes / seconds * 1000, 'MB/s'], 'CPU per GB': [perGigabyte, 's'], 'memory grew by': [grown, 'MB'] },
        words: [`${(gigabytes / seconds * 1000).toFixed(0)} MB a second went through${perGigabyte === null ? '' : `, with ${perGigabyte.toFixed(2)} s of CPU for each GB`}.`],
      };
    },
  },
  {
    name: 'many',
    title: 'Many accounts',
    about: 'Requests for a great many accounts, each of which is read from the store when it is first asked for. What does an account cost in memory, and '
      + 'does the number of accounts slow anything down?',
    onDeployment: true,
    accounts: ({ many }) => ({ count: many }),
    streams: (run) => [run.sandbox
      // Each account is asked for three times on average: 95 % of them at least once.
      ? { name: 'requests', rate: Math.max(50, Math.round((run.accounts.length * 3) / run.seconds)), connections: 128, right: GOOD, urls: urls(run, ME) }
      : { name: 'requests', rate: run.settings.rate, connections: enough(run.settings.rate, 100), right: GOOD, urls: urls(run, run.settings.path) }],
    // What so many connections cost by themselves is not the accounts' matter.
    before: async (run) => {
      const warm = new IdleConnections({ url: urls(run, run.sandbox ? ME : run.settings.path)[0], headers: run.world.headers });
      await warm.open(128, run.stopped);
      warm.close();
      run.memoryBefore = run.memory();
    },
    after: (run) => { run.memoryAfter = run.memory(); },
    look: (run, { log }) => {
      if (!log || !run.memoryBefore || !run.memoryAfter) return {};
      const memory = run.memoryAfter - run.memoryBefore;
      const each = memory / log.accounts;
      return {
        facts: { 'accounts used': [log.accounts, ''], 'memory per account': [each / 1000, 'KB'], 'accounts per GB': [1e9 / each, ''] },
        words: [`${log.accounts} accounts were used; memory grew by ${(memory / MEGABYTE).toFixed(0)} MB, ${(each / 1000).toFixed(1)} KB for each.`],
      };
    },
  },
  {
    name: 'idle',
    title: 'Many idle connections',
    about: 'Thousands of connections are opened, ask once and stay silent, beside a few that work. At the end each asks again: all must '
      + 'still be there, but for a deployment whose limits, or whose proxies, end silent connections.',
    onDeployment: true,
    accounts: () => ({ count: 50 }),
    before: async (run) => {
      run.connections = new IdleConnections({ url: urls(run, run.sandbox ? ME : run.settings.path)[0], headers: run.world.headers });
      run.memoryBefore = run.memory();
      run.opened = await run.connections.open(run.settings.connections, run.stopped);
      run.memoryOpen = run.memory();
    },
    streams: (run) => [{ name: 'requests beside them', rate: Math.min(100, run.settings.rate), connections: 16, right: GOOD, urls: urls(run, run.sandbox ? ME : run.settings.path) }],
    after: async (run) => {
      run.memoryIdle = run.memory();
      run.again = await run.connections.askAgain(run.stopped);
    },
    end: (run) => run.connections?.close(),
    look: (run) => {
      const { opened, again } = run;
      const wrong = {};
      for (const [what, count] of Object.entries(opened.failures)) wrong[`connections that could not be opened or were refused (${what})`] = count;
      for (const [what, count] of Object.entries(again?.failures ?? {})) wrong[`idle connections whose second request failed (${what})`] = count;
      const lost = again ? Math.max(0, again.answered - again.reused) : 0;
      // The own world has no limit that ends them.
      if (lost && run.sandbox) wrong['idle connections that bearerd had closed'] = lost;
      const each = run.memoryBefore === null || !opened.open || lost ? null : (run.memoryIdle - run.memoryBefore) / opened.open;
      const memory = each === null ? '' : `, at ${(each / 1000).toFixed(1)} KB of memory each`;
      const closed = lost ? `; ${lost} had been closed meanwhile (by default server.limits.header_timeout ends those that are silent for 30 s)` : '';
      return {
        facts: {
          connections: [opened.open, ''], 'memory per connection': [each === null ? null : each / 1000, 'KB'],
          'connections per GB': [each === null ? null : 1e9 / each, ''], 'closed while silent': [lost || null, ''],
        },
        wrong,
        words: [`${opened.open} connections were open${memory}; ${again?.reused ?? 0} of them answered again${closed}.`],
      };
    },
  },
];

function perRequest(run, { streams, total, grown }) {
  // Below this much work the process's own upkeep is what would be measured.
  if (total.bearerdCpu === null || total.bearerdCpu < 0.5 || !grown.requests) return {};
  const micros = (total.bearerdCpu / grown.requests) * 1e6;
  return {
    facts: { 'CPU per request': [micros, 'µs'], 'makes a second per core': [1e6 / micros, ''] },
    words: [`${streams[0].perSecond.toFixed(0)} requests a second; each took ${micros.toFixed(0)} µs of bearerd's CPU, which makes ${(1e6 / micros).toFixed(0)} a second for a core.`],
  };
}

// How many were served before and in the overload; both parts without their first second, in which connections are opened. And what a
// refusal costs: the CPU of both parts, shared out between the served and the refused.
function overloaded(run, { streams, samples }) {
  const half = run.seconds / 2;
  const rows = streams.flatMap((stream) => stream.rows);
  const part = (from, to) => {
    const within = rows.filter((row) => row.end >= from && row.end < to);
    const served = within.filter(GOOD);
    const cores = samples.filter(({ at, bearerdCores }) => bearerdCores !== null && at >= from + 1 && at <= to).map(({ bearerdCores }) => bearerdCores);
    return {
      goodput: served.length / (to - from), refused: (within.length - served.length) / (to - from),
      p99: distribution(served.map((row) => row.took * 1000)).p99,
      cpu: cores.length ? cores.reduce((sum, value) => sum + value, 0) / cores.length : null,
    };
  };
  const [before, during] = [part(1, half), part(half + 1, run.seconds)];
  const kept = before.goodput ? during.goodput / before.goodput : 0;
  const each = before.cpu === null || !before.goodput ? null : before.cpu / (before.goodput + before.refused);
  const refusal = each === null || during.cpu === null || !during.refused ? null : (during.cpu - during.goodput * each) / during.refused;
  return {
    facts: {
      'goodput at 1x': [before.goodput, '/s'], 'goodput at 3x': [during.goodput, '/s'], 'kept of it': [kept * 100, '%'],
      'refused at 3x': [during.refused, '/s'], 'served p99 at 1x': [before.p99, 'ms'], 'served p99 at 3x': [during.p99, 'ms'],
      'CPU per request': [each === null ? null : each * 1e6, 'µs'], 'CPU per refusal': [refusal === null ? null : refusal * 1e6, 'µs'],
    },
    idle: during.refused === 0 && 'Nothing was refused.',
    wrong: rows.length && kept < KEPT ? { [`goodput fell below ${KEPT * 100} % of what it was`]: 1 } : {},
    words: [`${before.goodput.toFixed(0)} requests a second were served before, ${during.goodput.toFixed(0)} at three times the capacity: ${(kept * 100).toFixed(0)} %.`],
  };
}

export const NAMES = SCENARIOS.map(({ name }) => name);
export const FOR_DEPLOYMENTS = SCENARIOS.filter(({ onDeployment }) => onDeployment === true).map(({ name }) => name);
export const FOR_DEPLOYMENTS_IF_NAMED = SCENARIOS.filter(({ onDeployment }) => onDeployment === 'named').map(({ name }) => name);
