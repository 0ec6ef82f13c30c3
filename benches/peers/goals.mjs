// The goals of the data plane, and what a run says about each.

import { kib, mib, micros, ratioTo, rows, scaled, thousands, times } from './figures.mjs';

const LABELS = { nginx: 'nginx', haproxy: 'HAProxy', envoy: 'Envoy', pingora: 'Pingora' };
export const label = (who) => LABELS[who] ?? who;

// Each `{ what, goal, measured, met }`; of what this run did not measure, `measured` is missing and `elsewhere` may say who does.
export function judge(found) {
  const figures = Object.fromEntries(rows(found).map((row) => [row.key, row.values]));
  const own = (key) => figures[key]?.bearerd;
  return [
    {
      what: 'CPU per request, TLS upstream, 1 KB',
      goal: 'at most 0.75 of nginx and of HAProxy, 0.35 of Pingora, 0.30 of Envoy',
      ...shares([[found.cpu?.tls, 'micros']], { nginx: 0.75, haproxy: 0.75, pingora: 0.35, envoy: 0.3 }),
    },
    { what: 'the same, plain upstream', goal: 'at most 0.95 of nginx and of HAProxy', ...shares([[found.cpu?.plain, 'micros']], { nginx: 0.95, haproxy: 0.95 }) },
    {
      what: 'CPU per request, 100 KB page, link rewriting on',
      goal: 'at most 1.0 of nginx without any',
      ...shares([[found.cpu?.page, 'micros']], { nginx: 1 }),
    },
    { what: 'user instructions per request, TLS upstream, 1 KB', goal: 'at most 55,000', ...most(own('instructions.tls'), 55_000, thousands) },
    { what: 'system calls per request at 64 connections', goal: 'at most 4.8', ...most(own('syscalls'), 4.8, times) },
    {
      what: 'CPU per GB, 10 MB streams, both ways',
      goal: 'at most 1.0 of nginx and of HAProxy',
      ...shares([[found.bulk?.down, 'perGigabyte', 'down'], [found.bulk?.up, 'perGigabyte', 'up']], { nginx: 1, haproxy: 1 }),
    },
    {
      what: 'idle keep-alive client connection',
      goal: 'at most 8 KiB each; 10,000 at most 100 MiB in all',
      ...both(most(own('memory.each'), 8 * 1024, kib), most(own('memory.all'), 100 * 1024 * 1024, mib)),
    },
    {
      what: 'cold start to the first proxied answer over TLS, 1,000 accounts',
      goal: 'no slower than nginx',
      ...beside(own('start'), figures.start?.nginx, 1, (value) => `${value.toFixed(0)} ms`),
    },
    { what: 'scaling from 1 to 2 workers', goal: 'at least 1.8 times, where the generator lets it show', ...scaling(found.scaling) },
    {
      what: '1,000,000 accounts in the embedded store',
      goal: 'start under 1 s, under 150 MiB, lookup of a cold account under 5 ms at the median',
    },
    {
      what: 'expiry storm, 10,000 accounts in a minute',
      goal: "provider calls per account 1.00; p99 of unaffected accounts within twice quiet",
    },
    {
      what: 'added latency at half load',
      goal: "p50 no worse than nginx's, p99 no worse than 1.2 times",
      ...both(
        beside(own('latency.p50'), figures['latency.p50']?.nginx, 1, (value) => `p50 ${micros(value)}`),
        beside(own('latency.p99'), figures['latency.p99']?.nginx, 1.2, (value) => `p99 ${micros(value)}`),
      ),
    },
  ];
}

// `cases`: samples, their figure, and what to call them. Each bound is a part of what that contender takes.
function shares(cases, bounds) {
  const parts = [];
  const [judged, missed] = [new Set(), new Set()];
  for (const [samples, figure, name] of cases) {
    for (const [who, bound] of Object.entries(bounds)) {
      const ratio = ratioTo(samples, figure, who);
      if (!ratio) continue;
      judged.add(who);
      const range = who === 'nginx' ? ` (${times(ratio.least)} to ${times(ratio.most)})` : '';
      parts.push(`${name ? `${name} ` : ''}${times(ratio.median)}${range} of ${label(who)}`);
      if (ratio.median > bound) missed.add(label(who));
    }
  }
  if (!parts.length) return {};
  return { measured: parts.join(', '), met: missed.size === 0, missed: missed.size < judged.size ? [...missed] : [] };
}

function most(value, bound, text) {
  return value === undefined ? {} : { measured: text(value), met: value <= bound };
}

function beside(value, nginx, bound, text) {
  if (value === undefined || nginx === undefined) return {};
  return { measured: `${text(value)}, nginx ${text(nginx).replace(/^p\d+ /, '')}`, met: value <= Math.max(nginx, bound * nginx) };
}

function both(one, other) {
  if (one.met === undefined || other.met === undefined) return {};
  return { measured: `${one.measured}; ${other.measured}`, met: one.met && other.met };
}

function scaling(found) {
  if (!found) return {};
  const { rate, cost, bound } = scaled(found, 'bearerd');
  const nginx = scaled(found, 'nginx');
  const measured = `${times(rate)} times (nginx ${times(nginx.rate)})`;
  if (!bound) return { measured, met: rate >= 1.8 };
  return { measured: `${measured}; ${bound}; a request costs ${times(cost)} times the CPU (nginx ${times(nginx.cost)})`, met: null };
}

export function verdict({ measured, met, missed }) {
  if (measured === undefined) return 'not of this run';
  if (met === null) return "can't be shown";
  return met ? 'yes' : `no${missed?.length ? `: ${missed.join(', ')}` : ''}`;
}
