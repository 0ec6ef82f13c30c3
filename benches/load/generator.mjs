// The load generator, oha: how it is called, and what it says afterwards.
//
// At a fixed rate requests are due whether or not earlier ones were answered, and their latency counts from that moment (open loop). The
// number of requests is always fixed beforehand, so that those without an answer, of which the csv has no row, are known by their absence.

import { readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { start } from './children.mjs';
import { parseRows } from './statistics.mjs';

export const OHA = process.env.OHA_BIN ?? fileURLToPath(new URL('../../target/tools/bin/oha', import.meta.url));

// No request is waited for longer than this.
const TIMEOUT = 30;
// How long a closed loop is tried before it is known how many requests fill its time.
const TRIAL = 2;

let number = 0;

// Starts a stream of requests: `{ done, stop }`, `done` settling with `{ rows, sent, from, failure }`.
//     urls         whole URLs, of which each request takes one by chance
//     rate         requests a second; without it as many as `connections` can, one after the other (closed loop)
//     seconds      how long it is meant to last
//     headers, method, bodyFile
//     started(pid) is told of each process
// `clock()` says the seconds since the scenario began.
export function generate({ directory, clock, urls, rate, connections, seconds, headers = {}, method = 'GET', bodyFile, started = () => {} }) {
  const own = { stopped: false, child: null };
  const oha = async (amount) => {
    const name = path.join(directory, `stream-${number += 1}`);
    await writeFile(`${name}.urls`, urls.map((url) => `${url}\n`).join(''));
    const options = [
      '--no-tui', '--output-format', 'csv', '--output', `${name}.csv`, '--urls-from-file', '--redirect', '0', '--disable-compression',
      '-t', `${TIMEOUT}s`, '-c', String(connections), '-m', method,
      ...amount, ...Object.entries(headers).flatMap(([header, value]) => ['-H', `${header}: ${value}`]),
      ...(bodyFile ? ['-D', bodyFile] : []),
    ];
    const child = start(OHA, [...options, `${name}.urls`], { stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.on('data', (chunk) => { said += chunk; });
    own.child = child;
    if (child.pid) started(child.pid);
    const code = await child.done;
    const csv = await readFile(`${name}.csv`, 'utf8').catch(() => '');
    await Promise.all([`${name}.csv`, `${name}.urls`].map((file) => rm(file, { force: true })));
    if (csv === '') return { rows: [], failure: own.stopped ? null : `the generator ended with ${code}: ${(child.failure ?? said).toString().trim()}` };
    return { rows: parseRows(csv, { corrected: rate !== undefined }), failure: null };
  };

  own.done = (async () => {
    if (rate !== undefined) {
      const sent = Math.max(1, Math.round(rate * seconds));
      const from = clock();
      const late = setTimeout(() => own.interrupt(), (seconds * 2 + TIMEOUT) * 1000);
      const done = await oha(['-n', String(sent), '-q', String(rate), '--latency-correction']);
      clearTimeout(late);
      return { ...done, from, sent: own.stopped ? null : sent };
    }
    const trial = await oha(['-z', `${TRIAL}s`, '--wait-ongoing-requests-after-deadline']);
    if (trial.failure || trial.rows.length === 0 || own.stopped) return { ...trial, from: 0, sent: own.stopped ? null : 1 };
    const took = trial.rows.reduce((latest, row) => Math.max(latest, row.end), TRIAL);
    const sent = Math.max(connections, Math.round((trial.rows.length / took) * seconds));
    const from = clock();
    return { ...(await oha(['-n', String(sent)])), from, sent: own.stopped ? null : sent };
  })();
  // It then writes what it has, where the rate is fixed; a closed loop leaves nothing.
  own.interrupt = () => own.child?.kill('SIGINT');
  own.stop = () => { own.stopped = true; own.interrupt(); };
  return own;
}
