// Measures bearerd beside nginx, HAProxy and Envoy at the same job, and writes what it found: `make bench-peers`.
//
// QUICK=1: three minutes, for a first look. ONLY=cpu,instructions: these measures alone. UPDATE=1: the README and docs/performance.md get
// the figures. It fails where a contender does the job wrong or something can't be measured, never on speed.

import { describeMachine } from '../common/processes.mjs';
import { check } from './check.mjs';
import { NAMES, contender, versions } from './contenders.mjs';
import { CASES, rows } from './figures.mjs';
import { pinThisScript } from './machine.mjs';
import { bulk, cpu, latency, scaling, syscalls } from './measures.mjs';
import { instructions, memory, start } from './quiet.mjs';
import { goalsText, updatePages, writeReport } from './report.mjs';
import { PROFILE, TARGETS, UPS, build } from './world.mjs';

const MEASURES = ['cpu', 'instructions', 'syscalls', 'latency', 'bulk', 'memory', 'start', 'scaling'];
const only = process.env.ONLY?.split(',') ?? MEASURES;
const unknown = only.filter((measure) => !MEASURES.includes(measure));
if (unknown.length) throw new Error(`ONLY names ${unknown.join(', ')}; there are ${MEASURES.join(', ')}`);
const quick = process.env.QUICK === '1';
const update = process.env.UPDATE === '1';
if (quick && update) throw new Error('figures of a QUICK run are too short to stand in the pages: UPDATE=1 without it');
const counted = NAMES.filter((name) => name !== 'envoy');
const begun = Date.now();
const load = quick ? { count: 2, seconds: 2 } : { count: 5, seconds: 3 };

// What a measure says as it goes: the newest of its rows.
const say = (what, found) => rows(found).filter(({ key }) => key.startsWith(what)).forEach(({ name, values, ratios, text }) => {
  const each = Object.entries(values).map(([who, value]) => `${who} ${text(value)}${ratios?.[who] ? ` (${ratios[who].median.toFixed(2)})` : ''}`);
  console.log(`${elapsed()}  ${name}: ${each.join(', ')}`);
});
const elapsed = () => {
  const seconds = Math.round((Date.now() - begun) / 1000);
  return `${String(Math.floor(seconds / 60)).padStart(2)}:${String(seconds % 60).padStart(2, '0')}`;
};

const TAKE = {
  async cpu(world, found) {
    found.cpu = {};
    for (const { key, up, kind } of CASES) {
      found.cpu[key] = await cpu(world, NAMES, { up, target: TARGETS[kind], ...load, count: quick ? 2 : 7 });
      say(`cpu.${key}`, found);
    }
  },
  async instructions(world, found) {
    found.instructions = { tls: [], plain: [] };
    for (const up of quick ? ['tls'] : UPS) {
      for (const name of counted) found.instructions[up].push(await instructions(world, name, { up }));
      say(`instructions.${up}`, found);
    }
  },
  async syscalls(world, found) {
    found.syscalls = await syscalls(world, NAMES, { seconds: 3 });
    say('syscalls', found);
  },
  async latency(world, found) {
    found.latency = await latency(world, NAMES, quick ? { count: 2, seconds: 2 } : { count: 7, seconds: 2 });
    say('latency', found);
  },
  async bulk(world, found) {
    found.bulk = {};
    for (const way of ['down', 'up']) found.bulk[way] = await bulk(world, NAMES, { upload: way === 'up', ...load });
    say('bulk', found);
  },
  async memory(world, found) {
    found.memory = [];
    for (const name of NAMES) found.memory.push(await memory(world, name, { rest: quick ? 5 : 10 }));
    say('memory', found);
  },
  async start(world, found) {
    found.start = [];
    for (let round = 0; round < (quick ? 3 : 7); round += 1) {
      for (const name of NAMES) found.start.push({ round, ...(await start(world, name)) });
    }
    say('start', found);
  },
  async scaling(world, found) {
    found.scaling = await scaling(world, ['bearerd', 'nginx'], { ...load, count: quick ? 2 : 3 });
  },
};

const world = await build();
pinThisScript();
for (const up of UPS) {
  for (const name of NAMES) {
    const entrant = await contender(world, name, up);
    const process = await entrant.start();
    const asked = await check(world, entrant);
    await process.stop();
    console.log(`${elapsed()}  ${name}, ${up} upstream: does the job, byte for byte (${asked} requests)`);
  }
}
const found = { started: new Date().toISOString().slice(0, 10), machine: describeMachine(), versions: versions(), profile: PROFILE, quick };
for (const measure of MEASURES.filter((each) => only.includes(each))) {
  try {
    await TAKE[measure](world, found);
  } catch (error) {
    // What else there is to see is worth seeing.
    console.error(`${elapsed()}  ${measure} failed: ${error.message}`);
    delete found[measure];
    process.exitCode = 1;
  }
}
await world.upstream.stop();
found.seconds = (Date.now() - begun) / 1000;

const report = await writeReport(found);
if (update) await updatePages(found);
console.log(`\n${goalsText(found)}\n\n${report}`);
