// A report as one HTML page that needs nothing else: plots are SVG in the page, and it is light or dark as its reader is, and readable on a
// phone. Text from elsewhere goes through `escape`, `table` or `figure`; what is called html is html.

import { variables } from './plots.mjs';

// `sections`: each `{ id, title, mark, html }`; `mark` is good, warn, bad or nothing. `lead`: html that stands before them.
export function page({ title, lead = '', sections }) {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escape(title)}</title>
<style>${variables(':root')}${STYLE}</style>
</head>
<body>
<main>
<h1>${escape(title)}</h1>
${lead}
${sections.map((section) => `<section id="${escape(section.id)}"${section.mark ? ` class="${section.mark}"` : ''}>
<h2>${badge(section.mark)}${escape(section.title)}</h2>
${section.html}
</section>`).join('\n')}
</main>
</body>
</html>
`;
}

// A word for a mark, so that nothing depends on colours.
export function badge(mark) {
  return mark ? `<span class="badge ${mark}">${{ good: 'as it should be', warn: 'look', bad: 'WRONG' }[mark]}</span>` : '';
}

// `columns`: names, or `{ name, number: true }`. A cell is text, or `{ html }`.
export function table(columns, rows) {
  const heads = columns.map((column) => (typeof column === 'string' ? { name: column } : column));
  const cell = (tag, column, content) =>
    `<${tag}${column.number ? ' class="number"' : ''}>${content?.html ?? escape(content ?? '')}</${tag}>`;
  return `<div class="scroll"><table>
<thead><tr>${heads.map((column) => cell('th', column, column.name)).join('')}</tr></thead>
<tbody>${rows.map((row) => `<tr>${row.map((content, index) => cell('td', heads[index], content)).join('')}</tr>`).join('\n')}</tbody>
</table></div>`;
}

export function figure(svg, caption = '') {
  return `<figure>${svg}${caption && `<figcaption>${escape(caption)}</figcaption>`}</figure>`;
}

// Figures side by side where there is room.
export const plots = (figures) => `<div class="plots">${figures.join('\n')}</div>`;

export const escape = (text) => String(text).replace(/[&<>"']/g, (character) => `&#${character.codePointAt(0)};`);

const STYLE = `
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--text); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 1rem clamp(.75rem, 3vw, 2rem) 4rem; }
h1 { font-size: 1.6rem; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 0 0 .5rem; display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; }
section { margin: 1.25rem 0; padding: 1rem 1.1rem; border: 1px solid var(--grid); border-left-width: 5px; border-radius: 6px; }
section.good { border-left-color: var(--good); }
section.warn { border-left-color: var(--warn); }
section.bad { border-color: var(--bad); }
p { margin: .4rem 0; max-width: 80ch; }
.muted, figcaption { color: var(--muted); font-size: .87rem; }
.verdict { font-size: 1.05rem; font-weight: 600; }
a { color: var(--c1); }
.badge { font-size: .75rem; font-weight: 600; padding: .1rem .5rem; border-radius: 1rem; border: 1px solid currentColor; white-space: nowrap; }
.badge.good, .good-text { color: var(--good); } .badge.warn, .warn-text { color: var(--warn); }
.badge.bad { color: var(--paper); background: var(--bad); border-color: var(--bad); } .bad-text { color: var(--bad); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 1rem; margin-top: .75rem; }
figure { margin: 0; min-width: 0; }
figure svg { width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--grid); vertical-align: top; }
th { color: var(--muted); font-weight: 600; white-space: nowrap; }
.number { text-align: right; white-space: nowrap; }
`;
