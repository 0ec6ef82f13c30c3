// What a run found: as a page with plots, as JSON, as a table on the terminal, and in the repository's own pages.

import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { escape, figure, page, plots, table } from '../common/page.mjs';
import { SERIES, colour, svg } from '../common/plots.mjs';
import { writeTable } from './document.mjs';
import { CASES, micros, rows, scaled, times } from './figures.mjs';
import { judge, label, verdict } from './goals.mjs';
import { OUT, ROOT } from './world.mjs';

const ORDER = ['bearerd', 'nginx', 'haproxy', 'envoy', 'pingora'];
// Of what was measured.
const measuredRows = (found) => rows(found).filter(({ values }) => Object.keys(values).length > 0);
const COLOURS = { domain: ORDER.map(label), range: SERIES.slice(0, ORDER.length) };
const present = (values) => ORDER.filter((who) => values[who] !== undefined);

// Of a row of bars: above it, at its left.
const HEADER = { labelOrient: 'top', labelAnchor: 'start', labelAngle: 0, labelColor: colour('text'), labelFontSize: 12 };
// Calls of the system that have a colour of their own; the rest is one.
const CALLS = 5;

// The goals as lines for a terminal.
export function goalsText(found) {
  const goals = judge(found);
  const lines = goals.filter(({ measured }) => measured !== undefined).map(({ what, goal, measured, met }) =>
    `  ${{ true: 'met   ', false: 'missed' }[met] ?? '?     '}  ${what}\n          goal: ${goal}\n          ${measured}`);
  const others = goals.filter(({ measured }) => measured === undefined).map(({ what }) => `          ${what}`);
  return [...lines, ...(others.length ? ['  not of this run:', ...others] : [])].join('\n');
}

export async function writeReport(found) {
  const goals = judge(found);
  const sections = [
    { id: 'goals', title: 'Goals', html: table(['what', 'goal', 'measured', 'met'], goals.map((goal) => [goal.what, goal.goal, goal.measured ?? '', verdict(goal)])) },
    await cpuSection(found),
    await instructionsSection(found),
    await barsSection(found, 'latency', 'Latency', ['latency.p50', 'latency.p99'], `Everything on one CPU, ${found.latency?.rate} requests a second
      on 64 connections, about half of what the slower of nginx and bearerd can; less the upstream's own latency in the same round, in µs.`),
    await barsSection(found, 'memory', 'Memory and start', ['memory.each', 'memory.all', 'start'], `Memory with 10,000 kept client connections after one
      request each and some seconds of rest; pages that are shared are counted in parts, and sockets of the kernel come on top, the same for all.
      Start: until the first answer by way of TLS.`, { 'memory.each': 1024, 'memory.all': 2 ** 20 }),
    await barsSection(found, 'bulk', 'Large files', ['bulk.down', 'bulk.up'], 'CPU seconds per GB, TLS upstream, four at a time.'),
    scalingSection(found),
    { id: 'figures', title: 'All figures', html: allFigures(found) },
  ].filter(Boolean);
  writeFileSync(path.join(OUT, 'report.html'), page({ title: 'bearerd and other proxies at one job', lead: lead(found), sections }));
  writeFileSync(path.join(OUT, 'report.json'), `${JSON.stringify({ ...found, goals }, null, 1)}\n`);
  return path.join(OUT, 'report.html');
}

// The README's table and plot, and the table of goals.
export async function updatePages(found) {
  const named = ORDER.filter((who) => found.versions[who]);
  const cell = ({ values, ratios, text, compared }, who) => {
    if (values[who] === undefined) return '';
    if (!compared) return text(values[who]);
    return who === 'nginx' ? `1 (${text(values[who])})` : times(ratios[who].median);
  };
  const figures = rows(found).map((row) => ({ cells: [row.name, ...named.map((who) => cell(row, who))], measured: Object.keys(row.values).length > 0 }));
  writeTable(path.join(ROOT, 'README.md'), 'peers', [{ name: '' }, ...named.map((who) => ({ name: label(who), right: true }))], figures, `${circumstances(found)}.`);
  const goals = judge(found).map((goal) => {
    const measured = goal.measured !== undefined;
    return { cells: [goal.what, goal.goal, goal.measured ?? '', measured ? verdict(goal) : ''], measured };
  });
  const columns = ['what', 'goal', 'measured', 'met'].map((name) => ({ name }));
  writeTable(path.join(ROOT, 'docs/performance.md'), 'goals', columns, goals, `${circumstances(found)}.`);
  if (CASES.every(({ key }) => found.cpu?.[key])) writeFileSync(path.join(ROOT, 'docs/peers.svg'), await svg(cpuPlot(found), { standalone: true }));
}

function circumstances({ machine, versions, profile, quick, started }) {
  const names = Object.entries(versions).map(([who, version]) => `${label(who)} ${version}`).join(', ');
  return `${started}${quick ? ' (QUICK: too short to quote)' : ''}: ${names}; bearerd's profile is \`${profile}\`; ${machine.cores} cores, ${machine.model}, Linux ${machine.kernel}`;
}

function lead(found) {
  return `<p>The same job for all: find the user, put that user's bearer of 2 KB in place of the client's credential, forward over kept connections.
The peers look the user up in a table by a header and do nothing else. bearerd checks a Basic password, finds one of 1,000 accounts of its encrypted
store, judges rules, keeps metrics, rewrites links and writes an access log to a file. One worker on a CPU of its own; generator and upstream on another.
Figures are compared within one round only.</p>
<p class="muted">${escape(circumstances(found).replaceAll('`', ''))}; ${Math.round(found.seconds / 60)} minutes.</p>`;
}

