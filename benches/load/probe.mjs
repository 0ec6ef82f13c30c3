// Beside the load, requests whose answers are read, five a second, one a second of a deployment: is it the right person's, and does a refusal
// say when to come back? The generator sees only status and length.

import { setTimeout as sleep } from 'node:timers/promises';

export const ME = '/v1.0/me';

// Judges what `/me` says: is it another account's than the one that was asked for? The sandbox's users are called as their accounts are; those
// of a deployment shall stay who they were.
export function others({ sandbox }) {
  const ids = new Map();
  return (account, { mail, id }) => {
    if (sandbox) return !mail?.startsWith(`${account}@`);
    if (!ids.has(account)) ids.set(account, id);
    return ids.get(account) !== id;
  };
}

// `pick()`: an account. Ends with `stop()`, which answers `{ asked, wrong: { what: count } }`.
export function probe(world, pick, { sandbox }) {
  const isOther = others({ sandbox });
  const found = { asked: 0, wrong: {} };
  const wrong = (what) => { found.wrong[what] = (found.wrong[what] ?? 0) + 1; };
  let running = true;
  const done = (async () => {
    for (; running; await sleep(sandbox ? 200 : 1000)) {
      const account = pick();
      try {
        const answer = await fetch(world.target(account, ME), { headers: world.headers, signal: AbortSignal.timeout(30_000) });
        const text = await answer.text();
        found.asked += 1;
        if (answer.status === 200) {
          if (isOther(account, JSON.parse(text))) wrong('an answer that is another account\'s');
        } else if ([429, 503].includes(answer.status) && !/^\d+$/.test(answer.headers.get('retry-after') ?? '')) {
          wrong(`${answer.status} without Retry-After`);
        }
      } catch (error) {
        found.asked += 1;
        wrong(`no answer that can be read (${error.cause?.code ?? error.name})`);
      }
    }
  })();
  return { stop: async () => { running = false; await done; return found; } };
}
