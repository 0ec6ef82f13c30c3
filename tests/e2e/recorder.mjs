// The record of all second origins (the hosts of downloads and uploads, to which no token may go) over a whole run of the suite. Each test file
// is a process of its own and appends to a file of its own; `run.mjs` reads them all at the end.

import { appendFileSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';

const VARIABLE = 'BEARERD_E2E_SECOND_ORIGINS';

// For the process that runs the suite: where the test files shall write.
export const recordInto = (directory) => { process.env[VARIABLE] = directory; };

// A request that came to a second origin.
export function sawOnSecondOrigin(origin, { method, target, headers }) {
  const directory = process.env[VARIABLE];
  if (!directory) return;
  const { authorization } = headers;
  const line = JSON.stringify({ origin, method, target, authorization: authorization?.slice(0, 12) });
  appendFileSync(path.join(directory, `${process.pid}.jsonl`), `${line}\n`);
}

// What the second origin of a running sandbox saw so far. `graph`: the URL of its simulated Graph.
export async function recordSandbox(graph) {
  const answer = await fetch(`${graph}/_sandbox/file-requests`);
  if (!answer.ok) throw new Error(`the sandbox's second origin: ${answer.status}`);
  for (const { method, target, headers } of await answer.json()) {
    sawOnSecondOrigin(`beside ${graph}`, { method, target, headers: Object.fromEntries(headers) });
  }
}

// All that the test files have written.
export function secondOriginRequests(directory) {
  const lines = readdirSync(directory).flatMap((name) => readFileSync(path.join(directory, name), 'utf8').trim().split('\n'));
  return lines.map((line) => JSON.parse(line));
}
