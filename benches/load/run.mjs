// `make load`: the scenarios one after the other, a line of progress, and the report. Exit code 0: every answer was as it should be; 1: some
// were not, or something failed; 2: wrong usage; 130: it was interrupted.

import { randomInt } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { describeMachine, usage } from '../common/processes.mjs';
import { run as runProgram } from './children.mjs';
import { generate, OHA } from './generator.mjs';
import { judge } from './judge.mjs';
import { counts, parse } from './openmetrics.mjs';
import { HELP, options } from './options.mjs';
import { ME, probe } from './probe.mjs';
import { Progress } from './progress.mjs';
import { html, terminal } from './report.mjs';
import { Sampler } from './sampler.mjs';
import { FOR_DEPLOYMENTS, FOR_DEPLOYMENTS_IF_NAMED, NAMES, SCENARIOS } from './scenarios.mjs';
import { perSecond, summary, whileSending } from './statistics.mjs';
import { BINARY, built, deployment, startBearerd, startSandbox, userName } from './world.mjs';

const OUT = fileURLToPath(new URL('../../target/load', import.meta.url));
const progress = new Progress(process.stdout);
let interrupted = false;
let interruptedAt = 0;
let stopStreams = () => {};

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    // make and the terminal may both tell us; a second wish, later, is meant.
    if (interrupted && Date.now() - interruptedAt > 1000) process.exit(130);
    if (!interrupted) interruptedAt = Date.now();
    interrupted = true;
    stopStreams();
  });
}

try {
  process.exitCode = await main();
} catch (error) {
  progress.end();
  console.error(`error: ${error.message}`);
  // With whatever was started.
  process.exit(1);
}

async function main() {
  if (parseArgs({ options: { help: { type: 'boolean', short: 'h' } } }).values.help) {
    console.log(HELP);
    return 0;
  }
  let settings;
  try {
    settings = options(process.env, { names: NAMES, forDeployments: FOR_DEPLOYMENTS, forDeploymentsIfNamed: FOR_DEPLOYMENTS_IF_NAMED });
  } catch (error) {
    console.error(`error: ${error.message}\n\n${HELP}`);
    return 2;
  }
  if (!settings.url && !built()) throw new Error(`${BINARY} is not there: cargo build --release`);
  const report = {
    started: new Date().toISOString(),
    machine: describeMachine(),
    versions: {
      generator: (await runProgram(OHA, ['--version'])).stdout.trim() || 'oha is not there: benches/setup.sh load',
      bearerd: settings.url ? settings.url : (await runProgram(BINARY, ['--version'])).stdout.trim(),
    },
    settings: { ...settings, key: undefined },
    interrupted: false,
    scenarios: [],
  };
  if (report.versions.generator.includes('not there')) throw new Error(report.versions.generator);

  await mkdir(OUT, { recursive: true });
  const wanted = SCENARIOS.filter(({ name }) => settings.scenarios.includes(name));
  const users = Math.max(...wanted.map((scenario) => scenario.accounts(settings).count));
  const sandbox = settings.url ? null : await startSandbox(users);
  try {
    for (const [index, scenario] of wanted.entries()) {
      if (interrupted) break;
      progress.scenario(index + 1, wanted.length, scenario.title, settings.seconds);
      const result = await play(scenario, settings, sandbox).catch((error) => failed(scenario, error));
      report.scenarios.push(result);
      progress.verdict(result);
    }
  } finally {
    await sandbox?.stop();
  }
  report.interrupted = interrupted;
  report.seconds = (Date.now() - Date.parse(report.started)) / 1000;
  await writeFile(path.join(OUT, 'report.json'), `${JSON.stringify(report, null, 1)}\n`);
  await writeFile(path.join(OUT, 'report.html'), await html(report));
  console.log(terminal(report));
  console.log(`\n${path.join(OUT, 'report.html')}\n${path.join(OUT, 'report.json')}`);
  if (interrupted) return 130;
  return report.scenarios.some(({ mark }) => mark === 'bad') ? 1 : 0;
}

