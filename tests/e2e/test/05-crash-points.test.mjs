// `kill -9` at each named point of the refresh protocol, with a provider that ends a grant whose refresh token comes twice. A grant
// is lost only where nothing can help: the provider has rotated, and the successor was never durable.

import { test } from 'node:test';
import { crashes, POINTS, revocationCrashes, ROTATION_POINTS, rotationCrashes } from '../crash.mjs';

const KINDS = { waiting: 12, ageing: 4, command: 4 };

test('kill -9 at each crash point, 20 rounds each', { concurrency: 3, timeout: 300_000 }, async (t) => {
  const rows = [];
  await Promise.all([
    ...Object.keys(POINTS).map((point) => t.test(`a crash at ${point}: ${POINTS[point].where}`, async (t) => {
      const started = Date.now();
      rows.push({ ...await crashes(t, { point, ...KINDS }), seconds: seconds(started) });
    })),
    t.test('a crash at fp11: the revocation is stored, no server knows of it', async (t) => {
      const started = Date.now();
      rows.push({ ...await revocationCrashes(t, { rounds: 20 }), seconds: seconds(started) });
    }),
    t.test(`crashes of keys rotate beside a server: ${Object.keys(ROTATION_POINTS).join(', ')}`, async (t) => {
      const started = Date.now();
      rows.push({ ...await rotationCrashes(t, { accounts: 150 }), seconds: seconds(started) });
    }),
  ]);
  for (const row of rows.sort((a, b) => a.point.localeCompare(b.point))) {
    const state = row.revoked ? `${row.revoked} revoked, as was asked` : `${row.lived} lived, ${row.lost} lost${row.lost ? ' (as the protocol says)' : ''}`;
    t.diagnostic(`${row.point}: ${row.rounds} rounds, ${state}; the provider saw ${row.refreshes} refreshes, ${row.refused} refused; ${row.seconds} s`
      + (row.reasons ? `; the state says: ${row.reasons}` : ''));
  }
});

const seconds = (since) => ((Date.now() - since) / 1000).toFixed(1);
