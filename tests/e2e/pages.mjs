// Walks through HTML pages without a browser: cookies, redirects, and the one form of a page.

import assert from 'node:assert/strict';

// Cookies by host and name; enough for servers on one machine.
export function cookieJar() {
  const cookies = new Map();
  return {
    header: (url) => [...cookies.values()].filter((c) => c.host === url.host && url.pathname.startsWith(c.path))
      .map((c) => `${c.name}=${c.value}`).join('; '),
    take(url, headers) {
      for (const line of headers.getSetCookie()) {
        const [pair, ...attributes] = line.split(';').map((part) => part.trim());
        const [name, ...value] = pair.split('=');
        const path = attributes.find((a) => /^path=/i.test(a))?.slice(5) ?? '/';
        cookies.set(`${url.host} ${path} ${name}`, { host: url.host, path, name, value: value.join('=') });
      }
    },
  };
}

// One request with the jar's cookies; redirects are not followed.
export async function visit(jar, url, options = {}) {
  const target = new URL(url);
  const response = await fetch(target, {
    redirect: 'manual', ...options, headers: { accept: 'text/html', ...options.headers, cookie: jar.header(target) },
  });
  jar.take(target, response.headers);
  const location = response.headers.get('location');
  return {
    url: target.href,
    status: response.status,
    headers: response.headers,
    text: await response.text(),
    location: location && new URL(location, target).href,
  };
}

// Follows redirects from `url` and submits the forms that it meets: `choices` says, form by form, which `user` button is
// pressed ('' for a form without one). Ends at a page when the choices are used up, or where `stop(location)` says so.
export async function follow(jar, url, choices, stop = () => false) {
  const left = [...choices];
  let page = await visit(jar, url);
  for (let step = 0; step < 30; step += 1) {
    if (page.location) {
      if (stop(page.location)) return { ...page, url: page.location };
      page = await visit(jar, page.location);
    } else if (left.length && /<form/.test(page.text)) {
      page = await submit(jar, page, left.shift());
    } else {
      return page;
    }
  }
  return assert.fail(`more than 30 steps from ${url}`);
}

// Submits the first form of a page with its hidden fields.
export function submit(jar, page, user) {
  const tag = /<form[^>]*>/.exec(page.text)?.[0];
  assert.ok(tag, `no form on ${page.url}: ${page.text}`);
  const fields = new URLSearchParams();
  for (const [input] of page.text.matchAll(/<input[^>]*>/g)) {
    const name = attribute(input, 'name');
    if (name) fields.append(name, attribute(input, 'value') ?? '');
  }
  if (user) fields.append('user', user);
  const action = new URL(attribute(tag, 'action') ?? '', page.url);
  const origin = new URL(page.url).origin;
  return visit(jar, action, {
    method: 'POST', body: fields, headers: { origin, 'sec-fetch-site': 'same-origin' },
  });
}

function attribute(tag, name) {
  const value = new RegExp(`${name}="([^"]*)"`).exec(tag)?.[1];
  return value?.replaceAll('&amp;', '&').replaceAll('&#x2F;', '/').replaceAll('&#x3D;', '=').replaceAll('&quot;', '"');
}