// One scenario, from its accounts to its verdict.
async function play(scenario, settings, sandbox) {
  const names = [];
  let rows = [];
  if (sandbox) {
    const { count, row } = scenario.accounts(settings);
    rows = (await sandbox.grants(0, count)).map(row ?? ((same) => same));
    names.push(...Array.from({ length: count }, (_, index) => userName(index)));
  }
  const world = sandbox ? await startBearerd(sandbox, scenario.name, rows, scenario.limits?.()) : await deployment(settings);
  const events = [];
  let begun = Date.now();
  let over = false;
  const run = {
    world, sandbox, settings,
    seconds: settings.seconds,
    accounts: sandbox ? names : settings.accounts,
    clock: () => (Date.now() - begun) / 1000,
    stopped: () => interrupted,
    // False: the streams have ended.
    wait: async (seconds) => {
      const end = Date.now() + seconds * 1000;
      while (!over && !interrupted && Date.now() < end) await sleep(Math.min(100, Math.max(1, end - Date.now())));
      return !over && !interrupted;
    },
    mark: (label) => events.push({ at: run.clock(), label }),
    memory: () => (world.pid ? usage(world.pid)?.rss ?? null : null),
  };
  try {
    await sandbox?.clear();
    await scenario.before?.(run);
    begun = Date.now();
    const pids = new Set();
    const sampler = new Sampler({
      pids: () => ({ bearerd: world.pid, sandbox: sandbox?.pid, generators: [...pids] }),
      metrics: world.metrics,
      clock: run.clock,
      onSample: (sample) => progress.sample(sample),
    });
    await sampler.start();
    const streams = await Promise.all((await scenario.streams(run)).map(async (stream) => ({ ...stream })));
    const going = [];
    stopStreams = () => going.forEach((generator) => generator.stop());
    // Who has set another path may have forbidden this one.
    const isProbed = run.accounts.length > 0 && (sandbox || settings.path === ME);
    const prober = isProbed && probe(world, () => run.accounts[randomInt(run.accounts.length)], { sandbox: Boolean(sandbox) });
    const meanwhile = scenario.meanwhile?.(run) ?? Promise.resolve();
    await Promise.all(streams.map(async (stream) => {
      if (stream.after) await run.wait(stream.after);
      if (interrupted) return Object.assign(stream, { rows: [], sent: null, from: 0 });
      stream.seconds = settings.seconds - (stream.after ?? 0);
      const generator = generate({ directory: sandbox?.directory ?? OUT, clock: run.clock, headers: world.headers, started: (pid) => pids.add(pid), ...stream });
      going.push(generator);
      const { rows: answers, ...done } = await generator.done;
      // From here on all times are the scenario's.
      for (const row of answers) { row.due += done.from; row.end += done.from; }
      return Object.assign(stream, { rows: answers, ...done });
    }));
    over = true;
    stopStreams = () => {};
    await meanwhile;
    const probed = prober ? await prober.stop() : null;
    await scenario.after?.(run);
    await sampler.stop();
    const died = !world.alive();
    const log = await world.log();
    return await conclude({ scenario, settings, run, streams, sampler, probed, died, log, events });
  } finally {
    over = true;
    stopStreams = () => {};
    scenario.end?.(run);
    await sandbox?.calm().catch(() => {});
    await world.stop();
  }
}

async function conclude({ scenario, settings, run, streams, sampler, probed, died, log, events }) {
  const { samples } = sampler;
  const total = sampler.total();
  for (const stream of streams) {
    stream.tolerated = scenario.tolerated;
    stream.summary = summary(stream.rows.map((row) => ({ ...row, end: row.end - stream.from })), { sent: stream.sent, seconds: stream.rate && !interrupted ? stream.seconds : undefined });
  }
  const shown = streams.map(({ name, rate, connections, rows, sends, passedOn, summary: figures }) => (
    { name, rate, connections, rows, sends, passedOn: passedOn ? rows.filter(passedOn).length : 0, ...figures }));
  const own = (await scenario.look?.(run, { streams: shown, samples, total, grown: growth(total), log })) ?? {};
  const used = whileSending(samples, streams);
  const verdict = judge({
    streams, probed, own, used, cores: describeMachine().cores, interrupted, died,
    failures: streams.map(({ failure }) => failure).filter(Boolean),
  });
  return {
    name: scenario.name,
    title: scenario.title,
    about: scenario.about,
    ...verdict,
    facts: own.facts ?? {},
    events,
    streams: shown.map(({ rows, ...stream }) => ({ ...stream, series: perSecond(rows) })),
    samples,
    used,
    log,
    probed,
  };
}

// What bearerd counted meanwhile; zeros where its /metrics were not asked.
function growth({ before, after }) {
  const nothing = counts(parse(''));
  const difference = (from, to) => {
    if (typeof to === 'number') return to - (from ?? 0);
    return Object.fromEntries(Object.entries(to).map(([name, value]) => [name, difference(from?.[name], value)]));
  };
  const { requestBuckets: _, ...grown } = after ?? nothing;
  return difference(before ?? nothing, grown);
}

function failed(scenario, error) {
  return {
    name: scenario.name, title: scenario.title, about: scenario.about, mark: 'bad', wrong: { [error.message]: 1 }, words: [`It could not be run: ${error.message}`],
    facts: {}, events: [], streams: [], samples: [], used: {}, log: null, probed: null,
  };
}
