// Looks once a second at the processes and at bearerd's /metrics: one sample for each second of a scenario.

import { machine, usage } from '../common/processes.mjs';
import { counts, parse, quantile } from './openmetrics.mjs';

// `pids()`: `{ bearerd, sandbox, generators: [..] }`, as they are now; `metrics()`: the text of /metrics, or null.
export class Sampler {
  samples = [];
  #before = null;
  #timer = null;
  #looking = null;

  constructor({ pids, metrics, clock, onSample }) {
    Object.assign(this, { pids, metrics, clock, onSample });
  }

  async start() {
    this.#before = this.first = await this.#look();
    this.#timer = setInterval(() => {
      this.#looking ??= this.#tick().finally(() => { this.#looking = null; });
    }, 1000);
  }

  async stop() {
    clearInterval(this.#timer);
    await this.#looking;
    this.last = await this.#look();
  }

  // What bearerd counted, and what each process used, from start to stop.
  total() {
    const [before, after] = [this.first, this.last];
    const seconds = after.at - before.at;
    const cpu = (name) => (after.usage[name] && before.usage[name] ? after.usage[name].cpu - before.usage[name].cpu : null);
    return { seconds, bearerdCpu: cpu('bearerd'), sandboxCpu: cpu('sandbox'), before: before.counts, after: after.counts };
  }

  async #tick() {
    const [before, after] = [this.#before, await this.#look()];
    const seconds = after.at - before.at;
    if (seconds < 0.2) return;
    this.#before = after;
    const rate = (from, to) => (from === undefined || to === undefined ? null : Math.max(0, to - from) / seconds);
    const cores = (name) => rate(before.usage[name]?.cpu, after.usage[name]?.cpu);
    const per = (name) => rate(before.counts?.[name], after.counts?.[name]);
    const bad = (sample) => sample.counts && Object.entries(sample.counts.statuses)
      .reduce((sum, [status, count]) => sum + (Number(status) >= 400 ? count : 0), 0);
    const whole = after.machine.total - before.machine.total;
    const sample = {
      at: after.at,
      bearerdCores: cores('bearerd'),
      sandboxCores: cores('sandbox'),
      // Of generators that came or went meanwhile only what is known.
      generatorCores: [...after.generators].reduce((sum, [pid, used]) => sum + Math.max(0, used - (before.generators.get(pid) ?? 0)), 0) / seconds,
      machineBusy: whole > 0 ? (after.machine.busy + after.machine.stolen - before.machine.busy - before.machine.stolen) / whole : null,
      stolen: whole > 0 ? (after.machine.stolen - before.machine.stolen) / whole : null,
      rss: after.usage.bearerd?.rss ?? null,
      requests: per('requests'),
      errors: rate(bad(before) ?? undefined, bad(after) ?? undefined),
      refreshes: per('refreshes'),
      retries: per('retries'),
      healed: rate(before.counts?.unauthorized.healed ?? (before.counts && 0) ?? undefined, after.counts?.unauthorized.healed ?? (after.counts && 0) ?? undefined),
      clientConnections: after.counts?.clientConnections ?? null,
      p99: before.counts && after.counts ? quantile(before.counts.requestBuckets, after.counts.requestBuckets, 0.99) : null,
    };
    this.samples.push(sample);
    this.onSample(sample);
  }

  async #look() {
    const { bearerd, sandbox, generators } = this.pids();
    const text = await this.metrics().catch(() => null);
    return {
      at: this.clock(),
      usage: { bearerd: bearerd && usage(bearerd), sandbox: sandbox && usage(sandbox) },
      generators: new Map(generators.map((pid) => [pid, usage(pid)?.cpu ?? 0])),
      machine: machine(),
      counts: text === null ? null : counts(parse(text)),
    };
  }
}
