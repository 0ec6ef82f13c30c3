// Draws plots: a Vega-Lite description in, SVG text out. No browser, no network, and no colour that knows whether the page is light or dark:
// colours are CSS variables, which the page (page.mjs) or, for a plot that stands alone, the SVG itself defines.

import * as vega from 'vega';
import { compile } from 'vega-lite';

// The variables: text, faint lines, and the series in the order in which they are used (Okabe and Ito's palette, which colour-blind
// people can tell apart; lighter on dark).
export const LIGHT = {
  text: '#1f2328', muted: '#59636e', grid: '#d9dee4', paper: '#ffffff',
  c1: '#0072b2', c2: '#d55e00', c3: '#009e73', c4: '#a6588a', c5: '#9a6700', c6: '#3a8fc4', bad: '#cf222e', good: '#1a7f37', warn: '#9a6700',
};
export const DARK = {
  text: '#e6edf3', muted: '#9198a1', grid: '#30363d', paper: '#0d1117',
  c1: '#58b2ee', c2: '#ff8f4a', c3: '#3fcf9f', c4: '#dd9bc7', c5: '#e6c14c', c6: '#9fd0f2', bad: '#ff7b72', good: '#56d364', warn: '#e3b341',
};

export const colour = (name) => `var(--${name}, ${LIGHT[name]})`;
export const SERIES = ['c1', 'c2', 'c3', 'c4', 'c5', 'c6'].map(colour);

// `standalone`: a file of its own, for a README; it follows the reader's light or dark by itself.
export async function svg(spec, { standalone = false } = {}) {
  const compiled = compile({ $schema: 'https://vega.github.io/schema/vega-lite/v6.json', ...spec, config: { ...CONFIG, ...spec.config } });
  const view = new vega.View(vega.parse(compiled.spec), { renderer: 'none', logger: vega.logger(vega.Warn) });
  const text = await view.toSVG();
  view.finalize();
  return standalone ? text.replace(/^(<svg[^>]*>)/, `$1<style>${variables('svg')}</style>`) : text;
}

// The colours as CSS, for what the selector names.
export function variables(selector) {
  const block = (colours) => `${selector} { ${Object.entries(colours).map(([name, value]) => `--${name}: ${value};`).join(' ')} }`;
  return `${block(LIGHT)} @media (prefers-color-scheme: dark) { ${block(DARK)} }`;
}

const FONT = 'system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif';
const CONFIG = {
  background: null,
  font: FONT,
  view: { stroke: null },
  axis: {
    labelColor: colour('muted'), titleColor: colour('muted'), domainColor: colour('grid'), tickColor: colour('grid'), gridColor: colour('grid'),
    labelFontSize: 11, titleFontSize: 11, titleFontWeight: 'normal', titlePadding: 8,
  },
  axisX: { grid: false },
  title: { color: colour('text'), subtitleColor: colour('muted'), fontSize: 13, subtitleFontSize: 11, anchor: 'start', offset: 10 },
  legend: { labelColor: colour('text'), titleColor: colour('muted'), labelFontSize: 11, orient: 'top', title: null, offset: 4, symbolStrokeWidth: 3, labelLimit: 320 },
  text: { color: colour('text') },
  range: { category: SERIES },
  line: { strokeWidth: 2 },
  bar: { color: colour('c1') },
};
