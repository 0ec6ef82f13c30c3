// Beside the load, five requests a second whose answers are read: is it the right person's, and does a refusal say when to come back?
// The generator sees only status and length.

import { setTimeout as sleep } from 'node:timers/promises';

const PAUSE = 200;

// `pick()`: an account, or nothing while there is none to ask for. Ends with `stop()`, which answers `{ asked, wrong: { what: count } }`.
export function probe(world, pick) {
  const found = { asked: 0, wrong: {} };
  const wrong = (what) => { found.wrong[what] = (found.wrong[what] ?? 0) + 1; };
  let running = true;
  const done = (async () => {
    for (; running; await sleep(PAUSE)) {
      const account = pick();
      if (account === undefined) continue;
      try {
        const answer = await fetch(world.target(account, '/v1.0/me'), { headers: world.headers, signal: AbortSignal.timeout(30_000) });
        const text = await answer.text();
        found.asked += 1;
        if (answer.status === 200) {
          if (!JSON.parse(text).mail?.startsWith(`${account}@`)) wrong('an answer that is another account\'s');
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
