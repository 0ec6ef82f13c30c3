// Requests all the time, from several workers, and what became of each.

import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { get } from './harness.mjs';

// Starts `workers` that ask as `users` in turn for `seconds`. `judge(user, answer, from)` answers what is wrong with an answer, or
// nothing; unless it is given, everything but 200 as that user is wrong.
export function startLoad(t, w, { users, workers, seconds, pause = 10, judge = isServed }) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: workers });
  t.after(() => agent.destroy());
  const started = Date.now();
  const newest = new Map(users.map((user) => [user, 0]));
  // When no server lived: from just before a kill until the next one is ready.
  const downs = [];
  const load = {
    end: started + seconds * 1000,
    downs,
    answered: 0,
    cutOff: 0,
    failures: [],
    newest: (user) => newest.get(user),
    stop() { load.end = 0; return load.done; },
  };

  const worker = async (number) => {
    for (let turn = 0; Date.now() < load.end; turn += 1) {
      const user = users[(number + turn * workers) % users.length];
      const from = Date.now();
      const failed = (what) => load.failures.push({ after: from - started, took: Date.now() - from, user, ...what });
      try {
        const target = `/v1.0/me/messages?worker=${number}&turn=${turn}`;
        const answer = await w.ask(user, target, { agent });
        const wrong = judge(user, answer, from);
        if (wrong) failed({ wrong, ...answer });
        else load.answered += 1;
        if (answer.status === 200) newest.set(user, Math.max(newest.get(user), answer.body.tokenIssued));
      } catch (error) {
        const to = Date.now();
        // A request that a kill cut off, or that found nobody, says nothing about a living proxy.
        if (downs.some((down) => from <= down.to && to >= down.from)) load.cutOff += 1;
        else failed({ error: error.message });
      }
      await sleep(pause);
    }
  };
  load.done = Promise.all(Array.from({ length: workers }, (_, number) => worker(number)));
  return load;
}

// `rate` requests a second, each at its time however long the others take, as `users` in turn: over connections that are kept, and one
// in ten over a connection of its own. `stop()` answers when the last one has its answer.
export function startStream(t, w, { users, rate, judge = isServed }) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity, maxFreeSockets: 256 });
  t.after(() => agent.destroy());
  const started = Date.now();
  const under = new Set();
  const stream = { sent: 0, answered: 0, failures: [], slowest: 0 };
  const one = async (number) => {
    const user = users[number % users.length];
    const from = Date.now();
    const own = number % 10 === 0;
    const failed = (what) => stream.failures.push({ after: from - started, took: Date.now() - from, user, own, ...what });
    try {
      const answer = await w.ask(user, `/v1.0/me/messages?number=${number}`, own ? {} : { agent });
      const wrong = judge(user, answer, from);
      if (wrong) failed({ wrong, ...answer });
      else stream.answered += 1;
    } catch (error) {
      failed({ error: error.message, code: error.code });
    }
    stream.slowest = Math.max(stream.slowest, Date.now() - from);
  };
  const timer = setInterval(() => {
    const due = Math.floor((Date.now() - started) * rate / 1000);
    for (; stream.sent < due; stream.sent += 1) {
      const request = one(stream.sent);
      under.add(request);
      request.finally(() => under.delete(request));
    }
  }, 5);
  t.after(() => clearInterval(timer));
  stream.stop = async () => {
    clearInterval(timer);
    stream.seconds = (Date.now() - started) / 1000;
    await Promise.all(under);
  };
  return stream;
}

// `kill -9`, and a new server. The requests that this cuts off are none of anybody's failures.
export async function killAndRestart(t, w, load, server, between = () => {}) {
  const down = { from: Date.now(), to: Infinity };
  load.downs.push(down);
  await server.kill();
  await between();
  const next = await w.serve();
  down.to = Date.now();
  t.diagnostic(`kill ${load.downs.length}: ready again after ${next.startMillis} ms`);
  return next;
}

const isServed = (user, answer) => ((answer.status === 200 && answer.body.account === user) ? undefined : 'not served');