// Of each case, the CPU of each contender with nginx as one.
function cpuPlot(found) {
  const measured = measuredRows(found);
  const values = CASES.flatMap(({ key, short }) => {
    const row = measured.find((each) => each.key === `cpu.${key}`);
    return row ? present(row.values).map((who) => ({ case: short, who: label(who), value: row.ratios[who].median, ...row.ratios[who] })) : [];
  });
  const y = { field: 'who', type: 'nominal', sort: COLOURS.domain, title: null };
  return {
    title: { text: 'CPU time per request, nginx = 1', subtitle: 'bearerd with everything on; the others set a header. Lines: the range of the rounds. Less is better.' },
    data: { values },
    facet: { row: { field: 'case', type: 'nominal', sort: CASES.map(({ short }) => short), title: null, header: HEADER } },
    spec: {
      width: 480,
      height: { step: 20 },
      layer: [
        { mark: { type: 'bar', height: 13 }, encoding: { x: { field: 'value', type: 'quantitative', title: null }, y, color: { field: 'who', type: 'nominal', scale: COLOURS, legend: null } } },
        { mark: { type: 'rule', color: colour('text'), opacity: 0.6 }, encoding: { x: { field: 'least', type: 'quantitative' }, x2: { field: 'most' }, y } },
        { mark: { type: 'text', align: 'left', dx: 6, color: colour('text') }, encoding: { x: { field: 'most', type: 'quantitative' }, y, text: { field: 'value', format: '.2f' } } },
      ],
    },
  };
}

function bars(values, title, { field = 'value', stack } = {}) {
  const y = { field: 'who', type: 'nominal', sort: COLOURS.domain, title: null };
  const x = { field, type: 'quantitative', title: null };
  const color = stack ? { field: stack, type: 'nominal', sort: null, legend: { columns: 3 } } : { field: 'who', type: 'nominal', scale: COLOURS, legend: null };
  const label_ = { mark: { type: 'text', align: 'left', dx: 4, color: colour('text') }, encoding: { x, y, text: { field: 'text' } } };
  return { title, data: { values }, width: 300, height: { step: 24 }, layer: [{ mark: { type: 'bar' }, encoding: { x, y, color } }, ...(stack ? [] : [label_])] };
}

async function cpuSection(found) {
  if (!found.cpu) return null;
  const cells = measuredRows(found).filter(({ key }) => key.startsWith('cpu.')).flatMap((row) => present(row.values).map((who) => [
    row.name, label(who), micros(row.values[who]), times(row.ratios[who].median), `${times(row.ratios[who].least)} to ${times(row.ratios[who].most)}`,
  ]));
  return {
    id: 'cpu', title: 'CPU per request',
    html: figure(await svg(cpuPlot(found))) + table(['case', 'contender', { name: 'CPU', number: true }, { name: 'nginx = 1', number: true }, { name: 'range', number: true }], cells),
  };
}

async function instructionsSection(found) {
  const figures = [];
  for (const row of measuredRows(found).filter(({ key }) => key.startsWith('instructions.'))) {
    const values = present(row.values).map((who) => ({ who: label(who), value: row.values[who], text: row.text(row.values[who]) }));
    figures.push(figure(await svg(bars(values, row.name))));
  }
  if (found.syscalls) {
    const total = (call) => found.syscalls.reduce((sum, { by }) => sum + (by[call] ?? 0), 0);
    const often = [...new Set(found.syscalls.flatMap(({ by }) => Object.keys(by)))].sort((a, b) => total(b) - total(a)).slice(0, CALLS);
    const values = found.syscalls.flatMap(({ who, calls, by }) => {
      const own = often.map((call) => ({ call, value: by[call] ?? 0 }));
      const others = calls - own.reduce((sum, { value }) => sum + value, 0);
      return [...own, { call: 'others', value: others }].map((each) => ({ who: label(who), ...each }));
    });
    figures.push(figure(await svg(bars(values, 'system calls per request', { stack: 'call' }))));
  }
  return figures.length ? { id: 'instructions', title: 'Instructions and system calls', html: plots(figures) } : null;
}

async function barsSection(found, id, title, keys, text, units = {}) {
  const figures = [];
  for (const row of measuredRows(found).filter(({ key }) => keys.includes(key))) {
    const values = present(row.values).map((who) => ({ who: label(who), value: row.values[who] / (units[row.key] ?? 1), text: row.text(row.values[who]) }));
    figures.push(figure(await svg(bars(values, row.name))));
  }
  return figures.length ? { id, title, html: `<p>${escape(text)}</p>${plots(figures)}` } : null;
}

function scalingSection({ scaling }) {
  if (!scaling) return null;
  const cells = ['bearerd', 'nginx'].map((who) => {
    const { rate, cost, bound } = scaled(scaling, who);
    return [label(who), times(rate), times(cost), bound || 'nothing'];
  });
  return { id: 'scaling', title: 'From one worker to two', html: table(['', 'requests a second', 'CPU per request', 'what limited it'], cells) };
}

function allFigures(found) {
  const named = ORDER.filter((who) => measuredRows(found).some(({ values }) => values[who] !== undefined));
  return table(['', ...named.map((who) => ({ name: label(who), number: true }))],
    measuredRows(found).map((row) => [row.name, ...named.map((who) => (row.values[who] === undefined ? '' : row.text(row.values[who])))]));
}
