<?php
// Sends the requests that come on standard input, one a line: METHOD, URL, media type, file of the body or -, file for the answer's body; with
// tabs between. Answers each with a line: the status. By PHP's own streams.
//
// CLIENT_USER and CLIENT_KEY: the credential, good for BASE. Redirections are the streams'.

[$user, $key, $base] = [getenv('CLIENT_USER'), getenv('CLIENT_KEY'), getenv('BASE')];
while (($line = fgets(STDIN)) !== false) {
    [$method, $url, $media, $sent, $kept] = explode("\t", rtrim($line, "\n"));
    $http = ['method' => $method, 'ignore_errors' => true, 'timeout' => 30];
    if ($sent !== '-') {
        $http['header'] = ["Content-Type: $media"];
        $http['content'] = file_get_contents($sent);
    }
    // As a part of the URL the credential goes to this host, and to none that it leads to.
    $target = str_starts_with($url, $base) ? preg_replace('~^http://~', 'http://' . rawurlencode($user) . ':' . rawurlencode($key) . '@', $url) : $url;
    $received = file_get_contents($target, false, stream_context_create(['http' => $http]));
    $status = 0;
    foreach ($http_response_header ?? [] as $header) {
        if (preg_match('~^HTTP/\S+ (\d+)~', $header, $found)) $status = $found[1];
    }
    file_put_contents($kept, $received);
    echo "$status\n";
}
