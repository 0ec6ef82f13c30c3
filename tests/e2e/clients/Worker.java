import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.Authenticator;
import java.net.HttpURLConnection;
import java.net.PasswordAuthentication;
import java.net.URI;
import java.net.URL;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;

/**
 * Sends the requests that come on standard input, one a line: METHOD, URL, media type, file of the body or -, file for the answer's body;
 * with tabs between. Answers each with a line: the status. By `HttpURLConnection` or `java.net.http`, as the argument says.
 *
 * CLIENT_USER and CLIENT_KEY: the credential. Challenges and redirections are the library's.
 */
public final class Worker {
    private static final String USER = System.getenv("CLIENT_USER");
    private static final String KEY = System.getenv("CLIENT_KEY");
    private static final Authenticator AUTHENTICATOR = new Authenticator() {
        @Override
        protected PasswordAuthentication getPasswordAuthentication() {
            return new PasswordAuthentication(USER, KEY.toCharArray());
        }
    };

    private record Answer(int status, byte[] body) {}

    private interface Client {
        Answer ask(String method, String url, String media, Path sent) throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        Client client = arguments[0].equals("classic") ? Worker::classic : modern();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] field = line.split("\t");
            Answer answer = client.ask(field[0], field[1], field[2], field[3].equals("-") ? null : Path.of(field[3]));
            Files.write(Path.of(field[4]), answer.body());
            System.out.println(answer.status());
        }
    }

    private static Answer classic(String method, String url, String media, Path sent) throws Exception {
        Authenticator.setDefault(AUTHENTICATOR);
        HttpURLConnection connection = (HttpURLConnection) new URL(url).openConnection();
        connection.setRequestMethod(method);
        connection.setReadTimeout(30_000);
        if (sent != null) {
            connection.setRequestProperty("Content-Type", media);
            connection.setDoOutput(true);
            if (method.equals("PUT")) {
                // A challenge would come too late for a body that is gone.
                String credential = Base64.getEncoder().encodeToString((USER + ":" + KEY).getBytes(StandardCharsets.UTF_8));
                connection.setRequestProperty("Authorization", "Basic " + credential);
                connection.setChunkedStreamingMode(0);
            }
            try (OutputStream body = connection.getOutputStream()) {
                Files.copy(sent, body);
            }
        }
        int status = connection.getResponseCode();
        try (InputStream body = status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
            return new Answer(status, body == null ? new byte[0] : body.readAllBytes());
        }
    }

    /** Offers HTTP/2 (an upgrade, h2c) with its first request over plain HTTP. A body that comes as a stream goes out in chunks. */
    private static Client modern() {
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_2).followRedirects(HttpClient.Redirect.NORMAL)
            .authenticator(AUTHENTICATOR).build();
        return (method, url, media, sent) -> {
            HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url));
            if (sent == null) {
                request.method(method, BodyPublishers.noBody());
            } else {
                boolean streamed = method.equals("PUT");
                request.header("Content-Type", media);
                request.method(method, streamed ? BodyPublishers.ofInputStream(() -> open(sent)) : BodyPublishers.ofFile(sent));
            }
            var answer = client.send(request.build(), BodyHandlers.ofByteArray());
            return new Answer(answer.statusCode(), answer.body());
        };
    }

    private static InputStream open(Path path) {
        try {
            return Files.newInputStream(path);
        } catch (java.io.IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
    }
}
