// Opens a sign-in link as its reader would: `node open-link.mjs LINK USER`. USER is who signs in at the simulated Entra ID.

import assert from 'node:assert/strict';
import { cookieJar, follow } from './pages.mjs';

const [link, user] = process.argv.slice(2);
const page = await follow(cookieJar(), link, ['', user]);
assert.equal(page.status, 200, page.text);
assert.match(page.text, /signed in/i);
