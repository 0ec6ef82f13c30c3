// What is measured under load: CPU, system calls, latency, large files, a second worker. Contenders take turns within a round, in one order and
// then in the other, and each figure says how much the hypervisor took meanwhile.

import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ask } from './client.mjs';
import { contender, direct } from './contenders.mjs';
import { AROUND, CORES, PROXY, watch } from './machine.mjs';
import { FILE_BYTES, TARGETS, USERS } from './world.mjs';
import { wrk } from './wrk.mjs';

// Runs `one(contender, process)` for each of `names` in each round, with each number of workers on the cores that are given for it.
async function rounds({ world, names, up, count, say, workers = { 1: PROXY } }, one) {
  const entrants = [];
  const samples = [];
  const wanted = Object.entries(workers).flatMap(([many, cores]) => names.map((name) => ({ name, workers: Number(many), cores })));
  try {
    for (const { name, workers, cores } of wanted) {
      const entrant = name === 'direct' ? direct(world, up) : await contender(world, name, up, { workers });
      entrants.push({ entrant, workers, cores, process: await entrant.start({ cores }) });
      // What only the first request of a user costs is not what is measured.
      if (name !== 'direct') await ask(entrant, USERS);
      entrant.forgetLog();
    }
    for (let round = 0; round < count; round += 1) {
      for (const { entrant, workers, cores, process } of round % 2 ? entrants.toReversed() : entrants) {
        const seen = watch([...new Set([...cores, ...AROUND])]);
        const figures = await one(entrant, process);
        if (figures.requests > 0) samples.push({ who: entrant.name, workers, round, steal: seen().steal, ...figures });
        else console.error(`${entrant.name} answered nothing in round ${round + 1}: the machine was too busy, or it hangs; the round doesn't count`);
        entrant.forgetLog();
      }
      say?.(samples);
    }
    const silent = names.find((name) => !samples.some(({ who }) => who === name));
    if (silent) throw new Error(`${silent} answered nothing in any round`);
  } finally {
    await Promise.all(entrants.map(({ process }) => process.stop()));
  }
  return samples;
}

// One run of wrk and what the proxy's processes used meanwhile, in microseconds of CPU for a request.
async function costOf(world, entrant, process, { target = TARGETS.message, seconds, ...options }) {
  const before = process.cpu();
  const said = await wrk(world, { url: entrant.url(target), headers: entrant.headers, seconds, ...options });
  const used = process.cpu() - before;
  return { ...said, micros: (used * 1e6) / said.requests, perSecond: said.requests / seconds };
}

export async function cpu(world, names, { up, target, count, seconds, say }) {
  return rounds({ world, names, up, count, say }, (entrant, process) => costOf(world, entrant, process, { target, seconds }));
}

// CPU seconds for a gigabyte of 10 MB files, four at a time. `upload`: up instead of down.
export async function bulk(world, names, { upload, count, seconds, say }) {
  return rounds({ world, names, up: 'tls', count, say }, async (entrant, process) => {
    const load = { target: TARGETS.file, seconds, connections: 4, ...(upload && { upload: FILE_BYTES }) };
    const { requests, micros } = await costOf(world, entrant, process, load);
    return { requests, perGigabyte: (micros / 1e6) * (1e9 / FILE_BYTES) };
  });
}

// System calls for a request at 64 connections, counted by strace, by name. Connections to the upstream stand before it looks.
export async function syscalls(world, names, { seconds }) {
  return rounds({ world, names, up: 'tls', count: 1 }, async (entrant, process) => {
    const load = { url: entrant.url(TARGETS.message), headers: entrant.headers };
    await wrk(world, { ...load, seconds: 1 });
    const file = path.join(world.directory, `strace-${entrant.name}`);
    const tracer = spawn('strace', ['-f', '-c', '-U', 'calls,name', '-o', file, ...process.tree().flatMap((pid) => ['-p', String(pid)])],
      { stdio: 'ignore' });
    const ended = new Promise((resolve) => tracer.once('exit', resolve));
    await sleep(700);
    const { requests } = await wrk(world, { ...load, seconds });
    tracer.kill('SIGINT');
    await ended;
    const counted = [...readFileSync(file, 'utf8').matchAll(/^\s*(\d+)\s+(\w+)$/gm)].filter(([, , name]) => name !== 'total')
      .map(([, calls, name]) => [name, Number(calls) / requests]);
    return { requests, calls: counted.reduce((sum, [, each]) => sum + each, 0), by: Object.fromEntries(counted.filter(([, each]) => each >= 0.02)) };
  });
}

// Latency at one rate for all, which is half of what the slower of nginx and bearerd can, everything on one CPU: waking another virtual CPU
// costs more than any proxy. `direct` is the upstream itself: what a contender adds is its latency less that one's in the same round.
export async function latency(world, names, { count, seconds, say }) {
  const judged = { world, up: 'tls', workers: { 1: AROUND } };
  const most = await rounds({ ...judged, names: ['nginx', 'bearerd'], count: 1 },
    (entrant, process) => costOf(world, entrant, process, { seconds: 2 }));
  const rate = Math.round(Math.min(...most.map(({ perSecond }) => perSecond)) / 2);
  const connections = 64;
  const samples = await rounds({ ...judged, names: ['direct', ...names], count, say },
    (entrant, process) => costOf(world, entrant, process, { connections, pause: (connections / rate) * 1000, seconds }));
  const added = samples.filter(({ who }) => who !== 'direct').flatMap((sample) => {
    const without = samples.find(({ who, round }) => who === 'direct' && round === sample.round);
    return without ? [{ ...sample, addedP50: sample.p50 - without.p50, addedP99: sample.p99 - without.p99 }] : [];
  });
  return { rate, samples, added };
}

// Requests a second and CPU for a request, with one worker and with two. `shared`: the second worker has no core of its own, because generator
// and upstream need it.
export async function scaling(world, names, { count, seconds }) {
  const around = CORES >= 4 ? [2, 3] : AROUND;
  return rounds({ world, names, up: 'tls', count, workers: { 1: PROXY, 2: [0, 1] } }, async (entrant, process) => {
    const seen = watch(around);
    const cost = await costOf(world, entrant, process, { seconds, cores: around });
    return { ...cost, generator: seen().busy, shared: CORES < 4 };
  });
}
