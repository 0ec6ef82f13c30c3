// The generator: wrk on one thread, its users in turn, told by a script of this run.

import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { AROUND } from './machine.mjs';
import { HEADERS, USERS } from './world.mjs';

const execute = promisify(execFile);
let scripts = 0;

// Answers `{ requests, p50, p99 }`, the latencies in microseconds; `requests` may be none where the machine was too busy. `headers`: a user's
// number to headers. `upload`: bytes of a body. `pause`: milliseconds that a connection waits on average before each request, as chance has it;
// so requests arrive at a rate of their own.
export async function wrk(world, { url, headers = () => HEADERS, seconds, connections = 64, cores = AROUND, upload, pause }) {
  const script = path.join(world.directory, `wrk-${scripts += 1}.lua`);
  const { pathname, search, origin } = new URL(url);
  writeFileSync(script, lua({ target: pathname + search, headers, upload, pause }));
  const threads = Math.min(cores.length, connections);
  const { stdout } = await execute('taskset',
    ['-c', cores.join(), 'wrk', `-t${threads}`, `-c${connections}`, `-d${seconds}s`, '--timeout', '10s', '-s', script, origin],
    { timeout: (seconds + 30) * 1000 });
  const [found] = /^\{"requests".*\}$/m.exec(stdout) ?? [];
  if (!found) throw new Error(`wrk said: ${stdout}`);
  const said = JSON.parse(found);
  if (said.failed > 0) throw new Error(`${said.failed} of ${said.requests} requests to ${url} failed`);
  return said;
}

function lua({ target, headers, upload, pause }) {
  // The same large body needs no request of its own for each user.
  const users = upload ? [7] : Array.from({ length: USERS }, (_, number) => number);
  const credentials = ['Authorization', 'x-user'];
  const table = (entries) => `{${entries.map(([name, value]) => `[${JSON.stringify(name)}]=${JSON.stringify(value)}`).join(',')}}`;
  const of = (number, wanted) => table(Object.entries(headers(number)).filter(([name]) => credentials.includes(name) === wanted));
  return `
local shared = ${of(0, false)}
local credentials = {${users.map((number) => of(number, true)).join(',\n')}}
local requests, turn = {}, 0
function init()
  for index, own in ipairs(credentials) do
    for name, value in pairs(shared) do own[name] = value end
    requests[index] = wrk.format(${upload ? '"PUT"' : '"GET"'}, ${JSON.stringify(target)}, own${upload ? `, string.rep("x", ${upload})` : ''})
  end
end
function request()
  turn = (turn + 7) % #requests
  return requests[turn + 1]
end
${pause ? `function delay() return math.floor(0.5 - ${pause} * math.log(1 - math.random())) end` : ''}
function done(summary, latency)
  local wrong = summary.errors
  print(string.format('{"requests":%d,"failed":%d,"p50":%d,"p99":%d}', summary.requests,
    wrong.connect + wrong.read + wrong.write + wrong.status + wrong.timeout, latency:percentile(50), latency:percentile(99)))
end
`;
}
