// The machine: which CPU does what, what the hypervisor takes of it, and the processes that this run started.
//
// Every process that is started here is ended here, by its id, also when the run fails or is interrupted.

import { execFileSync, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, readdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { cpus } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { proportional, usage } from '../common/processes.mjs';

// One core for the proxy, one for what is around it: generator, upstream, this script. More cores are used only where two workers are measured.
export const PROXY = [0];
export const AROUND = [1];
export const CORES = cpus().length;

// Debian keeps nginx and haproxy where only root's PATH looks.
export const ENVIRONMENT = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` };

const running = new Set();
const killAll = () => running.forEach((process) => process.kill());
process.on('exit', killAll);
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));

export function pinThisScript() {
  if (CORES < 2) throw new Error('two cores are needed: one for the proxy, one for what is around it');
  execFileSync('taskset', ['-apc', AROUND.join(), String(process.pid)], { stdio: 'ignore' });
}

// Starts `argv` on `cores`. Standard output and error go to `log`; `signal` asks it to end.
export function launch(argv, { cores, directory, log, signal = 'SIGTERM' }) {
  const file = openSync(log, 'a');
  const child = spawn('taskset', ['-c', cores.join(), ...argv], { cwd: directory, env: ENVIRONMENT, stdio: ['ignore', file, file] });
  closeSync(file);
  const launched = new Launched(child, path.basename(argv[0]), log, signal);
  running.add(launched);
  child.once('exit', () => running.delete(launched));
  return launched;
}

class Launched {
  constructor(child, name, log, signal) {
    Object.assign(this, { child, name, log, signal, pid: child.pid });
    this.ended = new Promise((resolve) => child.once('exit', resolve));
  }

  get alive() {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  // Itself and what it started.
  tree() {
    const found = [this.pid];
    for (const pid of found) found.push(...childrenOf(pid));
    return found;
  }

  // CPU seconds since its start.
  cpu() {
    return this.tree().reduce((sum, pid) => sum + (usage(pid)?.cpu ?? 0), 0);
  }

  // Bytes, pages that are shared counted in parts.
  memory() {
    return this.tree().reduce((sum, pid) => sum + (proportional(pid) ?? 0), 0);
  }

  async stop(seconds = 5) {
    if (!this.alive) return;
    const tree = this.tree();
    this.child.kill(this.signal);
    await Promise.race([this.ended, sleep(seconds * 1000, undefined, { ref: false })]);
    if (this.alive) this.kill(tree);
    await this.ended;
  }

  kill(tree = this.tree()) {
    for (const pid of tree) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch { /* it is gone */ }
    }
  }

  lastWords() {
    return readFileSync(this.log, 'utf8').trim().split('\n').slice(-5).join('\n');
  }
}

function childrenOf(pid) {
  try {
    return readdirSync(`/proc/${pid}/task`)
      .flatMap((thread) => readFileSync(`/proc/${pid}/task/${thread}/children`, 'latin1').trim().split(' '))
      .filter(Boolean)
      .map(Number);
  } catch {
    return [];
  }
}

// Of `cores`, from now on: `{ steal, busy }` as parts of the time that went by.
export function watch(cores) {
  const before = cores.map(ticks);
  return () => {
    const after = cores.map(ticks);
    const part = (field) => {
      const passed = (what) => after.reduce((sum, core, index) => sum + core[what] - before[index][what], 0);
      return passed(field) / Math.max(1, passed('total'));
    };
    return { steal: part('steal'), busy: part('busy') };
  };
}

function ticks(core) {
  const line = new RegExp(`^cpu${core} (.*)$`, 'm').exec(readFileSync('/proc/stat', 'latin1'));
  const [user, nice, system, idle, wait, irq, softirq, steal = 0] = line[1].split(' ').map(Number);
  const busy = user + nice + system + irq + softirq + steal;
  return { steal, busy, total: busy + idle + wait };
}

// Ports on 127.0.0.1 that nobody uses now.
export async function freePorts(count) {
  const servers = await Promise.all(Array.from({ length: count }, () => new Promise((resolve, reject) => {
    const server = createServer().once('error', reject);
    server.listen(0, '127.0.0.1', () => resolve(server));
  })));
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
