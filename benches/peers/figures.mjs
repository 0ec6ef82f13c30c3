// From samples to figures: one row for each measure, with a value for each contender and how it compares with nginx in the same rounds.

import { median, ratios, summary } from './samples.mjs';

export const CASES = [
  { key: 'tls', up: 'tls', kind: 'message', name: 'CPU per request, TLS upstream, 1 KB', short: 'TLS upstream, 1 KB' },
  { key: 'plain', up: 'plain', kind: 'message', name: 'CPU per request, plain upstream, 1 KB', short: 'plain upstream, 1 KB' },
  { key: 'page', up: 'tls', kind: 'page', name: 'CPU per request, TLS upstream, 100 KB; bearerd rewrites its links', short: 'TLS upstream, 100 KB' },
];

const number = (digits) => (value) => value.toLocaleString('en', { maximumFractionDigits: digits, minimumFractionDigits: digits });
const KIB = 1024;
const MIB = KIB * KIB;

export const micros = (value) => `${number(value < 100 ? 1 : 0)(value)} µs`;
export const times = (value) => number(2)(value);
export const kib = (bytes) => `${number(1)(bytes / KIB)} KiB`;
export const mib = (bytes) => `${number(bytes < 100 * MIB ? 1 : 0)(bytes / MIB)} MiB`;
export const thousands = (value) => number(0)(Math.round(value / 100) * 100);
const signed = (value) => `${value < 0 ? '−' : '+'}${number(0)(Math.abs(value))} µs`;

// `{ key, name, text, compared, values: { who: value }, ratios: { who: { median, least, most } } }` of each measure, empty where it was not taken.
// `compared`: on another machine only the ratio means something.
export function rows(found) {
  const compared = (key, name, samples, figure, text) => {
    const all = samples?.length ? summary(samples, figure) : {};
    const beside = Object.entries(all).filter(([, each]) => each.ratios);
    const pick = (field) => Object.fromEntries(beside.map(([who, each]) => [who, each[field]]));
    return { key, name, text, compared: true, values: pick('value'), ratios: pick('ratios') };
  };
  const plain = (key, name, samples, figure, text) => {
    const own = (who) => samples.filter((sample) => sample.who === who).map((sample) => sample[figure]);
    const names = new Set(samples?.map(({ who }) => who));
    return { key, name, text, values: Object.fromEntries([...names].map((who) => [who, median(own(who))])) };
  };
  return [
    ...CASES.map(({ key, name }) => compared(`cpu.${key}`, name, found.cpu?.[key], 'micros', micros)),
    plain('instructions.tls', 'user instructions per request, TLS upstream, 1 KB', found.instructions?.tls, 'instructions', thousands),
    plain('instructions.plain', 'user instructions per request, plain upstream, 1 KB', found.instructions?.plain, 'instructions', thousands),
    plain('syscalls', 'system calls per request, 64 connections', found.syscalls, 'calls', number(1)),
    plain('latency.p50', 'latency added at half load, median', found.latency?.added, 'addedP50', signed),
    plain('latency.p99', 'latency added at half load, 99th percentile', found.latency?.added, 'addedP99', signed),
    compared('bulk.down', 'CPU per GB, downloads of 10 MB', found.bulk?.down, 'perGigabyte', (value) => `${times(value)} s`),
    compared('bulk.up', 'CPU per GB, uploads of 10 MB', found.bulk?.up, 'perGigabyte', (value) => `${times(value)} s`),
    plain('memory.each', 'memory of an idle client connection', found.memory, 'each', kib),
    plain('memory.all', 'memory with 10,000 of them', found.memory, 'after', mib),
    plain('start', 'from the start to the first answer, 1,000 accounts', found.start, 'millis', (value) => `${number(0)(value)} ms`),
  ];
}

// How much more two workers do than one in the same round; `bound`: what kept it from showing more than that, if anything did.
export function scaled(samples, who) {
  const own = samples.filter((sample) => sample.who === who);
  const both = own
    .filter(({ workers }) => workers === 2)
    .map((two) => [two, own.find((one) => one.workers === 1 && one.round === two.round)])
    .filter(([, one]) => one);
  const ratio = (figure) => median(both.map(([two, one]) => two[figure] / one[figure]));
  const isFull = median(both.map(([two]) => two.generator)) > 0.9;
  const bound = both.some(([two]) => two.shared) ? 'generator and upstream share a core with the second worker' : isFull && "the generator's cores are full";
  return { rate: ratio('perSecond'), cost: ratio('micros'), bound };
}

// Of bearerd to another contender.
export const ratioTo = (samples, figure, to) => ratios(samples ?? [], figure, 'bearerd', to);
