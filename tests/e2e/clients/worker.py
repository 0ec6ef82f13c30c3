"""Sends the requests that come on standard input, one a line: METHOD, URL, media type, file of the body or -, file for the answer's body; with
tabs between. Answers each with a line: the status. The library is `requests` or `urllib`, as the argument says.

CLIENT_USER and CLIENT_KEY: the credential. The library does what it does by itself: challenges, redirections, proxies of the environment.
"""

import os
import sys
import urllib.error
import urllib.request

USER, KEY = os.environ["CLIENT_USER"], os.environ["CLIENT_KEY"]


def by_requests():
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    session = requests.Session()
    session.auth = (USER, KEY)
    # Waits as Retry-After says, for any method.
    patience = Retry(total=1, status_forcelist=[429, 503], allowed_methods=None, raise_on_status=False)
    session.mount("http://", HTTPAdapter(max_retries=patience))

    def ask(method, url, media, body):
        # A file without a length goes out in chunks.
        data = iter(lambda: body.read(65536), b"") if body and method == "PUT" else body
        headers = {"Content-Type": media} if body else {}
        answer = session.request(method, url, data=data, headers=headers, timeout=30, allow_redirects="http_proxy" not in os.environ)
        if answer.is_redirect:
            # By itself it would stay with the proxy of the first request.
            answer = requests.get(answer.headers["Location"], timeout=30)
        return answer.status_code, answer.content

    return ask


def by_urllib():
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))

    def ask(method, url, media, body):
        passwords.add_password(None, os.environ["BASE"], USER, KEY)
        request = urllib.request.Request(url, body.read() if body else None, {"Content-Type": media} if body else {}, method=method)
        try:
            with opener.open(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()

    return ask


ask = {"requests": by_requests, "urllib": by_urllib}[sys.argv[1]]()
for line in sys.stdin:
    method, url, media, sent, kept = line.rstrip("\n").split("\t")
    body = None if sent == "-" else open(sent, "rb")
    status, received = ask(method, url, media, body)
    with open(kept, "wb") as file:
        file.write(received)
    print(status, flush=True)
