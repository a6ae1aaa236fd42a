import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;

/** Takes and releases locks with the JDK's own client. ARGUMENTS: address, key, threads, rounds of each. */
public class DefaultClient {
    public static void main(String[] arguments) throws Exception {
        String base = arguments[0];
        String key = arguments[1];
        int threads = Integer.parseInt(arguments[2]);
        int rounds = Integer.parseInt(arguments[3]);
        AtomicInteger failures = new AtomicInteger();
        // As it comes, which asks for HTTP/2 in the clear; and with HTTP/1.1 alone.
        List<HttpClient> clients = List.of(
            HttpClient.newHttpClient(),
            HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build());
        for (HttpClient client : clients) {
            List<Callable<Void>> work = new java.util.ArrayList<>();
            for (int thread = 0; thread < threads; thread++) {
                String path = base + "/resource/java" + thread + "/s";
                work.add(() -> {
                    for (int round = 0; round < rounds; round++) {
                        try {
                            once(client, path, key);
                        } catch (Exception error) {
                            failures.incrementAndGet();
                            System.err.println(client.version() + " round " + round + ": " + error);
                        }
                    }
                    return null;
                });
            }
            var pool = Executors.newFixedThreadPool(threads);
            for (var done : pool.invokeAll(work)) {
                done.get();
            }
            pool.shutdown();
        }
        System.exit(failures.get() == 0 ? 0 : 1);
    }

    static void once(HttpClient client, String path, String key) throws Exception {
        var lock = send(client, path + "/lock?create=1", key, "", "{\"owner\":\"java\"}");
        var ticket = lock.headers().firstValue("X-Ticket").orElseThrow();
        send(client, path + "/unlock", key, ticket, "");
    }

    static HttpResponse<String> send(HttpClient client, String url, String key, String ticket, String body)
            throws Exception {
        var request = HttpRequest.newBuilder(URI.create(url)).header("x-api-key", key);
        if (!ticket.isEmpty()) {
            request.header("X-Ticket", ticket);
        }
        var answer = client.send(request.PUT(BodyPublishers.ofString(body)).build(), BodyHandlers.ofString());
        if (answer.statusCode() != 200) {
            throw new IllegalStateException(answer.statusCode() + " " + answer.body());
        }
        return answer;
    }
}
