// Runs the suite, two files at a time, and prints what each test counted. The last line: `N passed, N failed`. Each file works in
// directories and on ports of its own; the one that waits most comes first, and the others run beside it.
//
//     node tests/e2e/run.mjs [part of a file's name]...

import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { run } from 'node:test';
import { fileURLToPath } from 'node:url';
import { recordInto, secondOriginRequests } from './recorder.mjs';

const DIRECTORY = fileURLToPath(new URL('test', import.meta.url));
const FIRST = '09-outage.test.mjs';
const wanted = process.argv.slice(2);
const files = readdirSync(DIRECTORY).filter((name) => name.endsWith('.test.mjs'))
  .filter((name) => wanted.length === 0 || wanted.some((part) => name.includes(part)))
  .sort((a, b) => (b === FIRST) - (a === FIRST) || a.localeCompare(b)).map((name) => path.join(DIRECTORY, name));
if (files.length === 0) {
  console.error(`no test file is called like ${wanted.join(' or ')}`);
  process.exit(2);
}

const record = mkdtempSync(path.join(tmpdir(), 'bearerd-second-origins-'));
recordInto(record);

let passed = 0;
let failed = 0;
const totals = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) [\d.]+$/;
for await (const { type, data } of run({ files, concurrency: 2, timeout: 600_000 })) {
  if (type === 'test:diagnostic' && !totals.test(data.message)) console.log(`       ${data.message}`);
  if (type === 'test:stderr') process.stderr.write(data.message);
  if (type === 'test:pass') {
    passed += 1;
    console.log(`ok     ${data.name} (${seconds(data)})`);
  }
  if (type === 'test:fail') {
    failed += 1;
    const error = data.details.error?.cause ?? data.details.error;
    console.log(`FAILED ${data.name} (${seconds(data)})\n${error?.stack ?? error}`);
  }
}
judgeSecondOrigins();
rmSync(record, { recursive: true });
console.log(`\n${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;

function seconds(data) {
  return `${(data.details.duration_ms / 1000).toFixed(1)} s`;
}

// The last test, over all the others: where downloads and uploads went, no Authorization came.
function judgeSecondOrigins() {
  const requests = secondOriginRequests(record);
  const leaks = requests.filter(({ authorization }) => authorization !== undefined);
  // A part of the suite need not go there at all.
  if (requests.length === 0 && wanted.length) return;
  if (leaks.length || requests.length === 0) {
    failed += 1;
    console.log(`FAILED the second origins of the whole run: ${leaks.length} of ${requests.length} requests had an Authorization`);
    for (const leak of leaks) console.log(JSON.stringify(leak));
  } else {
    passed += 1;
    console.log(`ok     the second origins of the whole run: ${requests.length} requests, none had an Authorization`);
  }
}
