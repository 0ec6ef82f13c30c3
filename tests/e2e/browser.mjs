// Real Chromium, driven by playwright-core.

import { existsSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';

export const SIZES = { phone: { width: 390, height: 844 }, desktop: { width: 1280, height: 800 } };

const EXECUTABLE = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find(existsSync);

export const launchBrowser = () => chromium.launch({
  executablePath: EXECUTABLE,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});

// Where screenshots go: BEARERD_E2E_SHOTS, or a new directory that stays.
export const screenshots = async () => process.env.BEARERD_E2E_SHOTS ?? mkdtemp(path.join(tmpdir(), 'bearerd-screenshots-'));

// One picture of the page in each size.
export async function shoot(page, directory, name) {
  for (const [size, viewport] of Object.entries(SIZES)) {
    await page.setViewportSize(viewport);
    await page.screenshot({ path: path.join(directory, `${name}-${size}.png`) });
  }
}
