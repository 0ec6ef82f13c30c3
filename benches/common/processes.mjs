// What processes use, from /proc: CPU seconds, memory, open files. A process that is gone has no figures; nothing here throws.

import { readFileSync, readdirSync } from 'node:fs';
import { cpus } from 'node:os';

// The unit of /proc/PID/stat; 100 on every Linux that people run (sysconf(_SC_CLK_TCK)).
const TICKS = 100;

// `{ cpu, user, system }` in seconds since its start, `rss` in bytes, `threads`. `null`: it is gone.
export function usage(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name in parentheses may hold anything: what follows its last one is counted from field 3.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const [user, system] = [fields[11] / TICKS, fields[12] / TICKS];
    return { cpu: user + system, user, system, threads: Number(fields[17]), rss: kilobytes(`/proc/${pid}/status`, 'VmRSS') };
  } catch {
    return null;
  }
}

// Memory with shared pages counted in parts (PSS), in bytes: exact, but it costs milliseconds of a large process.
export function proportional(pid) {
  try {
    return kilobytes(`/proc/${pid}/smaps_rollup`, 'Pss');
  } catch {
    return null;
  }
}

export function openFiles(pid) {
  try {
    return readdirSync(`/proc/${pid}/fd`).length;
  } catch {
    return null;
  }
}

// Of the whole machine, in seconds since its start: `busy`, `stolen` by the hypervisor, and `total`.
export function machine() {
  const [user, nice, system, idle, wait, irq, softirq, stolen = 0] = readFileSync('/proc/stat', 'latin1')
    .split('\n', 1)[0].trim().split(/\s+/).slice(1).map((ticks) => ticks / TICKS);
  const busy = user + nice + system + irq + softirq;
  return { busy, stolen, total: busy + stolen + idle + wait };
}

// What the figures were measured on, in words.
export function describeMachine() {
  const model = cpus()[0]?.model.trim() ?? 'unknown CPU';
  return { cores: cpus().length, model, memory: kilobytes('/proc/meminfo', 'MemTotal'), kernel: readFileSync('/proc/sys/kernel/osrelease', 'latin1').match(/^\d+\.\d+/)[0] };
}

function kilobytes(file, name) {
  const [, value] = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(readFileSync(file, 'latin1')) ?? [];
  return value === undefined ? null : value * 1024;
}
