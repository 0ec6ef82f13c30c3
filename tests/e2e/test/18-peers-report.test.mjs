// What `make bench-peers` makes of its samples: verdicts on the goals. Nothing is started, nothing is measured.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judge, verdict } from '../../../benches/peers/goals.mjs';

// One round of both, where two workers do as many times as much as one.
const scaling = (times, around) => ({
  scaling: ['bearerd', 'nginx'].flatMap((who) => [
    { who, workers: 1, round: 0, perSecond: 100, micros: 20, generator: 0.5, shared: false },
    { who, workers: 2, round: 0, perSecond: 100 * times, micros: 22, ...around },
  ]),
});
const goal = (found) => judge(found).find(({ what }) => what.startsWith('scaling'));

test('a second worker is judged only where generator and upstream leave it a core', () => {
  const free = { generator: 0.5, shared: false };
  assert.deepEqual([2, 1.5].map((times) => verdict(goal(scaling(times, free)))), ['yes', 'no']);
  for (const [around, why] of [[{ generator: 1, shared: false }, /generator's cores are full/], [{ generator: 0.8, shared: true }, /share a core/]]) {
    assert.equal(verdict(goal(scaling(0.9, around))), "can't be shown");
    assert.match(goal(scaling(0.9, around)).measured, why);
  }
});
